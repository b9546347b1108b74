"""The dialing end: probe a node's port, and say in words why it is not reached."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Callable, Iterable

from bootstrap import net, timeouts
from bootstrap.model import join_host_port
from bootstrap.probe import exchange
from bootstrap.probe.messages import ANSWERED, PORTS, Outcome, Target
from bootstrap.process.bounded import TimedOut, wait_for
from bootstrap.rollcall import auth

_AT_ONCE = 4
"""Probes that a node has under way at the same time."""
_MIN_RTT = 148
"""Offset of tcpi_min_rtt in struct tcp_info (include/uapi/linux/tcp.h), in microseconds; Linux 4.6."""
_CHUNK = 64 * 1024
SILENT = "it accepts the connection and says nothing"
"""What a probe meets where the kernel answers, and the agent does not."""


class Prober:
    """Probes targets, a few at a time, until it is closed.

    :param key: from :func:`exchange.make_key`.
    :param rank: this node's.
    :param on_outcome: called with each result.
    """

    def __init__(self, key: bytes, rank: int, on_outcome: Callable[[Outcome], None], at_once: int = _AT_ONCE) -> None:
        self._key, self._rank, self._on_outcome = key, rank, on_outcome
        self._turns = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, targets: Iterable[Target]) -> None:
        """Probe these targets, beside those that are under way."""
        for target in targets:
            task = asyncio.ensure_future(self._probe(target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stop all probes, without a result."""
        for task in self._tasks:
            task.cancel()

    async def _probe(self, target: Target) -> None:
        clock = asyncio.get_running_loop().time
        async with self._turns:
            begun = clock()
            outcome = await probe(target, self._key, self._rank)
            if outcome.error and clock() - begun > timeouts.PROBE_S + timeouts.PROBE_LATE_S:
                # This process may have been stopped meanwhile; then its time-outs, and those of the other end, say
                # nothing about the way between them.
                outcome = await probe(target, self._key, self._rank)
        self._on_outcome(outcome)


async def probe(target: Target, key: bytes, rank: int) -> Outcome:
    """Probe one target; return the outcome, within twice :data:`timeouts.PROBE_S`.

    :param rank: this node's.
    """
    limit = timeouts.PROBE_S
    try:
        reader, writer = await wait_for(limit, asyncio.open_connection(target.ip, target.port))
    except TimedOut:
        return Outcome(target.rank, target.name, f"no answer in {limit:g} s")
    except (OSError, ValueError) as error:  # ValueError: the node has claimed a name that is none
        return Outcome(target.rank, target.name, net.reason(error) + _own_address(target.ip))
    try:
        if target.name not in ANSWERED:
            return Outcome(target.rank, target.name)
        return await _converse(target, key, rank, reader, writer)
    finally:
        writer.transport.abort()


async def _converse(
    target: Target, key: bytes, rank: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Outcome:
    def failed(why: str, *, stalled: bool = False) -> Outcome:
        return Outcome(target.rank, target.name, why, stalled=stalled)

    loop, limit, mine = asyncio.get_running_loop(), timeouts.PROBE_S, auth.nonce()
    begun = loop.time()
    try:
        writer.write(exchange.ask(key, mine))
        line = await wait_for(limit, reader.readuntil(b"\n"))
        theirs, there = exchange.read_answer(key, mine, line)
    except TimedOut:
        return failed(f"{SILENT} in {limit:g} s")
    except (OSError, ValueError, EOFError, asyncio.LimitOverrunError):
        return failed("another program, or a node of another run, answers there")
    round_trip = _round_trip(writer) or round((loop.time() - begun) * 1e6)
    if there != target.rank:
        who = "this node itself" if there == rank else f"rank {there}"
        return failed(f"{who} answers there: two nodes claim {target.ip}; --node-ip=ADDRESS or --interface=NAME")
    if not target.echo:
        return Outcome(target.rank, target.name, round_trip=round_trip)
    begun = loop.time()
    writer.write(exchange.echo(key, mine, theirs) + bytes(exchange.PAYLOAD))
    came = [0]
    try:
        await wait_for(limit, _read_all(reader, came))
    except TimedOut:
        lost = "there" if _unacknowledged(writer) else "back"
        what = f"small packets come through, large ones get lost on the way {lost}: {came[0]} of {exchange.PAYLOAD}"
        return failed(f"{what} bytes were echoed in {limit:g} s", stalled=True)
    except (OSError, EOFError) as error:
        return failed(f"the connection broke after {came[0]} of {exchange.PAYLOAD} bytes: {net.reason(error)}")
    rate = round(2 * 8 * exchange.PAYLOAD / max(loop.time() - begun, 1e-6))
    return Outcome(target.rank, target.name, round_trip=round_trip, rate=rate)


async def _read_all(reader: asyncio.StreamReader, came: list[int]) -> None:
    while came[0] < exchange.PAYLOAD:
        data = await reader.read(_CHUNK)
        if not data:
            raise EOFError("closed by the other side")
        came[0] += len(data)


def _round_trip(writer: asyncio.StreamWriter) -> int:
    """Return the kernel's measure, which does not depend on how busy the two processes are; 0 if it has none."""
    connected = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, struct.error):
        info = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT + 4)
        return int(struct.unpack_from("=I", info, _MIN_RTT)[0])
    return 0


def _unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Return how many bytes the other side's kernel has not acknowledged (SIOCOUTQ, tcp(7))."""
    with contextlib.suppress(OSError, ValueError):
        answer = fcntl.ioctl(writer.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("=i", answer)[0]) + writer.transport.get_write_buffer_size()
    return 0


def _own_address(ip: str) -> str:
    """Return a remark if this node itself holds ``ip``, as with a bridge that has one address on every node."""
    own = net.is_address(ip) and not net.is_loopback(ip) and net.source_address(ip) == ip
    return f"; {ip} is this node's own address, too" if own else ""


def describe(target: Target) -> str:
    """Return the target's address, and which port that is."""
    return f"{join_host_port(target.ip, target.port)} ({PORTS[target.name]})"
