"""Preflight: each check on a node that is fit but for one thing, and the real thing where it can be made."""

from __future__ import annotations

import dataclasses
import os
import resource
import socket
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bootstrap import munge, net, preflight
from bootstrap.errors import PreflightFailed
from bootstrap.files import ownership
from bootstrap.files.mounts import mount_of
from bootstrap.files.secret import NO_SECRET, Channel, Secret
from bootstrap.host import Host
from bootstrap.model import Gpu, NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node import gpus, inspection
from bootstrap.node.inspection import Node
from bootstrap.node.nvml import GpuHealth
from bootstrap.preflight import Finding, addresses, folders, limits, machine
from bootstrap.preflight.finding import GIB, MIB, size
from bootstrap.raynode import command, ports
from bootstrap.settings import Settings

IP = "10.0.0.7"
GPU = Gpu(3, "GPU-3", "NVIDIA H100", 80 * GIB)
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
SHM_SETTINGS = {"object_store_memory": 2 * GIB}
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@pytest.fixture
def fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A worker of two nodes in which no check finds anything, on a root of its own."""
    root = tmp_path / "root"
    (root / "dev/shm").mkdir(parents=True)
    (root / "proc/sys/net/ipv4").mkdir(parents=True)
    (root / "proc/self").mkdir()
    (root / "proc/sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    (root / "proc/self/mountinfo").write_text("27 1 254:0 / / rw - ext4 /dev/vda rw\n")
    monkeypatch.setattr(command, "shm_free", lambda: 16 * GIB)
    limited(monkeypatch)
    monkeypatch.setattr(net, "resolve", lambda _: (IP,))
    monkeypatch.setattr(gpus, "health", lambda *_: [])
    monkeypatch.setattr(os, "statvfs", lambda _: disk(free=100 * GIB))
    return Node(
        settings=Settings(),
        host=Host(env={}, hostname="node", root=root),
        identity=NodeIdentity("slurm", Role.WORKER, 1, 2, "run"),
        address=NodeAddress(IP, "eth0", "node"),
        resources=Resources(cpus=4, memory=32 * GIB),
        temp_dir=Path("/tmp/ray-12345678"),
        secret=Secret(None, "none given", Channel.LOCAL),
    )


def limited(monkeypatch: pytest.MonkeyPatch, **limits: tuple[int, int]) -> None:
    """Gives this process these limits (soft, hard), by their names in :mod:`resource`; files are enough by default."""
    chosen = {getattr(resource, name): both for name, both in {"RLIMIT_NOFILE": (1024, 1 << 20), **limits}.items()}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: chosen.get(limit, UNLIMITED))


def disk(free: int, total: int = 1000 * GIB) -> Any:
    return namedtuple("Disk", "f_bavail f_frsize f_blocks")(free // 4096, 4096, total // 4096)


def having(node: Node, env: Mapping[str, str] | None = None, **changes: Any) -> Node:
    """``node`` with other parts; ``env``, and settings by their names."""
    options = {f.name for f in dataclasses.fields(Settings)} - {"resources", "temp_dir"}
    chosen = {name: changes.pop(name) for name in list(changes) if name in options}
    changes.setdefault("settings", dataclasses.replace(node.settings, **chosen))
    if env is not None:
        changes["host"] = dataclasses.replace(node.host, env=env)
    return dataclasses.replace(node, **changes)


def found(node: Node) -> list[tuple[str, bool]]:
    return [(finding.check, finding.fatal) for finding in preflight.run(node)]


def only(node: Node) -> Finding:
    findings = preflight.run(node)
    assert len(findings) == 1, findings
    assert findings[0].remedy
    return findings[0]


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_fit_node(fit: Node) -> None:
    assert preflight.run(fit) == []
    assert preflight.run(having(fit, identity=NodeIdentity("local", Role.HEAD, 0, 1, "run"))) == []


def test_a_fit_node_costs_no_heavy_import() -> None:
    code = """
import sys
from pathlib import Path
from bootstrap import preflight
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.files import ownership
from bootstrap.files.secret import Secret
from bootstrap.settings import Settings
preflight.run(Node(
    Settings(), Host({}, "node"), NodeIdentity("local", Role.HEAD, 0, 1, "run"), NodeAddress("127.0.0.1", "lo", "node"),
    Resources(4, 1 << 35), Path("/tmp/ray-1"), Secret(None, "")))
