"""Names that a neighbour takes before us: a run uses others, and never fails because of his files."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING

import neighbour
import pytest

from bootstrap.errors import RayStartFailed
from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.raynode import ports
from bootstrap.run.dashboard import Dashboard
from bootstrap.settings import Settings

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]
pytestmark = pytest.mark.requires("linux", "root", "setpriv")

TAKEN = {
    "folder": 'mkdir -m 777 "$1" && touch "$1/his"',
    "closed folder": 'mkdir -m 700 "$1" && touch "$1/his"',
    "file": 'touch "$1"',
    "fifo": 'mkfifo "$1"',
    "link": 'ln -s /etc "$1"',
}


@pytest.mark.parametrize("what", TAKEN)
def test_our_folder_in_the_shared_one(site: Site, what: str) -> None:
    site.folder.chmod(0o711)
    site.shared.chmod(0o1777)
    taken = site.shared / f"ray-bootstrap-{os.geteuid()}"
    neighbour.does(TAKEN[what], taken)
    assert taken.lstat().st_uid == neighbour.UID
    before = sorted(site.shared.rglob("*"))
    args = ["--nodes=2", f"--shared-dir={site.shared}", "--head-timeout=15s"]
    nodes = [site.run(f"--rank={rank}", *args, "--", "true") for rank in range(2)]
    assert [node.wait() for node in nodes] == [0, 0], nodes[0].err + nodes[1].err
    assert sorted(site.shared.rglob("*")) == before
    assert all("removing" not in node.err for node in nodes)


def test_every_port_is_claimed() -> None:
    """The claims are names of sockets, which any user can take in the same network namespace."""
    pool = [*ports._STANDARD.values(), ports._AGENT_HTTP, *itertools.chain(*ports._POOL)]

    def claim_all(claimed: int, until: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        neighbour.becomes()
        claims = [socket.socket(socket.AF_UNIX) for _ in pool]
        for port, claim in zip(pool, claims, strict=True):
            claim.bind(f"\0ray-bootstrap/port/{port}")
        os.write(claimed, b"!")
        os.read(until, 1)

    def choose() -> None:
        claimed, until = socket.socketpair(), socket.socketpair()
        him = neighbour.forked(lambda: claim_all(claimed[1].fileno(), until[1].fileno()))
        claimed[1].close()
        assert claimed[0].recv(1) == b"!", "he could not claim them"
        ports._claims.clear()
        for role in Role:
            chosen = ports.choose(Settings(), role, Host({}, "node"))
            assert len(set(chosen.values())) == len(chosen)
            assert all(ports.is_free(port) for port in chosen.values())
        until[0].send(b"!")
        os.waitpid(him, 0)

    assert os.waitpid(neighbour.forked(choose, network=True), 0)[1] == 0


@pytest.mark.parametrize("where", ["127.0.0.1", "0.0.0.0", "::1"])
def test_his_server_in_the_place_of_the_dashboard_gets_no_jobs(where: str) -> None:
    """Ray's command line shows the port a second before Ray binds it; a job would bring him the token."""
    family = socket.AF_INET6 if ":" in where else socket.AF_INET

    def serve(tell: int) -> None:
        neighbour.becomes()
        with socket.create_server((where, 0), family=family) as server:
            os.write(tell, str(server.getsockname()[1]).encode())
            while True:
                caller, _ = server.accept()
                caller.recv(65536)
                caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                caller.close()

    told, tell = os.pipe()
    him = neighbour.forked(lambda: serve(tell))
    ports = {"dashboard_port": int(os.read(told, 8)), "dashboard_agent_listen_port": 9}
    try:
        with pytest.raises(RayStartFailed, match=f"uid {neighbour.UID} listens at "):
            asyncio.run(Dashboard.of(ports, where, "127.0.0.1").fault())
    finally:
        os.kill(him, signal.SIGKILL)
        os.waitpid(him, 0)
        os.close(told)
        os.close(tell)
