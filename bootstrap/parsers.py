"""How the text of an option becomes its value: pure functions that raise ValueError with what was expected."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_INTEGER = re.compile(r"[0-9]{1,18}")
"""Python's int() would also take 1_0 and other scripts' digits."""
_RUN_ID_MOST = 256
_MOST_RESOURCES = 2**53
"""Ray counts in doubles."""
_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def text(value: str) -> str:
    """Any text but the empty one."""
    if not value.strip():
        raise ValueError("expected some text, it is empty")
    return value


def run_id(value: str) -> str:
    """A run id: what the nodes compare and sign, so that it must go over the wire whole."""
    try:
        value.encode()
    except UnicodeError:
        raise ValueError("expected a text in UTF-8") from None
    if len(value) > _RUN_ID_MOST:
        raise ValueError(f"expected at most {_RUN_ID_MOST} characters, it has {len(value)}")
    return text(value)


def quoted(value: str, most: int = 100) -> str:
    """A text as an error quotes it: if it is long, its beginning."""
    return repr(value if len(value) <= most else f"{value[:most]}...")


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser for whole numbers in ``least..most``."""
    expected = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def parse(value: str) -> int:
        match = _INTEGER.fullmatch(value.strip())
        if match is None or int(match[0]) < least or (most is not None and int(match[0]) > most):
            raise ValueError(f"expected {expected}")
        return int(match[0])

    return parse


port = integer(1, 65535)


def choice(*names: str) -> Callable[[str], str]:
    """A parser for one of a few words."""

    def parse(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value

    return parse


def duration(value: str) -> float:
    """Seconds, from ``90``, ``1.5s``, ``10m``, ``2h`` or ``1d``."""
    match = _DURATION.fullmatch(value.strip())
    if match is None or not math.isfinite(float(match[1])):
        raise ValueError("expected a duration such as 90, 90s, 10m or 2h")
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def duration_from(least: float) -> Callable[[str], float]:
    """A parser for durations of at least so many seconds."""

    def parse(value: str) -> float:
        seconds = duration(value)
        if seconds < least:
            raise ValueError(f"expected a duration of at least {least:g} s")
        return seconds

    return parse


def size(value: str) -> int:
    """Bytes, from ``1073741824``, ``16Gi``, ``16GiB`` (1024) or ``16G``, ``16GB`` (1000)."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("expected a size such as 17179869184, 16Gi or 16GB")
    number, prefix, binary = float(match[1]), match[2].upper(), bool(match[3])
    if binary and not prefix:
        raise ValueError("expected a size such as 17179869184, 16Gi or 16GB")
    amount = number * (1024 if binary else 1000) ** " KMGT".index(prefix or " ")
    if not 1 <= amount < 2**63:
        raise ValueError("expected a size of at least one byte, below 8 EiB")
    return int(amount)


def ip_address(value: str) -> str:
    """An IPv4 or IPv6 address that another machine could reach."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("expected an IPv4 or IPv6 address, not a name") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError("expected the address of one machine")
    return str(address)


def host_port(value: str) -> tuple[str, int | None]:
    """``(host, port or None)`` from ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address."""
    expected = "expected HOST or HOST:PORT ([ADDRESS]:PORT for IPv6)"
    if value.startswith("["):
        host, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(expected)
        tail = rest[1:] if rest else None
    elif value.count(":") > 1:
        host, tail = value, None
    else:
        host, colon, rest = value.partition(":")
        tail = rest if colon else None
    if not host or any(c.isspace() or c == "/" for c in host):
        raise ValueError(expected)
    if ":" in host:
        ip_address(host)
    else:
        try:
            host.encode("idna")  # as whoever resolves it will
        except UnicodeError as error:
            raise ValueError(f"{quoted(host)} cannot be a host name: {error}") from None
    return host, None if tail is None else port(tail)


def resources_json(value: str) -> Mapping[str, float]:
    """Custom resources from a JSON object of numbers, as ``ray start --resources`` takes them."""
    try:
        parsed: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected a JSON object such as {{"disk": 2}}; {error}') from None
    if not isinstance(parsed, dict):
        raise ValueError('expected a JSON object such as {"disk": 2}')
    for name, amount in parsed.items():
        if name in ("CPU", "GPU", "memory", "object_store_memory"):
            raise ValueError(
                f"{name!r} has an option of its own (--num-cpus, --num-gpus, --memory, --object-store-memory)"
            )
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < _MOST_RESOURCES:
            raise ValueError(f"expected a number of at least 0 and below 2**53 for {name!r}")
    return {str(name): amount for name, amount in parsed.items()}


def labels(value: str) -> Mapping[str, str]:
    """Node labels from ``key=value,key=value``, with Kubernetes' syntax as Ray demands it."""
    result: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        key, equals, label = item.partition("=")
        prefix, slash, name = key.rpartition("/")
        if not equals or not _LABEL_PART.fullmatch(name) or (slash and not prefix):
            raise ValueError(f"expected key=value,key=value; {item!r} is not that")
        if label and not _LABEL_PART.fullmatch(label):
            raise ValueError(f"{label!r} is no label value (letters, digits, '-', '_', '.', at most 63)")
        if prefix == "ray.io":
            raise ValueError(f"{key!r}: the prefix ray.io/ is Ray's own")
        result[key] = label
    return result
