"""An offer that its author signs: without it only the operator of a coordinator can put a document before the parties.

What may never change: ``SCHEMA``, ``HEADER_TYPE`` and the members of the payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.document import Contract
from convoy_contracts.errors import SignatureRefused
from convoy_contracts.jws import Key, proof, proof_fault

SCHEMA = "convoy-contract-offer/1"
HEADER_TYPE = "convoy-contract-offer+jws"


def author_of(contract: Contract) -> str:
    """Return who may offer and withdraw a contract: its ``author``, else the first party it lists."""
    return contract.author or contract.parties[0].id


def offer_body(contract: Contract, *, at: str) -> bytes:
    """Return the bytes that an author signs."""
    return canonical_bytes(
        {
            "schema": SCHEMA,
            "uid": contract.uid,
            "version": contract.version,
            "digest": contract.digest,
            "by": author_of(contract),
            "at": at,
        }
    )


def sign_offer(contract: Contract, *, party: str, kid: str, at: str, private_key: Ed25519PrivateKey) -> dict[str, str]:
    """Return the proof of an offer.

    Raises:
        SignatureRefused: the party is not the author.
    """
    if party != author_of(contract):
        raise SignatureRefused(f"{author_of(contract)} is the author, not {party}", fix="Let the author offer it.")
    made = proof(offer_body(contract, at=at), party=party, kid=kid, typ=HEADER_TYPE, private_key=private_key)
    return made | {"at": at}


def offer_fault(contract: Contract, given: Mapping[str, Any], keys: Mapping[str, Key]) -> str | None:
    """Return what is wrong with the proof of an offer, or None."""
    at = str(given.get("at"))
    if given.get("party") != author_of(contract):
        return "SIGNATURE_KEY_NOT_OF_PARTY"
    return proof_fault(given, typ=HEADER_TYPE, body=offer_body(contract, at=at), at=at, keys=keys)
