"""Parsers for the texts of options: pure functions that raise ValueError with what was expected."""

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
"""Python's int() would also accept 1_0 and the digits of other scripts."""
_MAX_RUN_ID = 256
_MAX_RESOURCE = 2**53
"""Ray counts in doubles, which are exact below this."""
_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<sign>=|<<)(?P<text>.*)", re.DOTALL)
_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def text(value: str) -> str:
    """Return ``value`` unless it is blank."""
    if not value.strip():
        raise ValueError("expected some text, but it is empty")
    return value


def run_id(value: str) -> str:
    """Return a run id. The nodes compare and sign it, so it must travel over the wire whole."""
    try:
        value.encode()
    except UnicodeError:
        raise ValueError("expected valid UTF-8") from None
    if len(value) > _MAX_RUN_ID:
        raise ValueError(f"expected at most {_MAX_RUN_ID} characters, got {len(value)}")
    return text(value)


def quoted(value: str, maximum: int = 100) -> str:
    """Return ``value`` as an error quotes it, cut after ``maximum`` characters."""
    return repr(value if len(value) <= maximum else f"{value[:maximum]}...")


def integer(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a parser for whole numbers from ``minimum`` to ``maximum``, both included."""
    span = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(value: str) -> int:
        match = _INTEGER.fullmatch(value.strip())
        if match is None or int(match[0]) < minimum or (maximum is not None and int(match[0]) > maximum):
            raise ValueError(f"expected a whole number {span}")
        return int(match[0])

    return parse


port = integer(1, 65535)


def choice(*names: str) -> Callable[[str], str]:
    """Return a parser that accepts exactly these words."""

    def parse(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value

    return parse


def duration(value: str) -> float:
    """Return the seconds in ``90``, ``1.5s``, ``250ms``, ``10m``, ``2h`` or ``1d``."""
    match = _DURATION.fullmatch(value.strip())
    if match is None or not math.isfinite(float(match[1])):
        raise ValueError("expected a duration such as 90, 90s, 10m or 2h")
    return float(match[1]) * _DURATION_UNITS[match[2] or "s"]


def duration_from(minimum: float) -> Callable[[str], float]:
    """Return a parser for durations of at least ``minimum`` seconds."""

    def parse(value: str) -> float:
        seconds = duration(value)
        if seconds < minimum:
            raise ValueError(f"expected a duration of at least {minimum:g} s")
        return seconds

    return parse


def duration_or_off(minimum: float) -> Callable[[str], float]:
    """Return a parser for durations of at least ``minimum`` seconds, and for ``off``: infinite seconds."""
    parse_duration = duration_from(minimum)

    def parse(value: str) -> float:
        try:
            return math.inf if value.strip() == "off" else parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{error}, or off") from None

    return parse


def duration_or_auto(value: str) -> float | None:
    """Return the seconds of a duration, or None for ``auto``."""
    try:
        return None if value.strip() == "auto" else duration(value)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def size(value: str) -> int:
    """Return the bytes in ``1073741824``, ``16Gi``, ``16GiB`` (powers of 1024) or ``16G``, ``16GB`` (of 1000)."""
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
    """Return the canonical spelling of an IPv4 or IPv6 address that can belong to one machine."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("expected an IPv4 or IPv6 address, not a name") from None
    if address.is_unspecified or address.is_multicast:
        raise ValueError("expected the address of one machine, not a wildcard or multicast address")
    return str(address)


def interface(value: str) -> str:
    """Return a comma list of interface names and networks as it is, once its networks are known to be some."""
    for item in text(value).lstrip("^= ").split(","):
        if "/" in item:
            try:
                ipaddress.ip_network(item.strip().lstrip("="), strict=False)
            except ValueError:
                what = (
                    f"{item.strip()!r} is not a network; expected ADDRESS/BITS, such as 10.4.0.0/16 or 2001:db8:4::/48"
                )
                raise ValueError(what) from None
    return value


def host_port(value: str) -> tuple[str, int | None]:
    """Return ``(host, port or None)`` from ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address."""
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
            host.encode("idna")  # as the resolver will
        except UnicodeError as error:
            raise ValueError(f"{quoted(host)} cannot be a host name: {error}") from None
    return host, None if tail is None else port(tail)


_NO_GCS = {"ray": "the address of Ray Client, which cannot count nodes"}
_NO_GCS |= dict.fromkeys(("http", "https"), "the address of a dashboard, which cannot count nodes")


def gcs_address(value: str) -> str:
    """Return the address of a GCS, ``host:port``; or ``auto``, the Ray that ``ray.init("auto")`` finds here."""
    expected = "expected that of GCS, HOST:PORT (6379 unless that Ray was given another port)"
    scheme, found, _ = value.partition("://")
    if found:
        raise ValueError(f"{_NO_GCS.get(scheme, 'not a host and a port')}; {expected}")
    if value == "local":
        raise ValueError(f"this asks for a Ray of its own; {expected}, or --launcher=local")
    if value != "auto" and host_port(value)[1] is None:
        raise ValueError(f"no port; {expected}")
    return value


def amounts_json(value: str) -> Mapping[str, float]:
    """Return the amounts of resources in a JSON object of numbers."""
    try:
        parsed: Any = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected a JSON object such as {{"disk": 2}}; {error}') from None
    if not isinstance(parsed, dict):
        raise ValueError('expected a JSON object such as {"disk": 2}')
    for name, amount in parsed.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount < _MAX_RESOURCE:
            raise ValueError(f"expected a number of at least 0 and below 2**53 for {name!r}")
    return {str(name): amount for name, amount in parsed.items()}


def resources_json(value: str) -> Mapping[str, float]:
    """Return the custom resources in a JSON object of numbers, as ``ray start --resources`` takes it."""
    found = amounts_json(value)
    for name in found:
        if name in ("CPU", "GPU", "memory", "object_store_memory"):
            raise ValueError(f"{name!r} has its own option (--num-cpus, --num-gpus, --memory, --object-store-memory)")
    return found


def variables(value: str) -> dict[str, str]:
    """Return the variables in lines of ``NAME=value``, taken as they are, and of several lines in ``NAME<<END``.

    As in the file that GitHub Actions calls GITHUB_ENV.
    """
    found: dict[str, str] = {}
    lines, at = value.split("\n"), 0
    if nul := next((number for number, line in enumerate(lines, 1) if "\0" in line), 0):
        raise ValueError(f"line {nul} is {quoted(lines[nul - 1])}: no variable can hold a NUL character")
    while at < len(lines):
        line, at = lines[at], at + 1
        match = _ASSIGNMENT.fullmatch(line)
        if match is None:
            if line.strip():
                raise ValueError(f"line {at} is {quoted(line)}: expected NAME=value, or NAME<<END, lines and END")
        elif match["sign"] == "=":
            found[match["name"]] = match["text"]
        elif match["text"] in lines[at:]:
            end = lines.index(match["text"], at)
            found[match["name"]], at = "\n".join(lines[at:end]), end + 1
        else:
            raise ValueError(f"line {at} is {quoted(line)}, and no line after it is {quoted(match['text'])}")
    return found


def labels(value: str) -> Mapping[str, str]:
    """Return the node labels in ``key=value,key=value``, in Kubernetes' syntax, which Ray enforces."""
    result: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        key, equals, label = item.partition("=")
        prefix, slash, name = key.rpartition("/")
        if not equals or not _LABEL_PART.fullmatch(name) or (slash and not prefix):
            raise ValueError(f"expected key=value,key=value, got {item!r}")
        if label and not _LABEL_PART.fullmatch(label):
            rule = "at most 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"
            raise ValueError(f"{label!r} is not a valid label value ({rule})")
        if prefix == "ray.io":
            raise ValueError(f"{key!r}: the prefix ray.io/ is reserved for Ray")
        result[key] = label
    return result
