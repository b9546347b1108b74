"""``rehearse`` as an ordinary user: real hosts, real agents; a fake Ray where the faults are ours, the real one where
Ray or a training must bear them.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hosts import MARK, wait_for
from survivors import marked
from unprivileged import NOBODY, as_nobody

from bootstrap.launchers import LAUNCHERS

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "examples"
NEEDS = ("linux", "root", "ip", "unshare", "nsenter", "setpriv", "namespaces", "user-namespaces")
CLOSED = ["unshare", "--user", "--map-root-user", "--", "sh", "-c"]
CLOSE = 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all -- "$0" "$@"'
"""No more user namespaces in this one, and without the capabilities to do without; the machine's limit stays."""
FEW_FILES = ["sh", "-c", 'ulimit -Sn 60; exec "$0" "$@"']
REHEARSABLE = [row.name for row in LAUNCHERS if row.environment is not None]

pytestmark = [pytest.mark.requires(*NEEDS), pytest.mark.timeout(300)]


class Site:
    """A folder of the ordinary user's, in which rehearsals are started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        (folder / "cluster").mkdir()
        for path in (folder, folder / "cluster"):
            os.chown(path, NOBODY, NOBODY)

    def start(
        self,
        *argv: str,
        fake: bool = True,
        closed: bool = False,
        inside: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts ``rehearse``, ``inside`` another command; its output goes to the files out and err."""
        pretend = {
            "PYTHONPATH": str(REPOSITORY / "tests" / "fake_ray"),
            "FAKE_RAY_CLUSTER": str(self.folder / "cluster"),
            "FAKE_RAY_RECORD": "/tmp/fake-ray-record",
        }
        whole = {**os.environ, "HOME": str(self.folder), **(pretend if fake else {}), **(env or {})}
        command = [sys.executable, "-m", "bootstrap", "rehearse", *argv]
        command = as_nobody(*([*CLOSED, CLOSE] if closed else inside), *command, needs=[self.folder])
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(
                command, cwd=self.folder, env=whole, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self._started.append(process)
        return process

    def run(
        self,
        *argv: str,
        fake: bool = True,
        closed: bool = False,
        env: Mapping[str, str] | None = None,
        seconds: float = 60,
    ) -> int:
        """Its exit status."""
        try:
            return self.start(*argv, fake=fake, closed=closed, env=env).wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended within {seconds:g} s:\n{self.err}\n{self.out}") from None

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Of the table at the end: each node's status, and why."""
        _, _, table = self.err.partition("the rehearsal has ended:")
        cells = [re.split(" {2,}", line.strip()) for line in table.splitlines()[2:]]
        assert cells, self.err
        return [(row[2], row[4]) for row in cells]

    def says(self, pattern: str, seconds: float = 60) -> None:
        wait_for(lambda: re.search(pattern, self.err), seconds, f"{pattern!r} in\n{self.err}")

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def shell(script: str) -> list[str]:
    return ["--", "sh", "-c", script]


UNTIL_GONE = shell("trap 'echo stopped; exit 0' TERM INT; echo on; while :; do sleep 0.1; done")


def test_every_node_has_a_host_of_its_own_and_the_status_is_the_heads(site):
    show = "id -u; uname -n; hostname -i; ls /tmp | grep -c ray-bootstrap; echo $RAY_BOOTSTRAP_NUM_CPUS >&2; exit 7"
    assert site.run("--nodes=3", "--num-cpus=1", *shell(show)) == 7, site.err
    assert site.out == "node-0 | 65534\nnode-0 | node-0\nnode-0 | 10.77.0.10\nnode-0 | 1\n"
    assert site.rows == [("7", "the workload ended with status 7")] * 3
    for rank in range(3):
        assert re.search(rf"^node-{rank} \| ray-bootstrap .* rank {rank}: exit status 7 ", site.err, re.MULTILINE)
    assert sorted(path.name for path in site.folder.iterdir()) == ["cluster", "err", "out"]


def test_without_user_namespaces_the_agents_share_a_machine_and_that_is_said(site):
    late = ["--late=1=1s", "--kill=2@workload+0.3s"]
    assert site.run("--nodes=3", *late, *shell("sleep 2; hostname; exit 7"), closed=True) == 7, site.err
    assert (
        "no hosts of their own, since a user namespace: No space left on device: user.max_user_namespaces" in site.err
    )
    assert "fix: sudo sysctl -w user.max_user_namespaces=10000" in site.err
    assert site.out == f"node-0 | {os.uname().nodename}\n"
    first, second, third = site.rows
    assert (first, second) == (("7", "the workload ended with status 7"),) * 2
    assert third == ("137", "killed by --kill 2@workload+0.3s")
    assert re.search(r"--late 1=1s: node-1 starts 1 s after the others", site.err)


def test_faults_happen_when_they_are_due_and_the_statuses_are_the_agents(site):
    (site.folder / "faults").write_text("# a bad day\nlate 3=1s\nstop 2@workload+0.5s\nrefuse 3:1234\n")
    asked = ["--nodes=4", "--kill=1@workload+0.2s", "--kill=0@300s", f"--faults={site.folder}/faults"]
    assert site.run(*asked, "--cut=1@workload+1s+1s", *shell("sleep 4")) == 0, site.err
    assert [row[0] for row in site.rows] == ["0", "137", "143", "0"]
    assert site.rows[1][1] == "killed by --kill 1@workload+0.2s"
    assert site.rows[2][1] == "stopped by SIGTERM"
    happened = [site.err.index(text) for text in ("--kill 1@workload+0.2s: node-1 is killed", "node-2 gets SIGTERM")]
    assert happened == sorted(happened)
    assert "warning: --kill 0@300s has not happened: the run ended before" in site.err
    assert "warning: --cut 1@workload+1s+1s has not happened: node-1 was not running" in site.err
    assert "rank 1 (node-1) lost" in site.err


def test_a_node_that_is_cut_off_is_lost_and_its_status_says_so(site):
    asked = ["--nodes=2", "--heartbeat-timeout=1s", "--cut=1@workload+0s+6s", "--on-node-loss=fail"]
    assert site.run(*asked, *UNTIL_GONE) == 76, site.err
    assert [row[0] for row in site.rows] == ["76", "76"]
    assert "node-1 is cut off" in site.err
    assert "--on-node-loss=fail, and rank 1 (node-1) was lost" in site.rows[0][1]


def test_many_nodes_do_not_run_out_of_open_files(site):
    assert site.start("--nodes=10", "--", "true", inside=FEW_FILES).wait(60) == 0, site.err


def test_a_reader_that_stalls_holds_up_neither_ctrl_c_nor_a_fault(site):
    os.mkfifo(site.folder / "out")
    held = os.open(site.folder / "out", os.O_RDWR)  # a reader that never reads
    process = site.start("--nodes=2", "--grace=1s", "--kill=1@workload+2s", "--", "yes")
    site.says("node-1 is killed")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, site.err
    assert [row[0] for row in site.rows] == ["130", "137"]
    os.close(held)


def test_ctrl_c_reaches_every_node_once_and_all_end_in_order(site):
    process = site.start("--nodes=2", *UNTIL_GONE)
    wait_for(lambda: "on" in site.out, 60)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, site.err
    assert site.out == "node-0 | on\nnode-0 | stopped\n"
    assert [row[0] for row in site.rows] == ["130", "130"]
    assert "a second signal" in site.err
    assert "no more grace" not in site.err


@pytest.mark.parametrize("closed", [False, True], ids=["hosts", "loopback"])
def test_a_signal_that_is_ignored_as_by_nohup_stops_nothing(site, closed):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = site.start("--nodes=2", *UNTIL_GONE, closed=closed)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(lambda: "on" in site.out, 60)
    for signum in (signal.SIGHUP, signal.SIGTERM):
        process.send_signal(signum)
    assert process.wait(30) == 143, site.err
    assert "SIGHUP" not in site.err


@pytest.mark.parametrize("closed", [False, True], ids=["hosts", "loopback"])
def test_nothing_outlives_the_command(site, closed):
    """By itself the kernel ends what is on the hosts; agents without them get SIGTERM, and end the run in order."""
    process = site.start("--nodes=2", "--grace=1s", *UNTIL_GONE, closed=closed)
    wait_for(lambda: "on" in site.out, 60)
    process.kill()
    process.wait(30)
    wait_for(lambda: not marked(f"{MARK}={os.environ[MARK]}"), 20 if closed else 3, "the end of all that it started")


@pytest.mark.parametrize("row", REHEARSABLE)
def test_nodes_as_each_launcher_starts_them_find_their_head(site, row):
    polluted = {"SLURM_JOB_ID": "99", "RANK": "5", "JOB_COMPLETION_INDEX": "3", "RAY_ADDRESS": "10.0.0.9:6379"}
    status = site.run("--nodes=2", f"--as={row}", *shell("exit 3"), env=polluted)
    assert status == 3, site.err
    assert [status for status, _ in site.rows] == ["3", "3"]
    assert len(re.findall(rf"rank \d of 2, of run '.+' \(launcher {row}; ", site.err)) == 2, site.err
    assert "is not unique" not in site.err


def lines(text: str, of: Sequence[str]) -> list[str]:
    return [line for line in text.splitlines() if any(part in line for part in of)]


@pytest.mark.ray
@pytest.mark.hosts
@pytest.mark.parametrize("closed", [False, True], ids=["hosts", "loopback"])
def test_the_demo_brings_up_four_nodes_of_real_ray(site, closed):
    recipe = re.search(r"ray-bootstrap rehearse (.+)", (REPOSITORY / "Makefile").read_text())
    assert recipe is not None
    words = [
        {"$(BIN)/python": sys.executable, "examples/count_gpus.py": str(EXAMPLES / "count_gpus.py")}.get(word, word)
        for word in recipe[1].split()
    ]
    assert site.run("--gpus=8", *words, "--gpus=32", fake=False, closed=closed, seconds=150) == 0, site.err
    assert "PASS: 4 nodes, 32 GPUs, 4 nodes ran a task" in site.out
    addresses = set(re.findall(r"(?:10\.77\.0|127\.\d+\.0)\.\d+", site.out))
    assert len(addresses) == 4, site.out


TRAIN = [sys.executable, str(EXAMPLES / "train_on.py")]
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}
"""Ray notices a node that is gone after a few seconds, not half a minute."""


