"""The supervisor: the agent's status passes through, signals go to it, and nothing survives either of the two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import wait_for
from survivors import marked

pytestmark = pytest.mark.requires("linux")

HEAD = """
import os, resource, signal, subprocess, sys, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from bootstrap.process.supervisor import block_signals, supervise, unblock_signals
def say(*words):
    print(*words, flush=True)
def agent(supervisor):
"""
TAIL = """
sys.exit(supervise(agent))
"""


class Supervised:
    """A supervisor in a process of its own, and below it an agent with this body."""

    def __init__(self, body: str, first: str = "") -> None:
        code = HEAD + "".join(f"    {line}\n" for line in body.strip().splitlines()) + first + TAIL
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)
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
    found, err = Supervised(f"unblock_signals()\nos.kill(os.getpid(), signal.{signum})").end()
    assert found == status
    assert f"was killed by {signum}" in err
    assert "ended the 0 processes that it had started" in err


def test_an_exception_out_of_the_agent_is_a_bug() -> None:
    status, _ = Supervised("raise KeyError('x')").end()
    assert status == 70


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"])
def test_signals_are_passed_on_to_the_agent_alone(name: str) -> None:
    body = f"""
child = subprocess.Popen(['sleep', '600'])
say('up')
signal.sigwait([signal.{name}])
say('got', child.poll())
child.kill()
child.wait()
return 5
"""
    supervised = Supervised(body)
    assert supervised.line() == "up"
    supervised.process.send_signal(getattr(signal, name))
    assert supervised.line() == "got None"
    assert supervised.end() == (5, "")


def test_a_signal_before_the_agent_is_there_is_not_lost() -> None:
    body = "say('pending', signal.SIGTERM in signal.sigpending() or signal.sigwait([signal.SIGTERM]) == signal.SIGTERM)"
    first = "block_signals()\nos.kill(os.getpid(), signal.SIGTERM)\n"
    supervised = Supervised(f"{body}\nreturn 6", first)
    assert supervised.line() == "pending True"
    assert supervised.end() == (6, "")


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
    assert "likely OOM-killed; ended the 1 processes that it had started" in err


def test_killing_the_supervisor_is_end_of_file_for_the_agent(nothing_left: dict[str, str]) -> None:
    supervised = Supervised("say('up')\nsay('end of file', os.read(supervisor, 1))\nreturn 0")
    assert supervised.line() == "up"
    supervised.process.kill()
    assert supervised.line() == "end of file b''"
    supervised.end()
    ((name, value),) = nothing_left.items()
    wait_for(lambda: not marked(f"{name}={value}"), what="the end of the agent")


def test_the_agents_children_do_not_hold_the_supervisors_pipe() -> None:
    """Else the agent's end of file would wait for them; it is they whom it has to end."""
    supervised = Supervised("say(sorted(os.listdir('/proc/self/fd')))\nos.close(supervisor)\nreturn 0")
    assert supervised.line() == "['0', '1', '2', '3', '4']"  # 3 is the pipe's end, 4 the folder that is listed
    assert supervised.end()[0] == 0


def test_the_agent_is_in_a_session_of_its_own() -> None:
    supervised = Supervised("say(os.getsid(0) == os.getpid(), os.getppid())\nreturn 0")
    assert supervised.line() == f"True {supervised.process.pid}"
    assert supervised.end()[0] == 0


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
signal.sigwait([signal.SIGUSR1])
return 0
"""
    supervised = Supervised(body)
    orphan = int(supervised.line())
    wait_for(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan is reaped")
    supervised.process.send_signal(signal.SIGUSR1)
    assert supervised.end()[0] == 0
