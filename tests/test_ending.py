"""The record of a run's end, the head's other addresses, and what a search in vain says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from rollcall_peers import ME, a_head, free_port, hello, looped

from bootstrap import net, timeouts
from bootstrap.errors import HeadNotFound
from bootstrap.files.secret import NO_SECRET, Channel, Secret
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import HeadAddress, NodeIdentity, Role, Verdict
from bootstrap.net import Interface
from bootstrap.node.address import other_addresses
from bootstrap.rendezvous import Rendezvous, around, discovery, ending, make, with_secret_record
from bootstrap.rendezvous.ending import End, RunEnded
from bootstrap.rendezvous.protocol import Lookup
from bootstrap.rendezvous.shared_dir import SharedFolder
from bootstrap.rendezvous.static import at
from bootstrap.settings import Settings

UNFIT = Verdict(78, "no GPU\nand more", "preflight")
KEY = {"run_id": ME.run, "attempt": 0}


def meeting(path: Path, rank: int = 1) -> tuple[Rendezvous, SharedFolder]:
    identity = NodeIdentity("test", Role.WORKER if rank else Role.HEAD, rank, 4, ME.run, ME.attempt, "file")
    made = make(Settings(shared_dir=str(path)), identity, Host({}, "host"))
    assert isinstance(made.record, SharedFolder)
    return made, made.record


def leave(path: Path, *, stays: bool = False, **changes: Any) -> Path:
    """Do what a head does that ends early: announce itself, write the record of the end, and remove its own."""
    _, head = meeting(path, 0)
    head.announce(HeadAddress("127.0.0.1", free_port()), b"s3cret")
    head.write_end(dataclasses.replace(End(UNFIT, "head-host", time.time(), 2, [1, 3]), **changes))
    if not stays:
        (head.folder / head.name).unlink()
    return head.folder / head.end_name


async def find(path: Path, rank: int = 1, timeout: float = 4.0) -> discovery.Membership:
    given = Secret(None, "the head's record", Channel.RECORD)
    return await discovery.find_head(Settings(), meeting(path, rank)[0], hello(rank), given, timeout, Log())


async def is_told(path: Path, rank: int) -> RunEnded:
    began = time.monotonic()
    with pytest.raises(RunEnded) as told:
        await find(path, rank)
    assert timeouts.END_BELIEVED_S <= time.monotonic() - began < timeouts.END_BELIEVED_S + 5
    return told.value


def test_each_rank_that_has_not_heard_believes_the_record_once_and_the_last_one_removes_it(tmp_path: Path) -> None:
    record = leave(tmp_path, stays=True)  # the head may not have removed its own yet

    @looped
    async def scenario() -> None:
        told = await is_told(tmp_path, 1)
        assert (told.verdict.status, told.verdict.source) == (78, "preflight")
        first, note, *more = told.verdict.reason.splitlines()
        assert (first, more) == ("no GPU", ["and more"])
        assert f"the head ended on head-host at {time.strftime('%H:')}" in note
        assert f"rm {record}" in note
        for rank in (1, 2):  # started again; never expected
            with pytest.raises(HeadNotFound):
                await find(tmp_path, rank, 1.5)
        assert record.exists()
        await is_told(tmp_path, 3)

    scenario()
    assert [path.name for path in record.parent.iterdir()] == [meeting(tmp_path)[1].name]


def test_the_record_says_nothing_secret_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    record = leave(tmp_path, verdict=Verdict(70, "Traceback " + "x" * 9000 + " the error", "internal"))
    text = record.read_text()
    assert record.stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in text
    assert len(text) < 5000
    reason = json.loads(text)["reason"]
    assert (reason[:9], reason[-9:]) == ("Traceback", "the error")


@pytest.mark.parametrize(
    ("changes", "mode", "why"),
    [
        ({"time": time.time() - 2 * timeouts.END_KEPT_S}, 0o600, "it is 2 h old"),
        ({}, 0o620, "other users can write it"),
        ({"host": 7}, 0o600, "without a valid 'host'"),
        ({"run_id": "other"}, 0o600, "run_id is 'other'"),
        ({"ranks": [[0, 1 << 40]]}, 0o600, "without valid 'ranks'"),
        ({"status": "0"}, 0o600, "without a valid 'status'"),
    ],
)
def test_a_record_that_is_not_valid_is_ignored(tmp_path: Path, changes: dict[str, Any], mode: int, why: str) -> None:
    record = leave(tmp_path)
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))
    record.chmod(mode)
    found = meeting(tmp_path)[1].lookup()
    assert found.ended is None
    assert why in found.faults[0]


@pytest.mark.requires("root")
def test_another_users_record_of_an_end_is_ignored(tmp_path: Path) -> None:
    record = leave(tmp_path)
    os.chown(record, 12345, -1)
    found = meeting(tmp_path)[1].lookup()
    assert (found.ended, "belongs to uid 12345" in found.faults[0]) == (None, True)


def test_a_live_head_wins_over_the_record_of_an_end(tmp_path: Path) -> None:
    """Also one that comes within a second after the worker: the run id is used again."""
    record = leave(tmp_path)

    @looped
    async def scenario() -> None:
        searching = asyncio.ensure_future(find(tmp_path))
        await asyncio.sleep(timeouts.END_BELIEVED_S / 4)
        async with a_head(b"n3w") as head:
            meeting(tmp_path, 0)[1].announce(head.address, b"n3w")
            assert not record.exists()  # the new head has removed it
            (await searching).close()

    scenario()


def test_a_head_that_another_one_has_replaced_leaves_no_record(tmp_path: Path) -> None:
    (_, first), (_, second) = meeting(tmp_path, 0), meeting(tmp_path, 0)
    first.announce(HeadAddress("127.0.0.1", 1), None)
    second.announce(HeadAddress("127.0.0.1", 2), None)
    first.write_end(End(UNFIT, "h", time.time(), 1, [1]))
    assert not (first.folder / first.end_name).exists()


def test_a_new_head_removes_old_records_and_leaves_those_of_other_runs(tmp_path: Path) -> None:
    record = leave(tmp_path)
    old, young = (record.with_name(f"end-{name}-0.json") for name in ("0123456789abcdef", "fedcba9876543210"))
    for other in (old, young):
        other.write_text("{}")
    before = time.time() - 2 * timeouts.END_KEPT_S
    os.utime(old, (before, before))
    meeting(tmp_path, 0)[1].announce(HeadAddress("127.0.0.1", 1), None)
    assert [path.exists() for path in (record, old, young)] == [False, False, True]


def test_where_the_secret_is_in_the_home_directory_the_end_is_there_too(tmp_path: Path) -> None:
    identity = NodeIdentity("test", Role.WORKER, 1, 4, ME.run, ME.attempt, "static")
    leave(tmp_path)
    home = Secret(None, "the head's record", Channel.HOME)
    rendezvous = with_secret_record(
        at(("127.0.0.1",), (free_port(),)), home, identity, Host({"HOME": str(tmp_path)}, "")
    )

    @looped
    async def scenario() -> None:
        with pytest.raises(RunEnded, match="no GPU"):
            await discovery.find_head(Settings(), rendezvous, hello(), home, 5, Log())

    scenario()


def test_many_ranks_fit_into_a_record() -> None:
    for ranks in (list(range(1, 60_000)), list(range(1, 60_000, 2))):
        text = ending.encode(End(UNFIT, "h", time.time(), len(ranks), ranks), ME.run, 0, "n")
        assert len(text) < 50_000
        found = ending.decode(json.loads(text), 0o600, Path("f"), KEY)
        assert found.concerns(59_999)
        assert not found.concerns(0)


# ------------------------------------------------------------------------------------------ several addresses


def test_the_other_addresses_of_a_node() -> None:
    table = [
        Interface("lo", True, ("127.0.0.1", "::1")),
        Interface("eth0", True, ("10.0.0.1", "fe80::1")),
        Interface("ib0", True, ("192.168.7.1", "2001:db8::7")),
        Interface("docker0", True, ("172.17.0.1",)),
        Interface("eth1", False, ("10.9.0.1",)),
    ]
    assert other_addresses("10.0.0.1", table) == ("192.168.7.1", "2001:db8::7")
    assert other_addresses("127.0.0.1", table) == ()


class Said(Log):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def _write(self, level: str, message: str) -> None:
        self.lines.append(f"{level}: {message}")


def test_a_worker_uses_the_address_that_answers_and_says_so_on_both_sides() -> None:
    @looped
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        connect = loop.create_connection

        async def create_connection(factory: Any, host: str, port: int) -> Any:
            if host == "192.0.2.1":  # it drops packets
                await asyncio.sleep(60)
            return await connect(factory, host, port)

        loop.create_connection = create_connection  # type: ignore[method-assign,assignment]
        async with a_head() as head:
            findings: list[str] = []
            head.call.on_finding = lambda member, text: (findings.append(text), head.note(member, text))[0]  # type: ignore[func-returns-value]
            candidate = HeadAddress("127.0.0.9", head.port, others=("127.0.0.1",))
            for first, warned in ((candidate, False), (dataclasses.replace(candidate, host="192.0.2.1"), True)):
                place = Rendezvous("here", lambda first=first: Lookup([first]))  # type: ignore[misc]
                log = Said()
                found = await discovery.find_head(Settings(), place, hello(), NO_SECRET, 9, log)
                assert (
                    any("only at 127.0.0.1, not at its node address 192.0.2.1" in line for line in log.lines) == warned
                )
                if warned:
                    await head.until(lambda: findings)
                    assert "--node-ip=127.0.0.1" in findings[0]
                await found.leave("test")

    scenario()


def test_a_record_offers_the_other_addresses(tmp_path: Path) -> None:
    _, folder = meeting(tmp_path, 0)
    folder.announce(HeadAddress("10.0.0.1", 7, others=("192.168.7.1", "2001:db8::7")), None)
    (found,) = folder.lookup().candidates
    assert found.others == ("192.168.7.1", "2001:db8::7")
    record = folder.folder / folder.name
    record.write_text(json.dumps({**json.loads(record.read_text()), "others": ["no address"]}))
    assert "its other addresses are malformed" in folder.lookup().faults[0]


# ------------------------------------------------------------------------------------------ a search in vain


def survey(path: Path) -> around.Surroundings:
    return around.survey_folder(path, Host({}, "host"), KEY)


def test_four_ways_in_which_a_folder_has_no_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey(tmp_path)
    assert f"{tmp_path} (on " in found.what
    assert "has no run's record" in found.what
    assert f"findmnt -T {tmp_path}" in found.fix
    theirs = tmp_path / "ray-bootstrap-12345"
    theirs.mkdir()
    monkeypatch.setattr(around.ownership, "trusted", lambda _folder, _uid: False)
    found = survey(tmp_path)
    assert "has records of other users only: ray-bootstrap-12345 of uid " in found.what
    assert "`id -u`" in found.fix
    monkeypatch.undo()
    identity = NodeIdentity("test", Role.HEAD, 0, 2, "another", 3, "file")
    other = make(Settings(shared_dir=str(tmp_path)), identity, Host({}, "their-head")).record
    assert other is not None
    other.announce(HeadAddress("10.0.0.1", 7), None)
    found = survey(tmp_path)
    assert "run 'another', attempt 3, whose head started on their-head at 20" in found.what
    assert "--run-id=another" in found.fix
    leave(tmp_path)
    found_end = survey(tmp_path)
    assert f"has this run's record: run {ME.run!r}, attempt 0, whose head ended on head-host at 20" in found_end.what
    assert "with status 78" in found_end.what
    trail = around.Trail(ME.run, 0.0)
    trail.note([HeadAddress("10.0.0.1", 7, "the record")], (), 1.0)
    trail.note([], (), 2.0)
    left = trail.describe(found, 41.0)
    assert left.what.startswith("the head announced itself at 10.0.0.1:7 (the record) and left 40 s ago; ")
    assert "see the output of rank 0" in left.fix


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        ("another run's head", "give all nodes the same --run-id"),
        ("no answer within 5 s", "`nc -vz head.svc 7`"),
        ("[Errno -2] Name or service not known", "`getent hosts head.svc`"),
        ("connection refused", "no agent of this run listens at head.svc"),
    ],
)
def test_which_address_answered_what_decides_the_remedy(monkeypatch: pytest.MonkeyPatch, answer: str, fix: str) -> None:
    monkeypatch.setattr(net, "resolve", lambda _name: () if "getent" in fix else ("10.0.0.1",))
    trail = around.Trail(ME.run, 0.0)
    trail.note([HeadAddress("head.svc", 7, "--head-address")], (), 1.0)
    trail.seen["head.svc:7"] = answer
    found = trail.describe(around.Surroundings("", around.RANK_0), 13.0)
    assert ("head.svc resolves to 10.0.0.1" in found.what) == ("getent" not in fix)
    assert "--head-address has named head.svc as the head for 12 s" in found.what
    assert fix in found.fix
