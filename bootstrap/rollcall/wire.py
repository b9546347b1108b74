"""The roll call's messages and connections; the order of messages is up to client and server (docs/rollcall.md).

A message is one line of JSON, an object with the key ``t``. Either side cuts a connection whose peer sends a line
longer than :data:`MAX_LINE` or one that is not a message, or does not read what it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from bootstrap.rollcall.auth import MAC_OVERHEAD, Authenticator, BadMac

MAX_LINE = 16 * 1024
"""Bytes in a line, its MAC and its end included."""
MAX_UNREAD = 256 * 1024
"""Bytes that a peer may leave unread before it is cut off."""
LEFT = "closed by the other side"
_NO_ANSWER = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
"""Errors with which the kernel gives a connection up because no packet comes back."""
TOO_MUCH = 1 << 53
"""Beyond it other JSON libraries lose digits, and ours takes long to print them."""
MAX_NAME = 256
_HEX = frozenset("0123456789abcdef")
BEAT = b'{"t":"beat"}\n'
"""The heartbeat, encoded in advance: it is most of the traffic."""
BEATS = 3
"""Heartbeats that each side sends within the heartbeat time-out."""

Message = Mapping[str, Any]


def encode(message: Message) -> bytes:
    """Return the message as one line of at most :data:`MAX_LINE` bytes, its MAC included.

    It shortens texts that are too long to their ends, where the last error is, but never ``run``.

    :raises ValueError: if the line is still too long.
    """
    short = dict(message)
    while len(line := json.dumps(short, separators=(",", ":")).encode() + b"\n") > MAX_LINE - MAC_OVERHEAD:
        # Measured, not calculated: a character takes between 1 and 12 bytes (an escaped pair of surrogates).
        texts = [k for k, v in short.items() if k not in ("t", "run") and isinstance(v, str) and len(v) > 1]
        if not texts:
            raise ValueError(f"a message of {len(line)} bytes")
        longest = max(texts, key=lambda name: len(short[name]))
        short[longest] = short[longest][-(-len(short[longest]) // 4) :]
    return line


def decode(line: bytes) -> Message:
    """Return the message in a line.

    :raises ValueError: if the line is not a message.
    """
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ValueError("not an object with a 't'")
    return message


def text(message: Message, name: str) -> str:
    """Return a text field, safe to print: without the characters that would move a terminal's cursor.

    :raises ValueError: if it is missing or not a text.
    """
    value = message.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{message['t']} without a valid {name!r}")
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in value)


def number(message: Message, name: str) -> int:
    """Return a number field.

    :raises ValueError: if it is missing or not a whole number below 2**53 in size.
    """
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= TOO_MUCH:
        raise ValueError(f"{message['t']} without a valid {name!r}")
    return value


def nonce(message: Message) -> str:
    """Return the peer's nonce.

    :raises ValueError: if it is not 32 hex digits, as from :func:`bootstrap.rollcall.auth.nonce`.
    """
    value = message.get("nonce")
    if not isinstance(value, str) or len(value) != 32 or not set(value) <= _HEX:
        raise ValueError(f"{message['t']} without a valid 'nonce'")
    return value


class Connection(asyncio.Protocol):
    """One end of one connection.

    With an ``authenticator``, every line has a MAC.

    :param on_message: called with each message, in order. A ValueError from it, or from decoding, cuts the connection:
        the peer does not speak the protocol.
    :param on_bad_mac: called with a line that has a wrong MAC before any had the right one: the peer does not know the
        secret. A later one cuts the connection: it was changed on its way.
    :param on_closed: called once, with the reason, whichever side closed it.
    """

    __slots__ = (
        "_cut_early",
        "_lost",
        "_on_bad_mac",
        "_on_closed",
        "_on_message",
        "_pending",
        "_reason",
        "_transport",
        "admitted",
        "authenticator",
        "fell_silent",
        "last_heard",
        "peer",
    )

    def __init__(
        self,
        on_message: Callable[[Connection, Message], None],
        on_bad_mac: Callable[[Connection, bytes], None],
        on_closed: Callable[[Connection, str], None],
    ) -> None:
        self._on_message = on_message
        self._on_bad_mac = on_bad_mac
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._reason = LEFT
        self._cut_early = self._lost = False
        self.authenticator: Authenticator | None = None
        self.admitted = False
        """Whether heartbeats are allowed; before, they would cost a stranger nothing and us work."""
        self.fell_silent = False
        """Whether the connection ended because nothing came from the peer any more; an end of file, a reset or a
        message that ended it show that packets still arrived."""
        self.peer = "?"
        self.last_heard = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to use the transport (asyncio's callback)."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNREAD)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else "?"
        if self._cut_early:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Handle the lines that these bytes complete (asyncio's callback)."""
        self.last_heard = asyncio.get_running_loop().time()
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if self._transport is None or self._transport.is_closing():
                return
            try:
                self._read(line)
            except ValueError as error:
                self.cut(f"it does not speak the roll call's protocol: {str(error)[:MAX_NAME]}")
                return
        if len(self._pending) >= MAX_LINE:
            self.cut(f"it sent {len(self._pending)} bytes without a line's end")

    def _read(self, line: bytes) -> None:
        if len(line) >= MAX_LINE:
            raise ValueError(f"a line of {len(line)} bytes")
        try:
            text = line if self.authenticator is None else self.authenticator.verify(line)
        except BadMac:
            if self.authenticator is None or self.authenticator.heard:
                raise
            self._on_bad_mac(self, line)
            return
        if self.admitted and text == BEAT[:-1]:
            return
        message = decode(text)
        if not self.admitted or message["t"] != "beat":  # as another JSON library may write it
            self._on_message(self, message)

    def pause_writing(self) -> None:
        """Cut the connection: the peer has left MAX_UNREAD bytes unread (asyncio's callback)."""
        self.cut("it does not read what it is sent")

    def connection_lost(self, error: Exception | None) -> None:
        """Report the end of the connection and its reason (asyncio's callback)."""
        self._transport, self._lost = None, True
        self.fell_silent |= isinstance(error, OSError) and error.errno in _NO_ANSWER
        self._on_closed(self, f"{self._reason}: {error}" if error else self._reason)

    @property
    def open(self) -> bool:
        """Return whether a message that is sent now may still arrive."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def own_address(self) -> str:
        """Return this end's address; empty if the connection is closed."""
        here = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return str(here[0]) if here else ""

    def send(self, message: Message | bytes) -> None:
        """Queue a message; do nothing on a connection that is closing.

        :raises ValueError: if the message is too long (:func:`encode`).
        """
        if self._transport is not None and not self._transport.is_closing():
            line = message if isinstance(message, bytes) else encode(message)
            self._transport.write(line if self.authenticator is None else self.authenticator.sign(line))

    def close(self, reason: str) -> None:
        """Close the connection after the queued messages have been sent."""
        if self.open:
            self._reason, self._pending = reason, b""
            self._transport.close()  # type: ignore[union-attr]  # open says so

    def cut(self, reason: str, *, silent: bool = False) -> None:
        """Close the connection now and drop the queued messages; ``silent`` if that is because the peer fell silent."""
        if self.open:
            self._reason, self._pending, self.fell_silent = reason, b"", silent
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.abort()
        elif not self._lost:
            # Accepted, but asyncio has not yet called connection_made.
            self._cut_early, self._reason = True, reason
