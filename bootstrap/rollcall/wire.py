"""What goes over the connection, and nothing about who says it when.

A message is one line of JSON, an object with the key ``t``. Either side cuts a connection that sends a line longer than
:data:`MAX_LINE`, something that is no such line, or that does not read what it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

VERSION = 1
"""Of the protocol; a head refuses another one and says both."""
MAX_LINE = 16 * 1024
MAX_UNREAD = 256 * 1024
"""Bytes that a peer may leave unread before it is cut off."""
BEAT = b'{"t":"beat"}\n'
"""The heartbeat, ready to send: it is most of the traffic."""

Message = Mapping[str, Any]


def encode(message: Message) -> bytes:
    """One line. Free text is cut short rather than let it break the limit."""
    line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
    if len(line) <= MAX_LINE:
        return line
    room = (MAX_LINE // 8) // max(1, sum(isinstance(v, str) for v in message.values()))
    short = {k: v[-room:] if isinstance(v, str) else v for k, v in message.items()}
    return json.dumps(short, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """:raises ValueError: where the line is no message."""
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ValueError("not an object with a 't'")
    return message


def nonce() -> str:
    """A fresh challenge, 32 hex digits."""
    return secrets.token_hex(16)


def proof(secret: bytes | None, side: str, mine: str, theirs: str) -> str:
    """Shows knowledge of the secret without sending it; the empty text where there is none.

    ``side`` is in it so that one side's proof cannot be played back as the other's.
    """
    if secret is None:
        return ""
    text = f"ray-bootstrap/{VERSION}\n{side}\n{mine}\n{theirs}".encode()
    return hmac.new(secret, text, hashlib.sha256).hexdigest()


def proves(given: object, expected: str) -> bool:
    """Compare in constant time."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


def run_tag(run: str, attempt: int, challenge: str) -> str:
    """Tells who knows the run from who does not, and nobody else which run it is."""
    return hmac.new(f"{run}\n{attempt}".encode(), challenge.encode(), hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself; the head fills in the same form about itself and compares."""

    run: str
    attempt: int
    rank: int | None
    size: int | None
    host: str
    ip: str
    agent: str
    ray: str
    python: str
    cpus: int
    gpus: int
    gpu_model: str
    time: float
    """Seconds since the epoch, to see clocks that differ."""

    def message(self) -> Message:
        """As sent."""
        return {"t": "hello", **dataclasses.asdict(self)}


_HELLO_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "run": str, "attempt": int, "rank": (int, type(None)), "size": (int, type(None)), "host": str, "ip": str,
    "agent": str, "ray": str, "python": str, "cpus": int, "gpus": int, "gpu_model": str, "time": (int, float),
}  # fmt: skip


def parse_hello(message: Message) -> Hello:
    """:raises ValueError: naming the field that is missing or of another type."""
    for name, kind in _HELLO_TYPES.items():
        value = message.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"hello without a proper {name!r}")
    return Hello(**{name: message[name] for name in _HELLO_TYPES})


class Connection(asyncio.Protocol):
    """One end of one connection.

    :param on_message: called with each message, in order. A ValueError or KeyError out of it, as out of the decoding,
        cuts the connection: the peer does not speak our language.
    :param on_closed: called once, with the reason, whoever closed it.
    """

    def __init__(
        self, on_message: Callable[[Connection, Message], None], on_closed: Callable[[Connection, str], None]
    ) -> None:
        self._on_message = on_message
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._reason = "closed by the other side"
        self.peer = "?"
        self.last_heard = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_UNREAD)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else "?"

    def data_received(self, data: bytes) -> None:
        """Asyncio: some bytes of one or more lines."""
        self.last_heard = asyncio.get_running_loop().time()
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            if self._transport is None or self._transport.is_closing():
                return
            if line + b"\n" == BEAT:
                continue
            try:
                if len(line) >= MAX_LINE:
                    raise ValueError(f"a line of {len(line)} bytes")
                self._on_message(self, decode(line))
            except (ValueError, KeyError, TypeError) as error:
                self.cut(f"it does not speak the roll call's protocol: {error}")
                return
        if len(self._pending) >= MAX_LINE:
            self.cut(f"it sent {len(self._pending)} bytes without a line's end")

    def pause_writing(self) -> None:
        """Asyncio: the peer has left MAX_UNREAD bytes unread."""
        self.cut("it does not read what it is sent")

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio: gone, for whatever reason."""
        self._transport = None
        self._on_closed(self, f"{self._reason}: {error}" if error else self._reason)

    @property
    def open(self) -> bool:
        """Whether something sent now may still arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message | bytes) -> None:
        """Queue a message; nothing happens on a connection that is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(message if isinstance(message, bytes) else encode(message))

    def close(self, reason: str) -> None:
        """Close once what is queued has been sent."""
        if self.open:
            self._reason = reason
            self._transport.close()  # type: ignore[union-attr]  # open says so

    def cut(self, reason: str) -> None:
        """Close now, without sending what is queued."""
        if self._transport is not None:
            self._reason = reason
            with contextlib.suppress(OSError):
                self._transport.abort()