print(sorted({"psutil", "pynvml", "ray", "tenacity"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() in ("[]", "['pynvml']" if Path("/dev/nvidia0").exists() else "[]")


# What is installed, memory, limits


@pytest.mark.parametrize(
    ("version", "fatal"),
    [
        ("2.51.9", True),
        ("1.13.0", True),
        ("2.53.0", False),
        ("2.54.0", None),
        ("2.60.1", None),
        ("3.0.0.dev0", None),
        ("main", False),
    ],
)
def test_ray_version(fit: Node, monkeypatch: pytest.MonkeyPatch, version: str, fatal: bool | None) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    assert found(fit) == ([] if fatal is None else [("ray", fatal)])


def test_a_ray_whose_agent_ignores_the_token_is_not_enough_where_authentication_is_required(
    fit: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.52.0")
    assert found(having(fit, auth="required")) == [("ray", True)]
    assert found(having(fit, auth="off", secret=NO_SECRET)) == []


def test_ray_absent(fit: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    finding = only(fit)
    assert sys.executable in finding.message
    assert "pip install 'ray[default]>=2.52'" in finding.remedy


@pytest.mark.parametrize(
    ("have", "options", "fatal"),
    [
        (255 * MIB, {}, True),
        (256 * MIB, {}, False),
        (GIB - 1, {}, False),
        (GIB, {}, None),
        (0, {}, None),  # nobody could tell
        (4 * GIB, {"object_store_memory": 5 * GIB}, True),
        (4 * GIB, {"object_store_memory": 75 * MIB - 1}, True),
        (4 * GIB, {"object_store_memory": 75 * MIB}, None),
        (4 * GIB, {"object_store_memory": GIB, "memory": 3 * GIB}, None),
        (4 * GIB, {"object_store_memory": GIB, "memory": 4 * GIB}, False),
        (4 * GIB, {"memory": 5 * GIB}, False),
    ],
)
def test_memory(fit: Node, have: int, options: dict[str, Any], fatal: bool | None) -> None:
    node = having(fit, resources=Resources(cpus=4, memory=have), **options)
    assert found(node) == ([] if fatal is None else [("memory", fatal)])


@pytest.mark.parametrize(
    ("free", "options", "env", "fatal"),
    [
        (64 * MIB, {}, {}, False),
        (80 * MIB, {}, {}, None),
        (2 * GIB, SHM_SETTINGS, {}, None),
        (2 * GIB - 1, SHM_SETTINGS, {}, True),
        (2 * GIB - 1, SHM_SETTINGS, {"RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}, False),
        (0, {**SHM_SETTINGS, "ray_start_arg": ("--plasma-directory=/scratch",)}, {}, None),
    ],
)
def test_shm(
    fit: Node,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    options: dict[str, Any],
    env: dict[str, str],
    fatal: bool | None,
) -> None:
    monkeypatch.setattr(command, "shm_free", lambda: free)
    assert found(having(fit, env, **options)) == ([] if fatal is None else [("shm", fatal)])


def test_shm_remedies(fit: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "shm_free", lambda: 64 * MIB)
    assert "64.0 MiB" in only(fit).message
    assert "docker run --shm-size=10g" in only(fit).remedy  # 0.3 of 32 GiB
    assert "sizeLimit: 3Gi" in only(having(fit, POD, object_store_memory=3 * GIB)).remedy


def test_shm_absent(fit: Node) -> None:
    fit.host.path("/dev/shm").rmdir()
    finding = only(fit)
    assert (finding.check, finding.fatal) == ("shm", True)


@pytest.mark.parametrize(
    ("hard", "fatal"),
    [(4095, True), (4096, False), (65535, False), (65536, None), (resource.RLIM_INFINITY, None)],
)
def test_nofile(fit: Node, monkeypatch: pytest.MonkeyPatch, hard: int, fatal: bool | None) -> None:
    limited(monkeypatch, RLIMIT_NOFILE=(1024, hard))
    assert found(fit) == ([] if fatal is None else [("nofile", fatal)])


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"OMPI_COMM_WORLD_RANK": "3", "PMIX_NAMESPACE": "a"}, "OMPI_COMM_WORLD_RANK=3"),
        ({"PMI_RANK": "2", "PMI_FD": "9", "PMI_SIZE": "4", "PMI_ID": "2"}, "and 1 more"),
        ({"PMI_FD": "9"}, "a process of the launcher"),
        ({"PMIX_MCA_gds": "hash", "OMPI_MCA_btl": "self", "SLURM_PROCID": "1", "RANK": "1"}, None),
    ],
)
def test_mpi_variables(fit: Node, env: dict[str, str], told: str | None) -> None:
    node = having(fit, env)
    if told is None:
        assert found(node) == []
        return
    assert found(node) == [("mpi-variables", False)]
    assert told in only(node).message


def test_mpi_remedy_is_what_it_says(fit: Node) -> None:
    """The line is run by bash, with `env` in the agent's place."""
    env = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "3", "PMI_FD": "5"}
    remedy = only(having(fit, env)).remedy
    line = remedy.replace("exec ray-bootstrap", "echo").replace("…", "; env")
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.startswith("--rank=3 --nodes=2 --run-id=NAME")
    assert not [name for name in ("OMPI", "PMI") if name in done.stdout]
    assert only(having(fit, {**env, "SLURM_STEP_ID": "0"})).remedy == "srun --mpi=none"


@pytest.mark.parametrize(("mode", "bad"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_token_file(fit: Node, tmp_path: Path, mode: int, bad: bool) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(mode)
    node = having(fit, secret=Secret(b"secret" * 4, "--secret-file", path=token))
    assert found(node) == ([("token-file", False)] if bad else [])
    assert all("secret" not in f.message.replace("the secret in", "") for f in preflight.run(node))


def test_a_check_that_cannot_look_is_a_warning(fit: Node, tmp_path: Path) -> None:
    finding = only(having(fit, secret=Secret(b"x" * 16, "--secret-file", path=tmp_path / "gone")))
    assert (finding.check, finding.fatal) == ("token-file", False)
    assert "No such file" in finding.message


@pytest.mark.parametrize(
    ("secret", "changes", "message"),
    [
        (NO_SECRET, {}, "this run is open: the nodes share no secret; anyone who reaches the head's"),
        (NO_SECRET, {"auth": "off"}, None),
        (Secret(None, "", Channel.LOCAL), {}, None),
        (Secret(b"x" * 16, "--secret-file"), {}, None),
        (
            Secret(b"x" * 15, "RAY_BOOTSTRAP_SECRET"),
            {},
            "the secret (RAY_BOOTSTRAP_SECRET) has 15 of at least 16 bytes: it can be",
        ),
        (Secret(None, "", Channel.MUNGE), {}, "MUNGE does not work: "),
    ],
)
def test_a_secret_that_is_missing_short_or_out_of_reach(
    fit: Node,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    secret: Secret,
    changes: dict[str, Any],
    message: str | None,
) -> None:
    monkeypatch.setattr(munge, "SOCKET", tmp_path / "missing")
    munge._own_uid.cache_clear()
    findings = preflight.run(having(fit, secret=secret, identity=dataclasses.replace(fit.identity, size=2), **changes))
    mine = [finding for finding in findings if finding.check == "secret"]
    assert [(f.message.startswith(message or ""), f.fatal) for f in mine] == (
        [] if message is None else [(True, False)]
    )


@pytest.mark.parametrize(("instead", "fatal"), [("192.0.2.7", [("node-address", True)]), (None, [])])
def test_a_loopback_address_that_ray_replaces_is_no_place_for_tls(
    fit: Node, monkeypatch: pytest.MonkeyPatch, instead: str | None, fatal: list[tuple[str, bool]]
) -> None:
    monkeypatch.setattr(net, "source_address", lambda _towards: instead)
    alone = NodeIdentity("local", Role.HEAD, 0, 1, "run")
    node = having(fit, address=NodeAddress("127.0.0.1", "lo", "node"), identity=alone, tls="auto")
    assert found(node) == fatal
    assert found(having(node, tls="off")) == []


@pytest.mark.parametrize(
    ("env", "remedy"),
    [
        (POD, "openssl rand -hex 32 | kubectl create secret generic ray-bootstrap --from-file=secret=/dev/stdin"),
        ({}, 'run "openssl rand -hex 32" once and set RAY_BOOTSTRAP_SECRET to its output on every node'),
    ],
)
def test_an_open_run_says_in_one_command_how_to_close_it(fit: Node, env: dict[str, str], remedy: str) -> None:
    identity = dataclasses.replace(fit.identity, size=2)
    finding = only(having(fit, env, secret=NO_SECRET, identity=identity))
    assert (finding.check, finding.fatal, finding.remedy.startswith(remedy)) == ("secret", False, True)


def test_kuberay_decides_about_authentication_itself(fit: Node) -> None:
    identity = dataclasses.replace(fit.identity, size=2, launcher="kuberay")
    assert found(having(fit, secret=NO_SECRET, identity=identity)) == []


# GPUs


@pytest.mark.parametrize(("expected", "have", "bad"), [(8, 7, True), (8, 8, False), (1, 2, False), (None, 0, False)])
def test_gpus_expected(fit: Node, expected: int | None, have: int, bad: bool) -> None:
    resources = Resources(cpus=4, memory=GIB, num_gpus=have, sources={"num_gpus": "auto", "gpus": "NVML"})
    node = having(fit, resources=resources, expect_gpus=expected)
    assert found(node) == ([("gpus", True)] if bad else [])
    if bad:
        assert "8 GPUs" in only(node).message
        assert "7 found (auto; NVML)" in only(node).message


@pytest.mark.parametrize(
    ("sign", "num_gpus", "fatal", "told"),
    [
        ({}, "auto", None, ""),
        ({"fault": "GPU is lost"}, "auto", True, "GPU is lost"),
        ({"fault": "GPU is lost"}, "7", False, "GPU is lost"),
        ({"fault": "GPU is lost"}, "0", None, ""),
        ({"uncorrected_ecc": 0}, "auto", None, ""),
        ({"uncorrected_ecc": 5}, "auto", True, "5 uncorrectable"),
        ({"remap_pending": True}, "auto", False, "waits for a reset"),
        ({"remap_failed": True, "remap_pending": True}, "auto", True, "could not remap"),
        ({"processes": ((4711, 3 * GIB), (4712, 0))}, "auto", False, "pid 4711 (3.0 GiB), pid 4712"),
    ],
)
def test_gpu_health(
    fit: Node,
    monkeypatch: pytest.MonkeyPatch,
    sign: dict[str, Any],
    num_gpus: str,
    fatal: bool | None,
    told: str,
) -> None:
    monkeypatch.setattr(gpus, "health", lambda _, __: [GpuHealth(GPU.index, GPU.uuid, GPU.name, **sign)])
    node = having(fit, num_gpus=num_gpus)
    assert found(node) == ([] if fatal is None else [("gpu-health", fatal)])
    if fatal is not None:
        assert only(node).message.startswith("GPU 3 (NVIDIA H100, GPU-3)")
        assert told in only(node).message


def test_broken_nvml_is_a_finding(fit: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[GpuHealth]:
        raise PreflightFailed("NVML: Driver Not Loaded", hint="modprobe nvidia")

    monkeypatch.setattr(gpus, "health", broken)
    assert only(fit) == Finding("gpu-health", "NVML: Driver Not Loaded", "modprobe nvidia")


# Ports


def test_a_port_that_another_process_holds(fit: Node) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        port = int(other.stdout.readline())
        findings = preflight.run(having(fit, node_manager_port=port))
        other.stdin.close()
    held = findings[0]
    assert (held.check, held.fatal) == ("ports", True)
    assert f"--node-manager-port={port} is held by pid {other.pid} (python" in held.message


def test_an_address_that_is_on_no_interface_of_this_machine(fit: Node) -> None:
    finding = only(dataclasses.replace(fit, address=NodeAddress(IP, None, "node")))
    assert (finding.check, finding.fatal) == ("node-address", False)
    assert "Ray may not be able to bind it" in finding.message


def test_a_port_whose_holder_is_hidden(fit: Node, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "net_connections", lambda _: [])
    finding = preflight.run(having(fit, object_manager_port=listener))[0]
    assert "another process (hidden from this user)" in finding.message


@pytest.mark.parametrize("name", [*ports.HEAD_ONLY, "rollcall_port"])
def test_a_worker_does_not_mind_the_heads_ports(fit: Node, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: False)
    monkeypatch.setattr(addresses, "_holders", lambda _: {})
    head = NodeIdentity("slurm", Role.HEAD, 0, 2, "run")
    assert found(having(fit, **{name: 31000})) == []
    assert found(having(fit, identity=head, **{name: 31000})) == [("ports", True)]


@pytest.mark.parametrize(
    ("port", "reserved", "bad"), [(32768, "", True), (60999, "", True), (32767, "", False), (40000, "40000", False)]
)
def test_a_port_that_the_kernel_gives_away(
    fit: Node, monkeypatch: pytest.MonkeyPatch, port: int, reserved: str, bad: bool
) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    fit.host.path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text(reserved + "\n")
    assert found(having(fit, metrics_export_port=port)) == ([("ports", False)] if bad else [])


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        ({"min_worker_port": 8301, "max_worker_port": 8305}, False),
        ({"min_worker_port": 8301, "max_worker_port": 8304}, True),
        ({"min_worker_port": 8200, "max_worker_port": 8300, "node_manager_port": 8288}, True),
        ({"node_manager_port": 12000}, True),
        ({"node_manager_port": 20000}, False),
        ({"gcs_port": 12000}, False),  # the head's
        ({"min_worker_port": 8301, "max_worker_port": 8305, "node_manager_port": 12000}, False),
        ({"ray_start_arg": ("--worker-port-list=9000,9001",), "node_manager_port": 12000}, False),
    ],
)
def test_worker_ports(fit: Node, options: dict[str, Any], bad: bool) -> None:
    assert found(having(fit, **options)) == ([("worker-ports", True)] if bad else [])


@pytest.mark.parametrize(
    ("kernel", "reserved", "options", "fact"),
    [
        ("9000 65000", "", {}, None),  # others are chosen
        ("1024 65535", "", {}, "hold 9998 of these 9998 ports"),
        ("15000 65000", "", {"min_worker_port": 14000, "max_worker_port": 15999}, "hold 1000 of these 2000 ports"),
        ("15000 65000", "80,15000-15999", {"min_worker_port": 14000, "max_worker_port": 15999}, None),
        ("1024 65535", "", {"ray_start_arg": ("--worker-port-list=9000,9001",)}, None),
    ],
)
def test_worker_ports_that_the_kernel_gives_away(
    fit: Node, kernel: str, reserved: str, options: dict[str, Any], fact: str | None
) -> None:
    fit.host.path("/proc/sys/net/ipv4/ip_local_port_range").write_text(kernel + "\n")
    fit.host.path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text(reserved + "\n")
    node = having(fit, **options)
    assert found(node) == ([] if fact is None else [("worker-ports", False)])
    if fact is not None:
        assert fact in only(node).message
        assert "sysctls: [{name: net.ipv4.ip_local_port_range" in only(having(node, POD)).remedy


def test_kuberay_decides_about_the_workers_ports_itself(fit: Node) -> None:
    fit.host.path("/proc/sys/net/ipv4/ip_local_port_range").write_text("1024 65535\n")
    assert found(having(fit, identity=dataclasses.replace(fit.identity, launcher="kuberay"))) == []


def test_ports_are_reserved_beside_those_that_already_are(fit: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    fit.host.path("/proc/sys/net/ipv4/ip_local_reserved_ports").write_text("50000-50009\n")
    finding = only(having(fit, metrics_export_port=40000))
    assert "ip_local_reserved_ports=50000-50009,40000" in finding.remedy


# Limits


@pytest.mark.parametrize(
    ("limit", "options", "fatal"),
    [
        (resource.RLIM_INFINITY, {}, None),
        (9 * GIB + 4 * GIB, {}, False),  # 30% of 32 GiB, and 4 GiB
        (14 * GIB, {}, None),
        (10 * GIB, {}, True),
        (GIB + limits.LEAST_ADDRESSES - 1, {"object_store_memory": GIB}, True),
        (GIB + limits.LEAST_ADDRESSES, {"object_store_memory": GIB}, False),
        (GIB + limits.ENOUGH_ADDRESSES, {"object_store_memory": GIB}, None),
    ],
)
def test_address_space(
    fit: Node, monkeypatch: pytest.MonkeyPatch, limit: int, options: dict[str, Any], fatal: bool | None
) -> None:
    limited(monkeypatch, RLIMIT_AS=(limit, resource.RLIM_INFINITY))
    assert found(having(fit, **options)) == ([] if fatal is None else [("address-space", fatal)])


@pytest.mark.parametrize(
    ("env", "remedy"),
    [({}, "`ulimit -v unlimited`"), (POD, "remove `ulimit -v`"), ({"SLURM_JOB_ID": "7"}, "sbatch --propagate=NONE")],
)
def test_a_smaller_object_store_is_a_remedy_that_works(
    fit: Node, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], remedy: str
) -> None:
    limited(monkeypatch, RLIMIT_AS=(6 * GIB, 6 * GIB))
    finding = only(having(fit, env))
    assert finding.fatal
    assert finding.remedy.startswith(remedy)
    offered = int(finding.remedy.partition("--object-store-memory=")[2])
    assert found(having(fit, env, object_store_memory=offered)) == []
    limited(monkeypatch, RLIMIT_AS=(GIB, GIB))
    assert "--object-store-memory" not in only(having(fit, env)).remedy  # no store is small enough


def process(node: Node, name: str, **fields: object) -> None:
    """Puts a process's status into the node's /proc."""
    folder = node.host.path(f"/proc/{name}")
    folder.mkdir(exist_ok=True)
    (folder / "status").write_text("".join(f"{field}:\t{value}\n" for field, value in fields.items()))


@pytest.mark.parametrize(
    ("hard", "uid", "capabilities", "uid_map", "fatal"),
    [
        (limits.LEAST_TASKS[Role.WORKER] + 9, 1000, 0, "0 0 4294967295", True),  # 10 run
        (limits.LEAST_TASKS[Role.WORKER] + 10, 1000, 0, "0 0 4294967295", False),
        (limits.ENOUGH_TASKS[Role.WORKER] + 4 * limits.TASKS_PER_CPU + 10, 1000, 0, "0 0 4294967295", None),
        (resource.RLIM_INFINITY, 1000, 0, "0 0 4294967295", None),
        (50, 0, 0, "0 0 4294967295", None),  # root
        (50, 0, 1 << 24, "0 1000 1", True),  # root of a user namespace
        (50, 0, 0, "0 0 1", None),  # which may be the machine's
        (50, 7, 1 << 24, "0 1000 65536", True),
        (50, 1000, 1 << 24, "0 0 4294967295", None),
        (50, 1000, 1 << 10, "0 0 4294967295", True),
    ],
)
def test_nproc(
    fit: Node,
    monkeypatch: pytest.MonkeyPatch,
    hard: int,
    uid: int,
    capabilities: int,
    uid_map: str,
    fatal: bool | None,
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: uid)
    limited(monkeypatch, RLIMIT_NPROC=(1, hard))
    process(fit, "self", CapEff=f"{capabilities:016x}")
    fit.host.path("/proc/self/uid_map").write_text(uid_map + "\n")
    process(fit, "7", Uid=f"{uid}\t{uid}\t{uid}\t{uid}", Threads=7)
    process(fit, "8", Uid=f"{uid}\t0\t0\t0", Threads=3)
    process(fit, "9", Uid="555\t0\t0\t0", Threads=1000)
    fit.host.path("/proc/10").mkdir()  # it ends while we look
    assert found(fit) == ([] if fatal is None else [("nproc", fatal)])
    if fatal is not None:
        assert f"(10 of {hard} in use: ulimit -u, for all that uid {uid} runs)" in only(fit).message


def grouped(node: Node, version: int, files: Mapping[str, object]) -> None:
    """Puts the node into /job/step of one controller's hierarchy, or of cgroup v2, with these files."""
    controllers = {path.split("/")[-1].partition(".")[0] for path in files}
    lines = ["0::/job/step"] if version == 2 else [f"{n}:{name}:/job/step" for n, name in enumerate(controllers, 1)]
    node.host.path("/proc/self/cgroup").write_text("\n".join(lines) + "\n")
    for path, content in files.items():
        mount = "/sys/fs/cgroup" if version == 2 else f"/sys/fs/cgroup/{path.split('/')[-1].partition('.')[0]}"
        for folder in (mount, f"{mount}/job/step"):
            node.host.path(folder).mkdir(parents=True, exist_ok=True)
            node.host.path(f"{folder}/cgroup.procs").touch()
        node.host.path(f"{mount}/{path}").write_text(f"{content}\n")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("role", "limit", "used", "fatal"),
    [
        (Role.WORKER, 5000, 5000 - limits.LEAST_TASKS[Role.WORKER] + 1, True),
        (Role.WORKER, 5000, 5000 - limits.LEAST_TASKS[Role.WORKER], False),
        (Role.HEAD, 5000, 5000 - limits.LEAST_TASKS[Role.WORKER], True),
        (Role.HEAD, 5000, 3000, None),
        (Role.HEAD, 100, 200, True),
        (Role.HEAD, "max", 20000, None),
    ],
)
def test_pids(fit: Node, version: int, role: Role, limit: object, used: int, fatal: bool | None) -> None:
    """The tightest is not the nearest: a slice or a pod limits all that is in it."""
    near = {"job/step/pids.max": 9000, "job/step/pids.current": 5, "job/memory.stat": f"inactive_file {GIB}"}
    grouped(fit, version, {**near, "job/pids.max": limit, "job/pids.current": used})
    node = having(fit, identity=dataclasses.replace(fit.identity, role=role))
    assert found(node) == ([] if fatal is None else [("pids", fatal)])
    if fatal is not None:
        assert f"({used} of {limit} in use: cgroup v{version} pids.max of /job)" in only(node).message
        assert "podPidsLimit" in only(having(node, POD)).remedy


MEMORY = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("role", "used", "droppable", "fatal"),
    [
        (Role.WORKER, 8 * GIB - 255 * MIB, 0, True),
        (Role.WORKER, 8 * GIB - 256 * MIB, 0, False),
        (Role.HEAD, 8 * GIB - 511 * MIB, 0, True),
        (Role.HEAD, 8 * GIB - 512 * MIB, 0, False),
        (Role.WORKER, 7 * GIB, 0, None),
        (Role.WORKER, 8 * GIB, 4 * GIB, None),  # page cache that the kernel drops when it must
    ],
)
def test_memory_that_others_in_the_control_group_use(
    fit: Node, version: int, role: Role, used: int, droppable: int, fatal: bool | None
) -> None:
    limit_file, usage_file, inactive = MEMORY[version]
    own = {"job/step/" + limit_file: 64 * GIB, "job/step/" + usage_file: GIB}
    stat = {"job/memory.stat": f"cache 1\n{inactive} {droppable}\nactive_file {GIB}"}
    grouped(fit, version, {**own, **stat, "job/" + limit_file: 8 * GIB, "job/" + usage_file: used})
    node = having(fit, identity=dataclasses.replace(fit.identity, role=role))
    assert found(node) == ([] if fatal is None else [("memory", fatal)])


def test_memory_that_others_on_the_machine_use(fit: Node) -> None:
    fit.host.path("/proc/meminfo").write_text("MemTotal:  33554432 kB\nMemFree: 9 kB\nMemAvailable:  204800 kB\n")
    assert only(fit).message == (
        "200.0 MiB of memory free (31.8 GiB used of 32.0 GiB: MemAvailable); Ray itself takes most of a GiB"
    )


@pytest.mark.parametrize(
    ("granted", "source", "bad"),
    [
        ("8", "affinity (SLURM_CPUS_ON_NODE=8: 8)", True),
        ("1", "affinity", False),
        ("8", "cgroup v2", False),
        (None, "affinity", False),
    ],
)
def test_a_task_that_is_bound_to_fewer_cpus_than_slurm_grants(
    fit: Node, granted: str | None, source: str, bad: bool
) -> None:
    resources = dataclasses.replace(fit.resources, cpus=1, sources={**fit.resources.sources, "cpus": source})
    env = {**fit.host.env, **({"SLURM_CPUS_ON_NODE": granted} if granted else {})}
    identity = dataclasses.replace(fit.identity, launcher="slurm")
    node = dataclasses.replace(fit, resources=resources, identity=identity, host=dataclasses.replace(fit.host, env=env))
    assert found(node) == ([("cpus", False)] if bad else [])


@pytest.mark.parametrize(
    ("size_of_run", "table", "bad"), [(819, "1024", False), (820, "1024", True), (820, None, False), (None, "1", True)]
)
def test_neighbours(fit: Node, size_of_run: int | None, table: str | None, bad: bool) -> None:
    if table is not None:
        path = fit.host.path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
        path.parent.mkdir(parents=True)
        path.write_text(table + "\n")
    identity = dataclasses.replace(fit.identity, size=size_of_run)
    node = having(fit, identity=identity, min_nodes=None if size_of_run else 2)
    assert found(node) == ([("neighbours", False)] if bad else [])


# Address and name


@pytest.mark.parametrize(
    ("name", "env", "fatal"),
    [
        ("a" * 63, {}, None),
        ("a" * 64, {"GLOO_SOCKET_IFNAME": "eth0"}, True),
        (f"{'a' * 40}.{'b' * 22}", {}, None),
        (f"{'a' * 40}.{'b' * 23}", {}, False),
        (f"{'a' * 40}.{'b' * 23}", {"GLOO_SOCKET_IFNAME": "eth0"}, None),
    ],
)
def test_host_name(fit: Node, name: str, env: dict[str, str], fatal: bool | None) -> None:
    node = having(fit, env, address=NodeAddress(IP, "eth0", name))
    assert found(node) == ([] if fatal is None else [("host-name", fatal)])
    if fatal is not None:
        assert "setHostnameAsFQDN" in only(having(node, {**env, **POD})).remedy


@pytest.mark.parametrize(
    ("role", "nodes", "least", "ip", "bad"),
    [
        (Role.HEAD, 2, None, "127.0.1.1", True),
        (Role.HEAD, None, 2, "::1", True),
        (Role.WORKER, None, None, "127.0.0.1", True),
        (Role.HEAD, 1, None, "127.0.0.1", False),
        (Role.HEAD, None, None, "127.0.0.1", False),
    ],
)
def test_node_address(fit: Node, role: Role, nodes: int | None, least: int | None, ip: str, bad: bool) -> None:
    identity = NodeIdentity("slurm", role, 0, nodes, "run")
    node = having(fit, identity=identity, address=NodeAddress(ip, "lo", "node"), min_nodes=least)
    assert found(node) == ([("node-address", True)] if bad else [])


@pytest.mark.parametrize(
    ("answer", "bad"),
    [
        ((IP,), False),
        (("2001:db8::7", IP), False),
        ((), True),
        (("127.0.1.1",), True),
        (("127.0.1.1", IP), True),
        ((IP, "10.0.0.8"), True),
        ((IP, "::1"), True),
    ],
)
def test_own_name(fit: Node, monkeypatch: pytest.MonkeyPatch, answer: tuple[str, ...], bad: bool) -> None:
    monkeypatch.setattr(net, "resolve", lambda _: answer)
    assert found(fit) == ([("own-name", False)] if bad else [])
    assert found(having(fit, {"GLOO_SOCKET_IFNAME": "eth0"})) == []
    assert found(having(fit, identity=NodeIdentity("local", Role.HEAD, 0, 1, "run"))) == []
    if bad:
        assert f"echo '{IP} node' >> /etc/hosts" in only(fit).remedy


# Folders


def test_socket_path_at_its_limit(fit: Node) -> None:
    """A real socket can be bound at the longest path that the check lets pass, and not at a longer one."""
    longest = Path("/tmp/" + "r" * (folders.LONGEST_SOCKET - len(folders._SOCKET) - len("/tmp//")))
    assert found(having(fit, temp_dir=longest)) == []
    finding = only(having(fit, temp_dir=Path(f"{longest}éé")))
    assert finding.check == "socket-path"
    assert f"at most {len(str(longest))} bytes" in finding.remedy
    below = having(fit, temp_dir=longest / "12345678" / "ray", settings=Settings(temp_dir=str(longest)))
    assert f"at most {len(str(longest)) - len('/12345678/ray')} bytes" in only(below).remedy
    assert "4 bytes too long" in finding.message  # bytes, not letters
    with socket.socket(socket.AF_UNIX) as probe:
        with pytest.raises(FileNotFoundError):
            probe.bind(str(longest / folders._SOCKET))
        with pytest.raises(OSError, match="path too long"):
            probe.bind(str(Path(f"{longest}r") / folders._SOCKET))


def test_temp_dir_that_is_a_file(fit: Node, short_dir: Path) -> None:
    (short_dir / "file").touch()
    for path in (short_dir / "file", short_dir / "file/below"):
        finding = preflight.run(having(fit, temp_dir=path))[0]
        assert (finding.check, finding.fatal) == ("temp-dir", True)
        assert f"{short_dir}/file is not a folder" in finding.message


@pytest.fixture
def short_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of ours with a path that leaves room for sockets."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="p", dir="/tmp") as folder:
        yield Path(folder)


def test_temp_dir_relative_or_dangling(fit: Node, short_dir: Path) -> None:
    (short_dir / "link").symlink_to("nowhere")
    assert found(having(fit, temp_dir=Path("ray"))) == [("temp-dir", True)]
    assert "broken symbolic link" in preflight.run(having(fit, temp_dir=short_dir / "link"))[0].message


def test_temp_dir_that_cannot_be_written(fit: Node, short_dir: Path) -> None:
    """On a file system mounted read-only: root heeds no mode bits."""
    read_only = next((p for p in (Path("/sys/kernel"), Path("/proc/sys")) if _refuses(p)), None)
    if read_only is None:
        pytest.skip("no folder here refuses this user's files")
    assert ("temp-dir", True) in found(having(fit, temp_dir=read_only / "ray"))
    assert found(having(fit, temp_dir=short_dir / "a/b")) == []
    assert list(short_dir.iterdir()) == []


def _refuses(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


@pytest.mark.parametrize("error", [13, 30, 28])
def test_temp_dir_that_the_kernel_refuses(fit: Node, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "open", refuse)
    assert os.strerror(error) in only(fit).message


THEIRS = 12345


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    ("who", "mode", "env", "expected"),
    [
        (0, 0o755, {}, []),
        (0, 0o1777, {}, []),
        (0, 0o777, {}, [True]),
        (0, 0o777, POD, []),  # an emptyDir is 0777 by design
        (0, 0o775, {}, [False]),
        (0, 0o1775, {}, []),
        (THEIRS, 0o755, {}, [False]),  # a project's, say, in a folder of root's
        (THEIRS, 0o777, {}, [False, True]),
    ],
)
def test_temp_dir_above_which_others_can_replace_it(
    fit: Node, short_dir: Path, who: int, mode: int, env: dict[str, str], expected: list[bool]
) -> None:
    short_dir.chmod(0o755)
    outer = short_dir / "outer"
    (outer / "inner").mkdir(parents=True)
    os.chown(outer, who, -1)
    outer.chmod(mode)
    for path in (outer / "ray", outer / "inner" / "ray", outer / "missing" / "ray"):
        findings = preflight.run(having(fit, env, temp_dir=path))
        assert [(finding.check, finding.fatal) for finding in findings] == [("temp-dir", fatal) for fatal in expected]
        assert all(str(outer) in finding.message and finding.remedy for finding in findings)


@pytest.mark.requires("root")
@pytest.mark.parametrize("what", ["folder", "link", "target"])
def test_temp_dir_of_somebody_else_who_may_have_planted_it(fit: Node, short_dir: Path, what: str) -> None:
    """In /tmp, say, where every user can make one while a worker waits for its head."""
    short_dir.chmod(0o1777)
    theirs, path = short_dir / "theirs", short_dir / "path"
    theirs.mkdir()
    if what == "folder":
        path = theirs
    else:
        path.symlink_to(theirs)
    os.lchown(path if what == "link" else theirs, THEIRS, -1)
    for temp_dir in (path, path / "ray"):
        finding = only(having(fit, temp_dir=temp_dir))
        assert (finding.check, finding.fatal) == ("temp-dir", True)
        assert f"uid {THEIRS}" in finding.message


def test_what_others_cannot_enter_they_cannot_replace(fit: Node, short_dir: Path) -> None:
    (short_dir / "inner").mkdir()
    (short_dir / "inner").chmod(0o777)
    assert stat.S_IMODE(short_dir.stat().st_mode) == 0o700
    assert found(having(fit, temp_dir=short_dir / "inner" / "ray")) == []


def test_temp_dir_through_links_without_end(fit: Node, short_dir: Path) -> None:
    (short_dir / "a").symlink_to("b")
    (short_dir / "b").symlink_to("a")
    assert "broken symbolic link" in preflight.run(having(fit, temp_dir=short_dir / "a"))[0].message


@pytest.mark.parametrize(("uid", "trusted"), [(65534, True), (THEIRS, False)])
def test_root_that_is_not_mapped(
    fit: Node, short_dir: Path, monkeypatch: pytest.MonkeyPatch, uid: int, trusted: bool
) -> None:
    """In a rootless container, / and the host's /tmp show the uid of nobody; so does what another user planted."""
    monkeypatch.setattr(ownership, "_unmapped_root", lambda: 65534)
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        fields = list(real(path)[:10])
        if path in (Path("/"), Path("/tmp"), short_dir / "planted"):
            fields[4] = uid
        return os.stat_result(fields)

    short_dir.chmod(0o1777)
    (short_dir / "planted").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lstat)
        ours = preflight.run(having(fit, temp_dir=short_dir / "ray"))
        planted = preflight.run(having(fit, temp_dir=short_dir / "planted" / "ray"))
    assert [finding.fatal for finding in ours] == ([] if trusted else [False, False])
    assert [finding.fatal for finding in planted] == ([True] if trusted else [False, False, True])


