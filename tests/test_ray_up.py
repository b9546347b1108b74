"""Ray's own cluster launcher, `ray up` to `ray down`, with examples/ray-up over a real sshd."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ssh_hosts
import yaml
from hosts import MARK, Host, wait_for

TESTS = Path(__file__).parent
EXAMPLES = TESTS.parent / "examples" / "ray-up"
pytestmark = [pytest.mark.hosts, pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.requires("sshd", "rsync")]
CONFIG = "/shared/cluster.yaml"
WHERE = """
import sys, time, ray
ray.init(logging_level="error")  # the shell knows address and token

@ray.remote(num_cpus=1)
def where():
    time.sleep(0.5)
    return ray.util.get_node_ip_address()

while len(found := {*ray.get([where.remote() for _ in range(4)])}) < 2:
    pass
print("tasks ran on", *sorted(found))
"""
IN_THE_POOL = """
import ray
ray.init(logging_level="error")

@ray.remote(num_cpus=2, resources={"special": 1}, label_selector={"pool": "training"})
def where():
    return ray.util.get_node_ip_address()

print("a task ran on", ray.get(where.remote()))
"""
KEPT = re.compile(
    r"/tmp/(home|ray-bootstrap\.[0-9a-f]{8}(/agent\.log|/result\.json|/ray(/session_[^/]*(/logs(/.*)?)?)?)?)"
    r"|/tmp/(ray(/cluster-[^/]*\.(lock|state))?|ray_ssh_.*|ray-config-.*)"  # the launcher's own
)

DEFAULTS: dict[str, Any] = {
    "docker": {},
    "upscaling_speed": 1.0,
    "file_mounts_sync_continuously": False,
    "initialization_commands": [],
    "worker_setup_commands": [],
    "rsync_exclude": [],
    "rsync_filter": [],
}
"""What Ray adds to the configuration for each cloud that it knows (defaults.yaml)."""


@dataclass
class Cluster:
    """A machine on which Ray's launcher is called, and the hosts on which it starts a cluster, the head first."""

    caller: Host
    hosts: Sequence[Host]
    daemons: Sequence[subprocess.Popen[Any]]
    """sshd on each of these."""
    shared: Path
    key: Path

    def write(self, example: str, **changes: Any) -> None:
        """Write the launcher's configuration: the example without what the machine of the tests has already."""
        config: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text())
        config |= {"file_mounts": {}, "setup_commands": [], **changes}
        config["head_setup_commands"] = [each for each in config["head_setup_commands"] if "pip " not in each]
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.key)}
        quick = f"export AUTOSCALER_UPDATE_INTERVAL_S=1 PYTHONPATH={TESTS}\nulimit"
        small = " --detach --num-cpus=1 --object-store-memory=100Mi"
        for name in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[name] = [each.replace(" --detach", small).replace("ulimit", quick) for each in config[name]]
        (self.shared / "cluster.yaml").write_text(yaml.safe_dump(config))
        (self.shared / "where.py").write_text(WHERE)
        (self.shared / "in_the_pool.py").write_text(IN_THE_POOL)

    def ray(self, words: str, **env: str) -> str:
        """Call ``ray WORDS`` as a user does; return what it and the commands that it runs print."""
        env = {"HOME": ssh_hosts.HOME, "PYTHONPATH": str(TESTS), **env}
        done = self.caller.run(["sh", "-c", f"ray {words} 2>&1"], env=env, timeout=200, check=False)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def log(self, host: Host) -> str:
        """Return what the agents have said on a host."""
        return host.run(["sh", "-c", "cat /tmp/ray-bootstrap.*/agent.log"], check=False).stdout

    def check_that_nothing_is_left(self) -> None:
        """Stop sshd, then look for processes, ports and files."""
        for host, daemon in zip(self.hosts, self.daemons, strict=True):
            daemon.terminate()
            wait_for(lambda host=host: host.leftovers() == [], 30, f"the end of ssh's sessions on {host.name}")
            assert host.sockets() == frozenset()
            found = host.run(["find", "/dev/shm", "/tmp", "-xdev", "-mindepth", "1"]).stdout.splitlines()
            mounts = [line.split()[1] for line in host.read("/proc/self/mounts").splitlines()]
            foreign = {name for name in found if any(f"{mount}/".startswith(f"{name}/") for mount in mounts)}
            assert [name for name in found if name not in foreign and not KEPT.fullmatch(name)] == []


