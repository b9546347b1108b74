"""What frameworks find in the environment: which variables, when, and what stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bootstrap.files.secret import Channel, Secret, Token
from bootstrap.host import Host
from bootstrap.model import NodeAddress, NodeIdentity, Resources, Role
from bootstrap.node.inspection import Node
from bootstrap.raynode import environment, frameworks
from bootstrap.settings import Settings

HEAD, OWN = "10.0.0.1", "10.0.0.5"
NAMES = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
SEVERAL = dict(zip(NAMES, ("eth1", "eth1", "=eth1", "=eth1"), strict=True))


def node(
    root: Path,
    env: Mapping[str, str] | None = None,
    *,
    ip: str = OWN,
    interface: str | None = "eth1",
    besides: tuple[str, ...] = (),
    named: bool = True,
    **options: Any,
) -> Node:
    return Node(
        Settings(**options),
        Host(env=env or {}, hostname="node1", root=root),
        NodeIdentity("slurm", Role.WORKER, rank=1, size=2, run_id="run"),
        NodeAddress(ip, interface, "node1", besides=besides),
        Resources(cpus=1, memory=1),
        Path("/tmp/ray"),
        Secret(None, "none", Channel.NONE),
        named,
    )


def added(of: Node, head: str | None = HEAD) -> dict[str, str]:
    """What for_node sets beyond the node's own environment, leaving out authentication."""
    env = environment.for_node(of, Token(None), head)
    return {name: value for name, value in env.items() if of.host.env.get(name) != value}


def why(of: Node, name: str) -> str:
    planned = frameworks.plan(of, of.host.env, HEAD, ray_ip=of.address.ip)
    return next(each.why for each in planned if each.name == name)


def test_a_node_with_one_interface(tmp_path: Path) -> None:
    assert added(node(tmp_path)) == {"MASTER_ADDR": HEAD, "VLLM_HOST_IP": OWN}
    assert why(node(tmp_path), "GLOO_SOCKET_IFNAME") == "eth1 is the only interface that other nodes reach"


def test_a_node_with_several(tmp_path: Path) -> None:
    several = node(tmp_path, besides=("eth0", "ib0"))
    assert added(several) == {"MASTER_ADDR": HEAD, "VLLM_HOST_IP": OWN, **SEVERAL}
    assert why(several, "NCCL_SOCKET_IFNAME") == "holds 10.0.0.5; there are also eth0, ib0"


def test_of_ipv6_alone(tmp_path: Path) -> None:
    alone = node(tmp_path, ip="2001:db8::5")
    assert added(alone, "2001:db8::1") == {"MASTER_ADDR": "2001:db8::1", "VLLM_HOST_IP": "2001:db8::5"}
    assert set(NAMES) < set(added(node(tmp_path, ip="2001:db8::5", besides=("eth0",))))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"interface": None}, "no interface of this machine holds 10.0.0.5"),
        ({"ip": "127.0.0.1", "interface": "lo"}, "the node address is 127.0.0.1, which no other node reaches"),
    ],
)
def test_where_no_interface_can_be_named(tmp_path: Path, given: dict[str, Any], reason: str) -> None:
    odd = node(tmp_path, besides=("eth0",), **given)
    assert set(added(odd)) - {"VLLM_HOST_IP"} == {"MASTER_ADDR"}
    assert why(odd, "TP_SOCKET_IFNAME") == reason


def test_an_address_that_ray_replaces(tmp_path: Path) -> None:
    alone = node(tmp_path, ip="127.0.0.1", interface="lo")
    assert added(alone, "127.0.0.1") == {"MASTER_ADDR": "127.0.0.1"}
    assert why(alone, "VLLM_HOST_IP").startswith("Ray replaces 127.0.0.1")
    assert added(node(tmp_path, ip="127.0.0.2", interface=None))["VLLM_HOST_IP"] == "127.0.0.2"


