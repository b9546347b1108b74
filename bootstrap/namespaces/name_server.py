"""A small DNS server: ``name_server.py ADDRESS NAMES.json [DELAY [CACHE [OTHER]]]``, UDP, port 53.

Answers A and AAAA from a JSON object (name → address or list of addresses) that is read anew for each query, so that
a name can appear late. For any other name it asks the name server at the address OTHER, or answers NXDOMAIN. DELAY is
in seconds. With CACHE it repeats each answer, NXDOMAIN too, for so many seconds, by name and type as CoreDNS' cache
plugin does (``key()`` in its cache.go). Prints one line when it listens; ends when its standard input does.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

Names = Mapping[str, str | Sequence[str]]
_PATIENCE_S = 5.0
"""For the other name server, as a resolver's own (resolv.conf(5), timeout)."""


def write_names(path: Path, names: Names) -> None:
    """Replace the file of names in one step, so that no query reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({name.lower(): value for name, value in names.items()}))
    new.replace(path)


def answer(query: bytes, names: Names, other: str = "") -> bytes:
    """Return the reply to one query.

    :param names: in lower case without the last dot.
    :param other: the address of the name server that is asked for any other name.
    """
    import dnslib  # noqa: PLC0415 (in the server's process alone)

    request = dnslib.DNSRecord.parse(query)
    reply = request.reply()
    known = names.get(str(request.q.qname).rstrip(".").lower())
    if known is None and other:
        try:
            return bytes(request.send(other, 53, timeout=_PATIENCE_S))
        except OSError:
            reply.header.rcode = dnslib.RCODE.SERVFAIL
            return bytes(reply.pack())
    if known is None:
        reply.header.rcode = dnslib.RCODE.NXDOMAIN
    for address in map(ipaddress.ip_address, [known] if isinstance(known, str) else known or []):
        kind, data = ("A", dnslib.A) if address.version == 4 else ("AAAA", dnslib.AAAA)
        if dnslib.QTYPE[request.q.qtype] == kind:
            reply.add_answer(dnslib.RR(request.q.qname, getattr(dnslib.QTYPE, kind), ttl=0, rdata=data(str(address))))
    return bytes(reply.pack())


def main(address: str, path: str, delay: str = "0", cache: str = "0", other: str = "") -> None:
    """Serve until standard input ends; a thread per query, since a resolver asks for A and AAAA at once."""
    cached: dict[bytes, tuple[float, bytes]] = {}

    def reply(query: bytes) -> bytes:
        now, question = time.monotonic(), query[12:]  # the header's ID and counts are 12 bytes (RFC 1035, 4.1.1)
        until, known = cached.get(question, (0.0, b""))
        if now < until:
            return query[:2] + known[2:]
        found = answer(query, json.loads(Path(path).read_text()), other)
        cached[question] = (now + float(cache), found)
        return found

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, socket = self.request
            time.sleep(float(delay))
            socket.sendto(reply(query), self.client_address)

    with socketserver.ThreadingUDPServer((address, 53), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        os.write(1, b"ready\n")
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
