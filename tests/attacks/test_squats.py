"""Names that a neighbour takes before us: a run uses others, and never fails because of his files."""

from __future__ import annotations

import itertools
import os
import resource
import socket

import neighbour
import pytest

from bootstrap.host import Host
from bootstrap.model import Role
from bootstrap.raynode import ports
from bootstrap.settings import Settings

pytestmark = pytest.mark.requires("linux", "root", "setpriv")


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
