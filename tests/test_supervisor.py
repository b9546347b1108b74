"""The supervisor: the agent's status passes through, signals go to it, and nothing survives either of the two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from namespaces import wait_for
from survivors import marked

pytestmark = pytest.mark.requires("linux")

HEAD = """
import os, resource, signal, subprocess, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from bootstrap.host import this_host
from bootstrap.process import signals
from bootstrap.process.supervisor import supervise
def say(*words):
    print(*words, flush=True)
def agent(above):
"""
TAIL = """
sys.exit(supervise(agent))
"""


class Supervised:
    """A supervisor in a process of its own, and below it an agent with this body."""

    def __init__(self, body: str, first: str = "", **options: Any) -> None:
        code = HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()) + first + TAIL
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True, **options)
        assert self.process.stdout is not None
        self.lines: Iterator[str] = iter(self.process.stdout.readline, "")

    def line(self) -> str:
        return next(self.lines).strip()

    def end(self) -> tuple[int, str]:
        """The status and the rest of standard error."""
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err


@pytest.mark.parametrize("status", [0, 3, 70, 137, 143, 255])
def test_the_agents_status_passes_through(status: int) -> None:
    assert Supervised(f"return {status}").end() == (status, "")


@pytest.mark.parametrize(("signum", "status"), [("SIGKILL", 137), ("SIGSEGV", 139), ("SIGTERM", 143)])
def test_an_agent_that_is_killed(signum: str, status: int) -> None:
    found, err = Supervised(f"signals.restore(this_host())\nos.kill(os.getpid(), signal.{signum})").end()
    assert found == status
    assert "the agent (pid " in err
    assert f") was killed by {signum}" in err
    assert "killed the 0 processes that it had left" in err


def test_an_exception_out_of_the_agent_is_a_bug() -> None:
    status, _ = Supervised("raise KeyError('x')").end()
    assert status == 70


FORWARDED = (
    "SIGTERM SIGINT SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGALRM SIGVTALRM SIGPROF SIGWINCH SIGURG SIGIO SIGPWR SIGXCPU"
    " SIGSTKFLT SIGRTMIN SIGRTMAX"
)
"""As in dumb-init's tests: all but those that report a fault, job control, and what Python ignores."""


@pytest.mark.parametrize("name", FORWARDED.split())
def test_signals_reach_the_agent_alone(name: str) -> None:
    body = """
child = subprocess.Popen(['sleep', '600'])
say('up')
say('got', *os.read(above[0], 64), child.poll())
child.kill()
child.wait()
return 5
"""
    signum, supervised = getattr(signal, name), Supervised(body)
    assert supervised.line() == "up"
    supervised.process.send_signal(signum)
    assert supervised.line() == f"got {int(signum)} None"
    assert supervised.end() == (5, "")


def test_a_signal_before_the_agent_is_there_is_not_lost() -> None:
    first = "signals.block()\nos.kill(os.getpid(), signal.SIGTERM)\n"
    supervised = Supervised("say('got', *os.read(above[0], 64))\nreturn 6", first)
    assert supervised.line() == f"got {int(signal.SIGTERM)}"
    assert supervised.end() == (6, "")


def test_a_signal_to_every_process_arrives_once_from_each() -> None:
    supervised = Supervised("say(os.getppid())\nsay(*os.read(above[1], 64))\nsay(*os.read(above[0], 64))\nreturn 0")
    standby = int(supervised.line())
    os.kill(standby, signal.SIGTERM)
    assert supervised.line() == "15"
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.line() == "15"
    assert supervised.end()[0] == 0


def test_what_the_agent_leaves_behind_is_ended(nothing_left: dict[str, str]) -> None:
    body = """
subprocess.run(['sh', '-c', "setsid sh -c 'trap \\"\\" TERM; echo $$; while :; do sleep 0.02; done' & sleep 0.1"])
subprocess.run(['sh', '-c', 'env -i setsid sleep 600 & echo $!'])
return 0
"""
    supervised = Supervised(body)
    pids = [int(supervised.line()), int(supervised.line())]
    assert supervised.end()[0] == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_killing_the_agent_ends_what_it_had_started() -> None:
    supervised = Supervised("child = subprocess.Popen(['sleep', '600'])\nsay(os.getpid())\nsignal.pause()")
    os.kill(int(supervised.line()), signal.SIGKILL)
    status, err = supervised.end()
    assert status == 137
    assert "was killed by SIGKILL; killed the 1 process that it had left" in err


def test_killing_the_supervisor_is_end_of_file_for_the_agent(nothing_left: dict[str, str]) -> None:
    supervised = Supervised("say('up')\nsay('end of file', os.read(above[0], 1))\nreturn 0")
    assert supervised.line() == "up"
    supervised.process.kill()
    assert supervised.line() == "end of file b''"
    supervised.end()
    ((name, value),) = nothing_left.items()
    wait_for(lambda: not marked(f"{name}={value}"), what="the end of the agent")


