"""Consent epochs and receipts: what a person or an auditor can check without the node and without the coordinator.

    pseudonym(key, person) -> bytes             HMAC-SHA256; the key belongs to one contract at one node
    commitment(salt, state) -> bytes            HMAC-SHA256 over the canonical state
    leaf_of(pseudonym, commitment) -> bytes     RFC 6962 leaf hash of the 64 bytes
    sign_receipt(receipt, seed) -> dict         verify_receipt(receipt, key) -> dict        raises ConsentProofError
    verify_proof(proof, key) -> Proven          state in an epoch, or absence from it       raises ConsentProofError

An epoch is a Merkle tree (RFC 6962) over all persons who ever said anything about a contract, sorted by pseudonym; its root is
stated to the log (``events.ConsentRooted``). *Presence* is the opening of one leaf with its path. *Absence* is two leaves with
neighbouring indices and the pseudonym strictly between them; of the neighbours only pseudonym and commitment are shown.
Neither needs the exact number of leaves to be signed: a path that hashes to the root fixes left and right at every step.

LIMIT: absence is as good as the node's sorting. An auditor on site derives the root again from the register
(``convoy-node consent epoch --recount``); a person cannot. LIMIT: what a person told the node is the node's word;
the receipt is the person's copy of it.
What may never change: the bytes of leaves, states and signed receipts.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from convoy_audit.canonical import Json, b64u, canonical_bytes, unb64, unb64u
from convoy_audit.errors import AuditError, ConsentProofError
from convoy_audit.events import ConsentRooted
from convoy_audit.keys import SignatureType, key_id_of, public_of_seed, sign_raw, verify_ed25519
from convoy_audit.merkle import EMPTY_ROOT, leaf_hash, verify_inclusion
from convoy_audit.statement import open_statement

PROOF: Final = "convoy-consent-proof/1"
RECEIPT: Final = "convoy-consent-receipt/1"
KEY_BYTES: Final = 32
_PAYLOAD_TYPE: Final = b"application/vnd.convoy.consent-receipt.v1+json"


def pseudonym(key: bytes, person: str) -> bytes:
    """Return what stands for a person in the epochs of one contract at one node: 32 bytes."""
    return hmac.digest(key, person.encode("utf-8"), "sha256")


def commitment(salt: bytes, state: Mapping[str, Json]) -> bytes:
    """Return the commitment to a state; says nothing to who lacks the salt."""
    return hmac.digest(salt, canonical_bytes(dict(state)), "sha256")


def leaf_of(name: bytes, committed: bytes) -> bytes:
    """Return the leaf hash of a person's entry."""
    return leaf_hash(name + committed)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: ``state`` is what stood in the epoch about the person, None if nothing did."""

    party: str
    contract: str
    epoch: int
    at: datetime
    incarnation: str
    pseudonym: bytes
    state: Mapping[str, Json] | None
    statement: str


def sign_receipt(receipt: Mapping[str, Json], seed: bytes) -> dict[str, Json]:
    """Return a receipt with ``keyId`` and ``signature``.

    Args:
        receipt: its members; ``schema`` is ``RECEIPT``.
        seed: private seed of the party's Ed25519 identity key.
    """
    signed = dict(receipt) | {"keyId": key_id_of(public_of_seed(SignatureType.ED25519, seed))}
    return signed | {"signature": b64u(sign_raw(SignatureType.ED25519, seed, _signed_bytes(signed)))}


def verify_receipt(receipt: object, key: bytes) -> dict[str, Json]:
    """Return the receipt if this key signed it.

    Args:
        receipt: as JSON gave it.
        key: the party's Ed25519 identity key, 32 bytes.

    Raises:
        ConsentProofError: no receipt, of another key, or the signature does not hold.
    """
    if not isinstance(receipt, dict) or receipt.get("schema") != RECEIPT:
        raise ConsentProofError("not a consent receipt of this version")
    if receipt.get("keyId") != key_id_of(key):
        raise ConsentProofError("the receipt is signed with another key than the party's")
    try:
        body = {name: value for name, value in receipt.items() if name != "signature"}
        verify_ed25519(key, _signed_bytes(body), unb64u(str(receipt.get("signature"))))
    except AuditError as error:
        raise ConsentProofError(f"the receipt's signature does not hold: {error.cause}") from None
    return receipt


def verify_proof(proof: object, key: bytes) -> Proven:
    """Check a proof of state, or of absence, against the root that the party has stated.

    Args:
        proof: as JSON gave it (docs/consent.md).
        key: the party's Ed25519 identity key, 32 bytes.

    Raises:
        ConsentProofError: any step fails; the cause says which.
    """
    if not isinstance(proof, dict) or proof.get("schema") != PROOF:
        raise ConsentProofError("not a consent proof of this version")
    try:
        # 1. The root is the one that the party has signed.
        statement = open_statement(unb64(str(proof.get("statement"))), key)
        event = statement.event
        if not isinstance(event, ConsentRooted):
            raise ConsentProofError("the statement is not about a consent epoch")
        root = bytes.fromhex(event.root.removeprefix("sha256:"))
        name = unb64u(str(proof.get("pseudonym")))
        size = proof.get("size")
        if type(size) is not int or size < 0 or len(name) != KEY_BYTES:
            raise ConsentProofError("size or pseudonym is malformed")
        found = proof.get("found")
        if found is not None:
            state = _opened(found, name, size, root)
        else:
            _check_absence(proof, name, size, root)
            state = None
    except AuditError as error:
        if isinstance(error, ConsentProofError):
            raise
        raise ConsentProofError(error.cause) from None
    return Proven(
        party=statement.party,
        contract=event.contract,
        epoch=event.epoch,
        at=event.at,
        incarnation=event.incarnation,
        pseudonym=name,
        state=state,
        statement=statement.digest,
    )


def check_withdrawn(proven: Proven, receipt: Mapping[str, Any]) -> None:
    """Check that a proof keeps what a withdrawal receipt promised.

    Raises:
        ConsentProofError: another person, contract or party, an earlier epoch, or a state that is not withdrawn.
    """
    same = {
        "party": proven.party,
        "contract": proven.contract,
        "pseudonym": b64u(proven.pseudonym),
    }
    wrong = sorted(name for name, value in same.items() if receipt.get(name) != value)
    if wrong:
        raise ConsentProofError(f"receipt and proof differ in: {', '.join(wrong)}")
    if receipt.get("kind") != "withdrawal":
        raise ConsentProofError("the receipt is not about a withdrawal")
    if type(receipt.get("byEpoch")) is not int or proven.epoch < int(receipt["byEpoch"]):
        raise ConsentProofError(
            f"epoch {proven.epoch} is older than epoch {receipt.get('byEpoch')}, by which the receipt promises the withdrawal"
        )
    if proven.state is None or proven.state.get("state") != "withdrawn":
        raise ConsentProofError("in this epoch the consent does not stand as withdrawn")
    if proven.state.get("withdrawn") != receipt.get("at"):
        raise ConsentProofError("the epoch holds another instant of withdrawal than the receipt")


def _opened(found: object, name: bytes, size: int, root: bytes) -> Mapping[str, Json]:
    """Step 2, presence: the state opens the commitment, and its leaf is in the tree."""
    state = found.get("state") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(state, dict):
        raise ConsentProofError("the opening is malformed")
    leaf = leaf_of(name, commitment(unb64u(str(found.get("salt"))), state))
    _check_path(found, leaf, size, root)
    return state


def _check_absence(proof: Mapping[str, Any], name: bytes, size: int, root: bytes) -> None:
    """Step 2, absence: neighbours in the tree, with the pseudonym strictly between them."""
    if root == EMPTY_ROOT:
        return
    left, right = proof.get("left"), proof.get("right")
    if left is None and right is None:
        raise ConsentProofError("neither a state nor neighbours are shown")
    last = -1
    if left is not None:
        last, below = _neighbour(left, size, root)
        if not below < name:
            raise ConsentProofError("the left neighbour does not stand before the person")
    if right is not None:
        index, above = _neighbour(right, size, root)
        if not name < above:
            raise ConsentProofError("the right neighbour does not stand behind the person")
        if index != last + 1:
            raise ConsentProofError("the two leaves are no neighbours")
    elif last != size - 1:
        raise ConsentProofError("the left neighbour is not the last leaf")


def _neighbour(given: object, size: int, root: bytes) -> tuple[int, bytes]:
    if not isinstance(given, dict):
        raise ConsentProofError("a neighbour is malformed")
    name, committed = unb64u(str(given.get("pseudonym"))), unb64u(str(given.get("commitment")))
    if len(name) != KEY_BYTES or len(committed) != KEY_BYTES:
        raise ConsentProofError("a neighbour is malformed")
    return _check_path(given, leaf_of(name, committed), size, root), name


def _check_path(given: Mapping[str, Any], leaf: bytes, size: int, root: bytes) -> int:
    index, path = given.get("index"), given.get("path")
    if type(index) is not int or not isinstance(path, list) or not all(isinstance(node, str) for node in path):
        raise ConsentProofError("a path is malformed")
    verify_inclusion(leaf, index, size, [unb64u(node) for node in path], root)
    return index


def _signed_bytes(value: Mapping[str, Json]) -> bytes:
    payload = canonical_bytes(dict(value))
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE, len(payload), payload)
