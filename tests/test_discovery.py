"""The search: a worker's for its head, within its time-out whatever hangs; a head's for another head of its run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rollcall_peers import ME, SECRET, a_head, a_program, free_port, hello, looped

from bootstrap import net, timeouts
from bootstrap.errors import HeadNotFound, IdentityError, Refused, UsageError
from bootstrap.files.secret import NO_SECRET, Channel, Secret, generate
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import HeadAddress, NodeIdentity, Role
from bootstrap.rendezvous import Rendezvous, discovery, make, other_heads
from bootstrap.rendezvous.dns import by_name
from bootstrap.rendezvous.protocol import Lookup
from bootstrap.rendezvous.shared_dir import SharedFolder
from bootstrap.rendezvous.static import at
from bootstrap.rollcall.client import Membership
from bootstrap.settings import Settings

IN_RECORD = Secret(None, "the head's record", Channel.RECORD)
USERS = Secret(b"of the user", "RAY_BOOTSTRAP_SECRET")


def made() -> Secret:
    """What a head generates for its record."""
    return generate(IN_RECORD)


def folder(path: Path) -> SharedFolder:
    identity = NodeIdentity("test", Role.WORKER, 1, 2, ME.run, ME.attempt, "file")
    made = make(Settings(shared_dir=str(path)), identity, Host({}, "host"))
    assert isinstance(made.record, SharedFolder)
    return made.record


def at_record(folder: SharedFolder) -> Rendezvous:
    return Rendezvous(f"the folder {folder.shared_dir}", lambda: folder.lookup(), record=folder)  # noqa: PLW0108 (it may be patched)


async def find(
    rendezvous: Rendezvous | SharedFolder, given: Secret | None = None, timeout: float = 5.0, **changes: Any
) -> Membership:
    given = given or (IN_RECORD if isinstance(rendezvous, SharedFolder) else NO_SECRET)
    if isinstance(rendezvous, SharedFolder):
        rendezvous = at_record(rendezvous)
    return await discovery.find_head(Settings(**changes), rendezvous, hello(), given, timeout, Log())


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """Unset while the test runs: what waits for it hangs."""
    event = threading.Event()
    yield event
    event.set()


def hanging(hung: threading.Event) -> Rendezvous:
    """Return a rendezvous whose look-ups hang."""

    def lookup() -> Lookup:
        hung.wait(30)
        return Lookup()

    return Rendezvous("the head's address", lookup)


# ------------------------------------------------------------------------------------------------- a worker's


def test_a_rendezvous_that_hangs_does_not_hold_a_worker_beyond_its_timeout(hung: threading.Event) -> None:
    @looped
    async def scenario() -> None:
        with pytest.raises(HeadNotFound, match="the head's address timed out after 1 s"):
            await find(hanging(hung), timeout=0.2)

    scenario()


def test_a_name_server_that_hangs_does_not_either(hung: threading.Event) -> None:
    def resolve(_name: str) -> list[str]:
        hung.wait(30)
        return []

    @looped
    async def scenario() -> None:
        with pytest.raises(HeadNotFound, match=r"the name head\.svc timed out after 1 s"):
            await find(by_name(("head.svc",), (7000,), resolve), timeout=0.2)

    scenario()


def test_a_record_that_hangs_does_not_either(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendezvous, real = folder(tmp_path), os.open
    rendezvous.announce(HeadAddress("127.0.0.1", free_port()), made().value)

    def hanging(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == rendezvous.name:
            hung.wait(30)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", hanging)

    @looped
    async def scenario() -> None:
        with pytest.raises(HeadNotFound, match=f"the folder {tmp_path} timed out after 1 s"):
            await find(rendezvous, timeout=0.2)

    scenario()


def test_the_secret_in_the_record_is_used_where_none_was_given(tmp_path: Path) -> None:
    rendezvous, ours = folder(tmp_path), made()

    @looped
    async def scenario() -> None:
        async with a_head(ours.value) as head:
            rendezvous.announce(head.address, ours.value)
            for auth in ("auto", "required"):
                membership = await find(folder(tmp_path), auth=auth)
                assert membership.secret.value == ours.value
                await membership.leave("test")
            with pytest.raises(Refused, match="its secret is not the head's"):
                await find(folder(tmp_path), USERS)
            with pytest.raises(Refused, match=r"the head has a secret, this node has no secret$"):
                await find(folder(tmp_path), Secret(None, "--auth=off", Channel.NONE), auth="off")

    scenario()


@pytest.mark.parametrize("auth", ["auto", "required"])
def test_who_expects_a_secret_in_the_record_does_not_join_a_head_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    """Such as one by whoever may write the record, on a file system that keeps no modes."""
    monkeypatch.setattr(timeouts, "RECORD_LATE_S", 0.3)
    rendezvous = folder(tmp_path)

    @looped
    async def scenario() -> None:
        async with a_head() as head:
            rendezvous.announce(head.address, None)
            with pytest.raises(Refused, match="the head has no secret, this node has none yet"):
                await find(rendezvous, auth=auth)
            assert not head.call.members

    scenario()


@pytest.mark.parametrize("option", ["auth", "tls"])
def test_a_required_secret_comes_from_nowhere_if_there_is_no_channel(tmp_path: Path, option: str) -> None:
    rendezvous = folder(tmp_path)

    @looped
    async def scenario() -> None:
        with pytest.raises(HeadNotFound, match="no address was found"):
            await find(rendezvous, timeout=0.2, **{option: "required"})
        async with a_head() as head:
            for hosts in ((), ("127.0.0.1",)):
                with pytest.raises(UsageError, match=f"--{option}=required, but the nodes share no secret"):
                    await find(at(hosts, (head.port,)), **{option: "required"})
            assert not head.call.members

    scenario()


def replaced_at_a_look(
    number: int, rendezvous: SharedFolder, record: tuple[HeadAddress, bytes | None], monkeypatch: pytest.MonkeyPatch
) -> list[Lookup]:
    """Has the next head announce itself while ``rendezvous`` is being looked at; returns what the looks show."""
    looks: list[Lookup] = []
    real = rendezvous.lookup

    def lookup() -> Lookup:
        if len(looks) == number - 1:
            folder(rendezvous.shared_dir).announce(*record)
        looks.append(real())
        return looks[-1]

    monkeypatch.setattr(rendezvous, "lookup", lookup)
    return looks


def test_a_secret_from_an_older_heads_record_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendezvous, old, new = folder(tmp_path), made().value, made().value

    @looped
    async def scenario() -> None:
        async with a_head(new) as head:
            folder(tmp_path).announce(head.address, old)
            looks = replaced_at_a_look(3, rendezvous, (head.address, new), monkeypatch)
            membership = await find(rendezvous)
            assert (membership.rank, membership.secret.value) == (1, new)
            assert [look.secret for look in looks] == [old, old, new]
            membership.close()

    scenario()


@pytest.mark.parametrize("auth", ["auto", "required"])
def test_an_older_heads_record_without_a_secret_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    rendezvous, new = folder(tmp_path), made().value

    @looped
    async def scenario() -> None:
        async with a_head(new) as head:
            folder(tmp_path).announce(head.address, None)
            replaced_at_a_look(2, rendezvous, (head.address, new), monkeypatch)
            membership = await find(rendezvous, auth=auth)
            assert membership.secret.value == new
            membership.close()

    scenario()


def test_a_record_that_cannot_be_believed_is_reported_and_may_be_mended(tmp_path: Path) -> None:
    rendezvous, ours = folder(tmp_path), made()
    record = rendezvous.folder / rendezvous.name

    @looped
    async def scenario() -> None:
        async with a_head(ours.value) as head:
            rendezvous.announce(head.address, ours.value)
            record.chmod(0o666)
            with pytest.raises(
                HeadNotFound,
                match=rf"{record}: other users can write it \(mode 666\), so its secret is not safe",
            ) as caught:
                await find(rendezvous, timeout=0.3)
            assert (ours.value or b"").decode() not in str(caught.value)
            asyncio.get_running_loop().call_later(0.2, record.chmod, 0o600)
            membership = await find(rendezvous)
            membership.close()

    scenario()


def test_a_secret_that_only_the_head_was_given_is_refused_once_no_record_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "RECORD_LATE_S", 0.5)
    rendezvous = folder(tmp_path)

    @looped
    async def scenario() -> None:
        async with a_head(SECRET) as head:
            rendezvous.announce(head.address, None)
            with pytest.raises(Refused, match="this node has none yet: it was to come from the head's record"):
                await find(rendezvous)

    scenario()


def test_a_record_whose_secret_stays_wrong_is_reported(tmp_path: Path) -> None:
    rendezvous, other = folder(tmp_path), made().value

    @looped
    async def scenario() -> None:
        async with a_head(SECRET) as head:
            rendezvous.announce(head.address, other)
            with pytest.raises(HeadNotFound, match="its secret differs from the one in its record") as caught:
                await find(rendezvous, timeout=0.3)
            assert (other or b"").decode() not in str(caught.value)
            with pytest.raises(Refused, match="its secret is not the head's"):
                await find(rendezvous, USERS)

    scenario()


def test_the_second_address_of_a_name_whose_first_is_a_black_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "look_up", lambda _name: ["192.0.2.1", "127.0.0.1"])

    @looped
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        connect, tried = loop.create_connection, []

        async def create_connection(factory: Any, host: str, port: int) -> Any:
            tried.append(host)
            if host == "192.0.2.1":
                await asyncio.sleep(60)
            return await connect(factory, host, port)

        loop.create_connection = create_connection  # type: ignore[method-assign,assignment]
        async with a_head(SECRET) as head:
            rendezvous = at(("head.example",), (head.address.port,))
            membership = await find(rendezvous, Secret(SECRET, "RAY_BOOTSTRAP_SECRET"), timeout=10)
            assert tried == ["192.0.2.1", "127.0.0.1"]
            membership.close()

    scenario()


# ------------------------------------------------------------------------------------------------- a head's


OTHER = "127.0.0.2"
"""Of this machine, but on no interface: as good as another's."""


