"""A SuperLink's certificate, under a CA of one certificate whose key is thrown away.

Enough in service too: enrolled nodes get this CA over the partner channel and believe no other, so nobody could use
another certificate of it. Whoever brings a certificate of a CA of their own puts it into ``tls/`` before the first start.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from convoy_coordinator.federation.flower.link_home import LinkHome, write_private

_EARLY = timedelta(minutes=5)
SERVED_FOR: Final = timedelta(days=398)
"""Life of a certificate in service. To renew: remove ``tls/`` and start the SuperLink again; nodes are told the new CA."""


def write_loopback_certificates(home: LinkHome) -> None:
    """Write the certificates of a federation on one machine.

    Raises:
        FileExistsError: there are certificates already.
    """
    write_certificates(home, ("localhost", "127.0.0.1"))


def write_certificates(
    home: LinkHome,
    hosts: Iterable[str],
    *,
    now: datetime | None = None,
    valid_for: timedelta = timedelta(days=30),
) -> None:
    """Write ``tls/ca.pem``, ``tls/link.pem`` and ``tls/link.key``; the CA's own key is not kept.

    Raises:
        FileExistsError: there are certificates already.
    """
    start = now or datetime.now(UTC)
    ca_key, link_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name, link_name = _name("Convoy SuperLink CA"), _name("Convoy SuperLink")
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key(), start, valid_for)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    link = (
        _certificate(link_name, ca_name, link_key.public_key(), start, valid_for)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(list(map(_host, dict.fromkeys(hosts)))), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    home.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = link_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_private(home.key_file, private)
    home.certificate_file.write_bytes(link.public_bytes(Encoding.PEM))
    home.ca_file.write_bytes(ca.public_bytes(Encoding.PEM))


def new_node_key() -> tuple[bytes, bytes]:
    """Return a new SuperNode key: private PEM (PKCS 8) and public PEM (for the registration).

    P-256: the SuperLink verifies a signature at every request of a node, 0.1 ms against 0.7 ms with
    P-384.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    valid_for: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _EARLY)
        .not_valid_after(start + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
