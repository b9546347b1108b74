"""What may go wrong in a run, who notices, within what, and the exit status on each node.

The rows of docs/faults.md. A test that makes one of them happen passes the statuses that it measured to :func:`check`;
``test_faults.py`` demands such a test for each row. ``python tests/faults.py`` rewrites the tables in the document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "faults.md"
BEGIN, END = "<!-- tables: python tests/faults.py -->", "<!-- end of tables -->"


class Status(Enum):
    """What stands for an exit status that is not one number."""

    WORKLOAD = "the workload's"
    """The run goes on; the node ends with whatever the workload ends with."""
    SIGNAL = "128 + n"
    """Signal n stopped the run."""
    NONE = "–"
    """There is none: the machine is gone, or was never there; or there is no other node."""


WORKLOAD, SIGNAL, NONE = Status.WORKLOAD, Status.SIGNAL, Status.NONE


@dataclass(frozen=True)
class Fault:
    """A row."""

    what: str
    who: str
    """Who notices."""
    within: str
    there: int | Status
    """The exit status of the node where it happens, as its launcher sees it."""
    elsewhere: int | Status
    """The exit status of all other nodes."""


HEARTBEAT, ISOLATION = "`--heartbeat-timeout`", "`--isolation-timeout`"
QUORUM, SEARCH = "`--quorum-timeout`", "`--head-timeout`"
FAIL = "the same with `--on-node-loss=fail`"

_PROCESSES = {
    "head-supervisor": Fault(
        "the head's supervisor is killed", "the head's agent, by end of file on a pipe", "at once", 137, 76
    ),
    "head-standby": Fault("the head's standby is killed", "the head's supervisor, its parent", "at once", 137, 76),
    "head-agent": Fault(
        "the head's agent is killed", "its standby; the other agents, by end of file", "at once", 137, 76
    ),
    "head-any-two": Fault(
        "any two of these three are killed in one instant", "the third; the other agents", "at once", 137, 76
    ),
    "head-all-three": Fault(
        "all three are killed in one instant",
        "the other agents, by end of file; the user's next run on that node, which ends Ray and the workload there",
        "at once; at that run",
        137,
        76,
    ),
    "pid-1": Fault(
        "PID 1 of the head's container is killed",
        "the kernel, which ends all that is in the container; the other agents, by end of file",
        "at once",
        137,
        76,
    ),
    "worker-process": Fault(
        "a worker's supervisor, standby or agent is killed",
        "the processes that are left; the head, by a message or end of file",
        "at once",
        137,
        WORKLOAD,
    ),
    "worker-process-fail": Fault(FAIL, "the same", "at once", 137, 76),
    "worker-all-three": Fault(
        "a worker's three processes are killed in one instant",
        "the head, by end of file; the user's next run on that node, which ends Ray there",
        "at once; at that run",
        137,
        WORKLOAD,
    ),
    "worker-all-three-fail": Fault(FAIL, "the same", "the same", 137, 76),
    "head-daemon": Fault("GCS or the head's raylet ends", "the head's agent, by pidfd", "at once", 76, 76),
    "worker-daemon": Fault("a worker's raylet ends", "that worker's agent, by pidfd", "at once", 76, WORKLOAD),
    "worker-daemon-fail": Fault(FAIL, "the same; the head, by a message", "at once", 76, 76),
    "ray-stop": Fault(
        "`ray stop` on the head of a cluster without a workload", "the head's agent, by pidfd", "at once", 143, 143
    ),
    "up-caller": Fault(
        "the process that called `up` on the head ends without `down`",
        "the head's agent, by pidfd; the other agents, through the head",
        "at once",
        129,
        129,
    ),
    "up-caller-worker": Fault(
        "the process that called `up` on a worker ends", "that worker's agent, by pidfd", "at once", 129, WORKLOAD
    ),
    "workload-killed": Fault(
        "the workload is killed by SIGKILL", "the head's agent, its parent", "at once", WORKLOAD, WORKLOAD
    ),
    "workload-oom": Fault(
        "the kernel's OOM killer ends the workload",
        "the same; the last line of every node names the OOM killer",
        "at once",
        WORKLOAD,
        WORKLOAD,
    ),
    "task-oom": Fault(
        "the kernel's OOM killer ends a task, or a process that it started",
        "Ray, if it is a task; the last line and the result of that node, and of the head, name the OOM killer",
        "at the end",
        WORKLOAD,
        WORKLOAD,
    ),
}

_LINKS = {
    "head-off": Fault("the head's machine is switched off", "the workers, by silence", HEARTBEAT, NONE, 76),
    "worker-off": Fault("a worker's machine is switched off", "the head, by silence", HEARTBEAT, NONE, WORKLOAD),
    "worker-silent": Fault(
        "a worker's link is cut, or all its processes are stopped",
        "the head, by silence; that worker",
        HEARTBEAT,
        76,
        WORKLOAD,
    ),
    "worker-silent-fail": Fault(FAIL, "the same", HEARTBEAT, 76, 76),
    "only-worker-silent": Fault(
        "the only worker's link is cut, or all its processes are stopped; `--isolation-timeout` is on",
        "the head, by silence; that worker",
        f"{HEARTBEAT} + {ISOLATION}",
        76,
        76,
    ),
    "head-cut-off": Fault(
        "the head's link is cut; `--isolation-timeout` is on",
        "the workers, by silence; the head, by the silence of all workers",
        f"{HEARTBEAT}; the head after {ISOLATION} more",
        76,
        76,
    ),
    "head-cut-off-alone": Fault(
        "the same; `--isolation-timeout` is off", "the workers, by silence", HEARTBEAT, WORKLOAD, 76
    ),
    "head-stopped": Fault(
        "all processes of the head are stopped, and continued after `--heartbeat-timeout`",
        "the workers, by silence; the head, once continued, by end of file",
        HEARTBEAT,
        WORKLOAD,
        76,
    ),
    "all-stopped": Fault(
        "all processes of all nodes are stopped, for any time, and continued together",
        "each agent, by its own clock: its silence and the others' do not count",
        "at once",
        WORKLOAD,
        WORKLOAD,
    ),
}

_SIGNALS = {
    "stop-head": Fault(
        "SIGTERM, SIGINT, SIGHUP or SIGQUIT to the head",
        "its agent, which passes it on to the workload",
        "`--grace` for the workload",
        SIGNAL,
        SIGNAL,
    ),
    "stop-worker": Fault(
        "the same to a worker alone",
        "its agent, which asks the head (0.7 s), then drains Ray there",
        "`--grace` for the tasks there",
        SIGNAL,
        WORKLOAD,
    ),
    "stop-worker-head-hangs": Fault(
        "the same to a worker whose head does not answer", "the same, after 1 s", "the same", SIGNAL, WORKLOAD
    ),
    "stop-worker-fail": Fault(FAIL, "the same; the head, by a message", "the same; the head after 5 s", SIGNAL, 76),
    "stop-all": Fault(
        "the same to all nodes, to the head 0.7 s after the first worker at most",
        "every agent; the workers stay, and take new tasks, until the workload has ended",
        "`--grace`",
        SIGNAL,
        SIGNAL,
    ),
    "stop-again": Fault(
        "a second signal to the head", "its agent, which kills the workload", "at once", SIGNAL, SIGNAL
    ),
    "user-signal-to-all": Fault(
        "SIGUSR1 or SIGUSR2 to every process of a node (Slurm with proctrack/linuxproc or pgid)",
        "the workload; Ray's daemons ignore it, tasks without a handler end",
        "at once",
        WORKLOAD,
        WORKLOAD,
    ),
    "stop-pid-1-early": Fault(
        "SIGTERM to PID 1 of a container of the image, soon after exec",
        "its agent: the entrypoint has blocked the signal before Python starts",
        "as soon as the agent is up",
        SIGNAL,
        NONE,
    ),
    "suspend": Fault(
        "Ctrl-Z, then `fg`", "the supervisor, which stops and continues the node's processes", "at once", WORKLOAD, NONE
    ),
}

_SURROUNDINGS = {
    "unfit": Fault(
        "a node fails a check of the preflight", "that node's agent; all others, through the head", "at once", 78, 78
    ),
    "unfit-late": Fault(
        "the same on the head, and other nodes come up to `--late-wait` later, or with `--shared-dir` up to 1 h later",
        "the head, which stays to tell them; with `--shared-dir` its record of the end",
        "2 s after they begin to look for it",
        78,
        78,
    ),
    "limit": Fault(
        "a limit of a node with which Ray hangs or crashes: open files, processes, addresses, memory",
        "the same: these are checks",
        "at once",
        78,
        78,
    ),
    "head-no-shared-dir": Fault(
        "the folder of `--shared-dir` is not mounted on the head",
        "the head's preflight; the workers find no head",
        f"at once; the workers after {SEARCH}",
        78,
        68,
    ),
    "worker-no-shared-dir": Fault(
        "the same on a worker",
        "that worker's preflight; the head, which that worker cannot find, by its absence",
        f"at once; the others after {QUORUM}",
        78,
        75,
    ),
    "worker-no-shared-dir-named": Fault(
        "the same, and the launcher or `--head-address` names the head",
        "that worker's preflight; the head shows what that worker says of itself, without proof",
        f"at once; the others after {QUORUM}",
        78,
        75,
    ),
    "shared-dir-hangs": Fault("that folder hangs on all nodes", "the preflight of each", "60 s", 78, 78),
    "shared-dir-hangs-later": Fault(
        "that folder hangs when the head, found fit, writes its record there",
        "the head; the workers find no head",
        SEARCH,
        68,
        68,
    ),
    "shared-dir-lost": Fault(
        "that folder is lost while the workload runs",
        "the head, when it removes its record: a warning",
        "at the end, 5 s at most",
        WORKLOAD,
        WORKLOAD,
    ),
    "stdout-full": Fault("standard output is on a full disk", "the workload, which writes there", "–", WORKLOAD, NONE),
    "stderr-stalls": Fault(
        "the reader of the head's standard error stalls",
        "no node: a thread of its own writes the agent's lines",
        "–",
        WORKLOAD,
        WORKLOAD,
    ),
    "stderr-closed": Fault("the reader of standard error has gone", "no node", "–", WORKLOAD, NONE),
}

_BRING_UP = {
    "no-head": Fault("the head never comes", "the workers, which find none", SEARCH, NONE, 68),
    "missing-rank": Fault("a worker never comes", "the head, which names its rank on all nodes", QUORUM, NONE, 75),
    "missing-rank-late": Fault(
        "that worker comes after all, up to 1 h later; `--shared-dir`",
        "that worker: the head has left a record of the end",
        "2 s after it begins to look for the head",
        NONE,
        75,
    ),
    "stuck-worker": Fault(
        "`ray start` hangs on a worker",
        "that worker, just before the head gives up; the head shows meanwhile what Ray says there",
        QUORUM,
        69,
        69,
    ),
    "early-loss": Fault(
        "a worker is killed before the quorum, another could replace it, and none comes",
        "the head, by its absence",
        QUORUM,
        137,
        75,
    ),
    "early-loss-final": Fault(
        "a worker is killed before the quorum under srun or mpirun, which replace no node",
        "the head, by end of file or a message",
        "at once",
        137,
        76,
    ),
    "early-daemon": Fault(
        "a worker's raylet ends before the quorum, another node could replace it, and none comes",
        "that worker's agent, by pidfd; the head, by its absence",
        f"at once; {QUORUM}",
        76,
        75,
    ),
    "early-daemon-final": Fault(
        "the same under srun or mpirun", "that worker's agent, by pidfd; the head, by a message", "at once", 76, 76
    ),
    "rank-twice": Fault(
        "a second node has a worker's rank, during the workload", "the head, which refuses it", "at once", 65, WORKLOAD
    ),
    "node-twice": Fault(
        "a second process of the run on a node of a list of hosts", "its agent, by a lock", "at once", 65, WORKLOAD
    ),
    "rank-twice-early": Fault(
        "the same before the quorum, and the first node is alive", "the head, which pings it", "0.3 s", 65, 65
    ),
    "rank-replaced": Fault(
        "a node has the rank of one whose connection is half-open",
        "the head, by the silence of the first",
        HEARTBEAT,
        WORKLOAD,
        WORKLOAD,
    ),
    "misnumbered": Fault(
        "a worker has another size than the head, or a rank out of range, before the quorum",
        "the head, in the handshake",
        "at once",
        65,
        65,
    ),
    "secrets-differ": Fault(
        "a worker has another secret, or none",
        "that worker and the head, in the handshake",
        f"at once; {QUORUM}",
        77,
        75,
    ),
    "secrets-differ-named": Fault(
        "all missing workers have another secret, and connect from the addresses of the nodes that Slurm names",
        "the same",
        "at once",
        77,
        77,
    ),
    "versions-differ": Fault(
        "a worker has another version of Ray or Python", "the head, which refuses it", "at once", 77, 77
    ),
    "stale-record": Fault(
        "the record in the shared folder is that of a head whose machine was switched off",
        "the workers: no agent of this run answers there; the head replaces it",
        "5 s",
        NONE,
        WORKLOAD,
    ),
    "no-workload": Fault(
        "the workload is not found on the head", "the head's agent, before Ray starts", "at once", 127, 127
    ),
    "no-workload-late": Fault(
        "the same, and a node comes up to `--late-wait` later",
        "the head's agent, which stays to tell it",
        "at once",
        127,
        127,
    ),
    "setup": Fault(
        "a command of `--setup` fails on one node",
        "that node's agent; all others, through the head",
        "at once",
        79,
        79,
    ),
    "ray-start": Fault(
        "`ray start` fails on one node", "that node's agent, which quotes Ray's own cause on all", "at once", 69, 69
    ),
    "starter": Fault("the process that runs `ray start` is killed", "that node's agent, its parent", "at once", 69, 69),
    "daemon-during-start": Fault(
        "GCS or raylet ends while `ray start` runs", "that node's agent, in /proc", "0.5 s", 69, 69
    ),
    "port-taken": Fault(
        "another program takes a port that the head has chosen, just before Ray binds it",
        "the head's agent, which tries twice more, with other ports",
        "at once",
        WORKLOAD,
        WORKLOAD,
    ),
}

_ATTACHED = {
    "attach-no-ray": Fault(
        "no Ray answers at the address of `--attach` or RAY_ADDRESS", "the run's only node", SEARCH, 68, NONE
    ),
    "attach-token": Fault(
        "that Ray wants another token, or this node has none", "GCS, which refuses it", "at once", 77, NONE
    ),
    "attach-versions": Fault(
        "that Ray was started with another version of Ray or Python", "the run's only node", "at once", 77, NONE
    ),
    "attach-too-few": Fault(
        "that Ray has too few nodes, or they have too little", "the run's only node, which lists them", QUORUM, 75, NONE
    ),
    "attach-lost": Fault(
        "that Ray, or a node of it, is lost while the workload runs", "the workload", "–", WORKLOAD, NONE
    ),
    "stop-attached": Fault(
        "SIGTERM, SIGINT, SIGHUP or SIGQUIT to a run that is attached; that Ray goes on",
        "its agent, which passes it on to the workload",
        "`--grace` for the workload",
        SIGNAL,
        NONE,
    ),
}

GROUPS: Mapping[str, Mapping[str, Fault]] = {
    "Processes of a node are killed, or end": _PROCESSES,
    "Machines and links": _LINKS,
    "Signals": _SIGNALS,
    "Limits and surroundings of a machine": _SURROUNDINGS,
    "Bring-up": _BRING_UP,
    "A Ray that already runs": _ATTACHED,
}
FAULTS: Mapping[str, Fault] = {name: fault for group in GROUPS.values() for name, fault in group.items()}


def check(
    name: str,
    *,
    there: int | None = None,
    elsewhere: Sequence[int] = (),
    workload: int | None = None,
    signum: int | None = None,
) -> None:
    """Asserts that the measured statuses are those of the row.

    ``there`` and ``elsewhere`` are as in :class:`Fault`, -n for signal n as from :class:`subprocess.Popen`; left out
    where no such node ends. ``workload`` is the status with which the test lets its workload end, ``signum`` the signal
    that it sends.
    """
    fault = FAULTS[name]
    stands_for: dict[Status, int | None] = {
        WORKLOAD: workload,
        SIGNAL: None if signum is None else 128 + signum,
        NONE: None,
    }

    def expected(status: int | Status) -> int | None:
        if isinstance(status, int):
            return status
        found = stands_for[status]
        assert found is not None or status is NONE, f"{name}: say what {status.value!r} is in this test"
        return found

    assert _as_a_shell_shows(there) == expected(fault.there), f"{name}: where it happens"
    others = [_as_a_shell_shows(status) for status in elsewhere]
    count = len(others) if fault.elsewhere is not NONE else 0
    assert others == [expected(fault.elsewhere)] * count, f"{name}: elsewhere"
    assert others or fault.elsewhere is NONE, f"{name}: this test has no other node"


def _as_a_shell_shows(status: int | None) -> int | None:
    return 128 - status if status is not None and status < 0 else status


def render() -> str:
    """All groups as Markdown, each a heading and a table."""
    return "\n\n".join(_table(title, group.values()) for title, group in GROUPS.items())


def _table(title: str, faults: Iterable[Fault]) -> str:
    rows = [(fault.what, fault.who, fault.within, _shown(fault.there), _shown(fault.elsewhere)) for fault in faults]
    head = [("what happens", "who notices", "within", "there", "elsewhere"), ("---",) * 5]
    return "\n".join([f"### {title}", "", *(f"| {' | '.join(row)} |" for row in (*head, *rows))])


def _shown(status: int | Status) -> str:
    return str(status) if isinstance(status, int) else status.value


def tables_in(text: str) -> str:
    """What a document has between the two markers."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def with_tables(text: str) -> str:
    """The document with the tables of this module between its markers."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
