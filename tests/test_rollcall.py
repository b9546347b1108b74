"""The roll call's contract: each fault against the real head and worker, over real sockets (docs/rollcall.md)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rollcall_peers import (
    ME,
    PATIENCE,
    RUN,
    SECRET,
    Keys,
    Peer,
    a_head,
    a_peer,
    a_program,
    a_wire,
    free_port,
    given,
    hello,
    join,
    looped,
    tag,
)

from bootstrap.errors import BootstrapError, IdentityError, RayDied, Refused, UsageError
from bootstrap.files.secret import NO_SECRET, Secret
from bootstrap.model import HeadAddress, Phase, Verdict
from bootstrap.rollcall import auth, handshake, head_connection, listener, server, wire
from bootstrap.rollcall.admission import MOST_NODES, misfit, rank_for
from bootstrap.rollcall.client import Membership
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.refusal import NotThisHead

DONE = Verdict(7, "the workload said 7", "workload")
SHORT = 0.8
"""Seconds of heartbeat time-out, where a test waits for it; a busy machine may stall both sides for a part of it."""
SLACK = 10.0


# ------------------------------------------------------------------------------------------------- the wire's format


def test_the_tag_is_as_documented() -> None:
    """The value is openssl's: ``printf %s TEXT | openssl dgst -sha256 -hmac KEY``."""
    nonce = "ab" * 16
    assert auth.run_tag("r", 3, nonce) == tag(nonce, "r", 3) == "c4eb592071ef1d00c02c99fc933765e4"


def test_the_key_derivation_is_that_of_rfc_5869() -> None:
    """Its test case 1 (A.1), of which we take the first 32 bytes, and case 3 (A.3): no salt, no info."""
    secret, salt, info = b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))
    expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    assert auth.hkdf(secret, salt, info).hex() == expected
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert auth.hkdf(secret, b"", b"").hex() == expected


def test_a_mac_is_as_documented() -> None:
    """The value is openssl's, in docs/rollcall.md."""
    worker, head = "ab" * 16, "cd" * 16
    ours, theirs = (auth.Authenticator(SECRET, side, worker + head, "r", 3) for side in ("worker", "head"))
    documented = Keys(SECRET, "worker", worker, head, "r", 3)
    for line in (b'{"t":"beat"}\n', b'{"t":"bye","reason":"x"}\n', b'{"t":"beat"}\n'):
        signed = ours.sign(line)
        assert signed == documented.sign(line)
        assert theirs.verify(signed.rstrip(b"\n")) == line.rstrip(b"\n")
    first = auth.Authenticator(SECRET, "worker", worker + head, "r", 3).sign(b'{"t":"beat"}\n')
    assert first == b'{"t":"beat"} b472a51fa8d5eca7055c2e2059346862\n'


@pytest.mark.parametrize("change", ["again", "skipped", "reflected", "changed", "another run", "another nonce", "none"])
def test_what_is_not_the_next_line_of_the_other_side_is_not_accepted(change: str) -> None:
    nonces = "0" * 64
    worker, head = (auth.Authenticator(SECRET, side, nonces, RUN, 0) for side in ("worker", "head"))
    first, second = (worker.sign(b'{"t":"phase","n":%d}\n' % n) for n in (1, 2))
    assert head.verify(first[:-1])
    signed = {
        "again": first,
        "skipped": worker.sign(b'{"t":"phase","n":3}\n'),
        "reflected": head.sign(b'{"t":"beat"}\n'),
        "changed": second.replace(b"2", b"3", 1),
        "another run": auth.Authenticator(SECRET, "worker", nonces, "other", 0).sign(b"{}\n"),
        "another nonce": auth.Authenticator(SECRET, "worker", "1" * 64, RUN, 0).sign(b"{}\n"),
        "none": b'{"t":"phase","n":2}\n',
    }[change]
    with pytest.raises(auth.BadMac):
        head.verify(signed[:-1])
    assert head.verify(second[:-1])  # and the connection, if it were not cut, would go on


# ----------------------------------------------------------------------------------------------------------- the fence


@looped
async def test_a_worker_is_welcomed_by_its_head() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(3))
        assert (worker.rank, worker.head) == (3, ME.host)
        assert head.call.members[3].connected
        assert head.call.present == 1
        assert head.news == ["3: host-3 (10.0.0.13) connected"]
        worker.close()


@pytest.mark.parametrize("other", [{"run": "yesterday's"}, {"attempt": 1}, {"run": ""}])
@looped
async def test_another_runs_head_is_not_mine(other: dict[str, Any]) -> None:
    async with a_head() as head:
        mine = await join(head.address, hello(1))
        async with a_wire(head.port) as between:
            with pytest.raises(NotThisHead, match="another run's head"):
                await join(between.address, hello(2, **other))
            assert [m["t"] for m in between.messages("worker")] == ["hail"]  # it did not say which run it is of
        assert set(head.call.members) == {1}
        assert not mine.ended.done()
        mine.close()


@pytest.mark.parametrize("other", [{"run": "yesterday's"}, {"attempt": 1}])
@looped
async def test_a_worker_that_says_another_run_after_all_is_sent_on(other: dict[str, Any]) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        answer = await peer.enrol(hello(1, **other))
        assert (answer["t"], answer["kind"]) == ("refuse", "other-run")
        assert await peer.gone()
        assert not head.call.members


async def _says(peer: Peer, *what: bytes) -> None:
    for each in what:
        peer.send(each)
    await peer.reader.read()


async def _closes(peer: Peer) -> None:
    await peer.reader.read(1)


async def _resets(peer: Peer) -> None:
    peer.writer.transport.abort()


async def _never_ends_a_line(peer: Peer) -> None:
    for _ in range(1000):
        peer.send(b"x" * 65536)
        await peer.writer.drain()


