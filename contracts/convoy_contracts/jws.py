"""One form of detached JWS for everything that a party signs here (RFC 7515 App. F, RFC 8037).

``b64(header) + ".." + b64(signature)``: the header has exactly the members alg, kid and typ, alg is ``Ed25519``, and the payload
is rebuilt by whoever checks, never taken from the message. ``none``, ``EdDSA``, ``crit`` and every other member are refused,
because nothing but equality with the one header is accepted. ``joserfc`` is not used for checking: a library that knows many
forms accepts too many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from convoy_contracts.canonical import b64u, canonical_bytes, parse_json, unb64u
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.instants import instant

MAX_REMEMBERED = 4096
"""Longest JWS and kid, together, whose check is remembered; bounds the memory of the cache."""


@dataclass(frozen=True, slots=True)
class Key:
    """A registered signing key; instants in microseconds (``instants.instant``)."""

    kid: str
    party: str
    x: bytes
    not_before: int
    not_after: int
    revoked_at: int | None = None
    revoked_reason: str | None = None


def detached(body: bytes, *, kid: str, typ: str, private_key: Ed25519PrivateKey) -> str:
    """Sign ``body``; return the JWS without it."""
    header = b64u(canonical_bytes({"alg": "Ed25519", "kid": kid, "typ": typ}))
    return f"{header}..{b64u(private_key.sign(f'{header}.{b64u(body)}'.encode()))}"


def verifies(jws: str, *, kid: str, typ: str, x: bytes, body: bytes) -> bool:
    """Whether ``jws`` is the one accepted form over ``body``; depends on nothing else, so the answer may be remembered."""
    if len(jws) + len(kid) > MAX_REMEMBERED:
        return _check(jws, kid, typ, x, body)
    return _remembered(jws, kid, typ, x, body)


def proof(body: bytes, *, party: str, kid: str, typ: str, private_key: Ed25519PrivateKey) -> dict[str, str]:
    """Return a party's signature over ``body`` as events, offers and catalogue entries carry it."""
    return {"party": party, "kid": kid, "jws": detached(body, kid=kid, typ=typ, private_key=private_key)}


def proof_fault(given: Mapping[str, Any], *, typ: str, body: bytes, at: str, keys: Mapping[str, Key]) -> str | None:
    """Return what is wrong with a proof, or None.

    Args:
        given: party, kid and jws.
        typ: the header's type.
        body: what must have been signed.
        at: the timestamp inside ``body`` at which the party says to have signed; the key must be valid then.
        keys: registered keys by kid.
    """
    kid, name = given.get("kid"), given.get("jws")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or key.party != given.get("party"):
        return "SIGNATURE_KEY_NOT_OF_PARTY"
    signed_at = instant(at)
    if signed_at is None or not isinstance(name, str):
        return "SIGNATURE_INVALID"
    if not verifies(name, kid=key.kid, typ=typ, x=key.x, body=body):
        return "SIGNATURE_INVALID"
    if not key.not_before <= signed_at < key.not_after:
        return "CERT_NOT_VALID_AT_SIGNING"
    if key.revoked_reason == "keyCompromise":
        return "KEY_COMPROMISED"
    if key.revoked_at is not None and key.revoked_at <= signed_at:
        return "KEY_REVOKED_BEFORE_SIGNING"
    return None


def _check(jws: str, kid: str, typ: str, x: bytes, body: bytes) -> bool:
    parts = jws.split(".")
    if len(parts) != 3 or parts[1]:
        return False
    try:
        header = parse_json(unb64u(parts[0]))
        signature = unb64u(parts[2])
    except DocumentMalformed:
        return False
    if header != {"alg": "Ed25519", "kid": kid, "typ": typ} or len(signature) != 64:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(x).verify(signature, f"{parts[0]}.{b64u(body)}".encode())
    except (InvalidSignature, ValueError):
        return False
    return True


_remembered = lru_cache(maxsize=4096)(_check)


def forget() -> None:
    """Empty the cache, so that every signature is checked anew (for measurements)."""
    _remembered.cache_clear()
