"""The kernel's OOM killer: its count of this node's control group, and what the last line makes of it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for
from requirements import MEMORY_LIMITS, memory_group

from bootstrap import cgroup
from bootstrap.host import Host
from bootstrap.run.shutdown import _knows

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
MIB = 1 << 20


def host(root: Path, files: dict[str, str]) -> Host:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host({}, "node-7", root)


def v1(kills: int, limit: int = 64 * MIB) -> dict[str, str]:
    counts = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
    folder = "/sys/fs/cgroup/memory/job_7"
    return {
        "/proc/self/cgroup": "4:memory:/job_7\n0::/\n",
        "/sys/fs/cgroup/unified/cgroup.procs": "",
        f"{folder}/memory.oom_control": counts,
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
    }


def v2(kills: int) -> dict[str, str]:
    return {
        "/proc/self/cgroup": "0::/pod/c\n",
        "/sys/fs/cgroup/cgroup.procs": "",
        "/sys/fs/cgroup/pod/memory.events": "low 0\nhigh 0\nmax 9\noom 9\noom_kill 9\noom_group_kill 0\n",
        "/sys/fs/cgroup/pod/c/memory.events": f"low 0\nhigh 0\nmax 5\noom 4\noom_kill {kills}\noom_group_kill 0\n",
        "/sys/fs/cgroup/pod/c/memory.max": "max\n",
    }


V2_ROOT = {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cgroup.procs": ""}
OLD_KERNEL = {**v1(0), "/sys/fs/cgroup/memory/job_7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}


@pytest.mark.parametrize(
    ("files", "kills"),
    [(v1(0), 0), (v1(3), 3), (v2(0), 0), (v2(3), 3), (V2_ROOT, None), (OLD_KERNEL, None), ({}, None)],
)
def test_how_many_processes_of_the_group_were_ended(tmp_path: Path, files: dict[str, str], kills: int | None) -> None:
    assert cgroup.oom_kills(host(tmp_path, files)) == kills


WHO = "the kernel's OOM killer ended"


@pytest.mark.parametrize(
    ("files", "before", "text"),
    [
        (v1(3), 2, f"{WHO} 1 process in the cgroup of node-7 (memory limit: 64 MiB)"),
        (v1(3, 0x7FFFFFFFFFFFF000), 0, f"{WHO} 3 processes in the cgroup of node-7"),
        (v2(3), 2, f"{WHO} 1 process in the cgroup of node-7"),
        (v1(3), 3, ""),
        (v1(3), None, ""),
        (V2_ROOT, 2, ""),
    ],
)
def test_what_was_ended_since(tmp_path: Path, files: dict[str, str], before: int | None, text: str) -> None:
    assert cgroup.OomCount(host(tmp_path, files), before).since() == text


FIT_ENOUGH = ("--ignore-check=memory", "--ignore-check=node-address")
"""For the fake Ray, with 256 MiB and on loopback."""


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with 256 MiB of memory."""
    made = memory_group()
    assert made is not None
    for name in (*MEMORY_LIMITS, "memory.memsw.limit_in_bytes"):  # without swap; the last one in that order
        with contextlib.suppress(OSError):
            if (made / name).exists():
                (made / name).write_text(str(256 * MIB))
    with contextlib.suppress(OSError):
        (made / "memory.swap.max").write_text("0")
    yield made
    wait_for(lambda: not (made / "cgroup.procs").read_text(), what="the end of all in the group")
    made.rmdir()


def inside(group: Path) -> list[str]:
    """A program that moves itself into the group and executes another."""
    return ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]


def eater(group: Path, victim: str) -> list[str]:
    """A workload that takes memory until the kernel has ended this process of the group.

    The memory of a small one is not free at once, so that the kernel sometimes ends the eater, too: a child.
    """
    (counts,) = (path for name in ("memory.events", "memory.oom_control") if (path := group / name).exists())
    code = f"""
import os, time
victim, taken = {victim}, []
open('/proc/self/oom_score_adj', 'w').write('0')
open(f'/proc/{{victim}}/oom_score_adj', 'w').write('1000')
if victim == os.getpid() or not os.fork():
    while 'oom_kill 0' in open('{counts}').read():
        taken.append(b'x' * (1 << 20))
time.sleep(600)
"""
    return [sys.executable, "-c", code]


@pytest.mark.requires("linux", "root", "memory-controller")
def test_a_workload_that_the_kernel_ends(site: Site, group: Path) -> None:
    head = site.rank(0, 2, *FIT_ENOUGH, workload=eater(group, "os.getpid()"), before=inside(group))
    worker = site.rank(1, 2)
    check("workload-oom", there=head.wait(), elsewhere=[worker.wait()], workload=137)
    ended = f"{WHO} 1 process in the cgroup of {head.verdict['host']} (memory limit: 256 MiB)"
    reason = f"the workload ended with status 137 (SIGKILL); {ended}"
    for node in (head, worker):
        assert f"{reason}, after " in node.err.splitlines()[-1]
        assert node.verdict["reason"] == reason
    assert f"warning: {ended}; fix: more memory" in head.err


