"""The search: a worker's for its head, within its time-out whatever hangs; a head's for another head of its run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rollcall_peers import ME, SECRET, a_head, a_program, free_port, hello, looped

from bootstrap import net
from bootstrap.errors import HeadNotFound, IdentityError, Refused
from bootstrap.files import secret
from bootstrap.files.secret import Secret
from bootstrap.log import Log
from bootstrap.model import HeadAddress
from bootstrap.rendezvous import discovery
from bootstrap.rendezvous.shared_dir import SharedFolder
from bootstrap.rendezvous.static import Static
from bootstrap.rollcall.client import Membership
from bootstrap.settings import Settings

NONE = Secret(None, "none given")


def folder(path: Path) -> SharedFolder:
    return SharedFolder(str(path), ME.run, 0, "host")


def drawn(path: Path) -> Secret:
    """A secret for this run, in its file."""
    made = secret.generate(path)
    made.save()
    return made


async def find(meeting: Any, given: Secret = NONE, timeout: float = 5.0) -> tuple[Membership, Secret]:
    return await discovery.find_head(Settings(), meeting, hello(), given, timeout, Log())


class Meeting(Static):
    """A static one whose look-ups first do something."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def lookup(self) -> Sequence[HeadAddress]:
        self.before()
        return super().lookup()


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """Unset while the test runs: what waits for it hangs."""
    event = threading.Event()
    yield event
    event.set()


def hanging(hung: threading.Event, heads: Sequence[HeadAddress] = ()) -> Meeting:
    meeting = Meeting(tuple(head.host for head in heads), tuple(head.port for head in heads))
    object.__setattr__(meeting, "before", lambda: hung.wait(30))
    return meeting


# ------------------------------------------------------------------------------------------------- a worker's


def test_a_rendezvous_that_hangs_does_not_hold_a_worker_beyond_its_timeout(hung: threading.Event) -> None:
    @looped
    async def context() -> None:
        try:
            with pytest.raises(HeadNotFound, match="the head's address timed out after 1 s"):
                await find(hanging(hung), timeout=0.2)
        finally:
            hung.set()  # the loop waits for its threads

    context()


def test_a_secret_that_hangs_does_not_either(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret, "load_generated", lambda _path: hung.wait(30))

    @looped
    async def context() -> None:
        try:
            with pytest.raises(HeadNotFound, match=f"the folder {tmp_path} timed out after 1 s"):
                await find(folder(tmp_path), timeout=0.2)
        finally:
            hung.set()

    context()


def test_a_secret_that_was_read_too_early_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = folder(tmp_path)
    assert meeting.lookup() == []
    old, looks, real = drawn(meeting.secret_path), 0, secret.load_generated
    new = drawn(meeting.secret_path)

    def stale(path: Path) -> Secret | None:
        nonlocal looks
        looks += 1
        return old if looks < 3 else real(path)

    monkeypatch.setattr(secret, "load_generated", stale)

    @looped
    async def context() -> None:
        async with a_head(new.value) as head:
            meeting.announce(head.address)
            membership, shared = await find(meeting)
            assert (membership.rank, shared.value, looks) == (1, new.value, 3)
            membership.close()

    context()


def test_a_secret_that_was_made_after_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = folder(tmp_path)
    assert meeting.lookup() == []
    made, real = drawn(meeting.secret_path), secret.load_generated
    looks = iter([None])
    monkeypatch.setattr(secret, "load_generated", lambda path: next(looks, real(path)))

    @looped
    async def context() -> None:
        async with a_head(made.value) as head:
            meeting.announce(head.address)
            membership, shared = await find(meeting)
            assert shared == made
            membership.close()

    context()


def test_a_secret_that_cannot_be_read_is_told_and_may_be_mended(tmp_path: Path) -> None:
    meeting = folder(tmp_path)
    assert meeting.lookup() == []
    made = drawn(meeting.secret_path)
    meeting.secret_path.chmod(0o666)

    @looped
    async def context() -> None:
        async with a_head(made.value) as head:
            meeting.announce(head.address)
            with pytest.raises(
                HeadNotFound, match=rf"{meeting.secret_path}: others may write it \(mode 666\): ignored"
            ):
                await find(meeting, timeout=0.3)
            asyncio.get_running_loop().call_later(0.2, meeting.secret_path.chmod, 0o600)
            membership, _ = await find(meeting)
            membership.close()

    context()


