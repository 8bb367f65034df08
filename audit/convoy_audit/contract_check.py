"""Check a contract's detached signatures with the keys that the log enrolled (FORMAT.md §4).

    check_contract(document, signatures, keys) -> parties that have signed     raises EvidenceError

Every party of the document needs one good signature: Ed25519 over a JWS whose payload is rebuilt from
the document, with exactly the members alg, kid and typ in its header. This repeats a little of
``convoy_contracts`` on purpose: the verifier shares no code with what it verifies.
LIMIT: the validity of keys in time and the offer's end are judged by the nodes (FORMAT.md codes 9
to 12), not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoy_audit.canonical import Json, b64u, canonical_bytes, digest, parse_json, unb64u
from convoy_audit.errors import AuditError, EvidenceError
from convoy_audit.keys import verify_ed25519

TYP = "convoy-contract-sig+jws"


def check_contract(document: bytes, signatures: Json, keys: Mapping[str, bytes]) -> tuple[str, ...]:
    """Check that every party of a contract has signed it.

    Args:
        document: the contract's canonical bytes.
        signatures: list of {party, role, act, kid, sigT, jws}.
        keys: party -> enrolled Ed25519 public key.

    Raises:
        EvidenceError: a party has no good signature; the party is named.
        FormatError: the document is not a contract.
    """
    contract = parse_json(document)
    parties, uid, version = _facts(contract)
    if not isinstance(signatures, list):
        raise EvidenceError("signatures that are not a list")
    for party in parties:
        key = keys.get(party)
        if key is None:
            raise EvidenceError("a party of the contract was never enrolled", party=party)
        claim = {"uid": uid, "version": version, "digest": digest(document)}
        candidates = [s for s in signatures if isinstance(s, Mapping) and s.get("party") == party]
        if not any(_holds(candidate, claim, key) for candidate in candidates):
            raise EvidenceError("no good signature on the contract", party=party)
    return tuple(parties)


def _facts(contract: Json) -> tuple[Sequence[str], str, int]:
    try:
        parties = [party["id"] for party in contract["parties"]]
        uid, version = contract["uid"], contract["version"]
    except (KeyError, TypeError):
        raise EvidenceError("a contract without parties, uid or version") from None
    if not parties or not all(isinstance(party, str) for party in parties):
        raise EvidenceError("a contract without parties")
    return parties, uid, version


def _holds(entry: Mapping[str, Any], claim: Mapping[str, Json], key: bytes) -> bool:
    """Tell whether one candidate is good; a bad one does not spoil another of the same party."""
    payload = {
        "typ": "convoy-contract-sig/1",
        "act": "sign",
        "role": "business",
        "party": entry.get("party"),
        "sigT": entry.get("sigT"),
        **claim,
    }
    jws = entry.get("jws")
    if not isinstance(jws, str) or entry.get("act") != "sign" or entry.get("role") != "business":
        return False
    head, _, rest = jws.partition("..")
    try:
        header = parse_json(unb64u(head))
        if header != {"alg": "Ed25519", "kid": entry.get("kid"), "typ": TYP}:
            return False
        message = f"{head}.{b64u(canonical_bytes(payload))}".encode()
        verify_ed25519(key, message, unb64u(rest))
    except (AuditError, ValueError):
        return False
    return True