@pytest.mark.requires("linux", "root", "memory-controller")
@pytest.mark.parametrize("rank", [0, 1], ids=["head", "worker"])
def test_a_process_of_a_task_that_the_kernel_ends(site: Site, group: Path, rank: int) -> None:
    """The workload returns 0 all the same; a worker's kill stands on the head, too, whose output is the run's."""
    workload = ["sh", "-c", "echo up; while ! test -e ../go; do sleep 0.1; done"]
    nodes = [
        site.rank(r, 2, *FIT_ENOUGH, workload=workload, before=inside(group) if r == rank else ()) for r in range(2)
    ]
    nodes[0].says("up", where="out")
    task = [*inside(group), sys.executable, "-c", "taken = []\nwhile True: taken.append(bytes(1 << 20) + b'x')"]
    assert subprocess.run(task, check=False, timeout=60).returncode == -signal.SIGKILL
    (site.folder / "go").touch()
    for node in nodes:
        node.wait()
    check("task-oom", there=nodes[rank].wait(), elsewhere=[nodes[1 - rank].wait()], workload=0)
    ended = f"{WHO} 1 process in the cgroup of {nodes[0].verdict['host']} (memory limit: 256 MiB)"
    for node in nodes:
        assert node.verdict["status"] == 0
        assert node.verdict["reason"] == f"the workload ended with status 0; {ended}"
        assert f"the workload ended with status 0; {ended}, after " in node.err.splitlines()[-1]
        assert node.err.count(f"warning: {ended}; fix: more memory") == (node is nodes[0] or rank == 1)


def test_the_reason_names_each_nodes_oom_kills_once() -> None:
    reason = f"Ray's raylet ended; {WHO} 1 process in the cgroup of node-10 (memory limit: 9 MiB)"
    assert _knows(reason, f"{WHO} 2 processes in the cgroup of node-10 (memory limit: 9 MiB)")
    assert not _knows(reason, f"{WHO} 1 process in the cgroup of node-1")
    assert not _knows(reason, f"{WHO} 1 process in the cgroup of node-10.local")


@pytest.mark.parametrize(
    ("inherited", "limit", "expected"), [("0\n", 256 * MIB, 501), ("-997\n", 256 * MIB, -496), ("900", 64 * MIB, 1000)]
)
def test_how_much_more_likely_the_kernel_ends_a_child(
    tmp_path: Path, inherited: str, limit: int, expected: int
) -> None:
    files = {**v1(0, limit), "/proc/self/oom_score_adj": inherited}
    assert cgroup.oom_score_adj(host(tmp_path, files)) == expected


def test_without_a_limit_the_machines_memory_counts(tmp_path: Path) -> None:
    assert 1 <= cgroup.oom_score_adj(host(tmp_path, {})) <= 1000


@pytest.mark.requires("linux", "root", "memory-controller")
def test_the_agent_outlives_many_processes_smaller_than_itself(site: Site, group: Path) -> None:
    """Otherwise the kernel would take the agent first, as the largest of them, and nothing could say why."""
    (counts,) = (path for name in ("memory.events", "memory.oom_control") if (path := group / name).exists())
    code = f"""
import subprocess, sys
small, taken = "import time; taken = b'x' * (12 << 20); time.sleep(600)", []
while 'oom_kill 0' in open('{counts}').read():
    taken.append(subprocess.Popen([sys.executable, '-I', '-S', '-c', small]))
for process in taken:
    process.kill()
"""
    node = site.run(*FIT_ENOUGH, "--", sys.executable, "-c", code, before=inside(group))
    assert node.wait() == 0, node.err
    assert re.match(rf"the workload ended with status 0; {WHO} [0-9]+ process", node.verdict["reason"])


@pytest.mark.requires("linux", "root", "memory-controller")
@pytest.mark.parametrize("name", ["raylet", "agent"])
def test_a_process_of_ours_that_the_kernel_ends(site: Site, group: Path, name: str) -> None:
    node = site.run(
        *FIT_ENOUGH, "--", *eater(group, "int(input())"), before=inside(group), stdin=(pipe := os.pipe())[0]
    )
    os.close(pipe[0])
    node.is_in("running")
    os.write(pipe[1], f"{getattr(node, name)}\n".encode())
    os.close(pipe[1])
    assert node.wait(within=5) == (76 if name == "raylet" else 137), node.err
    # Where the agent's end frees too little for the clean-up, the kernel ends the workload, too.
    ended = rf"{WHO} (1 process|2 processes) in the cgroup of {node.verdict['host']} \(memory limit: 256 MiB\)"
    assert re.search(ended, node.err.splitlines()[-1])
    assert re.search(f" was killed by SIGKILL; {ended}$", node.verdict["reason"].splitlines()[0])
    assert node.verdict["hint"].startswith("more memory")
