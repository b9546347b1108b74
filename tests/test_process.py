"""Children, grandchildren and orphans, as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import wait_for

from bootstrap.process import table
from bootstrap.process.children import Child, Children
from bootstrap.process.table import Process, descendants, read_process
from bootstrap.run import workload

pytestmark = pytest.mark.requires("linux")

SLEEP = ["sleep", "600"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.02; done"]
LEAVES_AN_ORPHAN = ["sh", "-c", "setsid sleep 600 & echo $!"]


@pytest.fixture
def run(nothing_left: dict[str, str]) -> Iterator[Callable[[Callable[[Children], Awaitable[Any]]], Any]]:
    """Runs a coroutine with the children of an agent; this process stops being a subreaper afterwards."""

    def run_(body: Callable[[Children], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await asyncio.wait_for(body(Children()), 20)

        return asyncio.run(main())

    yield run_
    assert table.ctypes.CDLL(None).prctl(36, 0, 0, 0, 0) == 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def until(condition: Callable[[], object]) -> None:
    """The end of a stranger makes no event that this process could await."""
    while not condition():
        await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    found = read_process(pid)
    return found is not None and found.state not in "ZX"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -KILL $$", 137), ("kill -TERM $$", 143)],
)
def test_the_status_of_a_child(run: Any, script: str, status: int) -> None:
    async def body(children: Children) -> int:
        return await children.spawn(["sh", "-c", script], dict(os.environ)).exited

    assert run(body) == status


@pytest.mark.parametrize("wait_status", [0, 3 << 8, 255 << 8, 9, 15, 11 | 128])
def test_a_wait_status_as_a_shell_shows_it(wait_status: int) -> None:
    code = wait_status >> 8 if not wait_status & 127 else 128 + (wait_status & 127)
    assert table.exit_status(wait_status) == code


def test_a_program_that_is_not_there(run: Any) -> None:
    async def body(children: Children) -> None:
        with pytest.raises(FileNotFoundError):
            children.spawn(["/no/such/program"], {})
        with pytest.raises(PermissionError):
            children.spawn(["/etc/passwd"], {})
        assert await children.spawn(["true"], dict(os.environ)).exited == 0

    run(body)


def test_many_children_keep_their_statuses_among_strangers(run: Any) -> None:
    async def body(children: Children) -> list[int]:
        def script(n: int) -> list[str]:
            return ["sh", "-c", f"(setsid true &) ; (setsid true &) ; exit {n}"]

        started = [children.spawn(script(n), dict(os.environ)) for n in range(40)]
        statuses = [await child.exited for child in started]
        await until(
            lambda: not any(found.ppid == os.getpid() for found in process_table())
        )  # the strangers' zombies too
        return statuses

    assert run(body) == list(range(40))


def process_table() -> list[Process]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [found for pid in pids if (found := read_process(pid))]


def test_a_child_has_a_session_an_environment_and_no_input_of_its_own(run: Any, nothing_left: dict[str, str]) -> None:
    async def body(children: Children) -> str:
        reading, writing = os.pipe()
        code = "import os; print(os.getsid(0) == os.getpid(), os.environ.get('A'), 'PATH' in os.environ, os.read(0, 1))"
        child = children.spawn([sys.executable, "-c", code], {"A": "1", **nothing_left}, stdout=writing)
        os.close(writing)
        assert await child.exited == 0
        with os.fdopen(reading) as stream:
            return stream.read()

    assert run(body) == "True 1 False b''\n"


def test_a_name_with_blanks_and_brackets_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "600"])
    wait_for(lambda: (found := read_process(child.pid)) and found.name == "a) R 1 (b")
    found = read_process(child.pid)
    assert found is not None
    assert (found.pid, found.ppid) == (child.pid, os.getpid())
    child.kill()
    child.wait()
    assert read_process(child.pid) is None


def test_descendants_are_all_below_and_alive_parents_first() -> None:
    child = subprocess.Popen(["sh", "-c", "setsid sh -c 'true & sleep 600; :' & wait"])
    wait_for(lambda: [found.name for found in descendants(child.pid)] == ["sh", "sleep"], what="one below the other")
    below = descendants(child.pid)
    assert (below[0].ppid, below[1].ppid) == (child.pid, below[0].pid)
    assert set(below) < set(descendants(os.getpid()))
    for found in below:
        table.send(found, signal.SIGKILL)
    child.wait()
    assert descendants(child.pid) == []


def test_a_process_whose_first_thread_has_ended_lives_on() -> None:
    first_ends = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[600]).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    child = subprocess.Popen([sys.executable, "-c", first_ends])
    wait_for(lambda: (found := read_process(child.pid)) and found.state == "Z", what="looks like a zombie")
    (found,) = [found for found in descendants(os.getpid()) if found.pid == child.pid]
    assert table.is_alive(found)
    table.send(found, signal.SIGKILL)
    wait_for(lambda: not table.is_alive(found), what="it ends")  # a zombie indeed
    assert found.pid not in {found.pid for found in descendants(os.getpid())}
    child.wait()


def test_a_signal_goes_to_this_process_and_no_later_one_of_its_number() -> None:
    child = subprocess.Popen(SLEEP)
    found = read_process(child.pid)
    assert found is not None
    later = Process(found.pid, found.ppid, found.state, found.name, found.started + 1, found.threads, 0)
    table.send(later, signal.SIGKILL)
    assert alive(child.pid)
    table.send(found, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    table.send(found, signal.SIGKILL)


def test_a_group_gets_the_signal_and_an_ended_one_is_left_alone(run: Any) -> None:
    async def body(children: Children) -> None:
        child = children.spawn(["sh", "-c", "sleep 600; exit 7"], dict(os.environ))
        await until(lambda: descendants(child.pid))
        child.signal(signal.SIGTERM)
        assert await child.exited == 143
        await until(lambda: not children.alive())
        child.signal(signal.SIGTERM)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[int] = loop.create_future()
        ended.set_result(0)
        Child(os.getpgid(0), ended).signal(signal.SIGKILL)  # else this test would end here

    run(body)


async def started(children: Children, argv: list[str]) -> tuple[Child, int]:
    """The child, and the number in its first line if there is one."""
    reading, writing = os.pipe()
    child = children.spawn(argv, dict(os.environ), stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        line = await asyncio.to_thread(stream.readline)
    return child, int(line) if line.strip().isdigit() else 0


WRAPPER = [
    "sh",
    "-c",
    "sh -c 'trap \"sleep 0.3; echo saved >&2; exit 0\" TERM; echo up; while :; do sleep 0.05; done'; :",
]
"""Ends of SIGTERM at once, while the program below it saves its work."""


def test_ending_a_workload(run: Any) -> None:
    async def body(children: Children) -> list[int]:
        force_stop = asyncio.Event()
        obedient = children.spawn(SLEEP, dict(os.environ))
        stubborn, _ = await started(children, STUBBORN)
        stopped = children.spawn(SLEEP, dict(os.environ))
        stopped.signal(signal.SIGSTOP)
        for child, grace in ((obedient, 10), (stubborn, 0.1), (stopped, 10)):
            await workload.finish(children, child, signal.SIGTERM, grace, force_stop)
        await children.end_all(0)
        return [child.exited.result() for child in (obedient, stubborn, stopped)]

    assert run(body) == [143, 137, 143]


def test_the_grace_is_for_what_a_wrapper_started_too(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    async def body(children: Children) -> int:
        wrapper, _ = await started(children, WRAPPER)
        await workload.finish(children, wrapper, signal.SIGTERM, 10, asyncio.Event())
        return wrapper.exited.result()

    assert run(body) == 143
    assert "saved\n" in capfd.readouterr().err


def test_ending_all_takes_orphans_and_strangers_too(run: Any) -> None:
    async def body(children: Children) -> None:
        child, orphan = await started(children, LEAVES_AN_ORPHAN)
        assert await child.exited == 0
        assert alive(orphan)
        assert [found.pid for found in children.alive()] == [orphan]
        assert await children.end_all(10) == []
        assert not alive(orphan)
        assert children.alive() == []

    run(body)


def test_ending_all_kills_what_does_not_end(run: Any) -> None:
    async def body(children: Children) -> None:
        stubborn, _ = await started(children, STUBBORN)
        children.spawn(SLEEP, dict(os.environ))
        assert await children.end_all(0.2) == []
        assert await stubborn.exited == 137
        assert children.alive() == []

    run(body)


def test_ending_all_when_processes_make_more(run: Any) -> None:
    async def body(children: Children) -> None:
        await started(children, ["sh", "-c", "trap '' TERM; echo up; while :; do setsid sleep 600 & sleep 0.01; done"])
        await children.end_all(0)
        assert children.alive() == []

    run(body)


def test_the_end_of_a_watched_process_is_told_once(run: Any) -> None:
    async def body(children: Children) -> None:
        exits: list[int | None] = []
        child = children.spawn(SLEEP, dict(os.environ))
        found = read_process(child.pid)
        assert found is not None
        children.watch(found, exits.append)
        await asyncio.sleep(0)
        assert exits == []
        child.signal(signal.SIGKILL)
        assert await child.exited == 137
        await until(lambda: exits)
        children.watch(found, exits.append)  # it is gone already
        await until(lambda: len(exits) == 2)
        assert exits == [signal.SIGKILL, None]

    run(body)


STATUSES = [("exit 0", 0), ("exit 3", 3 << 8), ("kill -KILL $$", signal.SIGKILL)]


@pytest.mark.parametrize(("script", "wait_status"), STATUSES)
@pytest.mark.parametrize("first", ["SIGCHLD", "pidfd"])
def test_the_status_of_a_watched_child(run: Any, script: str, wait_status: int, first: str) -> None:
    """The loop may learn of its end in either order."""

    async def body(children: Children) -> int | None:
        exits: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        child = children.spawn(["sh", "-c", f"sleep 0.1; {script}"], dict(os.environ))
        found = read_process(child.pid)
        assert found is not None
        children.watch(found, exits.set_result)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 (the loop waits until both are due)
        if first == "SIGCHLD":
            children._reap()
        return await exits

    assert run(body) == wait_status


OTHER_PARENT = "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); input()"


@pytest.mark.parametrize(("script", "wait_status"), STATUSES)
def test_the_status_of_another_parents_zombie(run: Any, script: str, wait_status: int) -> None:
    """The kernel shows 0 where it does not permit us to see the status, so 0 is unknown."""

    async def body(children: Children) -> int | None:
        reading, writing = os.pipe()
        read_line, write_line = os.pipe()
        argv = [sys.executable, "-c", OTHER_PARENT, "sh", "-c", f"sleep 0.1; {script}"]
        parent = children.spawn(argv, dict(os.environ), stdin=read_line, stdout=writing)
        os.close(writing)
        os.close(read_line)
        with os.fdopen(reading) as stream:
            found = read_process(int(await asyncio.to_thread(stream.readline)))
        assert found is not None
        exits: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        children.watch(found, exits.set_result)
        wait_status = await exits
        assert [process.pid for process in table.zombies(parent.pid)] == [found.pid]
        os.close(write_line)
        await parent.exited
        return wait_status

    assert run(body) == (wait_status or None)


@pytest.mark.parametrize(
    ("wait_status", "text"),
    [
        (0, "exited with status 0"),
        (3 << 8, "exited with status 3"),
        (137 << 8, "exited with status 137"),
        (signal.SIGKILL, "was killed by SIGKILL"),
        (signal.SIGSEGV | 128, "was killed by SIGSEGV"),  # with a core
        (signal.SIGRTMIN + 3, "was killed by signal 37"),
        (None, "ended; its exit status is unknown"),
    ],
)
def test_how_a_process_ended(wait_status: int | None, text: str) -> None:
    assert table.ending(wait_status) == text


def test_what_we_end_ourselves_is_not_told(run: Any) -> None:
    async def body(children: Children) -> None:
        child = children.spawn(SLEEP, dict(os.environ))
        found = read_process(child.pid)
        assert found is not None
        exits: list[int | None] = []
        children.watch(found, exits.append)
        await children.end_all(10)
        assert await child.exited == 143
        await asyncio.sleep(0.05)
        assert exits == []

    run(body)
