"""Public keys and raw signatures: what is accepted, and nothing else.

    SignatureType      0x01 Ed25519, 0x04 Ed25519 cosignature, 0x06 ML-DSA-44 cosignature
    check_ed25519_public(key: bytes) -> None        raises KeyRejected
    verify_ed25519(public: bytes, message: bytes, signature: bytes) -> None      raises
                                                                                 SignatureError
    verify_raw / sign_raw / public_of_seed           by signature type
    key_id_of(public: bytes) -> str                  16 hex digits, as statements name a key

An Ed25519 key that is not canonical or of low order lets one signature fit many messages, so its
owner could deny what was signed. OpenSSL accepts such keys; this module refuses them before any
verification. Every private key is a 32-byte seed (RFC 8032; FIPS 204 xi).
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
)

from convoy_audit.errors import KeyRejected, SignatureError

SEED_BYTES: Final = 32


class SignatureType(IntEnum):
    """The signature types of C2SP signed-note that this library knows."""

    ED25519 = 0x01
    COSIGNATURE_ED25519 = 0x04
    COSIGNATURE_ML_DSA_44 = 0x06

    @property
    def is_ml_dsa(self) -> bool:
        """Tell whether the key is ML-DSA-44; otherwise it is Ed25519."""
        return self is SignatureType.COSIGNATURE_ML_DSA_44

    @property
    def is_cosignature(self) -> bool:
        """Tell whether the signature carries a time."""
        return self is not SignatureType.ED25519

    @property
    def public_bytes(self) -> int:
        """The length of a public key."""
        return 1312 if self.is_ml_dsa else 32

    @property
    def signature_bytes(self) -> int:
        """The length of a raw signature."""
        return 2420 if self.is_ml_dsa else 64


_P: Final = 2**255 - 19
_SIGN: Final = 1 << 255
_LOW_ORDER_Y: Final = frozenset(
    {
        0,  # order 4
        1,  # the neutral element
        _P - 1,  # order 2
        # order 8: y^2 = (-1 - sqrt(1 + d)) / d and its conjugate, in each sign
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)
"""y of the eight points whose order divides eight; a test derives them from the curve."""


def check_ed25519_public(key: bytes) -> None:
    """Refuse an Ed25519 public key that must never be enrolled.

    Raises:
        KeyRejected: not 32 bytes, not canonical (RFC 8032 §5.1.3 requires y < p, and no sign for x
            = 0), of low order, or no point of the curve.
    """
    if not isinstance(key, bytes) or len(key) != SignatureType.ED25519.public_bytes:
        raise KeyRejected(f"an Ed25519 public key has 32 bytes, this one has {_length(key)}")
    encoded = int.from_bytes(key, "little")
    y = encoded & (_SIGN - 1)
    if y >= _P:
        raise KeyRejected("this Ed25519 public key is not canonical")
    if y in _LOW_ORDER_Y:
        raise KeyRejected("this Ed25519 public key has low order")
    if not _is_on_curve(y):  # a thousand times the rest, so remembered
        raise KeyRejected("this Ed25519 public key is no point of the curve")


def check_public(kind: SignatureType, key: bytes) -> None:
    """Refuse a public key of either algorithm.

    Raises:
        KeyRejected: see ``check_ed25519_public``; or an ML-DSA-44 key of the wrong length.
    """
    if not kind.is_ml_dsa:
        check_ed25519_public(key)
    elif not isinstance(key, bytes) or len(key) != kind.public_bytes:
        raise KeyRejected(f"an ML-DSA-44 public key has 1312 bytes, this one has {_length(key)}")


def verify_raw(kind: SignatureType, public: bytes, message: bytes, signature: bytes) -> None:
    """Verify a signature with a key that ``check_public`` has accepted.

    Raises:
        SignatureError: it does not hold.
    """
    if not isinstance(message, bytes) or not isinstance(signature, bytes) or len(signature) != kind.signature_bytes:
        raise SignatureError(f"a signature of {_length(signature)} bytes, not {kind.signature_bytes}")
    try:
        if kind.is_ml_dsa:
            _ml_dsa_public(public).verify(signature, message)
        else:
            _ed25519_public(public).verify(signature, message)
    except InvalidSignature:
        raise SignatureError("the signature does not fit text and key") from None


def verify_ed25519(public: bytes, message: bytes, signature: bytes) -> None:
    """Verify an Ed25519 signature, key checks included.

    Raises:
        KeyRejected: the key must not be used.
        SignatureError: the signature does not hold.
    """
    check_ed25519_public(public)
    verify_raw(SignatureType.ED25519, public, message, signature)


def public_of_seed(kind: SignatureType, seed: bytes) -> bytes:
    """Return the public key of a private seed.

    Raises:
        KeyRejected: the seed is not 32 bytes.
    """
    _check_seed(seed)
    if kind.is_ml_dsa:
        return MLDSA44PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign_raw(kind: SignatureType, seed: bytes, message: bytes) -> bytes:
    """Sign a message with a private seed.

    Raises:
        KeyRejected: the seed is not 32 bytes.
    """
    _check_seed(seed)
    if kind.is_ml_dsa:
        return MLDSA44PrivateKey.from_seed_bytes(seed).sign(message)
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def key_id_of(public: bytes) -> str:
    """Return the name by which a statement gives its Ed25519 key: 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def _length(given: object) -> str:
    return str(len(given)) if isinstance(given, bytes) else f"none: it is {type(given).__name__}"


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise KeyRejected(f"a private seed has {SEED_BYTES} bytes, this one has {len(seed)}")


@lru_cache(maxsize=256)
def _ed25519_public(key: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        raise KeyRejected("this is no Ed25519 public key") from None


@lru_cache(maxsize=256)
def _ml_dsa_public(key: bytes) -> MLDSA44PublicKey:
    try:
        return MLDSA44PublicKey.from_public_bytes(key)
    except ValueError:
        raise KeyRejected("this is no ML-DSA-44 public key") from None


@lru_cache(maxsize=1024)
def _is_on_curve(y: int) -> bool:
    """Tell whether x^2 = (y^2 - 1) / (d y^2 + 1) has a root (Euler's criterion)."""
    d = -121665 * pow(121666, -1, _P) % _P
    square = (y * y - 1) * pow(d * y * y + 1, -1, _P) % _P
    return square == 0 or pow(square, (_P - 1) // 2, _P) == 1
