"""Accept the roll call's connections, and limit the unauthenticated ones from each source."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_BACKLOG = 4096
_BATCH = 256
"""Connections accepted in one turn of the event loop, so that a flood leaves time for the members."""
_PAUSE_S = 1.0
"""After an error such as too many open files; asyncio's own servers pause as long."""
_MOST_SOURCES = 4096


@dataclass
class Allowance:
    """How many connections each source may still open: ``most``, refilled within ``seconds``.

    A connection that authenticates is given back at once. Thus many nodes may connect from behind one address, but no
    address can keep the head busy.
    """

    most: int
    seconds: float
    _left: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    """Source → connections left, and at what time."""

    def take(self, source: bytes, now: float) -> bool:
        """Count a new connection; return False if there is none left for its source."""
        left = self._left_at(source, now)
        if left < 1:
            return False
        if len(self._left) >= _MOST_SOURCES:  # forget those who have been quiet
            self._left = {each: was for each, was in self._left.items() if self._left_at(each, now) < self.most}
        self._left[source] = (left - 1, now)
        return True

    def give_back(self, source: bytes, now: float) -> None:
        """Stop counting a connection that has authenticated."""
        self._left[source] = (min(self.most, self._left_at(source, now) + 1), now)

    def _left_at(self, source: bytes, now: float) -> float:
        left, since = self._left.get(source, (self.most, now))
        return min(self.most, left + (now - since) * self.most / self.seconds)


def source_of(address: str) -> bytes:
    """Return what counts as one source: an IPv4 address, or an IPv6 network of 64 bits, which one host may own.

    A program on this machine may use all of 127.0.0.0/8.
    """
    if address.startswith("127.") and address != "127.0.0.1":
        return b"loopback"
    try:
        return socket.inet_pton(socket.AF_INET, address)
    except OSError:
        return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8]


_EVERYWHERE = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))  # noqa: S104 (by design)
_HERE = ((socket.AF_INET, "127.0.0.1"),)


class Listener:
    """Sockets that listen on one port of all addresses.

    :param meet: called with the address of each new connection; returns its protocol, or None to refuse it.
    :param loopback: whether to listen on 127.0.0.1 only.
    """

    def __init__(self, meet: Callable[[str], asyncio.Protocol | None], *, loopback: bool = False) -> None:
        self._meet = meet
        self._addresses = _HERE if loopback else _EVERYWHERE
        self._sockets: list[socket.socket] = []
        self.port: int | None = None
        """The port, while it listens."""
        self._connecting: set[asyncio.Task[object]] = set()

    def listen(self, port: int) -> int:
        """Listen and accept; return the port, as :meth:`bind`."""
        port = self.bind(port)
        self.accept()
        return port

    def listen_on_one_of(self, ports: Sequence[int]) -> int | None:
        """Listen on the first of these ports that is free, and accept; return it, or None if none is."""
        for port in ports:
            try:
                return self.listen(port)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        return None

    def bind(self, port: int) -> int:
        """Listen; return the port, which the kernel chooses for 0. :raises OSError: if the port is not free.

        Until :meth:`accept`, the kernel keeps the connections waiting.
        """
        try:
            for family, address in self._addresses:
                try:
                    listening = socket.create_server((address, port), family=family, backlog=_BACKLOG)
                except OSError as error:
                    if family == socket.AF_INET6 and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        continue  # this machine has no IPv6
                    raise
                listening.setblocking(False)
                self._sockets.append(listening)
                port = listening.getsockname()[1]
        except OSError:
            self.close()
            raise
        self.port = port
        return port

    def accept(self) -> None:
        """Accept connections from now on."""
        for listening in self._sockets:
            self._resume(listening)

    def close(self) -> None:
        """Stop listening."""
        for listening in self._sockets:
            with contextlib.suppress(ValueError, RuntimeError):
                asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._sockets.clear()
        self.port = None

    def _resume(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_BATCH):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of files or memory
                loop.remove_reader(listening)
                loop.call_later(_PAUSE_S, self._resume, listening)
                return
            protocol = self._meet(address[0])
            if protocol is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            connecting = loop.create_task(_connect(protocol, accepted))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)


async def _connect(protocol: asyncio.Protocol, accepted: socket.socket) -> None:
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
    except OSError as error:  # it has gone already
        protocol.connection_lost(error)