@pytest.mark.parametrize("theirs", [None, SECRET])
def test_another_head_of_this_run_is_found_by_its_name(theirs: bytes | None) -> None:
    @looped
    async def scenario() -> None:
        async with a_head(theirs) as other:
            rendezvous = at(("127.0.0.3", OTHER), (free_port(), other.port))
            with pytest.raises(IdentityError, match=f"claimed by two nodes: 127.0.0.[23]:{other.port} already leads"):
                await other_heads.check_no_other_head(rendezvous, ME)

    scenario()


def test_this_machine_a_head_of_another_run_and_other_programs_are_no_other_head() -> None:
    @looped
    async def scenario() -> None:
        async with a_head() as here, a_head(run="another") as other, a_program(lambda _: asyncio.sleep(30)) as silent:
            await other_heads.check_no_other_head(
                at(("127.0.0.1", "localhost", "no-such-name.invalid"), (here.port,)), ME
            )
            begin = asyncio.get_running_loop().time()
            await other_heads.check_no_other_head(at((OTHER, "127.0.0.1"), (other.port, silent.port, free_port())), ME)
            assert asyncio.get_running_loop().time() - begin < 10  # and not as long as it is silent

    scenario()


def test_a_rendezvous_that_hangs_does_not_hold_a_head(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeouts, "CANDIDATE_S", 0.2)
    monkeypatch.setattr(net, "own_addresses", frozenset)

    @looped
    async def scenario() -> None:
        await other_heads.check_no_other_head(hanging(hung), ME)
        monkeypatch.setattr(SharedFolder, "lookup", lambda _self: hung.wait(30))
        await other_heads.check_no_other_head(at_record(folder(tmp_path)), ME)
        await other_heads.check_still_head(at_record(folder(tmp_path)), ME, HeadAddress(OTHER, 1))

    scenario()


