"""Another secret on the nodes that Slurm names, on real hosts: only their own addresses count."""

from __future__ import annotations

import pytest
from cluster import AGENT, Agents, nothing_left

pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(120)]


def test_a_wrong_secret_ends_the_run_from_its_own_node_and_not_from_another(make_hosts):
    hosts = make_hosts(3, dns={})
    hosts.set_names({host.name: host.ip for host in hosts})

    def task(host, rank, secret):
        env = {
            "SLURM_JOB_ID": "42",
            "SLURM_STEP_ID": "0",
            "SLURM_NODEID": str(rank),
            "SLURM_LOCALID": "0",
            "SLURM_STEP_NUM_NODES": "2",
            "SLURM_STEP_NODELIST": "node-[0-1]",
            "RAY_BOOTSTRAP_SECRET": secret,
        }
        return host.popen([*AGENT, "--num-cpus=1", "--object-store-memory=100Mi", "--", "true"], env=env)

    secret, other = "correct horse battery staple", "some other secret than that"
    agents = Agents(hosts, [task(hosts[0], 0, secret)])
    agents.says(0, "the roll call is open")
    stranger = task(hosts[2], 1, other)  # on a node that is not of this step
    assert stranger.wait(60) == 77
    agents.says(0, f"rejected {hosts[2].ip}: its secret is not the head's")
    agents.says(0, "waiting for rank 1 (not seen)")
    assert agents.processes[0].poll() is None
    wrong = task(hosts[1], 1, other)
    assert wrong.wait(60) == 77
    assert agents.wait() == [77]
    assert "rank 1 (node-1): the secret there is not the head's; no other node is missing" in agents.err(0)
    nothing_left(hosts)
