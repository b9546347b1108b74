"""A real training job, Gloo over two nodes, where the hosts file would break it (docs/ray.md, "Gloo")."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cluster import nothing_left, start

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_gloo.py"
pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.requires("torch")]


@pytest.mark.parametrize("hosts_file", ["absent", "127.0.1.1", "read-only"])
def test_gloo_trains_whatever_the_hosts_file_said(make_hosts, hosts_file):
    hosts = make_hosts(2, hosts_file=hosts_file, shm_size="2g")
    env = {"STORAGE": "/shared/train"}
    agents = start(hosts, "--shared-dir=/shared", workload=[sys.executable, str(EXAMPLE)], env=env)
    assert agents.wait(seconds=240) == [0, 0]
    assert "trained on 2 nodes" in agents.out(0)
    for host in hosts:
        if hosts_file == "read-only":
            assert host.name not in host.hosts_text
        else:
            assert f"{host.ip} {host.name}" in host.hosts_text
            assert "127.0.1.1" not in host.hosts_text
    assert (hosts.shared / "train").is_dir()
    for host in hosts:  # the job's own files: its results, torch's cache
        host.run(["rm", "-rf", "/shared/train", "/tmp/torchinductor_root"])
    nothing_left(hosts)
