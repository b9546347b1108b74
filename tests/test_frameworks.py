"""The jobs of examples/frameworks/ that need no GPU: the frameworks themselves, on two nodes with real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import nothing_left, start

REPOSITORY = Path(__file__).parent.parent
JOBS = {"daft": "rows by host: {'node-", "modin": "rows by host: {'node-", "verl": "step:3 - "}
"""What the job prints once its nodes have done their parts."""
pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(290)]


@pytest.fixture(scope="module")
def hosts(make_shared_hosts):
    return make_shared_hosts(2, hosts_file="127.0.1.1", shm_size="2g")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.requires(name)) for name in JOBS])
def test_a_framework_runs_on_all_nodes_of_a_run(hosts, name):
    script = REPOSITORY / "examples" / "frameworks" / name / "on-cpus.sh"
    installed = {"PYTHONPATH": str(REPOSITORY / ".frameworks" / name)}
    agents = start(hosts, "--shared-dir=/shared", agent=["sh", str(script)], env=installed, run=name)
    assert agents.wait(seconds=260) == [0, 0]
    assert JOBS[name] in agents.out(0)
    for host in hosts:  # the job's own files
        host.run(["sh", "-c", f"rm -rf /shared/{name} /tmp/home/* /tmp/torchinductor_root /tmp/ckpt_*.lock"])
    nothing_left(hosts)
