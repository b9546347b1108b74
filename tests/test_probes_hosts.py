"""What the probes say of networks that are broken, on hosts with addresses of their own and a fake Ray."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cluster import AGENT, Agents, start

from bootstrap import timeouts

if TYPE_CHECKING:
    from hosts import Host, Hosts

pytestmark = [pytest.mark.hosts, pytest.mark.requires("nft"), pytest.mark.timeout(120)]

PORT = 7400
OPTIONS = ("--shared-dir=/shared", f"--probe-port={PORT}", "--auth=auto")
SECONDS = 15.0
"""By then the head has said it."""
PROBE_S = 2
"""Instead of five, which is for networks that lose packets."""
FAKE_RAY = Path(__file__).parent / "fake_ray"
WORKLOAD = ["sh", "-c", "until test -e /shared/go; do sleep 0.1; done"]


def fake(hosts: Hosts) -> dict[str, str]:
    (hosts.shared / "cluster").mkdir(exist_ok=True)
    patch = f"from bootstrap import timeouts\ntimeouts.PROBE_S = {PROBE_S}"
    (hosts.shared / "sitecustomize.py").write_text(patch)
    return {
        "PYTHONPATH": f"/shared:{FAKE_RAY}",
        "FAKE_RAY_CLUSTER": "/shared/cluster",
        "FAKE_RAY_RECORD": "/tmp/record",
    }


def drop(host: Host, rule: str, hook: str = "input") -> None:
    """Drop the packets that match on their way in, without an answer."""
    chain = f"add chain inet rb {hook} {{ type filter hook {hook} priority 0; }}"
    host.run(["nft", f"add table inet rb; {chain}; add rule inet rb {hook} {rule} drop"])


def warnings(agents: Agents) -> list[str]:
    """What the head has said of pairs of nodes."""
    said = [line.partition("warning: ")[2] for line in agents.err(0).splitlines()]
    return [line for line in said if any(word in line for word in ("reach", "bad pairs", "MTU"))]


def run(hosts: Hosts, *options: str, **more: Any) -> Agents:
    return start(hosts, *OPTIONS, *options, workload=WORKLOAD, env=fake(hosts), **more)


def finish(hosts: Hosts, agents: Agents) -> None:
    """A finding has ended nothing."""
    (hosts.shared / "go").touch()
    assert agents.wait() == [0] * len(hosts)


def test_one_direction_between_two_workers(make_hosts):
    hosts = make_hosts(3)
    drop(hosts[2], f"ip saddr {hosts[1].ip} tcp dport {PORT}")
    agents = run(hosts)
    agents.says(0, "does not reach", SECONDS)
    finish(hosts, agents)
    (line,) = warnings(agents)
    where = f"{hosts[2].ip}:{PORT} (its probe port)"
    assert line.startswith(
        f"rank 1 (node-1) does not reach rank 2 (node-2) at {where}: no answer in {PROBE_S} s; fix: "
    )


def test_a_node_that_nobody_reaches_is_named(make_hosts):
    hosts = make_hosts(3)
    drop(hosts[2], f"tcp dport {PORT}")
    agents = run(hosts)
    agents.says(0, "bad pairs", SECONDS)
    finish(hosts, agents)
    *pairs, common = warnings(agents)
    assert [line.partition(" at ")[0] for line in pairs] == [
        "the head (node-0) does not reach rank 2 (node-2)",
        "rank 1 (node-1) does not reach rank 2 (node-2)",
    ]
    assert common.startswith("rank 2 (node-2) is in 2 of 2 bad pairs, as the one that is not reached")


def test_gcs_behind_a_firewall(make_hosts):
    hosts = make_hosts(3)
    drop(hosts[0], f"ip saddr {hosts[2].ip} tcp dport 6379")
    agents = run(hosts)
    agents.says(0, "reaches the roll call but not GCS", SECONDS)
    finish(hosts, agents)
    (line,) = warnings(agents)
    assert line.startswith(
        f"rank 2 (node-2) reaches the roll call but not GCS {hosts[0].ip}:6379 (no answer in {PROBE_S} s); fix: "
    )


def test_large_packets_get_lost(make_hosts):
    hosts = make_hosts(2)
    drop(hosts[1], "meta length > 1000")
    agents = run(hosts)
    agents.says(0, "an MTU black hole?", SECONDS)
    finish(hosts, agents)
    assert any(
        line.startswith("the head (node-0) -> rank 1 (node-1)") and "way there" in line for line in warnings(agents)
    )


def test_an_address_at_which_the_node_is_not_reached(make_hosts):
    hosts = make_hosts(2)
    hosts[1].run(["ip", "link", "add", "other0", "type", "veth", "peer", "name", "other1"])
    hosts[1].run(["ip", "address", "add", "192.168.50.2/24", "dev", "other0"])
    hosts[1].run(["ip", "link", "set", "other0", "up"])
    agents = run(hosts, extra={1: ["--node-ip=192.168.50.2"]})
    agents.says(0, "its connection comes from", SECONDS)
    finish(hosts, agents)
    line = next(line for line in warnings(agents) if line.startswith("the head"))
    assert f"at 192.168.50.2:{PORT}" in line
    assert f"its connection comes from {hosts[1].ip} (eth0); fix: --node-ip={hosts[1].ip} or --interface=eth0" in line


def test_rays_own_ports(make_hosts):
    """They are probed once Ray has registered the nodes, and a port of the workers' range, where the agent answers."""
    hosts = make_hosts(2)
    drop(hosts[1], "tcp dport { 8077, 10002-19999 }")
    agents = run(hosts, "--node-manager-port=8077")
    agents.says(0, "its node manager", SECONDS)
    finish(hosts, agents)
    (line,) = warnings(agents)
    assert f"at {hosts[1].ip}:8077 (its node manager), {hosts[1].ip}:" in line
    assert "(a port of its workers' range): no answer in 2 s" in line


