"""The head's watch at the end of a run: who hears the verdict."""

from __future__ import annotations

import asyncio
import dataclasses
import io
from types import SimpleNamespace
from typing import Any

import pytest
from rollcall_peers import a_head, a_peer, hello, looped

from bootstrap import settings
from bootstrap.host import Host
from bootstrap.log import Log
from bootstrap.model import NodeIdentity, Role, Verdict
from bootstrap.probe.responder import Responder
from bootstrap.run.context import Lifecycle
from bootstrap.run.node_watch import NodeWatch
from bootstrap.run.timeline import Timeline

IDENTITY = NodeIdentity("explicit", Role.HEAD, 0, 2, "r")


@looped
async def test_a_node_that_is_admitted_while_the_others_leave_hears_the_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its handshake had begun before: the head listens no more, and writes the record of its end meanwhile."""
    async with a_head() as head, a_peer(head.port) as late:
        run: Any = SimpleNamespace(
            settings=settings.load({}, {}), host=Host({}, "head"), log=Log(io.StringIO()), lifecycle=Lifecycle()
        )
        run.set_state_soon, run.trace, run.timeline = lambda **_facts: None, None, Timeline()
        watch = NodeWatch(run, IDENTITY, head.call, Responder())
        watch.late.look_for_record = True
        written = asyncio.Event()

        async def write_record(_verdict: Verdict) -> None:
            late.send({"t": "hello", **dataclasses.asdict(hello(1))})
            assert (await late.hear())["t"] == "welcome"
            written.set()

        monkeypatch.setattr(watch.late, "write_record", write_record)
        await late.agree()
        delivering = asyncio.ensure_future(watch.deliver_verdict(Verdict(78, "unfit", "preflight"), None))
        await written.wait()
        await asyncio.sleep(0.1)
        assert not delivering.done()
        late.send({"t": "finding", "text": "shm: small"})
        assert (await late.hear())["status"] == 78
        late.send({"t": "bye", "reason": "verdict received"})
        await delivering
        assert head.call.present == 0
