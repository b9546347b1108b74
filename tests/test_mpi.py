"""Two hosts that a real Open MPI or MPICH starts, each over a remote shell that enters the host; with a fake Ray."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents import FAKE_RAY
from hosts import MARK, Host, Hosts, wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.requires("openmpi", "mpich"), pytest.mark.timeout(120)]

SECONDS = 30.0
REMOTE_SHELL = """\
#!/bin/sh
# What mpirun calls in the place of ssh: HOST COMMAND..., which the user's shell there reads.
case $1 in
{hosts}
*) echo "no host $1" >&2; exit 255 ;;
esac
shift
exec nsenter --target "$init" --mount --uts --net --ipc --pid -- env -i {environment} sh -c "cd; $*"
"""


@dataclass(frozen=True)
class Launcher:
    """How to start on node-0 and node-1, and what the run then is called."""

    argv: tuple[str, ...]
    one_per_node: tuple[str, ...]
    two_per_node: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Of ray-bootstrap, where the launcher's variables do not say it."""


LAUNCHERS = {
    "openmpi": Launcher(
        ("mpirun.openmpi", "--allow-run-as-root", "--host", "node-0:2,node-1:2", "--mca", "plm_rsh_agent"),
        ("--map-by", "ppr:1:node"),
        ("--map-by", "ppr:2:node"),
    ),
    "hydra": Launcher(
        ("mpiexec.hydra", "-hosts", "node-0,node-1", "-bootstrap", "rsh", "-bootstrap-exec"),
        ("-ppn", "1", "-n", "2"),
        ("-ppn", "2", "-n", "4"),
        ("--run-id=job-17",),
    ),
}


@dataclass
class Site:
    """Two nodes, and a host where the launcher is called."""

    hosts: Hosts
    launcher: Launcher
    folder: Path

    @property
    def nodes(self) -> Sequence[Host]:
        return list(self.hosts)[:2]

    @property
    def output(self) -> str:
        """What the launcher has passed on so far, of all ranks."""
        return (self.folder / "output").read_text(errors="replace")

    @contextlib.contextmanager
    def run(self, how: Sequence[str], *workload: str) -> Iterator[subprocess.Popen[bytes]]:
        """The launcher, with the agent on each node.

        It has the third host's files and address, but the tests' PID namespace: out of one of two hosts there is no
        way into the other's.
        """
        enter = ["nsenter", "--target", str(self.hosts[2].init), "--mount", "--uts", "--net", "--ipc", "--"]
        enter += ["unshare", "--mount", "--mount-proc", "--"]
        (self.hosts.shared / "cluster").mkdir(exist_ok=True)
        fake = ["env", f"PYTHONPATH={FAKE_RAY}", "FAKE_RAY_CLUSTER=/shared/cluster", "FAKE_RAY_RECORD=/tmp/record"]
        agent = [sys.executable, "-m", "bootstrap", "--shared-dir=/shared", "--num-cpus=1", *self.launcher.options]
        argv = [*enter, *self.launcher.argv, f"{self.folder}/remote-shell", *how, *fake, *agent, "--", *workload]
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment())
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def prints(self, text: str, times: int = 1) -> None:
        try:
            wait_for(lambda: self.output.count(text) >= times, SECONDS)
        except TimeoutError:
            raise AssertionError(f"not {times} times {text!r}: {self.output}") from None

    def nothing_left(self, *hosts: Host) -> None:
        for host in hosts or self.nodes:
            wait_for(lambda: not host.leftovers(), what=f"no process on {host.name}")  # noqa: B023
            assert host.sockets() == frozenset()


def environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp/home", "USER": "root", MARK: os.environ[MARK]}


@pytest.fixture(params=LAUNCHERS)
def site(request: pytest.FixtureRequest, make_hosts, tmp_path: Path) -> Site:
    hosts = make_hosts(3)
    for host in hosts:
        # In place: a bind mount shows the file, not the name.
        (host.base / "hosts").write_text("".join(f"{each.ip} {each.name}\n" for each in hosts))
    shell = tmp_path / "remote-shell"
    cases = "\n".join(f"{host.name}) init={host.init} ;;" for host in hosts)
    words = " ".join(f"{name}={value}" for name, value in environment().items())
    shell.write_text(REMOTE_SHELL.format(hosts=cases, environment=words))
    shell.chmod(0o755)
    return Site(hosts, LAUNCHERS[request.param], tmp_path)


WORKLOAD = ("sh", "-c", "echo up on $(hostname) of $RAY_BOOTSTRAP_CLUSTER_NODES nodes; exit 3")
UNTIL_GO = ("sh", "-c", "echo up; until test -e /shared/go; do sleep 0.1; done")


def test_the_workload_runs_on_rank_0_and_its_status_is_everyones(site):
    with site.run(site.launcher.one_per_node, *WORKLOAD) as launcher:
        assert launcher.wait(SECONDS) == 3, site.output
    assert re.findall("^up on .*", site.output, re.MULTILINE) == ["up on node-0 of 2 nodes"]
    ends = re.findall(r" rank (\d): (.*exit status 3 \(from the workload\))", site.output)
    assert sorted(rank for rank, _ in ends) == ["0", "1"], site.output
    site.nothing_left()


def test_two_processes_on_a_node_are_refused_and_the_remedy_works(site):
    with site.run(site.launcher.two_per_node, "touch", "/shared/ran") as launcher:
        assert launcher.wait(SECONDS) == 65, site.output
    assert not (site.hosts.shared / "ran").exists()
    print(site.output)
    site.nothing_left()


def test_a_node_is_lost(site):
    with site.run(site.launcher.one_per_node, *UNTIL_GO) as launcher:
        site.prints("up")
        site.nodes[1].kill()
        print(launcher.wait(SECONDS))
    site.nothing_left(site.nodes[0])
    print(site.output)
    print(site.nodes[0].run(["sh","-c","find /tmp /dev/shm -newer /proc/1 ; ls -la /shared /tmp/ray* /tmp"]).stdout)


def test_a_signal(site):
    with site.run(site.launcher.one_per_node, *UNTIL_GO) as launcher:
        site.prints("up")
        launcher.send_signal(signal.SIGTERM)
        print(launcher.wait(SECONDS))
    site.nothing_left()
    print(site.output)
