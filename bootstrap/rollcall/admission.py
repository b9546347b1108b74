"""Admission to the roll call: pure comparisons of a node's hello with what the head knows.

The order serves the reader of the error: another run first, then identity, then what Ray would reject.
"""

from bootstrap.errors import IdentityError
from bootstrap.rollcall.hello import Hello, ObserverHello

FIX_TLS = "give all nodes the same --tls and the same --auth"
FIX_IDENTITY = "give each node a rank of its own and all nodes the same size; `ray-bootstrap detect` there shows both"
MOST_NODES = 1 << 16
"""Ranks in a run whose size is unknown."""


def other_run(me: Hello, hello: Hello | ObserverHello) -> str:
    """Return why ``hello`` belongs to another run or attempt; empty if it does not."""
    if (hello.run, hello.attempt) == (me.run, me.attempt):
        return ""
    return f"this is not run {hello.run!r}, attempt {hello.attempt}"  # our own would admit the peer


def misfit(me: Hello, hello: Hello) -> str:
    """Return why a node cannot be of a run like ours, whichever nodes are connected; empty if it can.

    That is a size that differs, a rank that is out of range, or the head's own.
    """
    size, rank, who = me.size, hello.rank, describe(hello)
    if hello.size is not None and size is not None and hello.size != size:
        numbered = "" if rank is None else f", rank {rank},"
        return f"{who}{numbered} expects {hello.size} nodes, the head {me.host} expects {size}"
    if rank is not None and not 0 <= rank < (size or MOST_NODES):
        return f"{who} has rank {rank}, but the run on {me.host} has {size or f'at most {MOST_NODES}'} nodes"
    return claimed_twice(0, me, hello) if rank == 0 else ""


def rank_for(me: Hello, hello: Hello, lowest_free: int) -> int:
    """Return the rank that a node claims, or the lowest free one if its launcher does not number nodes.

    :raises IdentityError: if it claims none, and all are taken.
    """
    rank, ranks = lowest_free if hello.rank is None else hello.rank, me.size or MOST_NODES
    if rank >= ranks:
        raise IdentityError(f"{describe(hello)} has no rank, and all {ranks} ranks of the run on {me.host} are taken")
    return rank


def claimed_twice(rank: int, holder: Hello, newcomer: Hello) -> str:
    """Return that two nodes claim one rank, with both hosts."""
    return f"rank {rank} is claimed by two nodes: {describe(holder)} has it, {describe(newcomer)} wants it"


def describe(hello: Hello) -> str:
    """Return a node's host name and address."""
    return f"{hello.host} ({hello.ip})"


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
