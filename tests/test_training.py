"""A real training job, Gloo over several nodes, where the hosts file would break it (docs/ray.md, "Gloo")."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest
from cluster import nothing_left, start

EXAMPLE = Path(__file__).parent.parent / "examples" / "train_gloo.py"
RESULTS = {"STORAGE": "/shared/train"}
pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.requires("torch")]


def assert_trained_and_gone(hosts, output):
    assert f"trained on {len(hosts)} nodes" in output
    assert (hosts.shared / "train").is_dir()
    for host in hosts:  # the job's own files: its results, torch's cache
        host.run(["rm", "-rf", "/shared/train", "/tmp/torchinductor_root"])
    nothing_left(hosts)


def test_gloo_trains_where_the_hosts_file_cannot_be_written(make_hosts):
    """Where it can, the next test trains."""
    hosts = make_hosts(2, hosts_file="read-only", shm_size="2g")
    agents = start(hosts, "--shared-dir=/shared", workload=[sys.executable, str(EXAMPLE)], env=RESULTS)
    assert agents.wait(seconds=240) == [0, 0]
    for host in hosts:
        assert f"{host.ip} {host.name}" not in host.hosts_text
    assert_trained_and_gone(hosts, agents.out(0))


WAITING = f"until test -e /shared/go; do sleep 0.1; done; rm /shared/go; exec {sys.executable} {EXAMPLE}"
CERTIFICATE = "import ssl, sys; print(ssl.get_server_certificate((sys.argv[1], 6379)))"


def test_gloo_trains_over_tls_with_a_node_that_joins_late(make_hosts):
    """With a token, too, and Debian's hosts file. The agents certify each other; each node's files go with it."""
    hosts = make_hosts(3, hosts_file="127.0.1.1", shm_size="2g")
    options = ["--shared-dir=/shared", "--tls=required", "--min-nodes=2", "--last-call=0s"]
    agents = start(hosts[:2], *options, size=3, workload=["sh", "-c", WAITING], env=RESULTS)
    agents.says(0, "quorum reached: 2 nodes")
    late = start([hosts[2]], *options, size=3, env=RESULTS, extra={0: ["--rank=2"]})
    late.says(0, "joined")
    seen = hosts[2].run([sys.executable, "-c", CERTIFICATE, hosts[0].ip]).stdout
    assert hosts[0].ip.encode() in bytes(ssl.PEM_cert_to_DER_cert(seen))
    for host in hosts:
        found = host.run(["sh", "-c", "stat -c '%a %n' /tmp/ray-bootstrap.*/*.crt /tmp/ray-bootstrap.*/tls.key"]).stdout
        assert [line.split(" ")[0] for line in found.splitlines()] == ["600"] * 3
    (hosts.shared / "go").touch()
    assert agents.wait(seconds=240) == [0, 0]
    assert late.wait() == [0]
    for host in hosts:
        assert f"{host.ip} {host.name}" in host.hosts_text
        assert "127.0.1.1" not in host.hosts_text
    assert_trained_and_gone(hosts, agents.out(0))