FOREIGN: dict[str, Callable[[Peer], Awaitable[object]]] = {
    "an HTTP server": lambda peer: _says(peer, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "an SSH server": lambda peer: _says(peer, b"SSH-2.0-OpenSSH_9.2\r\n"),
    "bytes": lambda peer: _says(peer, bytes(range(256)) * 10),
    "JSON of another kind": lambda peer: _says(peer, b'{"jsonrpc": "2.0"}\n'),
    "a list": lambda peer: _says(peer, b"[1]\n"),
    "empty lines": lambda peer: _says(peer, b"\n\n\n"),
    "nesting": lambda peer: _says(peer, b"[" * 16000 + b"\n"),
    "a welcome out of turn": lambda peer: _says(peer, b'{"t":"welcome","rank":1,"head":"h"}\n'),
    "a verdict out of turn": lambda peer: _says(peer, b'{"t":"verdict","status":0,"reason":"","source":"workload"}\n'),
    "a challenge without its parts": lambda peer: _says(peer, b'{"t":"challenge"}\n'),
    "a refusal without a tag": lambda peer: _says(peer, b'{"t":"refuse","kind":"identity","reason":"x","head":"h"}\n'),
    "a line without an end": _never_ends_a_line,
    "something that closes": _closes,
    "something that resets": _resets,
}


@pytest.mark.parametrize("what", FOREIGN)
@looped
async def test_another_program_is_not_my_head(what: str) -> None:
    async with a_program(FOREIGN[what]) as address:
        with pytest.raises(NotThisHead):
            await join(address, hello())


@looped
async def test_a_program_that_says_nothing_is_not_my_head() -> None:
    async with a_program(lambda peer: _says(peer, b"")) as address:
        began = time.monotonic()
        with pytest.raises(NotThisHead, match=r"no answer within 0\.2 s"):
            await join(address, hello(), timeout=0.2)
        assert time.monotonic() - began < PATIENCE


@looped
async def test_a_program_that_drips_is_not_my_head() -> None:
    async def drip(peer: Peer) -> None:
        while True:
            peer.send(b" ")
            await asyncio.sleep(0.02)

    async with a_program(drip) as address:
        with pytest.raises(NotThisHead, match="no answer"):
            await join(address, hello(), timeout=0.3)


@looped
async def test_what_no_name_server_can_have_is_not_my_head() -> None:
    with pytest.raises(NotThisHead, match="idna"):
        await join(HeadAddress("bad_host..x", 1), hello())


@looped
async def test_where_nobody_is_there_is_no_head() -> None:
    with pytest.raises(NotThisHead, match=r"^connection refused$"):
        await join(HeadAddress("127.0.0.1", free_port()), hello())


@looped
async def test_a_head_that_restarted_is_a_new_head_to_those_who_had_joined_and_to_those_who_look() -> None:
    async with a_head() as first:
        joined = await join(first.address, hello(1))
        looking = Membership(hello(2), NO_SECRET, 30)
        await looking.greet(first.address, 5)
    with pytest.raises(RayDied, match=f"lost the head {ME.host} without a verdict"):
        await asyncio.wait_for(asyncio.shield(joined.ended), PATIENCE)
    with pytest.raises(NotThisHead):
        await looking.enrol(5)
    with pytest.raises(NotThisHead):
        await join(first.address, hello(2))
    async with a_head() as second:
        again = await join(second.address, hello(2))
        assert set(second.call.members) == {2}
        assert joined.ended.exception()  # and so for ever
        again.close()
    async with a_head(port=first.port, attempt=1):
        with pytest.raises(NotThisHead, match="another run's head"):
            await join(first.address, hello(2))


@looped
async def test_a_port_that_is_taken_is_passed_over_and_if_all_are_said() -> None:
    async with a_head() as head:
        async with a_head(port=free_port()) as other:
            assert other.port != head.port
        call = server.RollCall(ME, NO_SECRET, 30)
        free = free_port()
        assert call.listen([head.port, free]) == free
        call.close()
        with pytest.raises(UsageError, match=rf"no port is free for the roll call \(tried {head.port}\)") as caught:
            server.RollCall(ME, NO_SECRET, 30).listen([head.port])
        assert "--rollcall-port" in caught.value.hint


# ---------------------------------------------------------------------------------------------------- identity and size


@looped
async def test_one_rank_claimed_twice_names_both_hosts() -> None:
    async with a_head() as head:
        first = await join(head.address, hello(1))
        with pytest.raises(IdentityError) as caught:
            await join(head.address, hello(1, host="other", ip="10.9.9.9"))
        assert caught.value.message == (
            "refused by the head head-host: rank 1 is claimed by two nodes:"
            " host-1 (10.0.0.11) has it, other (10.9.9.9) wants it"
        )
        assert head.call.members[1].hello.host == "host-1"
        assert not first.ended.done()
        first.close()


@pytest.mark.parametrize(
    ("claim", "size", "complaint"),
    [
        ({"rank": 0}, None, "rank 0 is claimed by two nodes: head-host (10.0.0.1) has it, host-1 (10.0.0.11) wants it"),
        ({"rank": 2}, 2, "host-1 (10.0.0.11) has rank 2, but the run on head-host has 2 nodes"),
        ({"rank": -1}, 2, "host-1 (10.0.0.11) has rank -1, but the run on head-host has 2 nodes"),
        (
            {"rank": -1},
            None,
            f"host-1 (10.0.0.11) has rank -1, but the run on head-host has at most {MOST_NODES} nodes",
        ),
        (
            {"rank": MOST_NODES},
            None,
            f"host-1 (10.0.0.11) has rank {MOST_NODES}, but the run on head-host has at most {MOST_NODES} nodes",
        ),
        ({"size": 3}, 2, "host-1 (10.0.0.11), rank 1, expects 3 nodes, the head head-host expects 2"),
        ({"rank": None}, 1, "host-1 (10.0.0.11) has no rank, and all 1 ranks of the run on head-host are taken"),
    ],
)
@looped
async def test_what_does_not_fit_the_run_is_an_identity_error(
    claim: dict[str, Any], size: int | None, complaint: str
) -> None:
    async with a_head(size=size) as head:
        with pytest.raises(IdentityError) as caught:
            await join(head.address, dataclasses.replace(hello(1), **claim))
        assert caught.value.message.startswith("refused by the head head-host: ")
        assert caught.value.message.endswith(complaint)
        assert not head.call.members
        assert complaint in head.call.rejected[0]
        assert head.misfits == ([] if claim == {"rank": None} else [complaint])


@pytest.mark.parametrize(("theirs", "mine"), [(None, 4), (4, None), (None, None), (4, 4)])
def test_a_size_that_one_side_does_not_know_fits(theirs: int | None, mine: int | None) -> None:
    me, worker = dataclasses.replace(ME, size=mine), hello(3, size=theirs)
    assert (misfit(me, worker), rank_for(me, worker, 1)) == ("", 3)


@looped
async def test_unnumbered_nodes_get_the_lowest_free_rank_and_that_of_one_who_was_lost() -> None:
    async with a_head(size=4) as head:
        numbered = await join(head.address, hello(2))
        one, three = [await join(head.address, hello(None, host=f"h{n}")) for n in range(2)]
        assert (one.rank, three.rank) == (1, 3)
        with pytest.raises(IdentityError, match="all 4 ranks of the run"):
            await join(head.address, hello(None))
        one.close()
        await head.until(lambda: head.phase(1) is Phase.LOST)
        new = await join(head.address, hello(None, host="new"))
        assert new.rank == 1
        assert head.call.members[1].hello.host == "new"
        for each in (numbered, three, new):
            each.close()


@looped
async def test_a_rank_taken_over_in_the_moment_of_its_release_stays_with_the_new_node() -> None:
    async with a_head() as head, a_peer(head.port) as old, a_peer(head.port) as new:
        assert (await old.enrol(hello(1)))["t"] == "welcome"
        await new.agree()
        third = await join(head.address, hello(3))  # so the proof has been read
        # Both are read in one turn of the loop: the good-bye closes a connection that is reported lost only afterwards.
        old.send({"t": "bye", "reason": "moved"})
        new.send({"t": "hello", **dataclasses.asdict(hello(1, host="new"))})
        assert (await new.hear())["t"] == "welcome"
        assert await old.gone()
        assert head.call.members[1].connected
        assert head.call.members[1].hello.host == "new"
        assert head.phase(1) is Phase.WAITING
        third.close()


# --------------------------------------------------------------------------------------------- agreement before Ray


def speak_another_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has workers, but not the head, speak another version of the protocol."""
    monkeypatch.setattr(head_connection, "auth", SimpleNamespace(**{**vars(auth), "VERSION": 7}))


@looped
async def test_another_protocol_is_refused_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_head() as head:
        speak_another_protocol(monkeypatch)
        with pytest.raises(Refused, match=r"protocol 7 on 127\.0\.0\.1, 6 on head-host"):
            await join(head.address, hello())
        assert head.call.rejected == ["127.0.0.1: protocol 7 on 127.0.0.1, 6 on head-host (0 s ago)"]


@looped
async def test_another_protocol_of_another_run_is_just_not_this_head(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_head() as head:
        speak_another_protocol(monkeypatch)
        with pytest.raises(NotThisHead):
            await join(head.address, hello(run="other"))


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [
        ({"ray": "2.60.1"}, "Ray 2.60.1 on host-1, Ray 2.60.0 on head-host"),
        ({"ray": "none"}, "Ray none on host-1, Ray 2.60.0 on head-host"),
        ({"python": "3.11.8"}, "Python 3.11.8 on host-1, Python 3.11.7 on head-host"),
        ({"python": "3.12.7"}, "Python 3.12.7 on host-1, Python 3.11.7 on head-host"),
    ],
)
@looped
async def test_versions_that_ray_would_reject_are_refused_with_both(theirs: dict[str, str], complaint: str) -> None:
    async with a_head() as head:
        with pytest.raises(Refused) as caught:
            await join(head.address, hello(1, **theirs))
        assert caught.value.message == f"refused by the head head-host: {complaint}"
        assert head.phase(1) is Phase.REFUSED
        assert head.news == [f"1: refused: {complaint}"]
        mended = await join(head.address, hello(1))
        assert mended.rank == 1
        mended.close()


@pytest.mark.parametrize(("python", "fits"), [("3.11.9", True), ("3.12.7", False)])
@looped
async def test_pythons_patch_level_may_differ_where_ray_is_told_so(python: str, fits: bool) -> None:
    async with a_head(any_python_patch=True) as head:
        with contextlib.nullcontext() if fits else pytest.raises(Refused):
            worker = await join(head.address, hello(1, python=python))
            worker.close()


# ------------------------------------------------------------------------------------------------------------- secret


@looped
async def test_with_the_secret_both_sides_prove_it_and_never_say_it() -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as between:
        worker = await join(between.address, hello(), SECRET)
        said = between.messages("worker")
        assert [m["t"] for m in said[:2]] == ["hail", "hello"]
        assert [m["t"] for m in between.messages("head")][:2] == ["challenge", "welcome"]
        assert RUN not in str(said[:1])
        for side in between.said.values():
            assert SECRET not in side
        worker.close()


@looped
async def test_the_head_says_nothing_that_depends_on_the_secret_before_the_worker_has_proved_it() -> None:
    answers = []
    for secret in (SECRET, b"another"):
        async with a_head(secret) as head, a_peer(head.port) as peer:
            answers.append({**await peer.hail(), "nonce": ""})
    assert answers[0] == answers[1] == {"t": "challenge", "nonce": "", "tag": tag("0" * 32), "auth": "secret"}


TOKEN = dataclasses.replace(given(SECRET), is_token=True)


@pytest.mark.parametrize(
    ("theirs", "mine", "complaint"),
    [
        (b"wrong", SECRET, "refused by the head head-host: its secret is not the head's; this node's is from the test"),
        (None, SECRET, "the head has a secret, this node has no secret"),
        (SECRET, None, "the head has no secret, this node has a secret (the test)"),
        (TOKEN, SECRET, "the head has a secret, this node has Ray's token (the test)"),
        (SECRET, TOKEN, "the head has Ray's token, this node has a secret (the test)"),
    ],
)
@looped
async def test_secrets_that_differ_are_refused(
    theirs: bytes | Secret | None, mine: bytes | Secret | None, complaint: str
) -> None:
    async with a_head(mine) as head, a_wire(head.port) as between:
        with pytest.raises(Refused) as caught:
            await join(between.address, hello(), theirs)
        assert caught.value.message == complaint
        assert "RAY_BOOTSTRAP_SECRET" in caught.value.hint
        await head.until(lambda: head.refused)
        assert [who.partition(";")[0] for who in head.refused] == ["127.0.0.1: its secret is not the head's"]
        assert {m["t"] for m in between.messages("head")} <= {"challenge", "refuse"}
        for side in between.said.values():
            for hidden in (SECRET, b"wrong"):
                assert hidden not in side
        if theirs is None or mine is None:
            assert [m["t"] for m in between.messages("worker")] == ["hail", "bye"]
        assert not head.call.members


@looped
async def test_a_handshake_cannot_be_played_back() -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as between:
        worker = await join(between.address, hello(), SECRET)
        worker.close()
        recorded = bytes(between.said["worker"])
        async with a_peer(head.port) as thief:
            thief.send(recorded)
            answers = [await thief.hear() for _ in range(3)]
            assert [a.get("t") for a in answers] == ["challenge", "refuse", None]
            assert answers[1]["reason"] == "its secret is not the head's"


@pytest.mark.parametrize("instead", [{"t": "hello"}, {"t": "proof", "proof": ""}, {"t": "bye"}, {"t": "welcome"}])
@looped
async def test_who_does_not_prove_does_not_come_in(instead: dict[str, Any]) -> None:
    async with a_head(SECRET) as head, a_peer(head.port) as peer:
        await peer.hail()
        peer.send(instead)
        peer.send({"t": "hello", **dataclasses.asdict(hello())})
        assert (await peer.hear()).get("t") == "refuse"
        assert await peer.gone()
        assert not head.call.members


@looped
async def test_a_head_that_knows_the_run_but_not_the_secret_cannot_welcome_release_or_end_a_worker() -> None:
    async def pretend(peer: Peer) -> None:
        nonce = (await peer.hear())["nonce"]
        peer.send({"t": "challenge", "nonce": "2" * 32, "tag": tag(nonce), "auth": "secret"})
        assert (await peer.hear())["t"] == "hello"
        peer.keys = Keys(b"a guess", "head", nonce, "2" * 32)
        peer.send({"t": "welcome", "rank": 1, "head": "h"})
        await peer.reader.read()

    async with a_program(pretend) as address:
        worker = Membership(hello(), given(SECRET), 30)
        await worker.greet(address, 5)
        with pytest.raises(NotThisHead, match="a line with a wrong MAC"):
            await worker.enrol(5)
        assert worker.released.cancelled()
        assert isinstance(worker.ended.exception(), RayDied)


@pytest.mark.parametrize("auth_said", ["none", "token", "munge", "magic"])
@looped
async def test_no_head_can_talk_a_worker_out_of_its_secret(auth_said: str) -> None:
    heard: list[dict[str, Any]] = []

    async def pretend(peer: Peer) -> None:
        nonce = (await peer.hear())["nonce"]
        peer.send({"t": "challenge", "nonce": "2" * 32, "tag": tag(nonce), "auth": auth_said})
        heard.append(await peer.hear())
        peer.send({"t": "welcome", "rank": 1, "head": "h"})
        peer.send({"t": "verdict", "status": 0, "reason": "", "source": "workload"})
        await peer.reader.read()

    async with a_program(pretend) as address:
        with pytest.raises(Refused, match="this node has a secret"):
            await join(address, hello(), SECRET)
    assert heard == [{"t": "bye", "reason": "another kind of secret"}]


@looped
async def test_a_heads_old_answer_does_not_pass_for_a_new_one() -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as between:
        worker = await join(between.address, hello(), SECRET)
        worker.close()
        recorded = bytes(between.said["head"])
    async with a_program(lambda peer: _says(peer, recorded)) as address:
        with pytest.raises(NotThisHead):
            await join(address, hello(), SECRET)


@pytest.mark.parametrize("beat", [wire.BEAT, b'{ "t": "beat" }\n'])
@pytest.mark.parametrize("secret", [None, SECRET])
@looped
async def test_a_stranger_may_not_beat(beat: bytes, secret: bytes | None) -> None:
    """Beats without number would keep the head busy, and cost nothing."""
    async with a_head(secret) as head:
        for hailed in (False, True):
            async with a_peer(head.port) as peer:
                if hailed:
                    await peer.hail()
                peer.send(beat)
                assert await peer.gone()


@looped
async def test_an_open_head_does_not_tell_its_run_id() -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        answer = await peer.enrol(hello(1, run="a guess"))
        assert (answer["kind"], answer["reason"]) == ("other-run", "this is not run 'a guess', attempt 0")


@looped
async def test_what_is_changed_on_its_way_ends_the_connection() -> None:
    async with a_head(SECRET) as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1), SECRET))["t"] == "welcome"
        assert peer.keys is not None
        line = peer.keys.sign(b'{"t":"phase","phase":"joined","detail":"","error":""}\n')
        peer.send(line.replace(b"joined", b"failed"))
        assert await peer.gone()
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert head.call.members[1].detail == "it does not speak the roll call's protocol: a line with a wrong MAC"


# ------------------------------------------------------------------------------------------------- release and verdict


@looped
async def test_the_release_reaches_those_who_wait_and_those_who_come_later() -> None:
    async with a_head() as head:
        early = await join(head.address, hello(1))
        assert not early.released.done()
        head.call.release("10.0.0.1:6379")
        assert await asyncio.wait_for(early.released, PATIENCE) == "10.0.0.1:6379"
        late = await join(head.address, hello(2))
        assert await asyncio.wait_for(late.released, PATIENCE) == "10.0.0.1:6379"
        early.close()
        late.close()


@looped
async def test_each_is_told_for_how_long_the_head_waits() -> None:
    async with a_head() as head:
        clock = asyncio.get_running_loop().time
        head.call.release("10.0.0.1:6379", clock() + 300)
        first = await join(head.address, hello(1))
        await asyncio.wait_for(first.released, PATIENCE)
        assert first.deadline is not None
        assert 300 - PATIENCE < first.deadline - clock() <= 300
        head.call.announcements.deadline = None  # the quorum is reached
        second = await join(head.address, hello(2))
        await asyncio.wait_for(second.released, PATIENCE)
        assert second.deadline is None
        first.close()
        second.close()


@looped
async def test_the_same_phase_again_changes_its_detail_and_not_since_when() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        worker.report(Phase.STARTING_RAY)
        await head.until(lambda: head.phase(1) is Phase.STARTING_RAY)
        since = head.call.members[1].since
        worker.report(Phase.STARTING_RAY, "registering with GCS")
        await head.until(lambda: head.call.members[1].detail)
        assert head.call.members[1].since == since
        worker.report(Phase.FAILED, "no", "ray-start", "mend it")
        await head.until(lambda: head.phase(1) is Phase.FAILED)
        assert head.call.members[1].since > since
        assert head.call.members[1].hint == "mend it"
        worker.close()


@looped
async def test_the_head_knows_how_far_each_is() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        worker.report(Phase.STARTING_RAY)
        await head.until(lambda: head.phase(1) is Phase.STARTING_RAY)
        worker.report(Phase.FAILED, "raylet:\n\x1b[31mno space\x1b[0m", "ray-start")
        await head.until(lambda: head.phase(1) is Phase.FAILED)
        assert head.call.members[1].error == "ray-start"
        assert head.call.members[1].detail == "raylet:\n\ufffd[31mno space\ufffd[0m"  # a terminal is not moved by it
        await worker.leave("Ray did not start")
        await head.until(lambda: not head.call.members[1].connected)
        assert head.phase(1) is Phase.FAILED


@pytest.mark.parametrize("stay", [True, False])
@looped
async def test_a_stopped_worker_asks_once_whether_to_stay(stay: bool) -> None:
    async with a_head(SECRET) as head, a_wire(head.port) as between:
        asked: list[int] = []

        def answer(member: Member) -> None:
            asked.append(member.rank)
            head.call.answer_stopped(member, stay=stay)

        head.call.on_stopped = answer
        worker = await join(between.address, hello(1), SECRET)
        worker.report(Phase.JOINED)
        for _ in range(3):
            worker.report_stopped()
        assert await asyncio.wait_for(worker.stays, PATIENCE) is stay
        await worker.leave("stopped by SIGTERM")
        assert asked == [1]
        assert head.news[1:2] == ["1: joined"]  # to ask is no change: it is no loss
        assert [m for m in between.messages("head") if m["t"] in ("stay", "drain")] == [
            {"t": "stay" if stay else "drain"}
        ]
        assert {"t": "stopped"} in between.messages("worker")


@looped
async def test_an_answer_to_a_worker_that_has_gone_meanwhile_is_dropped() -> None:
    async with a_head() as head:
        asked: list[Member] = []
        head.call.on_stopped = asked.append
        worker = await join(head.address, hello(1))
        worker.report_stopped()
        await worker.leave("stopped by SIGTERM")
        await head.until(lambda: not head.call.present)
        head.call.answer_stopped(asked[0], stay=True)
        assert worker.stays.cancelled()


@looped
async def test_who_says_good_bye_is_not_lost() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        await worker.leave("got SIGTERM")
        await head.until(lambda: head.phase(1) is Phase.LEFT)
        assert head.call.members[1].detail == "got SIGTERM"
        assert head.call.present == 0


@looped
async def test_the_verdict_reaches_all_at_once_and_the_head_may_go() -> None:
    async with a_head() as head:
        head.call.release("gcs")
        workers = [await join(head.address, hello(n)) for n in range(1, 6)]
        began = time.monotonic()
        await head.call.deliver(DONE, timeout=2 * PATIENCE)
        assert time.monotonic() - began < PATIENCE
        assert head.call.concluded
        assert [await worker.ended for worker in workers] == [DONE] * 5
        assert {member.phase for member in head.call.members.values()} == {Phase.LEFT}
        for worker in workers:
            await worker.leave("verdict received")


@looped
async def test_the_verdict_reaches_those_who_were_never_released_and_those_who_come_later() -> None:
    async with a_head() as head:
        early = await join(head.address, hello(1))
        telling = asyncio.ensure_future(head.call.deliver(DONE, PATIENCE, listen=True))
        assert await early.ended == DONE
        await early.leave("verdict received")
        await asyncio.wait_for(telling, PATIENCE)
        waiting = asyncio.ensure_future(head.call.until(lambda: 2 in head.call.members))
        late = await join(head.address, hello(2))
        assert await asyncio.wait_for(asyncio.shield(late.ended), PATIENCE) == DONE
        await late.leave("verdict received")
        await asyncio.wait_for(waiting, PATIENCE)
        await head.call.deliver(DONE, PATIENCE)
        assert not head.call.listening


@looped
async def test_a_member_that_does_not_read_does_not_keep_the_verdict_from_the_others() -> None:
    async with a_head() as head, a_peer(head.port) as deaf:
        worker = await join(head.address, hello(1))
        assert (await deaf.enrol(hello(2)))["t"] == "welcome"
        telling = asyncio.ensure_future(head.call.deliver(DONE, timeout=SHORT))
        assert await asyncio.wait_for(asyncio.shield(worker.ended), PATIENCE) == DONE
        assert not telling.done()
        await worker.leave("verdict received")
        await asyncio.wait_for(telling, PATIENCE)
        assert head.call.present == 1  # still there, and given up


def test_a_run_id_is_never_shortened() -> None:
    run = "\U0001f600" * 256
    message = wire.decode(wire.encode({"t": "hello", "run": run, "host": "h" * 14_000}))
    assert (message["t"], message["run"]) == ("hello", run)
    with pytest.raises(ValueError, match="a message of 2"):
        wire.encode({"t": "hello", "run": "r" * 20_000, "host": "h"})


@looped
async def test_a_status_beyond_a_byte_becomes_what_exit_would_make_of_it_and_long_text_is_cut_to_fit() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        await head.call.deliver(Verdict(256 + 70, "Traceback:\n" + "\U0001f600" * 40_000, "internal"), PATIENCE)
        verdict = await worker.ended
        assert (verdict.status, verdict.source) == (70, "internal")
        assert len(verdict.reason) > 500
        worker.close()


# ------------------------------------------------------------------------------------------------------------- losses


@looped
async def test_the_head_gone_without_a_verdict_is_known_at_end_of_file() -> None:
    async with a_head() as head:
        workers = [await join(head.address, hello(n)) for n in (1, 2)]
        head.call.close()
        began = time.monotonic()
        for worker in workers:
            with pytest.raises(RayDied, match="lost the head head-host without a verdict"):
                await worker.ended
            worker.close()
        assert time.monotonic() - began < SLACK


@looped
async def test_silence_is_noticed_on_both_sides_within_the_heartbeat_timeout() -> None:
    async with a_head(heartbeat_timeout=SHORT) as head, a_wire(head.port) as between:
        cut_off = await join(between.address, hello(1), heartbeat_timeout=SHORT)
        other = await join(head.address, hello(2), heartbeat_timeout=SHORT)
        between.fall_silent()
        began = time.monotonic()
        with pytest.raises(RayDied, match=f"it was silent for {SHORT} s"):
            await asyncio.wait_for(asyncio.shield(cut_off.ended), PATIENCE)
        assert SHORT / 2 < time.monotonic() - began < SHORT + SLACK
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert time.monotonic() - began < 1.2 * SHORT + SLACK
        assert head.call.members[1].detail == f"silent for {SHORT} s"
        assert head.phase(2) is Phase.WAITING
        assert not other.ended.done()
        other.close()


@looped
async def test_a_worker_that_says_nothing_is_lost_and_one_that_only_beats_stays() -> None:
    async with a_head(heartbeat_timeout=SHORT) as head, a_peer(head.port) as mute:
        worker = await join(head.address, hello(2), heartbeat_timeout=SHORT)
        assert (await mute.enrol(hello(1)))["t"] == "welcome"
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert await mute.gone()
        again = await join(head.address, hello(1), heartbeat_timeout=SHORT)  # and its rank is free
        assert head.phase(2) is Phase.WAITING
        worker.close()
        again.close()


@looped
async def test_an_idle_pair_stays_together_by_its_heartbeats() -> None:
    async with a_head(heartbeat_timeout=SHORT) as head:
        workers = [await join(head.address, hello(n), heartbeat_timeout=SHORT) for n in (1, 2, 3, 4, 20)]
        await asyncio.wait([worker.ended for worker in workers], timeout=3 * SHORT)
        assert not any(worker.ended.done() for worker in workers)
        assert head.call.present == 5
        for worker in workers:
            worker.close()


@looped
async def test_a_heartbeat_may_be_written_in_other_ways() -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        peer.send(b'{ "t": "beat" }\r\n{"t":"beat"}\n')
        peer.send({"t": "phase", "phase": "joined", "detail": "", "error": ""})
        await head.until(lambda: head.phase(1) is Phase.JOINED)


# ----------------------------------------------------------------------------------------------------- hostile company


def _hello_but(**changes: Any) -> bytes:
    return wire.encode({**hello(1).message(), **changes})


NOT_OUR_LANGUAGE = {
    "no JSON": b"hello\n",
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: head\r\n\r\n",
    "an empty line": b"\n",
    "no text as its kind": b'{"t": 1}\n',
    "an unknown kind": b'{"t": "gossip"}\n',
    "a line too long": b'{"t":"' + b"x" * wire.MAX_LINE + b'"}\n',
    "no end of line": b"x" * wire.MAX_LINE,
    "nested": b'{"t":' + b"[" * 10_000 + b"\n",
    "bytes that are no text": b'{"t":"phase\xff"}\n',
    "a number too long": b'{"t":"hail","nonce":"' + b"0" * 32 + b'","v":' + b"9" * 10_000 + b"}\n",
}
NO_HAIL = {
    "no version": b'{"t":"hail","nonce":"' + b"0" * 32 + b'"}\n',
    "no challenge": b'{"t":"hail","v":2}\n',
    "a short challenge": b'{"t":"hail","v":2,"nonce":"00"}\n',
    "a challenge that is none": b'{"t":"hail","v":2,"nonce":[]}\n',
    "the third message": wire.encode(hello(1).message()),
}
NO_HELLO = {
    "no kind of hello": b'{"t":"hell"}\n',
    "nothing in it": b'{"t":"hello"}\n',
    "a truth for a rank": _hello_but(rank=True),
    "a text for a rank": _hello_but(rank="1"),
    "half a rank": _hello_but(rank=1.5),
    "a rank beyond reason": _hello_but(rank=1 << 60),
    "tls that is a number": _hello_but(tls=1),
    "a time that is none": _hello_but(time=float("nan")),
    "a time without end": _hello_but(time=float("inf")),
    "a run that is not text": _hello_but(run=7),
    "a host beyond reason": _hello_but(host="h" * 1000),
}
AFTER_WELCOME = {
    "another hello": _hello_but(),
    "a phase that is not text": b'{"t":"phase","phase":{},"detail":"","error":""}\n',
    "an unknown phase": b'{"t":"phase","phase":"dancing","detail":"","error":""}\n',
    "a phase in capitals": b'{"t":"phase","phase":"JOINED","detail":"","error":""}\n',
    "an empty phase": b'{"t":"phase","phase":"","detail":"","error":""}\n',
    "a phase too long": b'{"t":"phase","phase":"joined","error":"","detail":"' + b"x" * wire.MAX_LINE + b'"}\n',
    "a phase without detail": b'{"t":"phase","phase":"joined","error":""}\n',
    "a verdict": b'{"t":"verdict","status":0,"reason":"","source":"workload"}\n',
}


@pytest.mark.parametrize("bad", [*NOT_OUR_LANGUAGE.values(), *NO_HAIL.values()], ids=[*NOT_OUR_LANGUAGE, *NO_HAIL])
@looped
async def test_a_stranger_that_talks_nonsense_is_cut_off_and_nobody_else(bad: bytes) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        worker = await join(head.address, hello(2))
        peer.send(bad)
        assert await peer.gone()
        assert (
            "does not speak the roll call's protocol" in head.call.rejected[-1]
            or "line's end" in head.call.rejected[-1]
        )
        assert len(head.call.rejected[-1]) < 400
        assert not worker.ended.done()
        assert head.call.present == 1
        worker.close()


@pytest.mark.parametrize("bad", NO_HELLO.values(), ids=NO_HELLO)
@looped
async def test_a_hello_that_makes_no_sense_is_cut_off(bad: bytes) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        await peer.agree()
        peer.send(bad)
        assert await peer.gone()
        assert "does not speak the roll call's protocol: " in head.call.rejected[-1]
        assert not head.call.members


@pytest.mark.parametrize(
    "bad", [*NOT_OUR_LANGUAGE.values(), *AFTER_WELCOME.values()], ids=[*NOT_OUR_LANGUAGE, *AFTER_WELCOME]
)
@looped
async def test_a_member_that_talks_nonsense_is_lost_and_nobody_else(bad: bytes) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        worker = await join(head.address, hello(2))
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        peer.send(bad)
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert head.phase(2) is Phase.WAITING
        assert not worker.ended.done()
        worker.close()


@pytest.mark.parametrize("phase", ["dancing", "\x1b[2J", "d" * 10_000])
@looped
async def test_an_unknown_phase_cuts_the_connection_and_is_named(phase: str) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        peer.send({"t": "phase", "phase": phase, "detail": "", "error": ""})
        assert await peer.gone()
        await head.until(lambda: head.phase(1) is Phase.LOST)
        member = head.call.members[1]
        assert not member.connected
        assert member.detail.startswith("it does not speak the roll call's protocol: ")
        assert ("dancing" in member.detail) == (phase == "dancing")
        assert len(member.detail) < 400
        assert member.detail.isprintable()
        assert head.news[-1] == f"1: lost: {member.detail}"
        again = await join(head.address, hello(1))  # its rank is free
        again.close()


@pytest.mark.parametrize("phase", Phase)
@looped
async def test_every_phase_is_known_on_the_wire_by_its_value(phase: Phase) -> None:
    async with a_head() as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1)))["t"] == "welcome"
        peer.send({"t": "phase", "phase": phase.value, "detail": "why", "error": ""})
        await head.until(lambda: head.call.members[1].detail == "why")
        assert head.phase(1) is phase
        assert head.call.members[1].connected
        assert head.news[-1] == f"1: {phase.value}: why"


BAD_HEADS = {
    **NOT_OUR_LANGUAGE,
    "a verdict without a status": b'{"t":"verdict","reason":"","source":"workload"}\n',
    "a verdict without end": b'{"t":"verdict","status":1e999,"reason":"","source":"workload"}\n',
    "a release to nowhere": b'{"t":"go","gcs":null}\n',
}


@pytest.mark.parametrize("bad", BAD_HEADS.values(), ids=BAD_HEADS)
@looped
async def test_a_head_that_talks_nonsense_is_lost(bad: bytes) -> None:
    async def lead(peer: Peer) -> None:
        nonce = (await peer.hear())["nonce"]
        peer.send({"t": "challenge", "nonce": "2" * 32, "tag": tag(nonce), "auth": "none"})
        await peer.hear()
        peer.send({"t": "welcome", "rank": 1, "head": "h"})
        peer.send(bad)
        await peer.reader.read()

    async with a_program(lead) as address:
        membership = Membership(hello(1), NO_SECRET, 30)
        await membership.greet(address, 5)
        with contextlib.suppress(NotThisHead):  # where the nonsense comes with the welcome
            await membership.enrol(5)
        with contextlib.suppress(asyncio.CancelledError), pytest.raises(RayDied, match=r"protocol|line's end"):
            await asyncio.wait_for(membership.ended, PATIENCE)


@looped
async def test_a_stranger_that_drips_or_says_nothing_is_cut_off_in_time_and_nobody_else() -> None:
    async with a_head(heartbeat_timeout=SHORT) as head, a_peer(head.port) as silent, a_peer(head.port) as loris:
        worker = await join(head.address, hello(1), heartbeat_timeout=SHORT)
        began = time.monotonic()

        async def drip() -> None:
            while True:
                loris.send(b" ")
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        assert await silent.gone()
        assert await loris.gone()
        dripping.cancel()
        assert time.monotonic() - began < 1.2 * SHORT + SLACK
        assert head.call.rejected == [f"127.0.0.1: not authenticated within {SHORT:g} s (2 times, last 0 s ago)"]
        assert not worker.ended.done()
        worker.close()


@looped
async def test_a_stranger_that_drips_the_right_words_is_cut_off_all_the_same() -> None:
    async with a_head(heartbeat_timeout=SHORT) as head, a_peer(head.port) as slow:
        await slow.agree()
        await slow.gone()
        assert not head.call.members


async def _connect_from(source: str, port: int, times: int) -> list[socket.socket]:
    loop, opened = asyncio.get_running_loop(), []
    for _ in range(times):
        each = socket.socket()
        each.setblocking(False)
        each.bind((source, 0))
        with contextlib.suppress(ConnectionResetError):
            await loop.sock_connect(each, ("127.0.0.1", port))
        opened.append(each)
    return opened


async def _ends(each: socket.socket) -> bool:
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(each, 1), PATIENCE) == b""
    return True


def _is_open(each: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return each.recv(1) != b""
    return True


@looped
async def test_one_source_has_so_many_connections_and_no_other_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_PER_SOURCE", 8)
    monkeypatch.setattr(handshake, "_SPARE", 6)
    monkeypatch.setattr(handshake, "source_of", str.encode)  # as if these were other machines' addresses
    async with a_head(SECRET, size=2) as head:
        worker = await join(head.address, hello(1), SECRET)
        flood = await _connect_from("127.0.0.2", head.port, 40)
        other = await _connect_from("127.0.0.3", head.port, 1)
        assert all([await _ends(each) for each in flood[8:]])
        assert all(map(_is_open, [*flood[:8], *other]))
        assert head.call.present == 1
        assert not worker.ended.done()
        assert head.refused == ["127.0.0.2: more than 8 connections that were not authenticated"]
        for each in (*flood, *other):
            each.close()
        worker.close()


@looped
async def test_nodes_behind_one_address_all_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_PER_SOURCE", 8)
    monkeypatch.setattr(handshake, "_SPARE", 1)
    async with a_head(SECRET, size=40) as head:
        workers = await asyncio.gather(*(join(head.address, hello(n, size=40), SECRET) for n in range(1, 40)))
        again = []
        for n, worker in enumerate(workers, 1):  # each gave its place back when it proved itself
            worker.close()
            await head.until(lambda n=n: head.phase(n) is Phase.LOST)  # type: ignore[misc]
            again.append(await join(head.address, hello(n, size=40), SECRET))
        assert head.call.present == 39
        for worker in again:
            worker.close()


@looped
async def test_a_flood_from_many_sources_costs_the_oldest_of_them_and_no_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "_PER_SOURCE", 4)
    monkeypatch.setattr(handshake, "_SPARE", 0)
    monkeypatch.setattr(handshake, "source_of", str.encode)
    async with a_head(SECRET) as head:
        worker = await join(head.address, hello(1), SECRET)
        flood = [each for n in range(2, 12) for each in await _connect_from(f"127.0.0.{n}", head.port, 3)]
        late = await join(head.address, hello(2), SECRET)
        # The worker that came last took the place of one more of them while it was a stranger itself.
        assert all([await _ends(each) for each in flood[:23]])
        assert all(map(_is_open, flood[23:]))
        assert head.call.present == 2
        assert not worker.ended.done()
        assert sum(group.count for group in head.call.rejections.ranked) == 23
        for each in flood:
            each.close()
        worker.close()
        late.close()


def test_an_allowance_refills_with_time_and_forgets_who_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_MOST_SOURCES", 3)
    allowance = listener.Allowance(most=4, seconds=10)
    a, b = listener.source_of("10.0.0.1"), listener.source_of("10.0.0.2")
    assert [allowance.take(a, 0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert allowance.take(b, 0)
    assert [allowance.take(a, 5.0) for _ in range(3)] == [True, True, False]
    allowance.give_back(a, 5.0)
    assert [allowance.take(a, 5.0) for _ in range(2)] == [True, False]
    for n in range(100):
        assert allowance.take(listener.source_of(f"10.1.0.{n}"), 100.0 * n)
    assert len(allowance._left) <= 4


def test_an_ipv6_source_is_the_network_that_one_host_may_own() -> None:
    source_of = listener.source_of
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:1%eth0") != source_of("2001:db8:0:1::1")
    assert source_of("192.0.2.1") != source_of("192.0.2.2")
    assert source_of("127.0.0.2") == source_of("127.1.2.3") != source_of("127.0.0.1")


@looped
async def test_a_port_scanner_changes_nothing() -> None:
    async with a_head() as head:
        worker = await join(head.address, hello(1))
        news = list(head.news)
        for abort in (False, True) * 10:
            scanner = await Peer.connect(head.port)
            if abort:
                scanner.writer.transport.abort()
            scanner.close()
        worker.report(Phase.JOINED)
        await head.until(lambda: head.phase(1) is Phase.JOINED)
        assert head.news == [*news, "1: joined"]
        worker.close()


@looped
async def test_a_head_that_never_reads_is_cut_off_before_it_costs_memory() -> None:
    async def lead(peer: Peer) -> None:
        nonce = (await peer.hear())["nonce"]
        peer.send({"t": "challenge", "nonce": "2" * 32, "tag": tag(nonce), "auth": "none"})
        await peer.hear()
        peer.send({"t": "welcome", "rank": 1, "head": "deaf"})
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
        await asyncio.Event().wait()

    async with a_program(lead) as address:
        worker = await join(address, hello(1))
        for _ in range(10_000):  # 160 MB, far beyond what the kernel takes
            if worker.ended.done():
                break
            worker.report(Phase.FAILED, "x" * 16_000)
            await asyncio.sleep(0)
        with pytest.raises(RayDied, match="does not read what it is sent"):
            await asyncio.wait_for(worker.ended, PATIENCE)


@looped
async def test_giving_up_leaves_nothing_behind() -> None:
    async with a_head() as head, a_program(lambda peer: _says(peer, b"")) as nowhere:
        for step in ("connect", "welcome"):
            membership = Membership(hello(1), NO_SECRET, 30)
            if step == "welcome":
                await membership.greet(head.address, 5)
                trying: asyncio.Future[None] = asyncio.ensure_future(membership.enrol(5))
            else:
                trying = asyncio.ensure_future(membership.greet(nowhere, 5))
            await asyncio.sleep(0)
            trying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trying
            assert membership.ended.cancelled() or isinstance(membership.ended.exception(), BootstrapError)


@looped
async def test_a_candidate_that_was_greeted_and_not_chosen_ends_without_a_complaint() -> None:
    async with a_head() as head:
        membership = Membership(hello(1), NO_SECRET, 30)
        await membership.greet(head.address, 5)
        head.call.close()
        await asyncio.wait([membership.ended], timeout=PATIENCE)
        del membership


@pytest.mark.parametrize("side", ["worker", "head"])
@looped
async def test_a_cancellation_is_not_lost_at_the_end_of_a_wait(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object) -> None:
        pass

    monkeypatch.setattr(Membership, "_greet", at_once)
    async with a_head() as head:
        worker = Membership(hello(1), None, 30.0)
        wait = worker.greet(head.address, PATIENCE) if side == "worker" else head.call.deliver(DONE, PATIENCE)
        waiting = asyncio.ensure_future(wait)
        for _ in range(2):  # now it has begun, and what it waits for has ended
            await asyncio.sleep(0)
        assert waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        worker.close()
