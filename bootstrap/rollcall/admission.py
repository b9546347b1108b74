"""Admission to the roll call: pure comparisons of a node's hello with what the head knows.

The order serves the reader of the error: another run first, then identity, then what Ray would reject.
"""

from collections.abc import Callable

from bootstrap.errors import IdentityError
from bootstrap.rollcall.hello import Hello

CLOCK_TOLERANCE = 5.0
"""Seconds by which a node's clock may differ before the head reports it."""
FIX_TLS = "give all nodes the same --tls and the same --auth"
MOST_NODES = 1 << 16
"""Ranks in a run whose size is unknown."""


def other_run(me: Hello, hello: Hello) -> str:
    """Return why ``hello`` belongs to another run or attempt; empty if it does not."""
    if (hello.run, hello.attempt) == (me.run, me.attempt):
        return ""
    return f"this is not run {hello.run!r}, attempt {hello.attempt}"  # our own would admit the peer


def rank_for(me: Hello, hello: Hello, holder: Callable[[int], Hello | None], lowest_free: int) -> int:
    """Return the rank that a node claims, or the lowest free one if its launcher does not number nodes.

    :param holder: returns the node that is connected with a rank, or None; the head itself has 0.
    :raises IdentityError: if the size differs or the rank is out of range or taken; it names both hosts.
    """
    size, ranks = me.size, me.size or MOST_NODES
    if hello.size is not None and size is not None and hello.size != size:
        raise IdentityError(f"{hello.host} expects {hello.size} nodes, the head {me.host} expects {size}")
    rank = lowest_free if hello.rank is None else hello.rank
    if rank >= ranks and hello.rank is None:
        raise IdentityError(f"{hello.host} has no rank, and all {ranks} ranks of the run on {me.host} are taken")
    if rank < 0 or rank >= ranks:
        raise IdentityError(
            f"{hello.host} has rank {rank}, but the run on {me.host} has {size or f'at most {MOST_NODES}'} nodes"
        )
    other = me if rank == 0 else holder(rank)
    if other is not None:
        has, wants = f"{other.host} ({other.ip})", f"{hello.host} ({hello.ip})"
        raise IdentityError(f"rank {rank} is claimed by two nodes: {has} has it, {wants} wants it")
    return rank


def version_clash(me: Hello, hello: Hello, *, any_python_patch: bool) -> str:
    """Return which versions Ray would reject, later and more slowly; empty if none.

    Ray's and Python's full versions must match (``check_version_info`` in Ray's _private/utils.py).

    :param any_python_patch: whether Python may differ in its patch level.
    """
    if hello.ray != me.ray:
        return f"Ray {hello.ray} on {hello.host}, Ray {me.ray} on {me.host}"
    level = 2 if any_python_patch else 3
    if hello.python.split(".")[:level] != me.python.split(".")[:level]:
        return f"Python {hello.python} on {hello.host}, Python {me.python} on {me.host}"
    return ""


def tls_clash(me: Hello, hello: Hello) -> str:
    """Return how the two nodes differ in whether Ray uses TLS, as each would see only time-outs; empty if not."""
    if hello.tls == me.tls:
        return ""
    return ", ".join(f"Ray {'with' if node.tls else 'without'} TLS on {node.host}" for node in (hello, me))


def clock_offset(hello: Hello, now: float) -> str:
    """Return by how much a node's clock differs from ``now`` (seconds since the epoch); empty within the tolerance."""
    offset = hello.time - now
    return f"its clock differs by {offset:+.0f} s" if abs(offset) > CLOCK_TOLERANCE else ""
