"""Odd parents: what a shell, a script or a service manager may have left in the process that becomes ours."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import check
from namespaces import wait_for

from bootstrap.raynode.session import remove_sockets

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux")


def shell(script: str) -> list[str]:
    """A shell that runs ``script``, in which "$@" is the command."""
    return ["bash", "-c", script, "bash"]


def test_children_that_the_parent_ignored(site: Site) -> None:
    """Ignored, SIGCHLD would never come, and the kernel would reap our children."""
    ignore = "import os, signal as s, sys; s.signal(s.SIGCHLD, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    assert site.run("--", "sh", "-c", "exit 3", before=[sys.executable, "-c", ignore]).wait() == 3


def test_nohup(site: Site) -> None:
    node = site.run("--", "sh", "-c", "echo up; read line; exit 3", before=shell("trap '' HUP; exec \"$@\""), stdin=-1)
    node.says("up", where="out")
    node.send(signal.SIGHUP)
    assert node.process.stdin is not None
    node.process.stdin.write(b"go on\n")
    node.process.stdin.close()
    assert node.wait() == 3


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(site: Site, closed: str) -> None:
    assert site.run("--", "sh", "-c", "exit 3", before=shell(f'exec "$@" {closed}')).wait() == 3


@pytest.mark.parametrize("status", [0, 3])
def test_a_standard_output_on_a_full_disk(site: Site, status: int) -> None:
    with Path("/dev/full").open("wb") as full:
        node = site.run("--", "sh", "-c", f"echo lost; exit {status}", stdout=full)
    check("stdout-full", there=node.wait(), workload=status)


@pytest.mark.parametrize("command", ["detect", "check", "--help", "--version"])
def test_a_report_on_a_full_disk_is_an_error(site: Site, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        node = site.run(command, stdout=full)
    assert node.wait() == 64
    assert "standard output cannot be written: No space left on device\nray-bootstrap: fix: redirect it" in node.err


@pytest.mark.parametrize("status", [0, 3])
def test_a_reader_of_standard_error_that_has_gone(site: Site, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    node = site.run("--", "sh", "-c", f"exit {status}", stderr=write)
    os.close(write)
    check("stderr-closed", there=node.wait(), workload=status)


def test_a_reader_of_standard_error_that_stalls_costs_no_worker(site: Site) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)
    head = site.rank(0, 2, "--heartbeat-timeout=1s", workload=["sh", "-c", "sleep 2; exit 3"], stderr=write)
    worker = site.rank(1, 2, "--heartbeat-timeout=1s", workload=["true"])
    check("stderr-stalls", elsewhere=[worker.wait()], there=head.wait(), workload=3)
    os.close(read)
    os.close(write)


def test_children_of_the_script_that_became_us_are_not_ours(site: Site) -> None:
    node = site.run("--", "true", before=shell('sleep 60 & echo $! > stranger; exec "$@"'))
    assert node.process.wait(20) == 0
    stranger = int((node.folder / "stranger").read_text())
    os.kill(stranger, signal.SIGTERM)  # raises if it is gone
    wait_for(lambda: not Path(f"/proc/{stranger}").exists() or "Z" in Path(f"/proc/{stranger}/stat").read_text())


def test_a_working_directory_full_of_modules(site: Site) -> None:
    console = Path(sys.executable).with_name("ray-bootstrap")
    node = site.run(before=shell(f"echo 'raise SystemExit(1)' > queue.py; exec {console} -- true"))
    assert (node.wait(), node.starts != []) == (0, True)


def test_a_signal_that_comes_as_the_start_of_ray_ends(site: Site) -> None:
    """The waiting task is done and cancelled in one turn of the loop: neither may be lost."""
    node = site.run("--grace=1h", "--", "sleep", "60", env={"FAKE_RAY": "gate"})
    node.appears("record")
    os.kill(node.agent, signal.SIGSTOP)
    node.record_file.with_name("record.go").touch()
    time.sleep(0.5)  # nothing shows from outside that the answer lies in the pipe; too early, and this tests less
    node.send(signal.SIGTERM)
    os.kill(node.agent, signal.SIGCONT)
    assert node.wait() == 143


def test_a_socket_that_answers_is_somebody_elses(tmp_path: Path) -> None:
    held, left = tmp_path / "held", tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(held))
        server.listen()
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(left))
        remove_sockets([str(held), str(left), str(tmp_path / "absent")])
        assert held.exists()
        assert not left.exists()
