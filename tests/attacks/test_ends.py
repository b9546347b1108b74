"""What a stranger without the secret does to end a run before its quorum, and cannot (docs/rollcall.md)."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from rollcall_peers import SECRET, Peer, a_head, hello, join, looped
from test_blackbox_dead_end import slurm_task

if TYPE_CHECKING:
    from agents import Site

pytest_plugins = ["agents"]

OTHER = {"host": "other", "ip": "10.9.9.9"}


@looped
async def test_without_the_secret_no_one_gets_as_far_as_a_claim() -> None:
    async with a_head(SECRET) as head:
        holder = await join(head.address, hello(1), SECRET)
        for claim in (hello(1, **OTHER), hello(1, size=9), hello(0)):
            stranger = await Peer.connect(head.port)
            assert (await stranger.enrol(claim))["kind"] == "secret"
            stranger.close()
            guesser = await Peer.connect(head.port)
            assert (await guesser.enrol(claim, b"guess"))["kind"] == "secret"
            guesser.close()
        assert head.misfits == []
        assert not holder.ended.done()
        holder.close()


def test_a_stranger_at_another_address_ends_no_run_by_a_wrong_secret(site: Site) -> None:
    head = slurm_task(site, 0, "127.0.0.1,127.0.0.77")
    head.says("roll call is open at ")
    port = int(head.err.partition("roll call is open at 127.0.0.1:")[2].split()[0])
    for _ in range(20):
        show_a_wrong_secret("127.0.0.66", port)
    head.says("rejected 127.0.0.66: its secret is not the head's")
    assert head.err.count("rejected 127.0.0.66") == 1
    head.says("waiting for rank 1 (not seen)")
    assert head.process.poll() is None
    show_a_wrong_secret("127.0.0.77", port)
    assert head.wait() == 77
    assert "rank 1 (127.0.0.77): the secret there is not the head's" in head.verdict["reason"]


def show_a_wrong_secret(source: str, port: int) -> None:
    """As a peer at this address that speaks the protocol."""
    with socket.create_connection(("127.0.0.1", port), source_address=(source, 0), timeout=10) as peer:
        lines = peer.makefile("rwb")
        lines.write(json.dumps({"t": "hail", "v": 6, "nonce": "0" * 32}).encode() + b"\n")
        lines.flush()
        lines.readline()
        lines.write(b'{"t":"hello"} ' + b"0" * 32 + b"\n")
        lines.flush()
        assert b'"kind":"secret"' in lines.readline()
