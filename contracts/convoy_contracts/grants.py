"""Signed catalogue entries and tier grants: who must sign what, so that tightening is immediate and loosening needs everybody.

An entry is signed by its owner. A version that loosens (a lower grade, a finer step, a new owner, less protection) is also
signed by every party that relied on the one before. A tier grant that raises is signed by the partner and by every owner of
assets; one that lowers by any one of them.
What may never change: the two header types and ``convoy-tier-grant/1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, ValidationError

from convoy_contracts.canonical import Json, canonical_bytes, digest, parse_json
from convoy_contracts.catalogue import CatalogueEntry, Closed, EntryChange, regrade
from convoy_contracts.document import Id, Timestamp
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.jws import Key, proof, proof_fault

ENTRY_HEADER = "convoy-catalogue-entry+jws"
GRANT_HEADER = "convoy-tier-grant+jws"


class TierGrant(Closed):
    """A partner's tier from an instant on; ``previous`` is the digest of the partner's last grant."""

    schema_: Literal["convoy-tier-grant/1"] = Field(alias="schema")
    party: Id
    tier: Literal["T0", "T1", "T2", "T3"]
    previous: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\z")] | None = None
    at: Timestamp

    def as_json(self) -> dict[str, Any]:
        """Return the grant as JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def digest(self) -> str:
        """The digest of the grant's canonical bytes."""
        return digest(self.as_json())


def parse_grant(given: str | bytes | Json) -> TierGrant:
    """Read a grant.

    Raises:
        DocumentMalformed: with every fault in ``problems``.
    """
    value = parse_json(given) if isinstance(given, str | bytes) else parse_json(canonical_bytes(given))
    try:
        return TierGrant.model_validate_json(canonical_bytes(value))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, fault['loc'])) or 'grant'}: {fault['msg']}" for fault in error.errors()]
        raise DocumentMalformed(
            f"not a tier grant: {'; '.join(problems)}", fix="Mend every named member.", problems=problems
        ) from error


def signed_value(
    value: CatalogueEntry | TierGrant, *, party: str, kid: str, private_key: Ed25519PrivateKey
) -> dict[str, str]:
    """Return a party's proof over an entry or a grant."""
    return proof(canonical_bytes(value.as_json()), party=party, kid=kid, typ=_header(value), private_key=private_key)


def value_faults(
    value: CatalogueEntry | TierGrant, proofs: Iterable[Mapping[str, Any]], keys: Mapping[str, Key]
) -> dict[str, str]:
    """Return what is wrong with the proofs of an entry or a grant, by party."""
    body = canonical_bytes(value.as_json())
    faults = {}
    for given in proofs:
        fault = proof_fault(given, typ=_header(value), body=body, at=value.at, keys=keys)
        if fault is not None:
            faults[str(given.get("party"))] = fault
    return faults


def entry_signers(
    old: CatalogueEntry | None, new: CatalogueEntry, relying: Iterable[str]
) -> tuple[frozenset[str], list[EntryChange]]:
    """Return who must sign a new version, and what it changes.

    Args:
        old: the version in force, None for a new asset.
        new: the version that is to follow.
        relying: parties of the contracts in force that schedule the asset.
    """
    if old is None:
        return frozenset({new.owner}), []
    changes = regrade(old, new)
    if any(change.is_loosening for change in changes):
        return frozenset({old.owner, new.owner, *relying}), changes
    return frozenset({old.owner}), changes


def grant_signers(current: str, grant: TierGrant, owners: Iterable[str]) -> tuple[frozenset[str], int]:
    """Return who may sign a grant and how many of them must: all for a rise, one for a fall."""
    able = frozenset({grant.party, *owners})
    return (able, len(able)) if grant.tier > current else (able, 1)


def _header(value: CatalogueEntry | TierGrant) -> str:
    return ENTRY_HEADER if isinstance(value, CatalogueEntry) else GRANT_HEADER
