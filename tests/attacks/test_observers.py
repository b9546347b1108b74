"""What another user of a node may learn of a run, and that he neither ends nor uses it."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 (create_connection wants it, and another user cannot read ours)
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import neighbour
import pytest
from agents import states
from namespaces import wait_for

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("root", "setpriv")

AS_HIM = ("setpriv", f"--reuid={neighbour.UID}", f"--regid={neighbour.UID}", "--clear-groups")
SECRET = {"RAY_BOOTSTRAP_SECRET": "correct horse battery staple"}


@pytest.mark.parametrize("count", [1, 2])
def test_another_user_neither_sees_nor_ends_a_run(site: Site, count: int) -> None:
    """Also not that of a single node, whose roll call he reaches on loopback."""
    site.folder.chmod(0o711)
    who = ("--head-address=127.0.0.1", f"--nodes={count}")
    nodes = [site.run(f"--rank={rank}", *who, env=SECRET) for rank in range(count)]
    for node in nodes:
        node.is_in("running" if node is nodes[0] else "joined")
    (state,) = [each for each in states() if each.get("run_id") == site.run_id and each["role"] == "head"]
    key = Path(state["folder"], "observer")
    assert (key.stat().st_mode & 0o777, neighbour.does('cat "$1" 2>&1 | grep -c denied', key)) == (0o600, "1\n")
    port = state["rollcall"].rpartition(":")[2]
    for command in ("env", "down", "wait"):
        his = site.run(command, *(["--timeout=2"] if command == "wait" else []), before=AS_HIM)
        assert his.wait() == 68
        assert "this user has no run" in his.err
    for env, why in (
        ({}, "this node has no secret"),
        ({"RAY_BOOTSTRAP_SECRET": "guess"}, "its secret is not the head's"),
    ):
        his = site.run("down", "--head-address=127.0.0.1", f"--rollcall-port={port}", before=AS_HIM, env=env)
        assert his.wait() == 77
        assert why in his.err
    assert [node.process.poll() for node in nodes] == [None] * count
    assert site.run("down").wait() == 0
    assert [node.wait() for node in nodes] == [0] * count


def test_a_flood_that_keeps_us_out_does_not_pass_for_the_end_of_the_run(site: Site) -> None:
    node = site.run("--rank=0", "--nodes=1", "--head-address=127.0.0.1", env=SECRET)
    node.is_in("running")
    (state,) = [each for each in states() if each.get("run_id") == site.run_id]
    port = int(state["rollcall"].rpartition(":")[2])
    floods = [neighbour.forked(lambda: flood(port)) for _ in range(2)]
    try:
        wait_for(lambda: not answers(port), 20, "the flood")
        status = site.run("status", "--run")
        assert status.wait() in (0, 2)
        assert "the cluster stands" in status.out or f"run {site.run_id!r} is not up" in status.err
        os.kill(state["pid"], signal.SIGTERM)
        assert node.wait() == 143
    finally:
        for pid in floods:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def flood(port: int) -> None:
    neighbour.becomes()
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()


def answers(port: int) -> bool:
    """Whether the head keeps a connection that says nothing yet."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5) as peer:
        try:
            return bool(peer.recv(1))
        except TimeoutError:
            return True
        except OSError:
            return False
