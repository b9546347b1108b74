"""Kubernetes' API server as far as events go, by HTTPS: ``api_server.py ADDRESS PORT FOLDER``.

It serves FOLDER/events.json. FOLDER/account is what the kubelet mounts for a service account: token, CA and namespace.
Other tokens get 401.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "default"
QUOTA = "is forbidden: exceeded quota: small, requested: limits.cpu=1, used: limits.cpu=2, limited: limits.cpu=2"
NO_ROOM = "0/3 nodes are available: 2 Insufficient cpu, 1 node(s) had untolerated taint {node: down}."


def event(kind: str, name: str, reason: str, message: str, seconds_ago: float = 1.0, **more: Any) -> dict[str, Any]:
    """A core/v1 Event as ``kubectl get events -o json`` shows it (k8s.io/api/core/v1/types.go)."""
    when = (datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    its = {"kind": kind, "namespace": NAMESPACE, "name": name, "uid": "9c1e", "apiVersion": "v1"}
    return {
        "metadata": {"name": f"{name}.17c2a3", "namespace": NAMESPACE, "uid": "7f", "creationTimestamp": when},
        "involvedObject": its,
        "reason": reason,
        "message": message,
        "source": {"component": "default-scheduler"},
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 3,
        "type": "Warning",
        "eventTime": None,
        "reportingComponent": "default-scheduler",
        "reportingInstance": "",
        **more,
    }


def write(folder: Path, address: str, events: Sequence[Any]) -> str:
    """Makes what the server and the pod's account need below ``folder``; returns the token."""
    from bootstrap.files.authority import Authority, make_request

    ca, request = Authority(), make_request()
    issued = ca.sign(request.pem, address, "kubernetes")
    token = "eyJhbGciOiJSUzI1NiJ9." + os.urandom(16).hex()
    account = folder / "account"
    account.mkdir(parents=True)
    for name, text in {"token": token, "ca.crt": issued.ca, "namespace": NAMESPACE}.items():
        (account / name).write_text(text)
    (folder / "server.pem").write_text(request.key.decode() + issued.certificate)
    (folder / "events.json").write_text(json.dumps(list(events)))
    return token


class Handler(BaseHTTPRequestHandler):
    """Answers one list request, in pages if it asks for less than there is."""

    folder: Path

    def do_GET(self) -> None:
        """Lists the events, to who may."""
        if self.headers["Authorization"] != f"Bearer {(self.folder / 'account/token').read_text()}":
            return self.answer(401, {"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401})
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path != f"/api/v1/namespaces/{NAMESPACE}/events" or query.get("fieldSelector") != "type=Warning":
            return self.answer(404, {"kind": "Status", "code": 404})
        events, first = json.loads((self.folder / "events.json").read_text()), int(query.get("continue", 0))
        last = first + min(int(query["limit"]), 500)
        metadata = {"resourceVersion": "4711", **({"continue": str(last)} if last < len(events) else {})}
        page = {"kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": events[first:last]}
        return self.answer(200, page)

    def answer(self, status: int, what: Any) -> None:
        """Sends JSON."""
        self.send(status, json.dumps(what).encode())

    def send(self, status: int, content: bytes) -> None:
        """Sends these bytes."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def make_server(address: str, port: int, folder: Path, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """The server, listening."""
    server = ThreadingHTTPServer((address, port), type("Here", (handler,), {"folder": folder}))
    server.daemon_threads = True
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    return server


if __name__ == "__main__":
    with make_server(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])) as listening:
        os.write(1, b"ready\n")
        listening.serve_forever()
