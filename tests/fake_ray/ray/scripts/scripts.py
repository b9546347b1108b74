"""``ray start`` and ``ray drain-node`` without Ray.

FAKE_RAY may hold the words

hang
    never returns;
gate
    returns only when there is a file with the record's name and ``.go`` at its end;
refuse, refuse-first
    fails (the first time) as Ray does, with the cause in a log file;
mute-refuse
    fails, and prints why;
no-gcs
    says that it does not reach GCS, as Ray does, and never returns;
log-error
    writes the cause to a log file of its raylet, and never returns;
traceback
    fails with an error of Python;
slow-import
    is imported only when there is a file with the record's name and ``.go`` at its end;
dies
    the starting process itself is killed;
no-raylet
    succeeds without having started anything;
raylet-ends, gcs-ends
    its raylet, or its GCS, exits with status 4 at once, and it never returns;
stubborn
    its daemons ignore SIGTERM;
busy
    a node that is drained does not leave;
no-dashboard
    its dashboard accepts no connection;
no-jobs
    its dashboard answers 503.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NO_GCS = "rpc_client.h:153: Failed to connect to GCS at address 127.0.0.9:6379 within 5 seconds."
CAUSE = "[2026-01-01 00:00:00,000 C 1 1] fake_main.cc:1: Check failed: the port is already in use"


class _Start:
    def main(self, args: Sequence[str], prog_name: str, standalone_mode: bool) -> None:
        if prog_name != "ray start" or standalone_mode:
            raise TypeError(f"not how the agent calls it: {prog_name!r}, {standalone_mode!r}")
        record = Path(os.environ["FAKE_RAY_RECORD"])
        first = not record.exists()
        line = json.dumps({"argv": list(args), "env": dict(os.environ)}) + "\n"
        with record.open("ab", buffering=0) as file:  # at once, for who waits for it
            file.write(line.encode())
        options = dict(argument.removeprefix("--").split("=", 1) for argument in args if "=" in argument)
        folder = Path(options["temp-dir"])
        session = _session(folder, "--head" in args)
        _wait_as_told(record, first, session)
        if "no-raylet" not in _words():
            _start(options, session)


start = _Start()


class _DrainNode:
    def main(self, args: Sequence[str], prog_name: str, standalone_mode: bool) -> None:
        """An idle raylet leaves at once, and with status 0."""
        if prog_name != "ray drain-node" or standalone_mode:
            raise TypeError(f"not how the agent calls it: {prog_name!r}, {standalone_mode!r}")
        options = dict(argument.removeprefix("--").split("=", 1) for argument in args)
        Path(f"{os.environ['FAKE_RAY_RECORD']}.drain").write_text(json.dumps(options))
        if "busy" not in _words():
            os.kill(int(options["node-id"], 16), signal.SIGTERM)


drain_node = _DrainNode()


def _words() -> list[str]:
    return os.environ.get("FAKE_RAY", "").split()


def _cluster() -> Path:
    return Path(os.environ["FAKE_RAY_CLUSTER"])


def _session(folder: Path, head: bool) -> Path:
    """Its name ends with the process id of the head's starter, on all nodes."""
    name_file = _cluster() / "session"
    name = f"session_2026-01-01_00-00-00_000000_{os.getpid()}" if head else name_file.read_text()
    if head:
        name_file.write_text(name)
    session = folder / name
    for path in (folder, session, session / "logs", session / "sockets", session / "runtime_resources"):
        path.mkdir(exist_ok=True)
        path.chmod(0o777)  # try_make_directory_shared in ray/_common/utils.py
    latest = folder / "session_latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(session)
    return session


def _wait_as_told(record: Path, first: bool, session: Path) -> None:
    words = set(_words())
    if "no-gcs" in words:
        print(f"[2026-01-01 00:00:00,000 W 1 1] {NO_GCS}", file=sys.stderr, flush=True)
    if "log-error" in words:
        (session / "logs" / "raylet.out").write_text(f"nothing of interest\n{CAUSE}\n")
    if "traceback" in words:
        {}["ray_params"]
    while words & {"hang", "no-gcs", "log-error"}:
        signal.pause()
    while "gate" in words and not record.with_name(f"{record.name}.go").exists():
        time.sleep(0.01)
    if "dies" in words:
        os.kill(os.getpid(), signal.SIGKILL)
    if "refuse" in words or ("refuse-first" in words and first):
        (session / "logs" / "gcs_server.out").write_text(f"nothing of interest\n{CAUSE}\n")
        raise SystemExit(1)
    if "mute-refuse" in words:
        print("the fake Ray does not want to")
        raise SystemExit(1)