def test_the_agents_children_do_not_hold_the_supervisors_pipe() -> None:
    """Else the agent's end of file would wait for them; it is they whom it has to end."""
    supervised = Supervised("say(above, sorted(map(int, os.listdir('/proc/self/fd'))))\nreturn 0")
    assert supervised.line() == "[3, 4] [0, 1, 2, 3, 4, 5]"  # 5 is the folder that is listed
    assert supervised.end()[0] == 0


def test_the_agent_is_in_a_session_of_its_own() -> None:
    supervised = Supervised("say(os.getsid(0) == os.getpid())\nreturn 0")
    assert supervised.line() == "True"
    assert supervised.end()[0] == 0


@pytest.mark.parametrize("victims", ["supervisor standby", "supervisor agent", "standby agent"])
def test_any_two_of_the_three_may_be_killed_at_once(victims: str) -> None:
    """The third ends what all have started, the agent by itself; the fixture proves it."""
    body = """
child = subprocess.Popen(['setsid', 'sleep', '600'])
say(os.getppid(), os.getpid())
os.read(above[0], 1), os.read(above[1], 1)
child.kill()
child.wait()
return 0
"""
    supervised = Supervised(body)
    pids = dict(zip(("standby", "agent"), map(int, supervised.line().split()), strict=True))
    pids["supervisor"] = supervised.process.pid
    for victim in victims.split():  # stopped first, so that they end at once
        os.kill(pids[victim], signal.SIGSTOP)
    for victim in victims.split():
        os.kill(pids[victim], signal.SIGKILL)
    status, err = supervised.end()
    assert status == (-signal.SIGKILL if "supervisor" in victims else 137)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), what="the end of all three")
    assert ("killed the" in err) == ("agent" in victims)


@pytest.mark.parametrize("signum", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
def test_a_suspended_node_stops_as_a_whole_and_continues(signum: int) -> None:
    """Ctrl-Z and fg; a shell that waits sees the supervisor stop, as its job has a process group of its own."""
    body = """
child = subprocess.Popen(['setsid', 'sleep', '600'])
say(os.getppid(), os.getpid(), child.pid)
say('got', *os.read(above[0], 64))
child.kill()
child.wait()
return 0
"""
    supervised = Supervised(body, process_group=0)
    pids = [supervised.process.pid, *map(int, supervised.line().split())]
    supervised.process.send_signal(signum)
    wait_for(lambda: [state(pid) for pid in pids] == ["T"] * 4, what="all four stop")
    assert os.WIFSTOPPED(os.waitpid(supervised.process.pid, os.WUNTRACED)[1])
    supervised.process.send_signal(signal.SIGCONT)
    wait_for(lambda: "T" not in [state(pid) for pid in pids], what="all four continue")
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.line() == "got 15"
    assert supervised.end()[0] == 0


def test_continued_at_once_it_does_not_stay_stopped() -> None:
    """SIGSTOP to itself would discard a SIGCONT that came since the SIGTSTP."""
    supervised = Supervised("say(os.getppid())\nsay(*os.read(above[0], 64))\nreturn 0", process_group=0)
    pids = [supervised.process.pid, int(supervised.line())]
    for _ in range(20):
        for signum in (signal.SIGTSTP, signal.SIGCONT):
            supervised.process.send_signal(signum)
    wait_for(lambda: "T" not in [state(pid) for pid in pids], what="both run")
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.line() == "15"
    assert supervised.end()[0] == 0


@pytest.mark.parametrize("signum", [signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU])
def test_it_does_not_stop_where_no_shell_could_continue_it(signum: int) -> None:
    """As the kernel does for an orphaned process group: with `ssh -t`, and for PID 1."""
    supervised = Supervised("say('up')\nsay(*os.read(above[0], 64))\nreturn 0", start_new_session=True)
    assert supervised.line() == "up"
    supervised.process.send_signal(signum)
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.line() == "15"
    assert supervised.end()[0] == 0


def state(pid: int) -> str:
    """The letter of proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_strangers_that_end_are_reaped() -> None:
    body = """
pid = os.fork()
if not pid:
    orphan = os.fork()
    if not orphan:
        time.sleep(0.1)
        os._exit(0)
    say(orphan)
    os._exit(0)
os.waitpid(pid, 0)
os.read(above[0], 1)
return 0
"""
    supervised = Supervised(body)
    orphan = int(supervised.line())
    wait_for(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan is reaped")
    supervised.process.send_signal(signal.SIGUSR1)
    assert supervised.end()[0] == 0
