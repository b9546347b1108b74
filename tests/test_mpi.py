"""Two hosts that a real mpirun (Open MPI) or mpiexec (MPICH's Hydra) starts, with a fake Ray.

Both reach the hosts over a remote shell, as ever; here it is one that enters a host's namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents import FAKE_RAY
from cluster import AGENT, nothing_left
from hosts import MARK, Host, Hosts, wait_for

pytestmark = [pytest.mark.hosts, pytest.mark.requires("openmpi", "mpich"), pytest.mark.timeout(120)]

SECONDS = 30.0
"""For anything here; it takes a tenth of it."""
RESULT = "/tmp/home/result"
REMOTE_SHELL = """\
#!/bin/sh
# HOST COMMAND..., as ssh: the user's shell there reads the command.
case $1 in
{hosts}
*) echo "no host $1" >&2; exit 255 ;;
esac
shift
exec nsenter --target "$init" --mount --uts --net --ipc --pid -- env -i {environment} sh -c "cd; $*"
"""


@dataclass(frozen=True)
class Launcher:
    """How to type it for node-0 and node-1, with the remote shell behind the last word of ``argv``."""

    argv: Sequence[str]
    one_per_node: Sequence[str]
    two_per_node: Sequence[str]
    cut_off: tuple[int, str]
    """Status and source of a rank that it ends because another one's node is lost."""
    run_id: Sequence[str] = ()
    """Options of ours, for a launcher whose variables do not name the run."""


LAUNCHERS = {
    "openmpi": Launcher(
        ("mpirun.openmpi", "--allow-run-as-root", "--host", "node-0:2,node-1:2", "--mca", "plm_rsh_agent"),
        one_per_node=("--map-by", "ppr:1:node", "--bind-to", "none"),
        two_per_node=("--map-by", "ppr:2:node"),
        cut_off=(143, "stopped"),
    ),
    "hydra": Launcher(
        ("mpiexec.hydra", "-hosts", "node-0:2,node-1:2", "-bootstrap", "rsh", "-bootstrap-exec"),
        one_per_node=("-ppn", "1"),
        two_per_node=("-ppn", "2"),
        cut_off=(76, "ray-died"),
        run_id=("--run-id=job-17",),
    ),
}


@dataclass
class Site:
    """Two nodes, and a host where the launcher is typed."""

    name: str
    nodes: Sequence[Host]
    login: Host
    shared: Path
    folder: Path

    @property
    def launcher(self) -> Launcher:
        return LAUNCHERS[self.name]

    @property
    def output(self) -> str:
        """What the launcher has passed on so far, of all ranks."""
        return (self.folder / "output").read_text(errors="replace")

    @contextlib.contextmanager
    def run(self, how: Sequence[str], *workload: str) -> Iterator[subprocess.Popen[bytes]]:
        """The launcher, and with it the agents.

        It has the third host's files and address, but the tests' own PID namespace: no process in one host's can enter
        another's (setns(2)).
        """
        enter = ["nsenter", "--target", str(self.login.init), "--mount", "--uts", "--net", "--ipc", "--"]
        enter += ["unshare", "--mount", "--mount-proc", "--", *self.launcher.argv, f"{self.folder}/remote-shell"]
        fake = {"PYTHONPATH": FAKE_RAY, "FAKE_RAY_CLUSTER": "/shared/cluster", "FAKE_RAY_RECORD": "/tmp/home/record"}
        agent = ["env", *(f"{name}={value}" for name, value in fake.items()), *AGENT, *self.launcher.run_id]
        options = ["--shared-dir=/shared", "--num-cpus=1", f"--result-file={RESULT}"]
        argv = [*enter, *how, *agent, *options, "--", *workload]
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment())
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def ended(self, node: Host) -> tuple[int, str]:
        """This node's exit status, and whose it is; from the result, since a launcher may lose a rank's last lines."""
        result = json.loads(node.read(RESULT))
        return result["status"], result["source"]

    def says(self, *texts: str) -> None:
        """Waits until the ranks have said all of these."""
        try:
            wait_for(lambda: all(text in self.output for text in texts), SECONDS)
        except TimeoutError:
            raise AssertionError(f"not {texts}: {self.output}") from None

    def nothing_left(self, *nodes: Host) -> None:
        """Nothing of an agent, nor of the launcher's daemons, which may end later than their launcher."""
        for node in nodes or self.nodes:
            wait_for(lambda: not node.leftovers(), SECONDS, f"an end of {node.leftovers()}")  # noqa: B023
        nothing_left(nodes or self.nodes, shared=False)


