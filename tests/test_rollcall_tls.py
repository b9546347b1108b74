"""How a node gets its certificate over the roll call, and who gets none (docs/rollcall.md)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
from typing import Any

import pytest
from cryptography import x509
from rollcall_peers import ME, PATIENCE, SECRET, Peer, a_head, a_peer, a_program, a_wire, hello, join, looped, tag

from bootstrap.errors import Refused
from bootstrap.files.authority import MAX_REQUEST, Authority, make_request
from bootstrap.model import Phase, Verdict
from bootstrap.rollcall.client import Membership

TLS: dict[str, Any] = {"tls": True}


def addresses(pem: str) -> list[str]:
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(address) for address in names.value.get_values_for_type(x509.IPAddress)]


@looped
async def test_each_node_is_certified_for_the_address_in_its_hello_before_and_after_the_release() -> None:
    async with a_head(SECRET, certify=Authority().sign, **TLS) as head:
        early = await join(head.address, hello(1, **TLS), SECRET)
        first = await early.certify(make_request().pem)
        head.call.release("10.0.0.1:6379")
        late = await join(head.address, hello(2, **TLS), SECRET)
        second = await late.certify(make_request().pem)
        assert await late.released == "10.0.0.1:6379"
        for rank, issued in ((1, first), (2, second)):
            assert addresses(issued.certificate) == [f"10.0.0.{10 + rank}", "127.0.0.1", "::1"]
        assert first.ca == second.ca
        early.close()
        late.close()


@looped
async def test_a_member_may_ask_again() -> None:
    """Its agent does not; a message that is not idempotent would make a retry a loss."""
    async with a_head(SECRET, certify=Authority().sign, **TLS) as head, a_peer(head.port) as peer:
        assert (await peer.enrol(hello(1, **TLS), SECRET))["t"] == "welcome"
        for _ in range(2):
            peer.send({"t": "request", "pem": make_request().pem})
            answer = await peer.hear()
            assert set(answer) == {"t", "certificate", "ca"}
            assert answer["t"] == "certificate"
            assert ssl.PEM_cert_to_DER_cert(answer["certificate"])


@pytest.mark.parametrize(("here", "there"), [(True, False), (False, True)])
@looped
async def test_nodes_that_disagree_about_tls_are_told_so(here: bool, there: bool) -> None:
    words = {True: "with", False: "without"}
    clash = f"Ray {words[there]} TLS on host-1, Ray {words[here]} TLS on {ME.host}"
    async with a_head(SECRET, certify=Authority().sign, tls=here) as head:
        with pytest.raises(Refused, match=clash) as refused:
            await join(head.address, hello(1, tls=there), SECRET)
        assert refused.value.hint == "give all nodes the same --tls and the same --auth"
        await head.until(lambda: head.phase(1) is Phase.REFUSED)
        assert head.refused == [f"127.0.0.1: {clash}"]


@looped
async def test_versions_that_differ_are_named_first() -> None:
    async with a_head(SECRET, **TLS) as head:
        with pytest.raises(Refused, match=r"Ray 2\.59\.0 on host-1"):
            await join(head.address, hello(1, ray="2.59.0"), SECRET)


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"pem": "please"}, "a certificate request that cannot be read"),
        ({"pem": "x" * (MAX_REQUEST + 1)}, "a certificate request of 4097 characters"),
        ({"pem": 7}, "request without a valid 'pem'"),
        ({}, "request without a valid 'pem'"),
    ],
)
@looped
async def test_a_request_that_cannot_be_signed_costs_its_sender_the_membership(
    request_: dict[str, Any], fault: str
) -> None:
    async with a_head(SECRET, certify=Authority().sign, **TLS) as head, a_peer(head.port) as peer:
        other = await join(head.address, hello(2, **TLS), SECRET)
        assert (await peer.enrol(hello(1, **TLS), SECRET))["t"] == "welcome"
        peer.send({"t": "request", **request_})
        assert await peer.gone()
        await head.until(lambda: head.phase(1) is Phase.LOST)
        assert fault in head.call.members[1].detail
        assert (await other.certify(make_request().pem)).certificate
        other.close()


@looped
async def test_a_hello_with_an_address_that_is_none_gets_no_certificate() -> None:
    async with a_head(SECRET, certify=Authority().sign, **TLS) as head, a_peer(head.port) as peer:
        await peer.enrol(hello(1, ip="host-1", **TLS), SECRET)
        peer.send({"t": "request", "pem": make_request().pem})
        assert await peer.gone()
        await head.until(lambda: head.phase(1) is Phase.LOST)


@looped
async def test_a_head_that_cannot_lead_answers_with_its_verdict() -> None:
    async with a_head(SECRET, **TLS) as head:
        worker = await join(head.address, hello(1, **TLS), SECRET)
        asking = asyncio.ensure_future(worker.certify(make_request().pem))
        verdict = Verdict(78, "unfit", "preflight")
        delivered = asyncio.ensure_future(head.call.deliver(verdict, PATIENCE))
        assert await worker.ended == verdict
        assert not asking.done()
        asking.cancel()
        await worker.leave("verdict received")
        await delivered


@looped
async def test_a_certificate_that_anybody_could_have_sent_is_not_taken() -> None:
    """The worker shares no secret with this head, which calls itself one of its run."""

    async def answer(peer: Peer) -> None:
        hail = await peer.hear()
        peer.send({"t": "challenge", "nonce": "0" * 32, "tag": tag(hail["nonce"]), "auth": "none"})
        await peer.hear()
        peer.send({"t": "welcome", "rank": 1, "head": "false"})
        peer.send({"t": "certificate", "certificate": "", "ca": ""})
        await peer.gone()

    async with a_program(answer) as address:
        worker: Membership = await join(address, hello(1, **TLS))
        with pytest.raises(Exception, match="a certificate on an open connection"):
            await worker.ended
        worker.close()


@looped
async def test_what_crosses_the_wire_holds_no_key() -> None:
    async with a_head(SECRET, certify=Authority().sign, **TLS) as head, a_wire(head.port) as between:
        worker = await join(between.address, hello(1, **TLS), SECRET)
        await worker.certify(make_request().pem)
        said = json.dumps([between.messages("worker"), between.messages("head")])
        assert "BEGIN CERTIFICATE REQUEST" in said
        assert "PRIVATE" not in said
        worker.close()


def test_a_hello_says_whether_its_node_uses_tls() -> None:
    assert dataclasses.replace(ME, tls=True).message()["tls"] is True
