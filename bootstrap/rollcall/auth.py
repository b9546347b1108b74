"""Who may take part in the roll call, and what keeps others from changing what is said (docs/rollcall.md).

Only HMAC-SHA256 (RFC 2104) and HKDF (RFC 5869), over fresh nonces of both sides. It authenticates; it does not encrypt.
"""

import hmac
import secrets
from binascii import hexlify

VERSION = 6
"""The protocol's version; a head refuses any other, and names both."""
MAC_LENGTH = 32
"""Hex digits of a MAC: 128 bits, half of HMAC-SHA256's output, which RFC 2104 (section 5) allows."""
MAC_OVERHEAD = MAC_LENGTH + 1
"""Bytes that a MAC, and the space before it, add to a line."""


class BadMac(ValueError):
    """A line whose MAC is missing or wrong."""


def nonce() -> str:
    """Return a fresh challenge, 32 hex digits."""
    return secrets.token_hex(16)


def run_tag(run: str, attempt: int, challenge: str) -> str:
    """Return an HMAC that proves knowledge of the run and does not reveal it."""
    return hmac.digest(f"{run}\n{attempt}".encode(), challenge.encode(), "sha256").hex()[:32]


def is_tag(given: object, expected: str) -> bool:
    """Return whether ``given`` is the expected tag, in constant time."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA256 (RFC 5869: extract, then one block of expand)."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def observer_key(secret: bytes, run: str, attempt: int) -> bytes:
    """Return what an observer of a run proves, 64 hex digits: derived one way, it does not serve to join as a node."""
    return hexlify(hkdf(secret, b"", f"ray-bootstrap/{VERSION} observer\n{attempt}\n{run}".encode()))


class Authenticator:
    """One side's keys for one connection: it signs the lines that this side sends and verifies those that it hears.

    Each direction has its own key, so a line cannot be reflected; each line's MAC covers its number, so none can be
    replayed, dropped or reordered.

    :param secret: what the nodes share; between the head and an observer, :func:`observer_key`.
    :param side: ``head`` or ``worker``; an observer speaks as ``worker``.
    :param nonces: the worker's and the head's, joined; fresh for each connection.
    :param run: the run id and the attempt, so that runs with the same secret have different keys.
    """

    __slots__ = ("_receive_key", "_send_key", "heard", "sent")

    def __init__(self, secret: bytes, side: str, nonces: str, run: str, attempt: int) -> None:
        keys = {
            speaker: hkdf(secret, nonces.encode(), f"ray-bootstrap/{VERSION}\n{speaker}\n{attempt}\n{run}".encode())
            for speaker in ("worker", "head")
        }
        self._send_key = keys.pop(side)
        (self._receive_key,) = keys.values()
        self.sent = self.heard = 0
        """Lines so far; with ``heard``, the other side has proved that it knows the secret."""

    def sign(self, line: bytes) -> bytes:
        """Return a line (with its end) with its MAC."""
        text = line[:-1]
        mac = _mac(self._send_key, self.sent, text)
        self.sent += 1
        return b"%b %b\n" % (text, mac)

    def verify(self, line: bytes) -> bytes:
        """Return what was signed in a line (without its end). :raises BadMac: if the MAC is missing or wrong."""
        text, _, mac = line.rpartition(b" ")
        if not hmac.compare_digest(_mac(self._receive_key, self.heard, text), mac):
            raise BadMac("a line with a wrong MAC")
        self.heard += 1
        return text


def _mac(key: bytes, number: int, text: bytes) -> bytes:
    return hexlify(hmac.digest(key, number.to_bytes(8, "big") + text, "sha256")[: MAC_LENGTH // 2])