def test_gloo_where_the_nodes_name_does_not_lead_to_its_address(tmp_path: Path) -> None:
    assert added(node(tmp_path, named=False)) == {
        "MASTER_ADDR": HEAD,
        "VLLM_HOST_IP": OWN,
        "GLOO_SOCKET_IFNAME": "eth1",
    }
    unknown = node(tmp_path, named=False, interface=None)
    assert "GLOO_SOCKET_IFNAME" not in added(unknown)


def test_what_is_set_stays(tmp_path: Path) -> None:
    given = {"MASTER_ADDR": "job-master-0", "VLLM_HOST_IP": "10.9.9.9", **dict.fromkeys(NAMES, "ib")}
    set_already = node(tmp_path, given, besides=("eth0",), named=False)
    assert added(set_already) == {}
    assert why(set_already, "MASTER_ADDR") == "stays 'job-master-0'"
    assert added(node(tmp_path, {"MASTER_ADDR": ""}))["MASTER_ADDR"] == HEAD  # launchers export empty ones


def test_off(tmp_path: Path) -> None:
    env = {"http_proxy": "http://proxy:3128"}
    off = node(tmp_path, env, besides=("eth0",), named=False, framework_env="off")
    assert added(off) == {}
    workload = environment.for_workload(off, off.host.env, f"{HEAD}:6379", "127.0.0.1:8265", [OWN], 0)
    assert "no_proxy" not in workload
    assert frameworks.plan(off, env, HEAD, ray_ip=OWN) == []


@pytest.mark.parametrize(
    ("variable", "file"),
    [(None, "/etc/nccl.conf"), (None, "/home/me/.nccl.conf"), ("~/mine", "/home/me/mine"), ("/x/mine", "/x/mine")],
)
def test_nccl_where_a_file_names_the_interface(tmp_path: Path, variable: str | None, file: str) -> None:
    env = {"HOME": "/home/me", **({"NCCL_CONF_FILE": variable} if variable else {})}
    path = tmp_path / file.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("NCCL_DEBUG=WARN\n#NCCL_SOCKET_IFNAME=eth9\n")
    several = node(tmp_path, env, besides=("eth0",))
    assert added(several)["NCCL_SOCKET_IFNAME"] == "=eth1"
    path.write_text("NCCL_DEBUG=WARN\n NCCL_SOCKET_IFNAME ==ens1f0\n")
    assert "NCCL_SOCKET_IFNAME" not in added(several)
    assert added(several)["GLOO_SOCKET_IFNAME"] == "eth1"
    assert why(several, "NCCL_SOCKET_IFNAME").startswith(f"{file} names one")


