"""The one connection between agents: docs/rollcall.md has the protocol, message by message.

:mod:`~bootstrap.rollcall.wire`
    JSON lines over TCP, bounded both ways; who may speak (HMAC over fresh challenges); the hello.
:mod:`~bootstrap.rollcall.server`
    The head's side: admits or refuses, releases, knows who is where, delivers the verdict.
:mod:`~bootstrap.rollcall.client`
    A worker's side: is this my head, may I start Ray, how did it end.
"""
