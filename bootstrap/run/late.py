"""The nodes that have yet to come when the head ends: who they are, and how they learn how the run ended."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence

from bootstrap import timeouts
from bootstrap.errors import BootstrapError, Down, QuorumTimeout, Stopped
from bootstrap.model import NodeIdentity, Verdict
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rendezvous.ending import End
from bootstrap.rendezvous.protocol import FileRecord
from bootstrap.rollcall.rejections import Standing
from bootstrap.rollcall.server import RollCall
from bootstrap.run.context import Context
from bootstrap.run.notices import listed
from bootstrap.run.shutdown import interruptible


class LateNodes:
    """The nodes that have never been members, and how they hear of the end.

    Where they read a record in a folder, the head leaves one and goes. Elsewhere it stays for ``--late-wait``, its Ray
    and its files gone: a node that comes a minute later would search for it for ``--head-timeout``, and end with a
    status that says "retry" where the head's may say "do not".

    :param expected: how many nodes the run has, without the head.
    """

    def __init__(self, run: Context, identity: NodeIdentity, roll_call: RollCall, expected: int) -> None:
        self._run = run
        self._size = identity.size
        self._roll_call = roll_call
        self._expected = expected
        self.look_for_record = False
        """Whether they look for a record, and so not for an address alone."""
        self.record: FileRecord | None = None
        """Where this head has announced itself, and leaves the record of the end; None if nowhere."""
        self._reason = ""
        """How the run ended, if no error did, which the log would have."""
        self._shut_out = False
        self.waits = False
        """Whether :meth:`wait` will wait."""

    def missing(self) -> Sequence[int]:
        """Return the ranks that have never been members; where nodes have no numbers, as many as have not come."""
        return [rank for rank in range(1, self._expected + 1) if rank not in self._roll_call.members]

    def outstanding(self) -> int:
        """Return how many nodes have yet to hear of the end; those that were refused have heard why, and ended."""
        groups = self._roll_call.rejections.ranked
        refused = {group.peer for group in groups if group.standing is Standing.PROVED and group.kind == "identity"}
        return 0 if self._shut_out else max(0, len(self.missing()) - len(refused))

    def decide(self, verdict: Verdict, error: BootstrapError | None, *, quorum_reached: bool, shut_out: bool) -> None:
        """Decide whether to wait; call it once the run has ended.

        :param verdict: how it ended.
        :param error: what ended it, if an error of ray-bootstrap did.
        :param shut_out: whether each missing node was refused for its secret.
        """
        self._shut_out = shut_out
        self._reason = "" if error else f"{verdict.reason}; "
        # Not after a quorum time-out: the missing nodes have had their time. Not where they look for a record: without
        # this head's, which goes now, they would neither look for its address nor know its secret.
        early = not (quorum_reached or isinstance(error, QuorumTimeout) or self.look_for_record)
        self.waits = early and self.outstanding() > 0 and self._roll_call.listening and self._seconds() > 0

    async def write_record(self, verdict: Verdict) -> None:
        """Leave the record of the end, if there is a folder for it and a node that may read it."""
        run, record, missing = self._run, self.record, self.missing()
        if record is None or not self.outstanding():
            return
        end = End(verdict, run.host.hostname, time.time(), len(missing), missing if self._size else None)
        run.note(owned_files={**run.runtime.manifest.owned_files, **record.end_files(end)})
        try:
            if path := await interruptible(run, timeouts.SHARED_FOLDER_S, lambda: record.write_end(end)):
                run.log.say(f"{_named(missing)} may come yet: {path} says how the run ended")
        except (OSError, TimedOut) as fault:
            what = str(fault) or f"its folder timed out after {timeouts.SHARED_FOLDER_S:g} s"
            run.log.warn(f"the record of the end, for {_named(missing)}, could not be written: {what}")

    def _seconds(self) -> float:
        """Return for how long to wait."""
        run, reason = self._run, self._run.lifecycle.reason
        if run.lifecycle.force_stop.is_set() or run.lifecycle.hurry.is_set() or isinstance(reason, Down):
            return 0.0  # who typed `down` waits for this head to go
        if not isinstance(reason, Stopped):
            return run.settings.late_wait
        if reason.signum != signal.SIGTERM:
            return 0.0  # a person's: Ctrl-C, Ctrl-\, a terminal that was closed
        left = run.settings.grace - run.lifecycle.seconds_since_signal() - timeouts.DRAIN_RESERVE_S
        return min(run.settings.late_wait, left)

    async def wait(self) -> None:
        """Wait for the missing nodes, so that the roll call gives them the verdict; a signal ends the wait."""
        if not self.waits or not (missing := self.missing()) or (seconds := self._seconds()) <= 0:
            return
        have, they = ("has", "it") if len(missing) == 1 else ("have", "them")
        self._run.log.say(
            f"{self._reason}{_named(missing)} {have} not come: this head stays for up to {seconds:.0f} s to tell {they}"
            " how the run ended; Ctrl-C or SIGTERM ends that, --late-wait=0 does without"
        )
        begin = asyncio.get_running_loop().time()
        coming = asyncio.ensure_future(self._until_heard())
        hurry = asyncio.ensure_future(self._run.lifecycle.hurry.wait())
        with contextlib.suppress(TimedOut):
            await wait_for(seconds, asyncio.wait({coming, hurry}, return_when=asyncio.FIRST_COMPLETED))
        for task in (coming, hurry):
            task.cancel()
        took = asyncio.get_running_loop().time() - begin
        still = self.missing()
        outcome = f"{_named(still)} did not come" if still else "all nodes have heard how the run ended"
        self._run.log.say(f"{outcome}, after {took:.1f} s")

    async def _until_heard(self) -> None:
        await self._roll_call.until(lambda: not self.outstanding())
        await self._roll_call.until_empty(timeouts.VERDICT_S)


def _named(ranks: Sequence[int]) -> str:
    """Return the ranks as people write them: ``rank 3``, ``ranks 2, 3 and 12 more``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {listed(ranks)}"