def test_temp_dir_that_is_sticky(fit: Node, short_dir: Path) -> None:
    """Ray would take the bit away."""
    folder = short_dir / "ray"
    folder.mkdir()
    for mode, expected in ((0o1777, [("temp-dir", True)]), (0o777, []), (0o700, [])):
        folder.chmod(mode)
        assert found(having(fit, temp_dir=folder)) == expected


@pytest.mark.parametrize(
    ("outer", "asked", "enclosed"),
    [
        (0o700, "ray", True),
        (0o750, "ray", False),
        (0o755, "ray", False),
        (0o744, "ray", True),
        (0o1777, "ray", False),
        (0o755, "missing/ray", True),  # the agent makes it with mode 0700
        (0o755, "link", True),
        (0o755, "closed", False),  # Ray would open it
    ],
)
def test_a_temp_dir_that_others_can_enter_gets_a_closed_folder(
    short_dir: Path, outer: int, asked: str, enclosed: bool
) -> None:
    (short_dir / "closed" / "within").mkdir(parents=True)
    (short_dir / "closed").chmod(0o700)
    (short_dir / "link").symlink_to("closed/within")
    short_dir.chmod(outer)
    settings = Settings(temp_dir=str(short_dir / asked), node_ip="127.0.0.1", num_gpus="0")
    node = inspection.inspect(settings, Host({}, "node"), NodeIdentity("local", Role.HEAD, 0, 1, "run"), Path("/none"))
    if enclosed:
        assert (node.temp_dir, node.closed_dir) == (short_dir / asked, None)
    else:
        assert node.closed_dir == node.temp_dir.parent
        assert node.temp_dir.parent.parent == short_dir / asked
        assert len(node.temp_dir.parent.name) == 8


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("nfs4", True),
        ("lustre", True),
        ("fuse.s3fs", True),
        ("fuse.fuse-overlayfs", False),
        ("overlay", False),
        ("tmpfs", False),
        ("xfs", False),
    ],
)
def test_temp_dir_on_a_network(fit: Node, kind: str, bad: bool) -> None:
    lines = ["27 1 0:1 / / rw shared:1 - ext4 /dev/vda rw", f"30 27 0:9 / /tmp rw shared:2 master:1 - {kind} srv:/x rw"]
    fit.host.path("/proc/self/mountinfo").write_text("\n".join(lines))
    assert found(fit) == ([("temp-dir-disk", True)] if bad else [])
    if bad:
        assert f"{kind} (srv:/x)" in only(fit).message


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/data", "xfs"),
        ("/data/a b/c", "nfs4"),
        ("/data/a bc", "xfs"),
        ("/database", "ext4"),
        ("/twice/x", "tmpfs"),
    ],
)
def test_mount_of(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    rows = [("/", "ext4"), ("/data", "xfs"), ("/data/a\\040b", "nfs4"), ("/twice", "nfs"), ("/twice", "tmpfs")]
    text = "".join(f"{i} 1 0:{i} / {point} rw,relatime - {kind} source rw\n" for i, (point, kind) in enumerate(rows))
    (tmp_path / "proc/self/mountinfo").write_text(text + "broken line\n\n")
    assert mount_of(Host({}, "node", tmp_path), Path(path))[0] == kind


def test_mount_of_this_machine() -> None:
    assert mount_of(Host({}, "node"), Path("/proc/self"))[0] == "proc"


@pytest.mark.parametrize(
    ("free", "total", "bad"),
    [(GIB - 4096, 10 * GIB, True), (GIB, 10 * GIB, False), (4 * GIB, 100 * GIB, True), (5 * GIB, 100 * GIB, False)],
)
def test_temp_dir_without_room(fit: Node, monkeypatch: pytest.MonkeyPatch, free: int, total: int, bad: bool) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: disk(free, total))
    assert found(fit) == ([("temp-dir-disk", False)] if bad else [])


