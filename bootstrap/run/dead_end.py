"""What waiting cannot mend before the quorum: each ends a run that needs all its nodes at once (docs/rollcall.md)."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from bootstrap import net, timeouts
from bootstrap.errors import BootstrapError, IdentityError, RayDied, Refused
from bootstrap.files.secret import FIX_MISMATCH
from bootstrap.model import NodeIdentity, Phase
from bootstrap.process.bounded import Call
from bootstrap.rollcall.admission import FIX_IDENTITY
from bootstrap.rollcall.member import Member
from bootstrap.rollcall.server import RollCall
from bootstrap.run.notices import listed


def misnumbered(what: str, identity: NodeIdentity) -> IdentityError:
    """Return the error for a node whose rank or size does not fit those of the others.

    :param what: why, with both hosts.
    :param identity: the head's.
    """
    rank, size = (identity.sources.get(word, "") for word in ("rank", "size"))
    given = " and ".join(
        filter(None, [f"the rank from {rank}" if rank else "", f"the size from {size}" if size else ""])
    )
    return IdentityError(what, hint=f"{FIX_IDENTITY}; the head has {given or 'both'} (launcher {identity.launcher})")


def lost_for_good(member: Member, identity: NodeIdentity) -> RayDied | None:
    """Return the error for a lost node that no other can replace; None if one may come."""
    if may_be_replaced(member, identity):
        return None
    what = f"{member.name} at {member.hello.ip} was lost before the quorum: {member.detail or member.phase.value}"
    none = f"{identity.launcher} replaces no node" if identity.replaced_nodes == "none" else "--replaced-nodes=stopped"
    return RayDied(what, hint=f"see the output of {member.hello.host}, then start the run again: {none}")


def may_be_replaced(member: Member, identity: NodeIdentity) -> bool:
    """Return whether another node may take the rank of this one, which is lost."""
    stopped = member.phase in (Phase.LEAVING, Phase.LEFT)
    return identity.replaced_nodes == "all" or (identity.replaced_nodes == "stopped" and stopped)


def all_shut_out(missing: Sequence[int], rejected: Collection[str], addresses: Mapping[int, Collection[str]]) -> bool:
    """Return whether each missing rank was rejected for its secret, at an address of its own node.

    :param missing: the ranks that have never joined.
    :param rejected: the addresses of all peers that were rejected for their secret.
    :param addresses: what the names that the launcher gives the missing nodes resolve to, by rank.
    """
    return bool(missing) and all(not set(rejected).isdisjoint(addresses.get(rank, ())) for rank in missing)


class SecretWatch:
    """Ends the run once every missing node has shown that its secret is not the head's.

    Anyone who reaches the head can show a wrong secret. So only the addresses of the nodes count that the launcher
    itself names, and only if no other node is missing.

    :param stop: called with the error.
    """

    def __init__(self, identity: NodeIdentity, roll_call: RollCall, stop: Callable[[BootstrapError], None]) -> None:
        self._hosts = identity.hosts
        self._roll_call = roll_call
        self._stop = stop
        self._addresses: dict[str, Collection[str]] = {}
        """By name; only names that resolved."""
        self._resolve_after = 0.0
        self._resolving = False
        self.shut_out = False
        """Whether each missing node was refused for its secret."""

    def check(self) -> None:
        """Decide again; call it before the quorum, when a peer was rejected or a node has joined."""
        if not self._hosts or not (rejected := self._roll_call.rejections.ranked):
            return
        missing = [rank for rank in range(1, len(self._hosts)) if rank not in self._roll_call.members]
        peers = {_plain(group.peer) for group in rejected if group.kind == "secret"}
        names = {self._hosts[rank] for rank in missing}
        if not missing or len(peers) < len(names):  # so there are never more names than groups of rejections
            return
        if unknown := names - self._addresses.keys():
            self._resolve(unknown)
            return
        if all_shut_out(missing, peers, {rank: self._addresses[self._hosts[rank]] for rank in missing}):
            self.shut_out = True
            self._stop(self._error(missing))

    def _error(self, missing: Sequence[int]) -> Refused:
        who = f"rank {listed([f'{rank} ({self._hosts[rank]})' for rank in missing])}"
        return Refused(f"{who}: the secret there is not the head's; no other node is missing", hint=FIX_MISMATCH)

    def _resolve(self, names: Collection[str]) -> None:
        """Resolve names in a thread, then decide again."""
        loop = asyncio.get_running_loop()
        if self._resolving or loop.time() < self._resolve_after:
            return
        self._resolving, self._resolve_after = True, loop.time() + timeouts.NODE_NAMES_S
        deadline, found = time.monotonic() + timeouts.NODE_NAMES_S, dict[str, Collection[str]]()

        def resolve() -> None:
            for name in names:
                if (left := deadline - time.monotonic()) > 0 and (addresses := net.resolve(name, left)):
                    found[name] = {_plain(address) for address in addresses}

        def resolved() -> None:
            self._resolving = False
            self._addresses |= found
            if found:
                self.check()

        def decide() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(resolved)

        Call(resolve, decide)


def _plain(address: str) -> str:
    """Return an address as text that can be compared: canonical, without its zone."""
    try:
        return net.canonical(address.partition("%")[0])
    except ValueError:
        return address
