"""The head's watch over the other nodes: what each change means for the run."""

import asyncio
import time
from collections.abc import Collection
from functools import partial

from bootstrap import cgroup, timeouts
from bootstrap.errors import BootstrapError, Down, RayDied, Refused, remote_error
from bootstrap.launchers.look import how_to_look
from bootstrap.model import NodeIdentity, Phase, Verdict
from bootstrap.probe.responder import Responder
from bootstrap.raynode import endings
from bootstrap.rollcall.admission import FIX_TLS
from bootstrap.rollcall.hello import Hello
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.server import RollCall
from bootstrap.run import dead_end
from bootstrap.run.context import Context
from bootstrap.run.head_probes import HeadProbes
from bootstrap.run.isolation import IsolationTimer
from bootstrap.run.late import LateNodes
from bootstrap.run.notices import AT_ONCE, FROM_HEAD, GroupedReports, findings_of
from bootstrap.settings import Settings

_OOM_NODES = 4
"""Nodes whose OOM kills are named at the end."""
_WAITS = "; the run waits for another node with this rank"


def minimum_nodes(settings: Settings, identity: NodeIdentity) -> int:
    """Return how many nodes the workload needs."""
    return settings.min_nodes or identity.size or 1


class NodeWatch:
    """Logs each change, wakes the wait for the quorum, stops a run that cannot go on, and delivers the verdict."""

    def __init__(self, run: Context, identity: NodeIdentity, roll_call: RollCall, responder: Responder) -> None:
        self.changed = asyncio.Event()
        """Set whenever a node changes."""
        self.quorum_reached = self._stays = False
        self.own_findings: Collection[str] = ()
        """The head's warnings from its preflight."""
        self._run = run
        self._identity = identity
        self._look = partial(how_to_look, identity.launcher, run.host)
        self._isolation = IsolationTimer(run, identity.isolation_timeout, roll_call)
        self.roll_call = roll_call
        minimum = minimum_nodes(run.settings, identity)
        self._all_needed = minimum == identity.size
        self.probes = HeadProbes(roll_call, responder, run.log, self._is_ending)
        self.late = LateNodes(run, identity, roll_call, max(identity.size or 1, minimum) - 1)
        roll_call.on_change = self._on_change
        roll_call.on_refused = lambda who: run.log.warn(f"rejected {who}")
        roll_call.on_misfit = self._on_misfit
        self._secrets = dead_end.SecretWatch(identity, roll_call, self._stop_if_all_are_needed)
        roll_call.rejections.on_new = lambda _rejected: self._secrets.check()
        roll_call.on_finding = self._on_finding
        roll_call.on_stopped = self._on_stopped
        roll_call.observers.on_down, roll_call.observers.own = self._on_down, self._as_member
        self._reports = GroupedReports(run.log.warn)
        run.set_state_soon(expected=max(identity.size or 1, minimum))
        if run.trace is not None:
            run.trace.members = roll_call.members.values

    def _is_ending(self) -> bool:
        return self._run.lifecycle.reason is not None or self.roll_call.concluded

    def _on_change(self, member: Member, what: str) -> None:
        run = self._run
        self.changed.set()
        going = member.connected and member.phase in (Phase.LEFT, Phase.FAILED)  # its connection is about to close
        run.set_state_soon(seen=self.roll_call.present - going + 1)
        if member.detail and member.phase in (Phase.WAITING, Phase.STARTING_RAY):
            self._reports.add(member, what)
        elif member.phase is Phase.WAITING:
            run.log.say(f"rank {member.rank}: {what}{describe_mismatch(run.settings, self.roll_call.me, member.hello)}")
            self.probes.on_joined(member)
        elif member.phase.is_loss:
            self._reports.forget(member)
            self.probes.on_lost(member)
        if self._is_ending():
            return  # once the run ends, every node leaves
        if member.phase.is_loss and member.phase is not Phase.REFUSED:  # on_refused has logged that
            lines = [] if self.quorum_reached else findings_of({member.rank: member}, [member.rank], self.own_findings)
            waits = _WAITS if self._may_be_replaced(member) else ""
            run.log.warn("\n".join([f"{member.name} {what}{waits}", *lines]))
        if member.phase.is_loss and (reason := self._reason_to_stop(member)):
            # If the whole run is being stopped, a worker may be first: the signal is the reason then, not the loss.
            # And a node whose welcome came too late for it is on its way.
            patient = member.phase in (Phase.LEAVING, Phase.LEFT) or member.unconfirmed
            delay, begun = timeouts.STOPPED_FIRST_S if patient else 0, self.quorum_reached
            asyncio.get_running_loop().call_later(delay, self._stop_unless_settled, reason, begun, member)
        elif self.quorum_reached:
            self._isolation.check()
        else:
            self._secrets.check()

    def _stop_unless_settled(self, reason: BootstrapError, begun: bool, member: Member) -> None:
        """Stop the run, unless its workload has begun since (then other options decide), or the node is back."""
        back = member.unconfirmed and self.roll_call.members.get(member.rank) is not member
        if self.quorum_reached is begun and not back:
            self._run.lifecycle.stop(reason)

    def _on_misfit(self, what: str) -> None:
        self._stop_if_all_are_needed(dead_end.misnumbered(what, self._identity))

    def _stop_if_all_are_needed(self, reason: BootstrapError) -> None:
        """Stop the run before its quorum; afterwards, or if other nodes are enough, it goes on."""
        if self._all_needed and not self.quorum_reached and not self.roll_call.concluded:
            self._run.lifecycle.stop(reason)

    def _on_finding(self, member: Member, finding: str) -> None:
        check = finding.partition(":")[0]
        if check in FROM_HEAD and finding in self.own_findings:
            self._reports.add(member, f"{check}: as on this node")
        elif check in (*AT_ONCE, *FROM_HEAD):
            self._reports.add(member, finding)

    def _on_stopped(self, member: Member) -> None:
        """Answer a stopped worker: at once if the run ends, else in a moment, since whoever ends it stops all nodes."""

        def answer() -> None:
            self.roll_call.answer_stopped(member, stay=self._is_ending())

        asyncio.get_running_loop().call_later(0 if self._is_ending() else timeouts.STOPPED_TOO_S, answer)

    def _on_down(self, status: int, who: str) -> None:
        self._run.lifecycle.stop(Down(status, f"'ray-bootstrap down' on {who}"))

    def _as_member(self) -> Member:
        """Return the head itself as observers are to see it."""
        run = self._run
        since = asyncio.get_running_loop().time() - (time.time() - run.runtime.state.get("since", time.time()))
        return Member(self.roll_call.me, 0, run.readiness.phase, since, findings=list(self.own_findings))

    def begin_workload(self) -> None:
        """Note that the quorum is reached: from now on a lost node ends the run only as the options say."""
        self.quorum_reached = True
        self.roll_call.reach_quorum()
        self.probes.finish_soon()
        self._isolation.check()

    def _reason_to_stop(self, member: Member) -> BootstrapError | None:
        """Return why the run cannot go on without this node; None if it can."""
        name = member.name
        if self.quorum_reached:
            if self._run.settings.on_node_loss != "fail" or member.phase is Phase.REFUSED:
                return None
            hint = endings.remedy_of(member.detail) or self._look([member.rank], [member.hello.host])
            return RayDied(f"--on-node-loss=fail, and {name} was lost during the workload: {member.detail}", hint=hint)
        if not self._all_needed:
            return None
        if member.phase is Phase.REFUSED:
            same = "give all nodes the same image, or the same environment"
            tls = member.hello.tls != self.roll_call.me.tls
            return Refused(f"{name}: {member.detail}", hint=FIX_TLS if tls else same)
        if member.phase is Phase.FAILED and member.error != RayDied.name:
            hint = member.hint or self._look([member.rank], [member.hello.host])
            return remote_error(member.error, f"{name}: {member.detail}", hint=hint)
        return dead_end.lost_for_good(member, self._identity)

    def _may_be_replaced(self, member: Member) -> bool:
        """Return whether the run waits for another node to take the rank of this one, which is lost."""
        gone = member.phase in (Phase.LOST, Phase.LEFT) or member.error == RayDied.name
        needed = self._all_needed and not self.quorum_reached
        return gone and needed and dead_end.may_be_replaced(member, self._identity)

    async def deliver_verdict(self, verdict: Verdict, error: BootstrapError | None) -> None:
        """Send the verdict to all workers, and prepare for those that have yet to connect."""
        self._isolation.cancel()
        self._reports.flush()
        self.probes.close()
        self.late.decide(verdict, error, quorum_reached=self.quorum_reached, shut_out=self._secrets.shut_out)
        listen = self.late.waits or self.roll_call.observers.await_the_end
        self._stays = listen or self._run.trace is not None
        delivering = self.roll_call.deliver(verdict, timeouts.VERDICT_S, listen=listen)
        clock = asyncio.get_running_loop().time
        begun = clock()
        until = begun + timeouts.VERDICT_S
        try:
            await asyncio.gather(delivering, self.late.write_record(verdict))
            if not self.late.waits:  # for those whose handshake was not over when the others had left
                await self.roll_call.until_empty(max(0.0, until - clock()))
        finally:
            self._run.timeline.add("verdict", begun)
            self._run.lifecycle.oom_elsewhere = oom_kills_of(self.roll_call)
            if not self._stays:
                self.roll_call.close()

    async def linger(self) -> None:
        """Wait for nodes that come late, if they can hear of the end in no other way; then close the roll call.

        And for all nodes to clean up: if an observer has ended the run, whose connection lasts until then, or for the
        trace of that.
        """
        try:
            await self.late.wait()
            observed, traced = self.roll_call.observers.await_the_end, self._run.trace is not None
            if observed or traced:
                seconds = timeouts.DOWN_S if observed else self._seconds_for_trace()
                cleaning = asyncio.ensure_future(self.roll_call.until_empty(seconds, clean=True))
                hurry = asyncio.ensure_future(self._run.lifecycle.hurry.wait())
                await asyncio.wait({cleaning, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.roll_call.close()

    def _seconds_for_trace(self) -> float:
        """Return for how long to wait for the end of each node; after a signal no longer than the grace."""
        if not (since := self._run.lifecycle.seconds_since_signal()):
            return timeouts.TRACE_S
        return min(timeouts.TRACE_S, max(0.0, self._run.settings.grace - since - timeouts.DRAIN_RESERVE_S))


def oom_kills_of(roll_call: RollCall) -> list[str]:
    """Return what the nodes have said, when they left, of the OOM killer; of many nodes how many more there are."""
    members = (roll_call.members[rank] for rank in sorted(roll_call.members))
    said = [finding for member in members for finding in member.findings if finding.startswith(cgroup.OOM)]
    more = len(said) - _OOM_NODES
    if more <= 0:
        return said
    return [*said[:_OOM_NODES], f"and processes on {more} more node{'s' if more > 1 else ''}"]


def describe_mismatch(settings: Settings, own: Hello, theirs: Hello) -> str:
    """Return how a node's GPUs and CPUs differ from the head's, unless that was asked for; "" if they do not."""
    if theirs.cpus == 0:  # unfit: it was not measured
        return ""
    differences = []
    if settings.head_gpus is None and (theirs.gpus, theirs.gpu_model) != (own.gpus, own.gpu_model):
        differences.append(
            f"{theirs.gpus} GPUs ({theirs.gpu_model or '-'}), the head {own.gpus} ({own.gpu_model or '-'})"
        )
    if settings.head_cpus is None and theirs.cpus != own.cpus:
        differences.append(f"{theirs.cpus} CPUs, the head {own.cpus}")
    return "".join(f"; it has {difference}" for difference in differences)