@pytest.fixture
def cluster(make_hosts: Callable[..., Any], tmp_path: Path, nothing_left: dict[str, str]) -> Cluster:
    hosts = make_hosts(3, shm_size="2g")
    key = ssh_hosts.make_keys(tmp_path)
    ssh_hosts.give_homes(hosts, tmp_path)
    daemons = ssh_hosts.start_sshd(hosts[:2], tmp_path, nothing_left[MARK])
    return Cluster(hosts[2], hosts[:2], daemons, hosts.shared, key)


def test_ray_up_exec_and_down_on_machines_of_ones_own(cluster: Cluster) -> None:
    """The autoscaler brings the worker, tasks run on both nodes, and the end of the head's Ray is that of the run."""
    head, worker = (host.ip for host in cluster.hosts)
    provider = {"type": "local", "head_ip": head, "worker_ips": [worker]}
    cluster.write("local", provider=provider, min_workers=1, max_workers=1)
    out = cluster.ray(f"up --yes {CONFIG}", RAY_UP_enable_autoscaler_v2="0")  # docs/ray-up.md says why
    assert "quorum reached: 1 node" in out
    assert "Ray runtime will not be started" not in out
    out = cluster.ray(f"exec {CONFIG} 'python /shared/where.py && ray status'")
    assert f"tasks ran on {head} {worker}" in out
    assert "/2.0 CPU" in out
    cluster.ray(f"down --yes {CONFIG}")
    for host in cluster.hosts:
        said = cluster.log(host)
        assert "was asked to end (received SIGTERM), as by `ray stop`, `ray down`" in said
        assert "exit status 143 (from ray-bootstrap: stopped)" in said.splitlines()[-1]
    cluster.check_that_nothing_is_left()


def test_the_autoscaler_adds_a_node_of_the_right_type_and_removes_it_when_idle(cluster: Cluster) -> None:
    """Its second version, which the clouds use, with a stand-in for their SDK; the run goes on without the node."""
    head, worker = (host.ip for host in cluster.hosts)
    state = cluster.shared / "cloud.json"
    cloud = {"type": "external", "module": "stand_in_cloud.Cloud", "machines": [head, worker]}
    special = {"resources": {"CPU": 3, "special": 2}, "labels": {"pool": "training"}, "max_workers": 1}
    cluster.write(
        "aws",
        **DEFAULTS,
        provider={**cloud, "state": "/shared/cloud.json"},
        available_node_types={
            "head_node": {"node_config": {}, "resources": {"CPU": 1}},
            "worker_node": {"node_config": {}, **special},
        },
        max_workers=1,
        idle_timeout_minutes=0.05,
    )
    cluster.ray(f"up --yes {CONFIG}")
    assert f"a task ran on {worker}" in cluster.ray(f"exec {CONFIG} 'python /shared/in_the_pool.py'")
    wait_for(lambda: list(json.loads(state.read_text())) == [head], 90, "the end of the idle machine")
    idle = "rank 1 (node-1) left: Ray's raylet on node-1 was asked to end (Termination of node that's idle for "
    assert idle in cluster.log(cluster.hosts[0])
    assert "exit status 143" in cluster.log(cluster.hosts[1]).splitlines()[-1]
    assert "exit status" not in cluster.log(cluster.hosts[0])
    cluster.hosts[0].run(["ray-bootstrap", "down"])
    cluster.check_that_nothing_is_left()
