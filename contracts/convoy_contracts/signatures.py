"""Detached JWS over a contract (RFC 7515 App. F, RFC 8037), checked exactly as FORMAT.md §4 says.

Guarantees: one accepted form (``convoy_contracts.jws``); the payload is rebuilt here, never taken from the entry.
What may never change: ``HEADER_TYPE``, ``PAYLOAD_TYPE`` and the members of the payload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_contracts import jws
from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.document import Contract
from convoy_contracts.errors import SignatureRefused
from convoy_contracts.instants import instant, read_instant
from convoy_contracts.jws import Key

HEADER_TYPE = "convoy-contract-sig+jws"
PAYLOAD_TYPE = "convoy-contract-sig/1"
ACT, ROLE = "sign", "business"


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
    body = payload(party=party, sig_t=sig_t, uid=contract.uid, version=contract.version, digest=contract.digest)
    return {
        "party": party,
        "role": ROLE,
        "act": ACT,
        "kid": kid,
        "sigT": sig_t,
        "jws": jws.detached(body, kid=kid, typ=HEADER_TYPE, private_key=private_key),
    }


def fault(contract: Contract, party: str, entry: Mapping[str, Any], keys: Mapping[str, Key]) -> str | None:
    """Return the first fault of a candidate entry in the order of FORMAT.md §4, or None for a good one."""
    kid = entry.get("kid")
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None or key.party != party:
        return "SIGNATURE_KEY_NOT_OF_PARTY"
    sig_t, text = entry.get("sigT"), entry.get("jws")
    signed_at = instant(sig_t)
    if signed_at is None or not isinstance(text, str) or not isinstance(sig_t, str):
        return "SIGNATURE_INVALID"
    body = payload(party=party, sig_t=sig_t, uid=contract.uid, version=contract.version, digest=contract.digest)
    if not jws.verifies(text, kid=key.kid, typ=HEADER_TYPE, x=key.x, body=body):
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


def forget() -> None:
    """Empty the caches, so that every signature is checked anew (for measurements)."""
    payload.cache_clear()
    read_instant.cache_clear()
    jws.forget()