def _start(options: dict[str, str], session: Path) -> None:
    ip, gcs = options["node-ip-address"], options.get("address")
    if gcs is None:
        gcs = f"{ip}:{options['port']}"
        with _listening(ip, int(options["port"])) as gcs_port, _web(options, "dashboard-host", "dashboard-port") as web:
            pid = _daemon("gcs_server", session, listening=[gcs_port], web=web)
        if "gcs-ends" in _words():
            os.kill(pid, signal.SIGRTMIN + 1)
            signal.pause()
        _write("head.json", {"address": gcs})
    elif json.loads((_cluster() / "head.json").read_text())["address"] != gcs:
        raise ConnectionError(f"no GCS at {gcs}")
    (session.parent / "ray_current_cluster").write_text(gcs)
    (session / "sockets" / "raylet").write_text("")
    (session / "node_ip_address.json").write_text(json.dumps({"node_ip_address": ip}))
    with (
        _listening(ip, int(options.get("node-manager-port", 0))) as manager,
        _listening(ip, 0) as objects,
        _web(options, "node-ip-address", "dashboard-agent-listen-port") as web,
    ):
        name = f"--raylet_socket_name={session}/sockets/raylet"
        pid = _daemon("raylet", session, name, listening=[manager, objects], web=web)
        ports = {"manager": _port(manager), "objects": _port(objects)}
    if "raylet-ends" in _words():
        os.kill(pid, signal.SIGRTMIN + 1)
        signal.pause()
    labels = dict(label.split("=", 1) for label in options["labels"].split(","))
    resources = {"CPU": float(options["num-cpus"]), **json.loads(options.get("resources", "{}"))}
    if "address" not in options:
        resources["node:__internal_head__"] = 1.0
    if float(options["num-gpus"]):
        resources["GPU"] = float(options["num-gpus"])
    host = socket.gethostname()
    _write(
        f"node-{host}-{pid}.json",
        {"host": host, "pid": pid, "ip": ip, "labels": labels, "resources": resources, **ports},
    )


def _write(name: str, content: object) -> None:
    temporary = _cluster() / f".{name}"
    temporary.write_text(json.dumps(content))
    temporary.replace(_cluster() / name)


def _listening(ip: str, port: int) -> socket.socket:
    """A socket that listens where it can, for a daemon to keep open."""
    listening = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(OSError):
        listening.bind((ip, port))
        listening.listen()
    return listening


def _web(options: dict[str, str], host: str, port: str) -> socket.socket:
    """A socket for the dashboard's, or its agent's, HTTP port."""
    return socket.socket() if "no-dashboard" in _words() else _listening(options[host], int(options[port]))


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


_ASKED = """[2026-01-01 00:00:00,000 I 1 1] (raylet) main.cc:481: Raylet graceful shutdown triggered with death info: \
reason: EXPECTED_TERMINATION
reason_message: "received SIGTERM"

"""


def _daemon(name: str, session: Path, *arguments: str, listening: Sequence[socket.socket], web: socket.socket) -> int:
    """A process of this name in /proc/PID/stat, which is the last part of the path that execve(2) was given.

    It answers every request to ``web``, and keeps it in a log file.
    """
    program = session / "sockets" / name
    program.unlink(missing_ok=True)
    program.symlink_to(Path(sys.executable).resolve())
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if "stubborn" in _words() else ""
    asked = f"open({str(session / 'logs' / name) + '.out'!r}, 'a').write({_ASKED!r})"
    leave = f"signal.signal(signal.SIGTERM, lambda *_: [{asked if name == 'raylet' else None}, sys.exit(0)])\n"
    for number, status in enumerate((3, 4, 0)):
        leave += f"signal.signal(signal.SIGRTMIN + {number}, lambda *_: sys.exit({status}))\n"
    answer = b"HTTP/1.1 503 Service Unavailable\r\n\r\n" if "no-jobs" in _words() else b"HTTP/1.1 200 OK\r\n\r\n"
    serve = f"""
web, requests = socket.socket(fileno={web.fileno()}), open({str(session / "logs" / f"{name}.requests")!r}, "ab", 0)
print('ready', flush=True)
try:
    while True:
        peer = socket.socket(fileno=web._accept()[0])
        requests.write(peer.recv(65536))
        peer.send({answer!r})
        peer.close()
except OSError:
    while True: signal.pause()
"""
    code = f"import _signal as signal, _socket as socket, sys\n{ignore or leave}{serve}"
    with (session / "logs" / f"{name}.err").open("w") as log:
        process = subprocess.Popen(
            [str(program), "-I", "-S", "-c", code, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=[each.fileno() for each in (*listening, web)],
            stderr=log,
        )
    if process.stdout is not None:
        process.stdout.readline()
        process.stdout.close()
    process.returncode = 0  # it outlives us
    return process.pid
