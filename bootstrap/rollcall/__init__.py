"""The one connection between agents: docs/rollcall.md has the protocol, message by message.

:mod:`~bootstrap.rollcall.wire`
    JSON lines over TCP, bounded both ways.
:mod:`~bootstrap.rollcall.hello`
    A node's description of itself.
:mod:`~bootstrap.rollcall.auth`, :mod:`~bootstrap.rollcall.credential`
    Who may take part: the run tag, keys and MACs; the secret in a MUNGE credential.
:mod:`~bootstrap.rollcall.listener`, :mod:`~bootstrap.rollcall.handshake`, :mod:`~bootstrap.rollcall.admission`
    The head's side up to the hello, with limits for strangers; what the head compares.
:mod:`~bootstrap.rollcall.server`
    The head's side: admits or refuses, releases, knows who is where, delivers the verdict.
:mod:`~bootstrap.rollcall.client`
    A worker's side: is this my head, may I start Ray, how did it end.
:mod:`~bootstrap.rollcall.offset`, :mod:`~bootstrap.rollcall.trail`
    How far a node's clock is from the head's; when the node was in which phase.
:mod:`~bootstrap.rollcall.member`, :mod:`~bootstrap.rollcall.refusal`
    What the head knows about a node; what a head's answer means to a worker that does not join it.
"""