def check_run(hosts: Hosts) -> Agents:
    agent = (*AGENT, "check", "--run")
    return start(hosts, *OPTIONS, agent=agent, env=fake(hosts))


def test_a_check_of_all_nodes(make_hosts):
    hosts = make_hosts(3)
    begun = time.monotonic()
    agents = check_run(hosts)
    assert agents.wait() == [0, 0, 0]
    assert max(agents.ended.values()) - begun < timeouts.PROBES_LAST_S
    *table, summary = agents.out(0).splitlines()
    assert [line.split() for line in table] == [
        ["from", "\\", "to", "0", "1", "2"],
        ["0", "node-0", ".", "ok", "ok"],
        ["1", "node-1", "ok", ".", "ok"],
        ["2", "node-2", "ok", "ok", "."],
    ]
    assert summary.startswith("6 of 6 pairs reach each other; median round trip ")
    assert not list((hosts.shared / "cluster").iterdir())  # no Ray was started


def test_a_check_that_finds_a_node_which_is_not_reached(make_hosts):
    hosts = make_hosts(3)
    drop(hosts[2], f"tcp dport {PORT}")
    agents = check_run(hosts)
    assert agents.wait() == [78, 78, 78]
    *table, _summary = agents.out(0).splitlines()
    assert [" ".join(line.split()) for line in table[1:3]] == ["0 node-0 . ok no answer", "1 node-1 ok . no answer"]
    for rank in range(3):
        assert "rank 2 (node-2) is in 2 of 2 bad pairs" in agents.err(rank)


def test_a_check_whose_nodes_do_not_all_come(make_hosts):
    hosts = make_hosts(2)
    agents = start(hosts, *OPTIONS, "--quorum-timeout=3", agent=(*AGENT, "check", "--run"), size=3, env=fake(hosts))
    assert agents.wait() == [75, 75]
    assert "2 of 3 nodes after 3 s\n    rank 2: never seen" in agents.err(0)
