"""The CA of a run, and a node's request to it.

The head makes the CA; its key is in the head's memory only, so that nothing on a disk can sign, and a node that joins
late still gets a certificate. A node makes its own key, and the roll call carries the request and the certificate.

Only a run with TLS imports this module, since ``cryptography`` takes 70 ms and 10 MB.
"""

import ipaddress
import re
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bootstrap.files.certificates import Issued, Request

MAX_REQUEST = 4096
"""Characters of a request; ours takes 330."""
_MAX_FAULT = 200
_BEFORE, _AFTER = timedelta(days=1), timedelta(days=3650)
"""A certificate is valid from a day ago, since clocks differ, for longer than any run; its key goes with the run."""
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
"""Names that a certificate may carry; wildcards are not allowed."""
_BOTH_ENDS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


class Authority:
    """The CA of one run; whoever holds this object can sign."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("ray-bootstrap")
        key = self._key.public_key()
        self._certificate = (
            _builder(self._name, self._name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def sign(self, request: str, ip: str, host: str) -> Issued:
        """Return a certificate for the key in ``request``: for this address, this host's name and loopback.

        Names in the request are ignored.

        :raises ValueError: saying what is wrong with the request or the address.
        """
        key, names = _requested_key(request), _names(ip, host)
        own = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_name(ip), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(_BOTH_ENDS, critical=False)
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(own, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(_pem(certificate), _pem(self._certificate))


def make_request() -> Request:
    """Return a new key and a request that proves possession of it; what the certificate says, the head decides."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return Request(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), _pem(request))


def _requested_key(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a request that its holder signed. :raises ValueError: saying what is wrong with the request."""
    if len(pem) > MAX_REQUEST:
        raise ValueError(f"a certificate request of {len(pem)} characters, more than {MAX_REQUEST}")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise ValueError(f"a certificate request that cannot be read: {error}"[:_MAX_FAULT]) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a certificate request whose key is not on the curve P-256")
    if not signed:
        raise ValueError("a certificate request that its key did not sign")
    return key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - _BEFORE).not_valid_after(now + _AFTER)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _names(ip: str, host: str) -> x509.SubjectAlternativeName:
    """Return the names by which a peer may dial the node. :raises ValueError: if ``ip`` is not an address."""
    addresses = dict.fromkeys(map(ipaddress.ip_address, (ip, "127.0.0.1", "::1")))
    hosts = dict.fromkeys(name for name in ("localhost", host) if _HOST_NAME.fullmatch(name))
    return x509.SubjectAlternativeName([*map(x509.IPAddress, addresses), *map(x509.DNSName, hosts)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(thing: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return thing.public_bytes(Encoding.PEM).decode()
