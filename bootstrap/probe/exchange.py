"""What the two ends of a probe say to each other: three short lines, then bytes that come back (docs/rollcall.md).

Each line proves that its sender knows the run, so that a stranger gets no byte and can make no node echo.
"""

import hmac

from bootstrap.rollcall import auth

PAYLOAD = 256 * 1024
"""Bytes of the packet test in each direction: enough to fill the packets of any link, and to measure a slow one."""
MAX_LINE = 128
"""Bytes in a line, its end included."""


def make_key(secret: bytes | None, run: str, attempt: int) -> bytes:
    """Return the run's key for probes, from its secret; in an open run from what its nodes know: run and attempt."""
    known = f"{run}\n{attempt}".encode() if secret is None else secret
    return auth.hkdf(known, b"", f"ray-bootstrap/{auth.VERSION} probe\n{attempt}\n{run}".encode())


def ask(key: bytes, nonce: str) -> bytes:
    """Return the dialer's first line."""
    return f"probe {nonce} {_mac(key, 'probe', nonce)}\n".encode()


def read_ask(key: bytes, line: bytes) -> str:
    """Return the dialer's nonce. :raises ValueError: if its line does not prove that it knows the run."""
    word, nonce, mac = _words(line, 3)
    _check(word == "probe" and len(nonce) == 32, mac, _mac(key, "probe", nonce))
    return nonce


def answer(key: bytes, theirs: str, nonce: str, rank: int) -> bytes:
    """Return the listener's line: its own nonce, and its rank. ``theirs`` is the dialer's nonce."""
    return f"rank {nonce} {rank} {_mac(key, 'rank', theirs, nonce, rank)}\n".encode()


def read_answer(key: bytes, nonce: str, line: bytes) -> tuple[str, int]:
    """Return the listener's nonce and rank. :raises ValueError: if its line does not prove that it knows the run."""
    word, theirs, rank, mac = _words(line, 4)
    _check(word == "rank" and rank.isdecimal() and rank.isascii(), mac, _mac(key, "rank", nonce, theirs, rank))
    return theirs, int(rank)


def echo(key: bytes, nonce: str, theirs: str) -> bytes:
    """Return the dialer's second line, which begins the packet test.

    It covers the listener's nonce: a recorded first line, sent once more, gets one line and no echo.
    """
    return f"echo {_mac(key, 'echo', nonce, theirs)}\n".encode()


def check_echo(key: bytes, nonce: str, mine: str, line: bytes) -> None:
    """Check the dialer's second line. :raises ValueError: if it does not prove that the dialer knows the run."""
    word, mac = _words(line, 2)
    _check(word == "echo", mac, _mac(key, "echo", nonce, mine))


def _words(line: bytes, count: int) -> list[str]:
    words = line.decode("ascii").split()  # UnicodeDecodeError is a ValueError
    if len(words) != count:
        raise ValueError("not a line of a probe")
    return words


def _check(well_formed: bool, given: str, expected: str) -> None:
    if not auth.is_tag(given, expected) or not well_formed:
        raise ValueError("it does not know this run")


def _mac(key: bytes, *parts: object) -> str:
    return hmac.digest(key, "\n".join(map(str, parts)).encode(), "sha256").hex()[: auth.MAC_LENGTH]
