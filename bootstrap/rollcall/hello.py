"""The hello: what a node says of itself when it joins, and how the head reads it."""

import dataclasses
from dataclasses import dataclass

from bootstrap import net
from bootstrap.rollcall.wire import MAX_NAME, TOO_MUCH, Message, number, text


@dataclass(frozen=True, slots=True)
class Hello:
    """A node's description of itself; the head compares it with its own."""

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
    """Seconds since the epoch, to detect clocks that differ."""
    tls: bool = False
    """Whether Ray uses TLS there."""
    probe: int = 0
    """TCP port on which this node answers the probes of the others; 0 if it has none."""
    probe_worker: int = 0
    """Another such port, in the range of Ray's workers; 0 if it has none."""
    via: str = ""
    """The interface that its connection to the head leaves by, if that does not hold ``ip``."""

    def leaving_from(self, address: str) -> "Hello":
        """Return the hello for a connection that leaves from this address of the node."""
        if address == self.ip or not net.is_address(address) or net.is_loopback(address):
            return self
        return dataclasses.replace(self, via=net.interface_of(address) or "")

    def message(self) -> Message:
        """Return the message that carries it."""
        return {"t": "hello", **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class ObserverHello:
    """An observer's description of itself: which run it asks about, and from where."""

    run: str
    attempt: int
    host: str

    def message(self) -> Message:
        """Return the message that carries it."""
        return {"t": "observe", **dataclasses.asdict(self)}


def parse_observer_hello(message: Message) -> ObserverHello:
    """Return an observer's hello. :raises ValueError: if a field is missing, of another type or too large."""
    if message["t"] != "observe":
        raise ValueError(f"{message['t'][:MAX_NAME]!r} instead of observe")
    if not isinstance(run := message.get("run"), str):
        raise ValueError("observe without a valid 'run'")
    return ObserverHello(run, number(message, "attempt"), _line(message, "host")[:MAX_NAME])


def _line(message: Message, name: str) -> str:
    """Return a text field without line breaks and tabs, by which a node could forge others' rows in a table."""
    value = text(message, name)
    return value if value.isprintable() else " ".join(value.split())


_TEXTS = ("run", "host", "ip", "agent", "ray", "python", "gpu_model")
_PROBES = ("probe", "probe_worker")
_NUMBERS = ("attempt", "cpus", "gpus")
_NUMBERS_OR_NONE = ("rank", "size")


def parse_hello(message: Message) -> Hello:
    """Return the hello in a message.

    :raises ValueError: if a field is missing, of another type or too large; it names the field.
    """
    if message["t"] != "hello":
        raise ValueError(f"{message['t'][:MAX_NAME]!r} instead of a hello")
    run, time = message.get("run"), message.get("time")
    if not isinstance(run, str):
        raise ValueError("hello without a valid 'run'")
    if not isinstance(time, (int, float)) or isinstance(time, bool) or not abs(time) < TOO_MUCH:  # NaN, infinity
        raise ValueError("hello without a valid 'time'")
    if not isinstance(tls := message.get("tls", False), bool):
        raise ValueError("hello without a valid 'tls'")
    ports = {name: number(message, name) if name in message else 0 for name in _PROBES}
    if wrong := [name for name, port in ports.items() if not 0 <= port <= 65535]:
        raise ValueError(f"hello without a valid {wrong[0]!r}")
    texts = {name: _line(message, name) for name in _TEXTS if name != "run"}
    texts["via"] = _line(message, "via") if "via" in message else ""
    if long := [name for name, value in texts.items() if len(value) > MAX_NAME]:
        raise ValueError(f"hello with {len(texts[long[0]])} characters of {long[0]!r}")
    numbers = {name: number(message, name) for name in _NUMBERS}
    perhaps = {name: None if message.get(name) is None else number(message, name) for name in _NUMBERS_OR_NONE}
    return Hello(run=run, time=time, tls=tls, **ports, **texts, **numbers, **perhaps)  # type: ignore[arg-type]  # one type per group
