"""The federation's certificate authority: P-256, one level, only for the partner channel.

``keys/ca.p256`` (0600) signs; ``tls/ca.pem`` is public and stands whole in every ticket, so a node pins it before it
speaks to anybody. gRPC takes no Ed25519 certificates, hence P-256. The key is born at the first invitation, and followed only
by one that it has signed for (``authorities``): with any other, every node refuses this coordinator, as it must.

Certificates of nodes are for client authentication, name one party (subject and URI), and live 90 days; a node renews
after two thirds. A server's certificate is made anew at each start. Revocation is the coordinator's own list, asked at
every call (``enrolment.access``); there is no CRL, because nobody else verifies these certificates.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.keys import CA_KEY, read_scalar, write_scalar

NODE_LIFE: Final = timedelta(days=90)
SERVER_LIFE: Final = timedelta(days=398)
CA_LIFE: Final = timedelta(days=3650)
EARLY: Final = timedelta(minutes=10)
CA_FILE: Final = "ca.pem"
MAX_CSR_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was made; ``digest`` is the SHA-256 of its DER."""

    pem: bytes
    serial: str
    digest: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA with its private key."""

    key: EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def open(
        cls,
        keys_folder: Path,
        tls_folder: Path,
        name: str,
        now: datetime,
        *,
        key: str = CA_KEY,
        file: str = CA_FILE,
    ) -> Self:
        """Open the CA; make it where there is none yet. ``key`` and ``file`` are the names of its files.

        Raises:
            SetupError: key without certificate fits not, or a file cannot be used.
        """
        path, public = keys_folder / key, tls_folder / file
        if not path.exists():
            if public.exists():
                raise SetupError("CA_KEY_MISSING", f"tls/{file} is there, its key is not", fix=CA_FIX)
            write_scalar(path, generate_private_key(SECP256R1()).private_numbers().private_value)
        private = derive_private_key(read_scalar(path), SECP256R1())
        if not public.exists():
            # If we die before this: the key waits for its certificate, which nobody has seen.
            tls_folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            _write_public(public, _self_signed(private, name, now).public_bytes(Encoding.PEM))
        try:
            certificate = x509.load_pem_x509_certificate(public.read_bytes())
        except ValueError:
            raise SetupError("CA_UNREADABLE", f"tls/{file} is no certificate", fix=CA_FIX) from None
        if certificate.public_key() != private.public_key():
            raise SetupError("CA_KEY_WRONG", f"tls/{file} is not of the key in keys/", fix=CA_FIX)
        return cls(private, certificate)

    @property
    def pem(self) -> bytes:
        """The CA's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The CA's certificate, as tickets carry it."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the CA's certificate, in hex."""
        return hashlib.sha256(self.der).hexdigest()

    def issue(self, csr: bytes, party: str, now: datetime, life: timedelta = NODE_LIFE) -> Issued:
        """Make a node's certificate; of the request only the public key is taken.

        Raises:
            Problem: CSR_REFUSED.
        """
        public = check_csr(csr)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common_name(party))])
        builder = (
            self._builder(name, public, now, now + life)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(party)]), critical=False)
        )
        return issued(builder.sign(self.key, hashes.SHA256()))

    def serve(self, hosts: Sequence[str], now: datetime) -> tuple[bytes, bytes]:
        """Return private key and certificate chain (PEM) of a listener that answers as these hosts."""
        key = generate_private_key(SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Convoy coordinator")])
        certificate = (
            self._builder(name, key.public_key(), now, now + SERVER_LIFE)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private, certificate.public_bytes(Encoding.PEM) + self.pem

    def _builder(
        self, name: x509.Name, key: EllipticCurvePublicKey, now: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLY)
            .not_valid_after(min(until, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )


def issued(certificate: x509.Certificate) -> Issued:
    """Return what is kept of a certificate."""
    der = certificate.public_bytes(Encoding.DER)
    return Issued(
        pem=certificate.public_bytes(Encoding.PEM),
        serial=f"{certificate.serial_number:x}",
        digest=f"sha256:{hashlib.sha256(der).hexdigest()}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def check_csr(csr: bytes) -> EllipticCurvePublicKey:
    """Return the key of a certificate request that is signed with it.

    Raises:
        Problem: CSR_REFUSED.
    """
    try:
        if len(csr) > MAX_CSR_BYTES:
            raise ValueError("too long")
        request = x509.load_der_x509_csr(csr)
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, EllipticCurvePublicKey):
            raise ValueError("not signed with its own key")
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError):
        raise Problem("CSR_REFUSED", "the certificate request does not hold") from None
    if not isinstance(public.curve, SECP256R1):
        raise Problem("CSR_REFUSED", f"a key on {public.curve.name[:40]}; the channel takes P-256")
    return public


def _self_signed(key: EllipticCurvePrivateKey, name: str, now: datetime) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:40]} CA")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLY)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(party: str) -> str:
    """Return the end of an id: a common name has 64 characters at most; the whole id is in the URI."""
    return party.removeprefix("did:web:")[-64:]


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_public(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


CA_FIX: Final = (
    "Restore keys/ca*.p256 and tls/ca*.* from one backup. If the key is lost, invite every partner again: their nodes pin "
    "this CA."
)
