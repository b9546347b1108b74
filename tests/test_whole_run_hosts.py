"""``wait``, ``status --run`` and ``down`` from a host that is no node of the run, with the fake Ray."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cluster import AGENT, nothing_left, start
from hosts import wait_for

if TYPE_CHECKING:
    from hosts import Host, Hosts

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

FAKE_RAY = Path(__file__).parent / "fake_ray"


def fake(hosts: Hosts, **more: str) -> dict[str, str]:
    (hosts.shared / "cluster").mkdir(exist_ok=True)
    names = {"FAKE_RAY_CLUSTER": "/shared/cluster", "FAKE_RAY_RECORD": "/tmp/home-record"}
    return {"PYTHONPATH": str(FAKE_RAY), **names, **more}


def ask(host: Host, env: dict[str, str], *argv: str) -> tuple[int, subprocess.Popen[Any]]:
    """The exit status of a command on this host."""
    process = host.popen([*AGENT, *argv], env=env)
    return process.wait(30), process


def test_a_host_beside_the_run_waits_looks_and_ends_it(make_hosts):
    *hosts, login = whole = make_hosts(3)
    env = fake(whole, RAY_BOOTSTRAP_SECRET="correct horse battery staple")
    mine = [f"--head-address={hosts[0].ip}", "--run-id=a-run"]
    early = login.popen([*AGENT, "wait", *mine], env=env)  # before there is a head
    agents = start(hosts, f"--head-address={hosts[0].ip}", env=env)
    assert early.wait(60) == 0
    assert login.out(early) == f"{hosts[0].ip}:6379\n"
    status, process = ask(login, env, "status", "--run", "--json", *mine)
    report = json.loads(login.out(process))
    assert (status, report["ready"]) == (0, True)
    assert [(row["host"], row["ip"], row["phase"]) for row in report["nodes"]] == [
        ("node-0", hosts[0].ip, "running"),
        ("node-1", hosts[1].ip, "joined"),
    ]
    status, process = ask(login, fake(whole), "down", *mine)
    assert (status, "the head has a secret, this node has no secret" in login.err(process)) == (77, True)
    status, process = ask(login, env, "down", "--status=3", *mine)
    assert status == 0
    # Their agents were gone when it returned; the last of their supervisors may take a moment.
    wait_for(lambda: [host.leftovers() for host in hosts] == [[], []], timeout=2)
    assert agents.wait() == [3, 3]
    for rank in range(2):
        last = agents.err(rank).splitlines()[-1]
        assert "exit status 3 (from ray-bootstrap: down): 'ray-bootstrap down' on node-2 (" in last
    status, process = ask(login, env, "down", *mine)  # which has no record of it
    assert status == 68
    nothing_left(hosts, shared=False)


def test_a_stranger_cannot_end_an_open_run_and_its_own_nodes_can(make_hosts):
    *hosts, stranger = whole = make_hosts(3)
    env = fake(whole)
    mine = [f"--head-address={hosts[0].ip}", "--run-id=a-run"]
    agents = start(hosts, f"--head-address={hosts[0].ip}", "--auth=off", env=env)
    assert ask(stranger, env, "wait", "--auth=off", *mine)[0] == 0  # what an open run lets everybody see
    for host in (stranger, hosts[1]):
        status, process = ask(host, env, "down", "--auth=off", *mine)
        assert status == 77
        assert "may end the run: its nodes share no secret" in host.err(process)
        assert "`ray-bootstrap down` on the head's node" in host.err(process)
    assert [process.poll() for process in agents.processes] == [None, None]
    assert ask(hosts[0], env, "down")[0] == 0  # the only run of this user there
    assert agents.wait() == [0, 0]