def environment() -> dict[str, str]:
    """The launcher's, and that of the remote shell."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/tmp/home", MARK: os.environ[MARK]}


@pytest.fixture(params=LAUNCHERS)
def site(request: pytest.FixtureRequest, make_hosts, tmp_path: Path) -> Site:
    hosts: Hosts = make_hosts(3)
    for host in hosts:  # a bind mount shows the file, not the name: in place
        (host.base / "hosts").write_text("".join(f"{each.ip} {each.name}\n" for each in hosts))
    cases = "\n".join(f"{host.name}) init={host.init} ;;" for host in hosts)
    words = " ".join(f"{name}={value}" for name, value in environment().items())
    shell = tmp_path / "remote-shell"
    shell.write_text(REMOTE_SHELL.format(hosts=cases, environment=words))
    shell.chmod(0o755)
    (hosts.shared / "cluster").mkdir()
    return Site(request.param, hosts[:2], hosts[2], hosts.shared, tmp_path)


def test_the_workload_runs_on_rank_0_and_its_status_is_everyones(site):
    workload = "echo $RAY_BOOTSTRAP_CLUSTER_NODES nodes, on $(hostname) with $(nproc) CPUs; exit 3"
    with site.run(site.launcher.one_per_node, "sh", "-c", workload) as launcher:
        assert launcher.wait(SECONDS) == 3, site.output
    cpus = len(os.sched_getaffinity(0))
    assert re.findall(r"^\d+ nodes, .*", site.output, re.MULTILINE) == [f"2 nodes, on node-0 with {cpus} CPUs"]
    assert [site.ended(node) for node in site.nodes] == [(3, "workload")] * 2
    assert site.output.count(f"(launcher {site.name}; rank: ") == 2
    assert "also matches" not in site.output
    site.nothing_left()


def test_two_processes_on_a_node_are_refused(site):
    """The remedy is how the other tests type it."""
    with site.run(site.launcher.two_per_node, "touch", "/shared/ran") as launcher:
        assert launcher.wait(SECONDS) == 65, site.output
    assert "='2': several processes were started on this node, expected one" in site.output
    remedies = re.findall(r"^ +fix: mpi\w+ (.*) ray-bootstrap [.]{3}$", site.output, re.MULTILINE)
    assert set(remedies) == {" ".join(site.launcher.one_per_node)}, site.output
    assert not (site.shared / "ran").exists()
    site.nothing_left()


UNTIL_GO = ("sh", "-c", "echo at work; until test -e /shared/go; do sleep 0.1; done")


def test_a_launcher_that_is_told_to_stop_ends_all_ranks(site):
    """Open MPI leaves them 1 s from SIGTERM to SIGKILL, its version 5 0.25 s, Hydra any time.

    What the launcher itself then returns says nothing: Open MPI 1; Hydra 143, or 0 if its proxy has seen the end of a
    rank's output before the rank's own (forced_cleanup in pmip.c of MPICH 4.0).
    """
    with site.run(site.launcher.one_per_node, *UNTIL_GO) as launcher:
        site.says("at work", "joined 10.77.")
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(SECONDS)
    site.nothing_left()
    assert [site.ended(node) for node in site.nodes] == [(143, "stopped")] * 2


def test_a_lost_node_ends_the_run_on_the_other_one(site):
    """No launcher here goes on without a node: Open MPI's daemon ends the other ranks with SIGTERM, Hydra's by SIGKILL.

    That kills a rank's supervisor alone, and those below it clear up. The launcher's own status does not count: that of
    Open MPI 5 is 0.
    """
    with site.run(site.launcher.one_per_node, *UNTIL_GO) as launcher:
        site.says("at work", "joined 10.77.")
        site.nodes[1].kill()
        launcher.wait(SECONDS)
    site.nothing_left(site.nodes[0])
    assert site.ended(site.nodes[0]) == site.launcher.cut_off