@pytest.mark.ray
@pytest.mark.hosts
@pytest.mark.requires("torch")
def test_a_training_bears_a_node_that_is_late_slow_and_cut_off_for_a_while(site):
    """And Debian's hosts file, by which Gloo would find no peer if the agents did not mend it."""
    faults = ["--late=1=2s", "--slow=1=5ms", "--cut=1@workload+6s+2s", "--hosts-file=loopback"]
    train = ["--", sys.executable, str(EXAMPLES / "train_gloo.py")]
    env = {"STORAGE": "/shared/train"}
    assert site.run("--nodes=2", *faults, *train, fake=False, env=env, seconds=200) == 0, site.err
    assert "trained on 2 nodes" in site.out
    assert "node-1 is connected again" in site.err
    assert [row[0] for row in site.rows] == ["0", "0"]


@pytest.mark.ray
@pytest.mark.hosts
@pytest.mark.requires("torch")
def test_a_training_goes_on_from_its_checkpoint_without_the_node_that_was_killed(site):
    asked = ["--nodes=3", "--head-cpus=0", "--num-cpus=2", "--kill=2@workload+40s"]
    env = {**QUICK, "EPOCHS": "22", "STORAGE": "/shared/train"}
    assert site.run(*asked, "--", *TRAIN, fake=False, env=env, seconds=240) == 0, site.err
    assert re.search("goes on after epoch [1-9]", site.out + site.err)
    assert "trained to epoch 22" in site.out
    assert [row[0] for row in site.rows] == ["0", "0", "137"]


@pytest.mark.ray
@pytest.mark.hosts
@pytest.mark.requires("torch")
def test_a_training_that_is_preempted_has_its_grace(site):
    env = {"EPOCHS": "1000", "STORAGE": "/shared/train"}
    assert site.run("--nodes=2", "--stop=0@workload+15s", "--", *TRAIN, fake=False, env=env, seconds=120) == 143, (
        site.err
    )
    assert "stopped; the last epoch is saved" in site.out
    assert [row[0] for row in site.rows] == ["143", "143"]


@pytest.mark.ray
@pytest.mark.hosts
def test_a_port_that_one_node_rejects_is_named_before_a_training_starts(site):
    asked = ["--nodes=2", "--refuse=0:6379", "--quorum-timeout=20s"]
    assert site.run(*asked, "--", *TRAIN, fake=False, seconds=120) in (69, 75), site.err
    assert "6379" in site.rows[0][1] + "".join(lines(site.err, ["error:", "GCS"]))