def test_nccl_beside_rdma_devices(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/infiniband"
    folder.mkdir(parents=True)
    several = node(tmp_path, besides=("eth0",))
    assert added(several)["NCCL_SOCKET_IFNAME"] == "=eth1"
    for device in ("mlx5_1", "mlx5_0"):
        (folder / device).mkdir()
    assert {name for name in NAMES if name in added(several)} == set(NAMES[:3])
    assert why(several, "NCCL_SOCKET_IFNAME").endswith("RDMA devices (InfiniBand, RoCE, EFA): mlx5_0, mlx5_1")


def test_a_worker_that_has_not_joined(tmp_path: Path) -> None:
    worker = node(tmp_path, {"https_proxy": "http://proxy"}, besides=("eth0",))
    before = environment.for_node(worker, Token(None), None)
    assert "MASTER_ADDR" not in before
    assert before["no_proxy"] == "localhost,127.0.0.1,::1,10.0.0.5"
    joined = environment.with_head(worker, before, HEAD)
    assert joined == environment.for_node(worker, Token(None), HEAD) | {
        "no_proxy": "localhost,127.0.0.1,::1,10.0.0.5,10.0.0.1",
        "NO_PROXY": "localhost,127.0.0.1,::1,10.0.0.5,10.0.0.1",
    }


def test_a_kuberay_pod_chooses_its_own_addresses(tmp_path: Path) -> None:
    env = environment.for_kuberay(node(tmp_path, besides=("net1",)))
    assert env == SEVERAL


@pytest.mark.parametrize(
    ("env", "lower", "upper"),
    [
        ({}, None, None),
        ({"no_proxy": "a"}, None, None),
        ({"http_proxy": ""}, None, None),
        ({"HTTPS_PROXY": "p"}, "localhost,127.0.0.1,::1,A,B", "localhost,127.0.0.1,::1,A,B"),
        ({"all_proxy": "p", "no_proxy": "x, B"}, "x,B,localhost,127.0.0.1,::1,A", "x,B,localhost,127.0.0.1,::1,A"),
        ({"grpc_proxy": "p", "NO_PROXY": "x,"}, "x,localhost,127.0.0.1,::1,A,B", "x,localhost,127.0.0.1,::1,A,B"),
        (
            {"http_proxy": "p", "no_proxy": "x", "NO_PROXY": "y"},
            "x,localhost,127.0.0.1,::1,A,B",
            "y,localhost,127.0.0.1,::1,A,B",
        ),
        ({"http_proxy": "p", "no_proxy": "*"}, None, None),
    ],
)
def test_proxies(env: dict[str, str], lower: str | None, upper: str | None) -> None:
    found = frameworks.exceptions(env, ["A", "B"])
    assert (found.get("no_proxy"), found.get("NO_PROXY")) == (lower, upper)


def test_the_workload_reaches_all_nodes_without_a_proxy(tmp_path: Path) -> None:
    head = node(tmp_path, {"http_proxy": "http://proxy", "no_proxy": ".corp"})
    env = environment.for_node(head, Token(None), HEAD)
    nodes = [HEAD, OWN, "10.0.0.6"]
    workload = environment.for_workload(head, env, f"{HEAD}:6379", "127.0.0.1:8266", nodes, 2.0)
    assert workload["no_proxy"] == workload["NO_PROXY"] == ".corp,localhost,127.0.0.1,::1,10.0.0.5,10.0.0.1,10.0.0.6"
    assert {
        name: value for name, value in workload.items() if env.get(name) != value and "PROXY" not in name.upper()
    } == {
        "RAY_ADDRESS": "10.0.0.1:6379",
        "RAY_API_SERVER_ADDRESS": "http://127.0.0.1:8266",
        "RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:8266",
        "RAY_BOOTSTRAP_RUN_ID": "run",
        "RAY_BOOTSTRAP_CLUSTER_NODES": "3",
        "RAY_BOOTSTRAP_CLUSTER_GPUS": "2",
    }


def test_another_shell_gets_the_exceptions_too(tmp_path: Path) -> None:
    env = environment.for_node(node(tmp_path, {"http_proxy": "http://proxy"}), Token(None), HEAD)
    exceptions = "localhost,127.0.0.1,::1,10.0.0.5,10.0.0.1"
    line = f"RAY_ADDRESS=10.0.0.1:6379 no_proxy={exceptions} NO_PROXY={exceptions}"
    assert environment.for_shell(env, "10.0.0.1:6379") == line
    assert environment.how_to_use(env).endswith("which sets RAY_ADDRESS, no_proxy, NO_PROXY")
    without = environment.for_node(node(tmp_path, {"no_proxy": "mine"}), Token(None), HEAD)
    assert environment.for_shell(without, "10.0.0.1:6379") == "RAY_ADDRESS=10.0.0.1:6379"


def test_ten_thousand_nodes_fit_into_a_variable() -> None:
    many = [f"10.{n >> 8}.{n & 255}.200" for n in range(10_000)]
    text = frameworks.exceptions({"http_proxy": "p"}, many)["no_proxy"]
    assert len(text) <= 64 * 1024
    assert text.split(",")[3:] == many[: len(text.split(",")) - 3]