def test_shared_dir(fit: Node, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    node = having(fit, shared_dir=str(shared))
    assert "does not exist" in only(node).message
    shared.touch()
    assert "is not a folder" in only(node).message
    shared.unlink()
    shared.mkdir()
    assert found(node) == []
    assert list(shared.iterdir()) == []


def test_shared_dir_with_a_dead_agents_canary(fit: Node, tmp_path: Path) -> None:
    (tmp_path / f".ray-bootstrap-canary-node-{os.getpid()}").touch()
    assert found(having(fit, shared_dir=str(tmp_path))) == []
    assert not list(tmp_path.glob(".ray*"))


def test_shared_dir_in_which_somebody_has_taken_the_canarys_name(
    fit: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, theirs = Path.unlink, tmp_path / f".ray-bootstrap-canary-node-{os.getpid()}"
    theirs.touch()

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path == theirs:
            raise PermissionError(1, "the folder is sticky")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert found(having(fit, shared_dir=str(tmp_path))) == []
    assert list(tmp_path.glob(".ray*")) == [theirs]


def meeting_in(node: Node, folder: Path, **changes: Any) -> Node:
    """``node`` of a run whose head is found, and whose secret is made, in this folder."""
    identity = dataclasses.replace(node.identity, rendezvous="file")
    off = changes.get("auth") == "off"
    secret = Secret(None, "", Channel.NONE if off else Channel.RECORD)
    return having(node, shared_dir=str(folder), identity=identity, secret=secret, **changes)


def showing(monkeypatch: pytest.MonkeyPatch, **changes: int) -> None:
    """A file system that makes this of the mode or the owner of all files."""
    real = os.fstat

    def changed(fd: int) -> os.stat_result:
        mode, *fields = real(fd)[:10]
        mode = stat.S_IFMT(mode) | changes.get("mode", stat.S_IMODE(mode))
        fields[3] = changes.get("uid", fields[3])
        return os.stat_result([mode, *fields])

    monkeypatch.setattr(os, "fstat", changed)


@pytest.mark.parametrize(("mode", "fatal"), [(0o777, True), (0o644, False)])
def test_shared_dir_that_keeps_no_modes(
    fit: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, fatal: bool
) -> None:
    showing(monkeypatch, mode=mode)
    node = meeting_in(fit, tmp_path)
    finding = only(node)
    assert (finding.check, finding.fatal) == ("shared-dir", fatal)
    assert f"a file of mode 600 shows {mode:o} there" in finding.message
    assert found(meeting_in(fit, tmp_path, auth="off")) == []
    assert found(having(fit, shared_dir=str(tmp_path))) == []  # no secret is made there
    assert found(dataclasses.replace(node, secret=Secret(b"given" * 4, "RAY_AUTH_TOKEN"))) == []


def test_shared_dir_that_squashes_owners(fit: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    showing(monkeypatch, uid=65533)
    finding = only(meeting_in(fit, tmp_path))
    assert (finding.check, finding.fatal) == ("shared-dir", False)
    assert "our files show uid 65533 there" in finding.message


def test_shared_dir_that_cannot_be_written(fit: Node) -> None:
    finding = only(having(fit, shared_dir="/proc"))  # procfs takes nobody's files
    assert (finding.check, finding.fatal) == ("shared-dir", True)
    assert "--shared-dir=/proc cannot be written (" in finding.message


def test_shared_dir_whose_listing_lags(fit: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda _: scandir(empty))
    assert "not in the folder's listing" in only(having(fit, shared_dir=str(tmp_path))).message


@pytest.mark.parametrize(("kind", "bad"), [("nfs4", False), ("ext4", False), ("overlay", True), ("tmpfs", True)])
def test_shared_dir_that_is_the_containers_own(fit: Node, tmp_path: Path, kind: str, bad: bool) -> None:
    text = f"27 1 0:1 / / rw - ext4 /dev/vda rw\n28 27 0:2 / {tmp_path} rw - {kind} none rw\n"
    fit.host.path("/proc/self/mountinfo").write_text(text)
    assert found(having(fit, shared_dir=str(tmp_path))) == ([("shared-dir", False)] if bad else [])


# What becomes of the findings

FINDINGS = [
    Finding("ports", "--gcs-port=6379 is held by pid 1", "--gcs-port=PORT"),
    Finding("nofile", "4096 files", "ulimit -n 65536", fatal=False),
    Finding("shm", "/dev/shm is not there", "mount it"),
]


def test_judge_tells_all_fatal_findings_at_once() -> None:
    with pytest.raises(PreflightFailed) as failure:
        preflight.judge(FINDINGS, ())
    assert failure.value.status == 78
    for text in ("2 findings", "ports: --gcs-port=6379 is held by pid 1", "--gcs-port=PORT", "shm: ", "mount it"):
        assert text in failure.value.message
    assert "nofile" not in failure.value.message
    assert failure.value.hint.endswith("--ignore-check ports --ignore-check shm")


def test_judge_lets_warnings_and_ignored_findings_pass() -> None:
    preflight.judge([], ())
    preflight.judge(FINDINGS, ("ports", "shm"))
    with pytest.raises(PreflightFailed, match="shm") as failure:
        preflight.judge(FINDINGS, ("ports",))
    assert "ports" not in failure.value.message + failure.value.hint


def test_render(fit: Node) -> None:
    lines = preflight.render(fit, FINDINGS, ("shm",))
    words = {line.split()[1]: line.split()[0] for line in lines if "fix: " not in line}
    assert words == {
        check.name: {"ports": "unfit", "nofile": "warning", "shm": "ignored"}.get(check.name, "ok")
        for check in preflight.CHECKS
    } | dict.fromkeys(("token-file", "setup", "trace", "shared-dir"), "-")
    assert [line.split("fix: ")[1] for line in lines if "fix: " in line] == [
        "mount it",
        "ulimit -n 65536",
        "--gcs-port=PORT",
    ]


def test_unknown_names() -> None:
    assert preflight.unknown_names(Settings(ignore_check=tuple(check.name for check in preflight.CHECKS))) == []
    (fault,) = preflight.unknown_names(Settings(ignore_check=("shm", "port")))
    assert fault.startswith("--ignore-check='port': unknown check (did you mean ports?); the checks are ray, ")


def test_names_are_unique_and_words() -> None:
    names = [check.name for check in preflight.CHECKS]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() for name in names)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (64 * MIB, "64.0 MiB"), (3 * GIB // 2, "1.5 GiB")]
)
def test_size(amount: int, text: str) -> None:
    assert size(amount) == text


def test_constants_are_rays() -> None:
    """Read off Ray's source, without importing it."""
    text = Path(str(metadata.distribution("ray").locate_file("ray/_private/ray_constants.py"))).read_text()
    assert "OBJECT_STORE_MINIMUM_MEMORY_BYTES = 75 * 1024 * 1024" in text
    assert machine.LEAST_STORE == 75 * 1024 * 1024
