"""A person at a terminal: what Ctrl-C, Ctrl-Z, fg and a new window size do, and what of it the workload has."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for
from survivors import marked

if TYPE_CHECKING:
    from agents import Node, Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")

SHELL = """
import fcntl, os, signal, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
    open("stopped", "w").write("yes")
    while not os.path.exists("fg"):
        time.sleep(0.02)
    os.killpg(job, signal.SIGCONT)
os._exit(os.waitstatus_to_exitcode(status))
"""
"""What a shell with job control does with a job in the foreground."""
OWN = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
CTRL_C, CTRL_Z = b"\x03", b"\x1a"
IGNORES = ["sh", "-c", "trap '' INT; echo up; while :; do sleep 0.02; done"]
SAVES = ["sh", "-c", "trap 'echo saved; exit 0' INT; echo up; while :; do sleep 0.02; done"]
COUNTS = ["sh", "-c", "echo up; until test -e ../go; do echo .; sleep 0.02; done; exit 3"]


class Terminal:
    """A terminal, and on it one node as the foreground job."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.master, self.slave = os.openpty()

    def run(self, *args: str, shell: str = OWN) -> Node:
        return self.site.run(*args, before=[sys.executable, "-c", shell], stdin=self.slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


@pytest.fixture
def terminal(site: Site) -> Iterator[Terminal]:
    made = Terminal(site)
    yield made
    os.close(made.master)
    os.close(made.slave)


def test_the_workload_reads_the_terminal_and_ctrl_c_arrives_once(terminal: Terminal) -> None:
    count = "import signal as s, sys\nassert sys.stdin.isatty()\ns.pthread_sigmask(s.SIG_BLOCK, [s.SIGINT])\n"
    count += "print(input(), flush=True)\nprint(int(s.sigwait([s.SIGINT])), s.sigtimedwait([s.SIGINT], 0.3))"
    node = terminal.run("--", sys.executable, "-c", count)
    terminal.type(b"typed\n")
    node.says("typed", where="out")
    terminal.type(CTRL_C)
    assert node.wait() == 130
    assert node.out == "typed\n2 None\n"


def test_the_terminal_does_not_control_the_workload(terminal: Terminal) -> None:
    """It has a session of its own, as with `tini` without a terminal: no /dev/tty, and no job control in a shell."""
    node = terminal.run("--", "sh", "-c", "exec 3</dev/tty")
    assert node.wait() == 2
    assert "/dev/tty" in node.err


def test_a_second_ctrl_c_ends_the_grace(terminal: Terminal) -> None:
    node = terminal.run("--grace=1h", "--", *IGNORES)
    node.says("up", where="out")
    terminal.type(CTRL_C)
    node.says("passing SIGINT on to the workload; 3600 s of grace; a second signal ends the grace")
    time.sleep(0.15)  # as fast as fingers are
    terminal.type(CTRL_C)
    assert node.wait() == 130


def test_the_same_signal_twice_at_once_is_one(site: Site) -> None:
    """timeout(1) signals its child, and then the group that the child is in."""
    node = site.run("--grace=1h", "--", *SAVES)
    node.says("up", where="out")
    for _ in range(2):
        node.send(signal.SIGINT)
    assert node.wait() == 130
    assert node.out == "up\nsaved\n"


def test_ctrl_z_suspends_the_node_and_fg_continues_it(terminal: Terminal) -> None:
    node = terminal.run("--", *COUNTS, shell=SHELL)
    node.says("up", where="out")
    terminal.type(CTRL_Z)
    node.appears("stopped")
    wait_for(lambda: states(node) == {"T"}, what="a stop of all: it is sent, and takes effect once they run")
    (terminal.site.folder / "go").touch()
    before = node.out
    time.sleep(0.2)
    assert node.out == before
    (node.folder / "fg").touch()
    check("suspend", there=node.wait(), workload=3)


def states(node: Node) -> set[str]:
    """The states of all of its processes (proc_pid_stat(5)) but the shell."""
    pids = marked(node._mark) - {node.process.pid}
    return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}


def test_ctrl_z_changes_nothing_where_no_shell_could_continue_it(terminal: Terminal) -> None:
    """As with `ssh -t host ray-bootstrap ...`: frozen, it would hear no Ctrl-C."""
    node = terminal.run("--", *SAVES)
    node.says("up", where="out")
    terminal.type(CTRL_Z)
    terminal.type(CTRL_C)
    assert node.wait() == 130
    assert node.out == "up\nsaved\n"


def test_the_workload_learns_of_a_new_window_size(terminal: Terminal) -> None:
    script = (
        "import os, signal\nsignal.signal(signal.SIGWINCH, lambda *_: print(os.get_terminal_size(0), flush=True))\n"
    )
    script += "print('up', flush=True)\nwhile True: signal.pause()"
    node = terminal.run("--", sys.executable, "-c", script)
    node.says("up", where="out")
    terminal.resize(33, 77)
    node.says("columns=77, lines=33", where="out")
    node.send(signal.SIGTERM)
    assert node.wait() == 143


def test_a_new_window_size_without_a_workload_is_no_news(terminal: Terminal) -> None:
    node = terminal.run()
    node.says("no workload was given")
    terminal.resize(33, 77)
    node.send(signal.SIGUSR1)
    node.says("ignored SIGUSR1: no workload runs on this node")
    node.send(signal.SIGTERM)
    assert node.wait() == 143
    assert "WINCH" not in node.err
