"""Detached JWS over a contract (RFC 7515 App. F, RFC 8037), checked exactly as FORMAT.md §4 says.

Guarantees: one accepted form - ``b64(header) + ".." + b64(signature)`` with exactly the members alg, kid and typ, alg
``Ed25519``; the payload is rebuilt here, never taken from the entry. ``joserfc`` is not used for checking, because a library that
knows many forms accepts too many.
What may never change: ``HEADER_TYPE``, ``PAYLOAD_TYPE`` and the members of the payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from convoy_contracts.canonical import b64u, canonical_bytes, parse_json, unb64u
from convoy_contracts.document import Contract
from convoy_contracts.errors import DocumentMalformed, SignatureRefused
from convoy_contracts.instants import instant

HEADER_TYPE = "convoy-contract-sig+jws"
PAYLOAD_TYPE = "convoy-contract-sig/1"
ACT, ROLE = "sign", "business"
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


@lru_cache(maxsize=4096)
def payload(*, party: str, sig_t: str, uid: str, version: int, digest: str) -> bytes:
    """Return the bytes that a party signs."""
    return canonical_bytes(
        {
            "typ": PAYLOAD_TYPE,
            "act": ACT,
            "party": party,
            "role": ROLE,
            "sigT": sig_t,
            "uid": uid,
            "version": version,
            "digest": digest,
        }
    )


def sign(contract: Contract, *, party: str, kid: str, sig_t: str, private_key: Ed25519PrivateKey) -> dict[str, str]:
    """Sign a contract; returns an entry of the world's ``signatures``.

    Args:
        contract: parsed, so its digest is that of its canonical bytes.
        party: must be a party of the contract.
        kid: id under which the public key is registered.
        sig_t: timestamp of signing, before the offer lapses.

    Raises:
        SignatureRefused: not a party, a bad timestamp, or the offer has lapsed.
    """
    if contract.party(party) is None:
        raise SignatureRefused(f"{party} is no party of {contract.uid}", fix="Sign as a party of the contract.")
    at, until = instant(sig_t), instant(contract.offerUntil)
    if at is None or until is None or at >= until:
        raise SignatureRefused(
            f"sigT {sig_t} is no timestamp before the offer lapses at {contract.offerUntil}",
            fix="Ask for a new offer.",
        )
    header = b64u(canonical_bytes({"alg": "Ed25519", "kid": kid, "typ": HEADER_TYPE}))
    body = payload(party=party, sig_t=sig_t, uid=contract.uid, version=contract.version, digest=contract.digest)
    signature = private_key.sign(f"{header}.{b64u(body)}".encode())
    return {
        "party": party,
        "role": ROLE,
        "act": ACT,
        "kid": kid,
        "sigT": sig_t,
        "jws": f"{header}..{b64u(signature)}",
    }


def fault(contract: Contract, party: str, entry: Mapping[str, Any], keys: Mapping[str, Key]) -> str | None:
    """Return the first fault of a candidate entry in the order of FORMAT.md §4, or None for a good one."""
    kid = entry.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or key.party != party:
        return "SIGNATURE_KEY_NOT_OF_PARTY"
    sig_t, jws = entry.get("sigT"), entry.get("jws")
    signed_at = instant(sig_t)
    if signed_at is None or not isinstance(jws, str) or not isinstance(sig_t, str):
        return "SIGNATURE_INVALID"
    body = payload(party=party, sig_t=sig_t, uid=contract.uid, version=contract.version, digest=contract.digest)
    if not _verifies(jws, key.kid, key.x, body):
        return "SIGNATURE_INVALID"
    if not key.not_before <= signed_at < key.not_after:
        return "CERT_NOT_VALID_AT_SIGNING"
    if key.revoked_reason == "keyCompromise":
        return "KEY_COMPROMISED"
    if key.revoked_at is not None and key.revoked_at <= signed_at:
        return "KEY_REVOKED_BEFORE_SIGNING"
    lapses = instant(contract.offerUntil)
    if lapses is None or signed_at >= lapses:
        return "SIGNED_AFTER_OFFER_LAPSED"
    return None


def faults(contract: Contract, entries: Sequence[Any], keys: Mapping[str, Key]) -> dict[str, list[str]]:
    """Return, for every party without a good signature, the fault of each of its candidates.

    An empty result means that every party has signed.
    """
    found: dict[str, list[str]] = {}
    for party in contract.parties:
        candidates = [
            entry
            for entry in entries
            if isinstance(entry, Mapping)
            and entry.get("party") == party.id
            and entry.get("act") == ACT
            and entry.get("role") == ROLE
        ]
        each = [fault(contract, party.id, entry, keys) for entry in candidates]
        if None not in each:
            found[party.id] = [code for code in each if code is not None] or ["SIGNATURE_MISSING"]
    return found


def _verifies(jws: str, kid: str, x: bytes, body: bytes) -> bool:
    """Check one JWS against the rebuilt payload; the answer depends on nothing else, so it may be remembered."""
    if len(jws) + len(kid) > MAX_REMEMBERED:
        return _check(jws, kid, x, body)
    return _remembered(jws, kid, x, body)


def _check(jws: str, kid: str, x: bytes, body: bytes) -> bool:
    parts = jws.split(".")
    if len(parts) != 3 or parts[1]:
        return False
    try:
        header = parse_json(unb64u(parts[0]))
        signature = unb64u(parts[2])
    except DocumentMalformed:
        return False
    if header != {"alg": "Ed25519", "kid": kid, "typ": HEADER_TYPE} or len(signature) != 64:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(x).verify(signature, f"{parts[0]}.{b64u(body)}".encode())
    except (InvalidSignature, ValueError):
        return False
    return True


_remembered = lru_cache(maxsize=4096)(_check)


def forget() -> None:
    """Empty the caches, so that every signature is checked anew (for measurements)."""
    payload.cache_clear()
    _remembered.cache_clear()