@pytest.mark.parametrize("generated", [False, True])
def test_of_two_heads_that_started_at_once_the_record_tells_the_one_that_goes(tmp_path: Path, generated: bool) -> None:
    first, second = folder(tmp_path), folder(tmp_path)
    theirs = made() if generated else Secret(SECRET, "test")

    @looped
    async def scenario() -> None:
        await other_heads.check_no_other_head(at_record(first), ME)
        await other_heads.check_no_other_head(at_record(second), ME)
        async with a_head() as one, a_head(theirs) as two:
            first.announce(one.address, None)
            second.announce(two.address, theirs.value if generated else None)
            await other_heads.check_still_head(at_record(second), ME, two.address)
            two_nodes = f"claimed by two nodes: 127.0.0.1:{two.port} already leads it"
            with pytest.raises(IdentityError, match=two_nodes):
                await other_heads.check_still_head(at_record(first), ME, one.address)
            with pytest.raises(IdentityError, match=two_nodes):
                await other_heads.check_no_other_head(at_record(folder(tmp_path)), ME)
        # The other has ended, and has left its record.
        await other_heads.check_still_head(at_record(first), ME, one.address)
        await other_heads.check_no_other_head(at_record(folder(tmp_path)), ME)
        await other_heads.check_still_head(at((OTHER,), (1,)), ME, one.address)

    scenario()
