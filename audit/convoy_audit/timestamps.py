"""Trusted time for a checkpoint: RFC 3161 time-stamps, made by a TSA and verified offline.

    request(text: bytes) -> bytes                         the DER request to send to the TSA
    verify(response: bytes, text: bytes, roots: Sequence[bytes]) -> Stamp        raises EvidenceError
    Stamp: .at (aware UTC), .serial

``text`` is the note text of a checkpoint (origin, size, root). ``roots`` are the TSA's root certificates in
PEM: trust starts there, never in the response. Needs ``convoy-audit[timestamps]`` (rfc3161-client, which
does the ASN.1, the certificate chain and the signature). What it shows: the checkpoint existed at that
time, if the TSA is honest. What it does not: when an entry was written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from convoy_audit.errors import EvidenceError, FormatError


@dataclass(frozen=True, slots=True)
class Stamp:
    """A time-stamp that was verified; only ``verify`` makes one."""

    at: datetime
    serial: int


def is_available() -> bool:
    """Tell whether the library that verifies time-stamps is installed."""
    try:
        import rfc3161_client  # noqa: F401
    except ImportError:
        return False
    return True


def request(text: bytes) -> bytes:
    """Return a time-stamp request (SHA-256, certificate and nonce asked for), DER.

    Raises:
        EvidenceError: the extra is not installed.
    """
    _need()
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(text).hash_algorithm(HashAlgorithm.SHA256)
    return builder.cert_request(cert_request=True).nonce(nonce=True).build().as_bytes()


def verify(response: bytes, text: bytes, roots: Sequence[bytes]) -> Stamp:
    """Verify a TSA's response for a checkpoint.

    Raises:
        FormatError: not a time-stamp response, or a root that is no certificate.
        EvidenceError: it does not hold for this text and these roots, or the extra is not installed.
    """
    _need()
    from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response

    try:
        certificates = [c for pem in roots for c in x509.load_pem_x509_certificates(pem)]
    except ValueError:
        raise FormatError("a TSA root that is no PEM certificate") from None
    if not certificates:
        raise EvidenceError("no root certificate of a TSA was given")
    try:
        stamp = decode_timestamp_response(response)
        info = stamp.tst_info
        at, serial = info.gen_time, info.serial_number
    except ValueError as error:
        raise FormatError(f"not a time-stamp response: {str(error)[:100]}") from None
    builder = VerifierBuilder()
    for certificate in certificates:
        builder = builder.add_root_certificate(certificate)
    try:
        builder.build().verify_message(stamp, text)
    except (VerificationError, ValueError) as error:
        raise EvidenceError(f"the time-stamp does not hold: {str(error)[:120]}") from None
    return Stamp(at, serial)


def _need() -> None:
    if not is_available():
        raise EvidenceError("time-stamps need an extra: pip install 'convoy-audit[timestamps]'")
