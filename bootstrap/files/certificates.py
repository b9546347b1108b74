"""What a node needs for Ray's TLS: a key that never leaves it, a certificate that names its address, and the run's CA.

Ray uses one certificate for both ends of a connection. It starts with one that does not name this node's address, and
then the first driver that dials this node aborts (docs/ray.md); so :func:`check` dials first.
"""

import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from bootstrap.files.runtime_dir import TLS_CA, TLS_CERTIFICATE, TLS_KEY, RuntimeDir

_ROUNDS = 4
"""A handshake takes two or, with TLS 1.2, three."""


@dataclass(frozen=True, slots=True)
class Request:
    """A node's key, which stays there, and what the head is asked to sign; both in PEM."""

    key: bytes = field(repr=False)
    pem: str


@dataclass(frozen=True, slots=True)
class Issued:
    """What the head answers, in PEM: the node's certificate, and the CA's, which verifies the others'."""

    certificate: str
    ca: str


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the files are on this node, for Ray and for every process that connects to it."""

    certificate: Path
    key: Path
    ca: Path


def write(runtime: RuntimeDir, key: bytes, issued: Issued) -> TlsFiles | None:
    """Write key and certificates into the runtime directory, mode 0600; return their paths, or None if that fails."""
    certificate = runtime.write_private(TLS_CERTIFICATE, issued.certificate.encode())
    private = runtime.write_private(TLS_KEY, key)
    ca = runtime.write_private(TLS_CA, issued.ca.encode())
    return TlsFiles(certificate, private, ca) if certificate and private and ca else None


def check(files: TlsFiles, ip: str) -> None:
    """Check that a peer that dials ``ip`` accepts these files: this node makes a TLS connection with itself, in memory.

    :raises ValueError: if Ray's would fail: another key, address or CA, or a clock that is more than a day behind.
    """
    try:
        server, client = _context(files, ssl.PROTOCOL_TLS_SERVER), _context(files, ssl.PROTOCOL_TLS_CLIENT)
        up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(down, up, server_hostname=ip), server.wrap_bio(up, down, server_side=True)]
        for _ in range(_ROUNDS):
            for end in ends:
                with contextlib.suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        for end in ends:
            end.do_handshake()
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error
        raise ValueError(f"the certificate is not valid for {ip}: {why}") from None


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    return context
