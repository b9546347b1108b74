"""A small DNS server for the tests: ``dns_server.py ADDRESS NAMES.json [DELAY [CACHE]]``, UDP, port 53.

Answers A and AAAA from a JSON object (name → address or list of addresses) that is read anew for each query, so that
a test can let a name appear late. Any other name does not exist (NXDOMAIN). With CACHE it repeats each answer for so
many seconds, also that a name does not exist, by name and type as CoreDNS' cache plugin does (``key()`` in its
cache.go). Prints one line when it listens.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socketserver
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

Names = Mapping[str, str | Sequence[str]]


def write_names(path: Path, names: Names) -> None:
    """Replaces the file of names in one step, so that no query reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({name.lower(): value for name, value in names.items()}))
    new.replace(path)


def answer(query: bytes, names: Names) -> bytes:
    """The reply to one query; ``names`` in lower case without the last dot."""
    import dnslib

    request = dnslib.DNSRecord.parse(query)
    reply = request.reply()
    known = names.get(str(request.q.qname).rstrip(".").lower())
    if known is None:
        reply.header.rcode = dnslib.RCODE.NXDOMAIN
    for address in map(ipaddress.ip_address, [known] if isinstance(known, str) else known or []):
        kind, data = ("A", dnslib.A) if address.version == 4 else ("AAAA", dnslib.AAAA)
        if dnslib.QTYPE[request.q.qtype] == kind:
            reply.add_answer(dnslib.RR(request.q.qname, getattr(dnslib.QTYPE, kind), ttl=0, rdata=data(str(address))))
    return bytes(reply.pack())


def main(address: str, path: str, delay: str = "0", cache: str = "0") -> None:
    """Serves until killed; a thread per query, since a resolver asks for A and AAAA at once."""
    cached: dict[bytes, tuple[float, bytes]] = {}

    def reply(query: bytes) -> bytes:
        now, question = time.monotonic(), query[12:]  # the header's ID and counts are 12 bytes (RFC 1035, 4.1.1)
        until, known = cached.get(question, (0.0, b""))
        if now < until:
            return query[:2] + known[2:]
        found = answer(query, json.loads(Path(path).read_text()))
        cached[question] = (now + float(cache), found)
        return found

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, socket = self.request
            time.sleep(float(delay))
            socket.sendto(reply(query), self.client_address)

    with socketserver.ThreadingUDPServer((address, 53), Handler) as server:
        os.write(1, b"ready\n")
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
