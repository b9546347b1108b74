"""The only ``import ray``: a child process that imports it early, starts Ray on command, and queries GCS.

It imports Ray (0.5-0.8 s) while the agent still determines identity and resources, then runs ``ray start`` in-process,
which saves a second interpreter's start. It reads one JSON command per line from standard input and writes one JSON
answer per line to the file descriptor in its first argument:

    (at the start)                             → {"ready": true, "ray": "2.60.0", "python": "3.11.7", "at": monotonic}
    {"do": "start", "argv": [...], "env": {…}} → {"started": true} or {"started": false, "error": "…"}
    {"do": "nodes", "address": "ip:port"}      → {"nodes": [{"id", "ip", "alive", "labels", "resources",
                                                            "node_manager_port", "object_manager_port"}, …]}
                                                 or {"error": "…"}
    {"do": "find", "address": "host:port"}     → {"address": "ip:port", "ray": "2.60.0", "python": "3.11.7",
                                                  "here": [node ids]} or {"error": "…"}
    {"do": "drain", "address": …, "labels": {…}, "seconds": n} → {"drained": true} or {"error": "…"}

It exits at end of file. Ray's output goes to standard output and error, which the agent keeps in case of a failure.
"""

import contextlib
import importlib
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from bootstrap.raynode import dispositions, own_values, prefill, tempfiles
from bootstrap.raynode.patches import Around, patch

_INHERITED = frozenset(os.environ)
"""Those that the ``env`` of a start leaves out are removed: Ray must not see them."""

_PATCHES: tuple[tuple[str, Around], ...] = (
    ("start_api_server", prefill.dashboard),
    ("start_api_server", tempfiles.in_session),
    ("start_raylet", prefill.agent),
    ("start_raylet", dispositions.give_back),
)
"""Our changes to ``ray start``, by function of services.py."""


def main() -> None:
    """Serve commands until end of file."""
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1, encoding="utf-8")
    os.set_inheritable(answers.fileno(), False)
    dispositions.ignore()

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        ray = _import_ray()
    except ImportError as error:
        answer({"ready": False, "error": f"{type(error).__name__}: {error}"})
        return
    answer({"ready": True, "ray": ray.__version__, "python": platform.python_version(), "at": time.monotonic()})
    commands: dict[str, Callable[..., dict[str, Any]]] = {
        "start": _start,
        "nodes": _nodes,
        "find": _find,
        "drain": _drain,
    }
    for line in sys.stdin:
        command = json.loads(line)
        answer(commands[command.pop("do")](**command))
    os._exit(0)  # Ray's threads take up to seconds to wind down, and the workload waits


_NOT_NEEDED = ("ray.util.state.state_cli", "ray.dashboard.modules.job.cli", "ray.serve.scripts")
"""Command groups that Ray's scripts.py adds beside ``ray start`` if it can import them, and otherwise skips.

They import Serve, FastAPI and pandas: 1 s of CPU on every node (docs/performance.md).
"""


def _import_ray() -> Any:
    for name in _NOT_NEEDED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: "cannot be imported" (import system, 5.3.1)
    ray = importlib.import_module("ray")
    importlib.import_module("ray.scripts.scripts")
    for name in _NOT_NEEDED:
        if sys.modules[name] is None:
            del sys.modules[name]
    return ray


def _start(argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Run ``ray start ARGV...`` without ``--block``; return when this node is registered, while its daemons live on."""
    for name in _INHERITED - env.keys():
        os.environ.pop(name, None)
    os.environ.update(env)
    own_values.note()
    try:
        raylet = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")  # RAY_AUTH_MODE was read at import; authentication_token_setup.py does the same
        raylet.AuthenticationTokenLoader.instance().reset_cache()
        for name, around in _PATCHES:
            patch(name, around)
        scripts = importlib.import_module("ray.scripts.scripts")
        scripts.start.main(args=argv, prog_name="ray start", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 (click's Abort and sys.exit included: every way not to start)
        if not isinstance(error, SystemExit):  # after which Ray has printed why
            traceback.print_exc()
        return {"started": False, "error": f"{type(error).__name__}: {error}".rstrip(": ")}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return {"started": True}


def _nodes(address: str) -> dict[str, Any]:
    """Return GCS's node table, dead nodes included, or the error."""
    global _state  # noqa: PLW0603 (one connection for the life of this process)
    try:
        if _state is None:
            raylet = importlib.import_module("ray._raylet")
            options = raylet.GcsClientOptions.create(
                address, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False
            )
            _state = importlib.import_module("ray._private.state").GlobalState()
            _state._initialize_global_state(options)
        table = _state.node_table()
    except Exception as error:  # noqa: BLE001 (Ray raises RuntimeError, ConnectionError, RpcError and its own)
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "nodes": [
            {
                "id": node["NodeID"],
                "ip": node["NodeManagerAddress"],
                "alive": node["Alive"],
                "labels": node.get("Labels") or {},
                "resources": node.get("Resources") or {},
                "node_manager_port": node.get("NodeManagerPort") or 0,
                "object_manager_port": node.get("ObjectManagerPort") or 0,
            }
            for node in table
        ]
    }


def _find(address: str) -> dict[str, Any]:
    """Return what a driver has to know of the Ray at this address, or the error.

    :returns: its address as Ray reads it (``auto`` is a Ray on this machine), the versions with which it was started,
        and the ids of the nodes on this machine, of any Ray. A driver connects through one of these.
    """
    try:
        services: Any = importlib.import_module("ray._private.services")
        address = services.canonicalize_bootstrap_address_or_die(address)
        with contextlib.suppress(ImportError):  # without: Ray aborts the process if RAY_AUTH_MODE=token has no token
            setup = importlib.import_module("ray._private.authentication.authentication_token_setup")
            setup.ensure_token_if_auth_enabled(None, create_token_if_missing=False)
        client = importlib.import_module("ray._raylet").GcsClient(address=address)
        started = importlib.import_module("ray._common.usage.usage_lib").get_cluster_metadata(client)
    except Exception as error:  # noqa: BLE001 (as in _nodes)
        return {"error": f"{type(error).__name__}: {error}"}
    versions = {"ray": started["ray_version"], "python": started["python_version"]}
    return {"address": address, **versions, "here": sorted(services._find_address_from_flag("--node_id"))}


def _drain(address: str, labels: dict[str, str], seconds: int) -> dict[str, Any]:
    """Drain the node with these labels as preempted: Ray schedules no new work there, and its raylet exits once idle.

    Ray Train learns of it through ``ray.train.get_preemption_info()``.
    """
    table = _nodes(address)
    mine = [n for n in table.get("nodes", ()) if n["alive"] and labels.items() <= n["labels"].items()]
    if len(mine) != 1:
        return {"error": table.get("error", f"{len(mine)} live nodes of this rank in GCS, expected one")}
    argv = [f"--address={address}", f"--node-id={mine[0]['id']}", f"--deadline-remaining-seconds={seconds}"]
    argv += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=the node's agent was asked to stop"]
    try:
        scripts = importlib.import_module("ray.scripts.scripts")
        scripts.drain_node.main(args=argv, prog_name="ray drain-node", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 (as in _start)
        return {"error": f"{type(error).__name__}: {error}"}
    return {"drained": True}


_state: Any = None

if __name__ == "__main__":
    main()