def test_a_secret_that_only_the_head_was_given_is_refused_at_once(tmp_path: Path) -> None:
    meeting = folder(tmp_path)
    assert meeting.lookup() == []

    @looped
    async def context() -> None:
        async with a_head(SECRET) as head:
            meeting.announce(head.address)
            with pytest.raises(Refused, match="the head has a secret, this node has none"):
                await find(meeting)

    context()


def test_a_secret_that_stays_another_is_told(tmp_path: Path) -> None:
    meeting = folder(tmp_path)
    assert meeting.lookup() == []
    drawn(meeting.secret_path)

    @looped
    async def context() -> None:
        async with a_head(SECRET) as head:
            meeting.announce(head.address)
            with pytest.raises(HeadNotFound, match="its secret differs from the one in the folder"):
                await find(meeting, timeout=0.3)
            with pytest.raises(Refused, match="differ"):
                await find(meeting, Secret(b"of the user", "RAY_AUTH_TOKEN"))

    context()


def test_the_second_address_of_a_name_whose_first_is_a_black_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "look_up", lambda _name: ["192.0.2.1", "127.0.0.1"])

    @looped
    async def context() -> None:
        loop = asyncio.get_running_loop()
        connect, tried = loop.create_connection, []

        async def create_connection(factory: Any, host: str, port: int) -> Any:
            tried.append(host)
            if host == "192.0.2.1":
                await asyncio.sleep(60)
            return await connect(factory, host, port)

        loop.create_connection = create_connection  # type: ignore[method-assign,assignment]
        async with a_head(SECRET) as head:
            meeting = Static(("head.example",), (head.address.port,))
            membership, _ = await find(meeting, Secret(SECRET, "RAY_AUTH_TOKEN"), timeout=10)
            assert tried == ["192.0.2.1", "127.0.0.1"]
            membership.close()

    context()


# ------------------------------------------------------------------------------------------------- a head's


OTHER = "127.0.0.2"
"""Of this machine, but on no interface: as good as another's."""


@pytest.mark.parametrize("theirs", [None, SECRET])
def test_another_head_of_this_run_is_found_by_its_name(theirs: bytes | None) -> None:
    @looped
    async def context() -> None:
        async with a_head(theirs) as other:
            meeting = Static(("127.0.0.3", OTHER), (free_port(), other.port))
            with pytest.raises(IdentityError, match=f"claimed by two nodes: 127.0.0.[23]:{other.port} leads it"):
                await discovery.check_no_other_head(meeting, ME, NONE)

    context()


def test_this_machine_a_head_of_another_run_and_other_programs_are_no_other_head() -> None:
    @looped
    async def context() -> None:
        async with a_head() as here, a_head(run="another") as other, a_program(lambda _: asyncio.sleep(30)) as silent:
            await discovery.check_no_other_head(
                Static(("127.0.0.1", "localhost", "no-such-name.invalid"), (here.port,)), ME, NONE
            )
            begin = asyncio.get_running_loop().time()
            await discovery.check_no_other_head(
                Static((OTHER, "127.0.0.1"), (other.port, silent.port, free_port())), ME, NONE
            )
            assert asyncio.get_running_loop().time() - begin < 10  # and not as long as it is silent

    context()


def test_a_rendezvous_that_hangs_does_not_hold_a_head(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_ANSWER", 0.2)
    monkeypatch.setattr(net, "own_addresses", frozenset)

    @looped
    async def context() -> None:
        with contextlib.ExitStack() as end:
            end.callback(hung.set)
            await discovery.check_no_other_head(hanging(hung), ME, NONE)
            monkeypatch.setattr(SharedFolder, "lookup", lambda _self: hung.wait(30))
            await discovery.check_still_head(folder(tmp_path), ME, NONE, HeadAddress(OTHER, 1))

    context()


def test_of_two_heads_that_started_at_once_the_record_tells_the_one_that_goes(tmp_path: Path) -> None:
    first, second = folder(tmp_path), folder(tmp_path)

    @looped
    async def context() -> None:
        await discovery.check_no_other_head(first, ME, NONE)
        await discovery.check_no_other_head(second, ME, NONE)
        async with a_head() as one, a_head(SECRET) as two:
            first.announce(one.address)
            second.announce(two.address)
            await discovery.check_still_head(second, ME, Secret(SECRET, "test"), two.address)
            with pytest.raises(IdentityError, match=f"claimed by two nodes: 127.0.0.1:{two.port} leads it"):
                await discovery.check_still_head(first, ME, NONE, one.address)
        # The other has ended, and has left its record.
        await discovery.check_still_head(first, ME, NONE, one.address)
        await discovery.check_still_head(Static((OTHER,), (1,)), ME, NONE, one.address)

    context()
