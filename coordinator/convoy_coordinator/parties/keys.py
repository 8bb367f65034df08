"""Judge the public keys of a party before they are enrolled.

A key that is low-order or not canonical lets one signature fit many messages, or makes every
shared secret the same. Such keys are refused here once, so that nothing later has to ask.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from convoy_audit.errors import AuditError
from convoy_audit.keys import check_ed25519_public
from convoy_audit.note import Verifier

KEY_BYTES: Final = 32
MAX_WITNESS_KEYS: Final = 4
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]{43}=?")


Check = Callable[[bytes], None]


class KeyFault(ValueError):
    """A key that cannot be enrolled; the text says why, without the key."""


def judge(text: str, check: Check) -> str:
    """Read a 32-byte key, judge it, and return its one spelling.

    Raises:
        KeyFault: it is not such a key, or ``check`` refuses it.
    """
    key = read_key(text)
    check(key)
    return write_key(key)


def read_key(text: str) -> bytes:
    """Decode 32 bytes of base64, in the URL alphabet or the ordinary one, with or without
    padding.
    """
    spelled = text.strip().replace("+", "-").replace("/", "_")
    if _BASE64.fullmatch(spelled) is None:
        raise KeyFault("is not 32 bytes in base64")
    try:
        key = urlsafe_b64decode(spelled.rstrip("=") + "=")
    except Base64Error:
        raise KeyFault("is not 32 bytes in base64") from None
    if len(key) != KEY_BYTES or write_key(key) != spelled.rstrip("="):
        raise KeyFault("is not 32 bytes in base64")
    return key


def write_key(key: bytes) -> str:
    """Spell a key as base64url without padding, as contracts do."""
    return urlsafe_b64encode(key).decode().rstrip("=")


def check_identity_key(key: bytes) -> None:
    """Refuse an Ed25519 key that is not canonical, of low order, or no point of the curve."""
    try:
        check_ed25519_public(key)
    except AuditError as error:
        raise KeyFault(error.cause) from None


def check_witness_key(text: str) -> str:
    """Return the C2SP verifier keys of a witness, one a line; at least one makes cosignatures."""
    try:
        verifiers = [Verifier.parse(line) for line in text.strip().splitlines()]
    except AuditError as error:
        raise KeyFault(error.cause) from None
    if not verifiers or len(verifiers) > MAX_WITNESS_KEYS:
        raise KeyFault(f"is not one to {MAX_WITNESS_KEYS} verifier keys")
    if not all(verifier.kind.is_cosignature for verifier in verifiers):
        raise KeyFault("is a key that makes no cosignatures (type 0x04 or 0x06 is needed)")
    return "\n".join(verifier.vkey for verifier in verifiers)


def check_mask_key(key: bytes) -> None:
    """Refuse an X25519 key of low order: its shared secret is zero with everybody (RFC 7748
    §6.1).
    """
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        raise KeyFault("has low order") from None


def verify_supernode(text: str, message: bytes, signature: bytes) -> None:
    """Check a signature (ECDSA, SHA-256) by a SuperNode key that was judged.

    Raises:
        KeyFault: it is not by this key.
    """
    key = load_pem_public_key(text.encode())
    try:
        if not isinstance(key, EllipticCurvePublicKey):
            raise KeyFault("is not an elliptic-curve key")
        key.verify(signature, message, ECDSA(SHA256()))
    except InvalidSignature:
        raise KeyFault("has not signed") from None


def check_supernode_key(text: str) -> str:
    """Return the key in one spelling; only elliptic-curve keys, which Flower's nodes use, are
    taken.
    """
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("is not a public key in PEM") from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise KeyFault("is not an elliptic-curve key")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
