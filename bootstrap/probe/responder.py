"""The listening end: it answers the probes of this run's nodes, within strict limits, and nothing else."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import cast

from bootstrap import timeouts
from bootstrap.probe import exchange
from bootstrap.rollcall import auth
from bootstrap.rollcall.listener import Allowance, Listener, source_of

_PER_SOURCE = 64
"""Connections from one source that do not prove to be of this run, within :data:`timeouts.PROBE_S`."""
_MOST_STRANGERS = 128
"""Such connections from all sources together; the oldest is cut for a new one."""
_MOST_OPEN = 256
"""Connections in all."""
_WAITS = 3
"""Times :data:`timeouts.PROBE_S` that a node of this run may take after its first line."""


class Responder:
    """Listens on the ports for probes. Until :meth:`begin`, the kernel keeps the connections waiting."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._allowance = Allowance(_PER_SOURCE, timeouts.PROBE_S)
        self._open: dict[_Conversation, None] = {}
        self.key, self.rank = b"", -1

    def bind(self, ports: Sequence[int]) -> int:
        """Listen on the first free one of ``ports``, 0 for any; return it. :raises OSError: if none is free."""
        listener = Listener(self._meet)
        failure = OSError("no port to listen on")
        for port in ports:
            try:
                chosen = listener.bind(port)
            except OSError as error:
                failure = error
                continue
            self._listeners.append(listener)
            return chosen
        raise failure

    def begin(self, key: bytes, rank: int) -> None:
        """Answer from now on, as the node of this rank; ``key`` is from :func:`exchange.make_key`."""
        self.key, self.rank = key, rank
        for listener in self._listeners:
            listener.accept()

    def close(self) -> None:
        """Stop listening, and cut the connections."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for conversation in [*self._open]:
            conversation.cut()

    def _meet(self, address: str) -> asyncio.Protocol | None:
        source = source_of(address)
        if not self._allowance.take(source, asyncio.get_running_loop().time()):
            return None
        strangers = [each for each in self._open if not each.knows_us]
        if len(strangers) >= _MOST_STRANGERS:
            strangers[0].cut()
        if len(self._open) >= _MOST_OPEN:
            return None
        conversation = _Conversation(self, source)
        self._open[conversation] = None
        return conversation

    def trust(self, source: bytes) -> None:
        """Stop counting a connection from this source, as it has proved to be of this run."""
        self._allowance.give_back(source, asyncio.get_running_loop().time())

    def forget(self, conversation: "_Conversation") -> None:
        """Drop a conversation that has ended."""
        self._open.pop(conversation, None)


class _Conversation(asyncio.Protocol):
    """One probe, as its target sees it."""

    def __init__(self, responder: Responder, source: bytes) -> None:
        self._responder, self._source = responder, source
        self._transport: asyncio.Transport | None = None
        self._nonce = auth.nonce()
        self._theirs = ""
        self._echoing = self._over = False
        self._left = exchange.PAYLOAD
        self._pending = b""
        self._timer = asyncio.get_running_loop().call_later(timeouts.PROBE_S, self.cut)

    @property
    def knows_us(self) -> bool:
        """Return whether the dialer has proved to be of this run."""
        return bool(self._theirs)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to use the transport (asyncio's callback)."""
        self._transport = cast(asyncio.Transport, transport)
        if self._over:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read a line, or send the bytes of the packet test back (asyncio's callback)."""
        if self._echoing:
            self._send_back(data)
            return
        line, end, rest = (self._pending + data).partition(b"\n")
        if not end and len(line) < exchange.MAX_LINE:
            self._pending = line
            return
        try:
            self._read(line[: exchange.MAX_LINE])
        except ValueError:
            self.cut()
            return
        self._pending = b""
        if rest:
            self.data_received(rest)

    def _read(self, line: bytes) -> None:
        here = self._responder
        if self.knows_us:
            exchange.check_echo(here.key, self._theirs, self._nonce, line)
            self._echoing = True
            return
        self._theirs = exchange.read_ask(here.key, line)
        here.trust(self._source)
        self._timer.cancel()  # the dialer ends first, and knows why: two waits of its own follow
        self._timer = asyncio.get_running_loop().call_later(_WAITS * timeouts.PROBE_S, self.cut)
        if self._transport is not None:
            self._transport.write(exchange.answer(here.key, self._theirs, self._nonce, here.rank))

    def _send_back(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0 or self._transport is None:
            self.cut()
        else:
            self._transport.write(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Forget the connection (asyncio's callback)."""
        self._over, self._transport = True, None
        self._timer.cancel()
        self._responder.forget(self)

    def cut(self) -> None:
        """Close the connection now."""
        self._over = True
        self._timer.cancel()
        self._responder.forget(self)
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()
