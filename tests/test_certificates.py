"""The certificates of a run: what Python's own TLS makes of them, and which requests are not signed."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bootstrap.files import authority
from bootstrap.files.authority import Authority, make_request
from bootstrap.files.certificates import TlsFiles, check, write
from bootstrap.files.runtime_dir import RuntimeDir
from bootstrap.raynode.environment import tls

ONE, TWO = "10.0.0.1", "10.0.0.2"
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture
def node(tmp_path: Path, ca: Authority) -> Callable[..., TlsFiles]:
    """``node(ip, host, signed_by)``: the files of a node that has just got its certificate."""

    def make(ip: str = ONE, host: str = "node-1", signed_by: Authority = ca) -> TlsFiles:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        request = make_request()
        files = write(RuntimeDir(folder), request.key, signed_by.sign(request.pem, ip, host))
        assert files is not None
        return files

    return make


def handshake(server: TlsFiles, client: TlsFiles, dialled: str) -> None:
    """A TLS connection in memory in which either end demands the other's certificate, as Ray's do; strictly checked."""
    contexts = []
    for files, protocol in ((server, ssl.PROTOCOL_TLS_SERVER), (client, ssl.PROTOCOL_TLS_CLIENT)):
        context = ssl.SSLContext(protocol)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.ca)
        contexts.append(context)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [contexts[1].wrap_bio(down, up, server_hostname=dialled), contexts[0].wrap_bio(up, down, server_side=True)]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    for end in ends:
        end.do_handshake()
        assert end.version() == "TLSv1.3"


def named(pem: str, kind: Any = x509.DNSName) -> list[str]:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name) for name in names.get_values_for_type(kind)]


@pytest.mark.parametrize("dialled", [ONE, "node-1", "127.0.0.1", "::1", "localhost"])
def test_nodes_of_one_run_trust_each_other_both_ways(node: Callable[..., TlsFiles], dialled: str) -> None:
    handshake(node(ONE), node(TWO, "node-2"), dialled)


def test_an_ipv6_address(node: Callable[..., TlsFiles]) -> None:
    handshake(node("fd77::1"), node("fd77::2"), "fd77::1")
    check(node("fd77::1"), "fd77::1")


@pytest.mark.parametrize("dialled", [TWO, "node-2", "::2"])
def test_no_node_passes_for_another_one(node: Callable[..., TlsFiles], dialled: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate is not valid for"):
        handshake(node(ONE), node(TWO, "node-2"), dialled)


@pytest.mark.parametrize("stranger", ["server", "client"])
def test_runs_do_not_trust_each_other(node: Callable[..., TlsFiles], ca: Authority, stranger: str) -> None:
    """All CAs have one name, so it is the signature that decides."""
    foreign = Authority()
    sides = {side: foreign if side == stranger else ca for side in ("server", "client")}
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(node(signed_by=sides["server"]), node(TWO, signed_by=sides["client"]), ONE)


def test_a_nodes_key_signs_no_certificates(node: Callable[..., TlsFiles], tmp_path: Path) -> None:
    honest = node()
    rogue = Authority()
    rogue._key = rogue_key(honest)
    rogue._name = x509.load_pem_x509_certificate(honest.certificate.read_bytes()).subject
    forged = node(TWO, signed_by=rogue)
    chain = tmp_path / "chain"
    chain.write_bytes(forged.certificate.read_bytes() + honest.certificate.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError, match="invalid CA certificate"):
        handshake(TlsFiles(chain, forged.key, honest.ca), honest, TWO)


def rogue_key(files: TlsFiles) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(files.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_they_outlast_any_run_and_a_clock_that_is_behind(ca: Authority) -> None:
    issued = ca.sign(make_request().pem, ONE, "node-1")
    now = datetime.datetime.now(datetime.timezone.utc)
    for pem in (issued.certificate, issued.ca):
        certificate = x509.load_pem_x509_certificate(pem.encode())
        assert certificate.not_valid_before_utc <= now - 0.99 * DAY
        assert now + 3000 * DAY < certificate.not_valid_after_utc < now + 4000 * DAY


def test_the_authority_signs_for_nodes_only(ca: Authority) -> None:
    issued = ca.sign(make_request().pem, ONE, "node-1")
    own = x509.load_pem_x509_certificate(issued.ca.encode()).extensions
    constraints = own.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = own.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)


def request_with(key: Any, digest: Any = None, names: x509.SubjectAlternativeName | None = None) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


def test_names_in_the_request_are_ignored(ca: Authority) -> None:
    wish = x509.SubjectAlternativeName([x509.DNSName("head"), x509.DNSName("*")])
    issued = ca.sign(request_with(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256(), wish), ONE, "node-1")
    assert named(issued.certificate) == ["localhost", "node-1"]
    assert named(issued.certificate, x509.IPAddress) == [ONE, "127.0.0.1", "::1"]


@pytest.mark.parametrize("host", ["", "*", "*.example.com", "a b", "nöde", "-a", "a\n", "a" * 254])
def test_a_host_name_that_is_none_is_left_out(ca: Authority, host: str) -> None:
    assert named(ca.sign(make_request().pem, ONE, host).certificate) == ["localhost"]


@pytest.mark.parametrize("host", ["a", "node-1.cluster.local", "my_host", "a" * 253])
def test_a_host_name(ca: Authority, host: str) -> None:
    assert named(ca.sign(make_request().pem, ONE, host).certificate) == ["localhost", host]


@pytest.mark.parametrize("address", ["", "node-1", "10.0.0.0/8", "10.0.0.1 ", "a" * 300])
def test_what_is_not_an_address_is_not_certified(ca: Authority, address: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        ca.sign(make_request().pem, address, "node-1")


def bent(pem: str, at: int) -> str:
    """The request with one character of its body changed."""
    return pem[:at] + ("A" if pem[at] != "A" else "B") + pem[at + 1 :]


def requests() -> Iterator[tuple[str, str, str]]:
    good = make_request().pem
    yield "empty", "", "cannot be read"
    yield "text", "a request, please", "cannot be read"
    yield "cut", good[: len(good) // 2], "cannot be read"
    yield "surrogate", "\ud800", "cannot be read"
    yield "too-long", good + "\n" * authority.MAX_REQUEST, "more than 4096"
    yield "signature", bent(good, -50), "did not sign|cannot be read"
    yield "certificate", Authority().sign(good, ONE, "").certificate, "cannot be read"
    yield "rsa", request_with(rsa.generate_private_key(65537, 2048), hashes.SHA256()), "P-256"
    yield "p384", request_with(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()), "P-256"
    yield "dsa", request_with(dsa.generate_private_key(1024), hashes.SHA256()), "P-256"
    yield "ed25519", request_with(ed25519.Ed25519PrivateKey.generate()), "P-256"


@pytest.mark.parametrize(("pem", "fault"), [pytest.param(pem, fault, id=name) for name, pem, fault in requests()])
def test_a_request_that_is_not_signed(ca: Authority, pem: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as raised:
        ca.sign(pem, ONE, "node-1")
    assert len(str(raised.value)) <= 200


def test_a_request_whose_key_somebody_else_has(ca: Authority) -> None:
    """The signature over a stolen public key cannot be made without its private key."""
    mine, theirs = (x509.load_pem_x509_csr(make_request().pem.encode()) for _ in range(2))
    der = mine.public_bytes(Encoding.DER).replace(point(mine), point(theirs))
    stolen = x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()
    with pytest.raises(ValueError, match="did not sign"):
        ca.sign(stolen, ONE, "node-1")


def point(request: x509.CertificateSigningRequest) -> bytes:
    return request.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_the_files_are_closed_to_others_and_serve_at_the_nodes_address(node: Callable[..., TlsFiles]) -> None:
    files = node()
    check(files, ONE)
    for path in (files.certificate, files.key, files.ca):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_runtime_directory_there_are_no_files(tmp_path: Path, ca: Authority) -> None:
    request = make_request()
    issued = ca.sign(request.pem, ONE, "node-1")
    assert write(RuntimeDir(tmp_path / "missing"), request.key, issued) is None
    assert write(RuntimeDir(tmp_path, "no space"), request.key, issued) is None


def other_key(files: TlsFiles) -> None:
    files.key.write_bytes(make_request().key)


def other_ca(files: TlsFiles) -> None:
    request = make_request()
    files.ca.write_text(Authority().sign(request.pem, ONE, "").ca)


def garbage(files: TlsFiles) -> None:
    files.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def missing(files: TlsFiles) -> None:
    files.ca.unlink()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (other_key, "KEY_VALUES_MISMATCH"),
        (other_ca, "unable to get local issuer"),
        (garbage, "PEM"),
        (missing, "No such file"),
    ],
)
def test_files_that_are_not_valid(
    node: Callable[..., TlsFiles], damage: Callable[[TlsFiles], None], fault: str
) -> None:
    files = node()
    damage(files)
    with pytest.raises(ValueError, match=f"is not valid for {ONE}: .*{fault}"):
        check(files, ONE)


def test_a_certificate_for_another_address_does_not_serve(node: Callable[..., TlsFiles]) -> None:
    with pytest.raises(ValueError, match=f"not valid for '{TWO}'"):
        check(node(ONE), TWO)


@pytest.mark.parametrize(("shift", "fault"), [(2 * DAY, "not yet valid"), (-4000 * DAY, "expired")])
def test_a_clock_that_is_far_off(
    node: Callable[..., TlsFiles], monkeypatch: pytest.MonkeyPatch, shift: datetime.timedelta, fault: str
) -> None:
    """OpenSSL reads this machine's clock, so it is the head's that is off."""
    monkeypatch.setattr(authority, "_BEFORE", authority._BEFORE - shift)
    monkeypatch.setattr(authority, "_AFTER", authority._AFTER + shift)
    with pytest.raises(ValueError, match=fault):
        check(node(signed_by=Authority()), ONE)


def test_what_ray_is_told() -> None:
    assert tls(None) == {}
    assert tls(TlsFiles(Path("/c"), Path("/k"), Path("/ca"))) == {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": "/c",
        "RAY_TLS_SERVER_KEY": "/k",
        "RAY_TLS_CA_CERT": "/ca",
    }


def test_a_key_is_not_printed() -> None:
    request = make_request()
    assert b"PRIVATE" in request.key
    assert "PRIVATE" not in repr(request)
