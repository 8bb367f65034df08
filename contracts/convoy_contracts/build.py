"""Build contract documents: the templates behind ``convoy-contracts new``, the demo and the tests.

    contract(uid=..., parties=[Member(...)], assets=[Asset(...)], specification=spec, purpose=..., ...) -> dict
    risk_contract(...), severity_contract(...), pairs_contract(...), recommendation_contract(...), towers_contract(...)
                                               the same with purpose, algorithm id and output filled in

The result is a plain document; ``Contract.parse(canonical_bytes(document))`` checks it. Nothing here signs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from convoy_contracts.canonical import digest
from convoy_contracts.specification import Specification
from convoy_contracts.vocabulary import PURPOSES

ROLES = {
    "oem": ["convoy:Controller", "convoy:Oem"],
    "insurer": ["convoy:Controller", "convoy:Insurer"],
    "charging": ["convoy:Controller", "convoy:ChargingOperator"],
    "trustee": ["convoy:Trustee", "convoy:Auditor"],
    "auditor": ["convoy:Trustee", "convoy:Auditor"],
}
"""The contract's role names by the federation's."""


@dataclass(frozen=True, slots=True)
class Member:
    """A party to be: ``role`` is one of ``ROLES``; keys as the node published them.

    ``mask_key`` is base64url of 32 bytes (X25519), ``witness_key`` a C2SP verifier key, ``pia`` (reference, valid until).
    """

    id: str
    role: str
    region: str
    mask_key: str | None = None
    witness_key: str | None = None
    pia: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Asset:
    """A line of the schedule: fields are (name, grade, is sensitive, step)."""

    id: str
    provider: str
    fields: Sequence[tuple[str, str, bool, str]]


def specification_json(specification: Specification) -> dict[str, Any]:
    """Return a specification as the JSON that a contract holds; members at None are left out."""
    return specification.model_dump(mode="json", exclude_none=True)


def contract(
    *,
    uid: str,
    version: int,
    nonce: str,
    offer_until: str,
    not_before: str,
    not_after: str,
    title: str,
    parties: Sequence[Member],
    assets: Sequence[Asset],
    specification: Specification,
    algorithm: str,
    purpose: str,
    output: str,
    assignees: Sequence[str],
    recipients: Sequence[str],
    notices: Sequence[str],
    territories: Sequence[str] = ("CN",),
    total_micro: int,
    min_subjects: int,
    min_providers: int,
    max_grade: str = "L3",
    max_run_seconds: int = 3600,
    max_runs: int = 50,
    withdrawal: str = "immediate",
) -> dict[str, Any]:
    """Return a contract document for one algorithm; budgets are per asset, epsilon in micro."""
    spec = specification_json(specification)
    pinned = digest(spec)
    return {
        "schema": "convoy-contract/1",
        "uid": uid,
        "version": version,
        "offerNonce": nonce,
        "offerUntil": offer_until,
        "title": title,
        "vocab": {"purposes": digest(PURPOSES)},
        "parties": [_party(member) for member in parties],
        "term": {"notBefore": not_before, "notAfter": not_after},
        "permission": [
            {
                "uid": "p1",
                "action": "convoy:train",
                "target": [asset.id for asset in assets],
                "assignee": list(assignees),
                "constraint": [
                    {"leftOperand": "purpose", "operator": "isA", "rightOperand": purpose},
                    {
                        "leftOperand": "algorithm",
                        "operator": "isAnyOf",
                        "rightOperand": [algorithm],
                    },
                    {"leftOperand": "elapsedRounds", "operator": "lteq", "rightOperand": max_runs},
                ],
            }
        ],
        "prohibition": [
            {
                "uid": "x1",
                "action": "use",
                "constraint": [
                    {
                        "leftOperand": "purpose",
                        "operator": "isA",
                        "rightOperand": "convoy:Marketing",
                    }
                ],
            },
            {"uid": "x2", "action": "convoy:reidentify"},
        ],
        "data": [
            {
                "asset": asset.id,
                "provider": asset.provider,
                "fields": [
                    {"name": name, "grade": grade, "sensitive": is_sensitive, "step": step}
                    for name, grade, is_sensitive, step in asset.fields
                ],
            }
            for asset in assets
        ],
        "algorithms": [{"id": algorithm, "digest": pinned, "args": {}, "specification": spec}],
        "outputs": [{"kind": output, "recipients": list(recipients)}],
        "location": {"processing": list(territories)},
        "limits": {"maxGrade": max_grade, "maxRoundSeconds": max_run_seconds},
        "consent": {"notices": list(notices)},
        "cohort": {"minSubjects": min_subjects, "minProviders": min_providers},
        "withdrawal": {"effective": withdrawal},
        "privacy": {
            asset.id: {
                "perRoundMicro": specification.epsilonMicro,
                "totalMicro": total_micro,
                "deltaNano": specification.deltaNano,
            }
            for asset in assets
        },
    }


def risk_contract(**members: Any) -> dict[str, Any]:
    """Return a contract for the joint risk model; keywords as ``contract`` without algorithm, purpose and output."""
    return contract(
        algorithm="risk-towers",
        purpose="convoy:RiskModelTraining",
        output="convoy:GlobalModel",
        **members,
    )


def pairs_contract(**members: Any) -> dict[str, Any]:
    """Return a contract for the risk model of tables; keywords as ``contract`` without algorithm, purpose and output."""
    return contract(
        algorithm="risk-pairs",
        purpose="convoy:RiskModelTraining",
        output="convoy:GlobalModel",
        **members,
    )


def severity_contract(**members: Any) -> dict[str, Any]:
    """Return a contract for the mean amount of a claim; keywords as ``contract`` without algorithm, purpose and output."""
    return contract(
        algorithm="severity-towers",
        purpose="convoy:RiskModelTraining",
        output="convoy:GlobalModel",
        **members,
    )


def recommendation_contract(**members: Any) -> dict[str, Any]:
    """Return a contract for the joint recommendation model; keywords as ``contract`` without algorithm, purpose and output."""
    return contract(
        algorithm="recommend-items",
        purpose="convoy:Recommendation",
        output="convoy:GlobalModel",
        **members,
    )


def towers_contract(**members: Any) -> dict[str, Any]:
    """Return a contract for two towers over charging operators; keywords as ``contract`` without algorithm, purpose and output."""
    return contract(
        algorithm="recommend-towers",
        purpose="convoy:Recommendation",
        output="convoy:GlobalModel",
        **members,
    )


def _party(member: Member) -> dict[str, Any]:
    party: dict[str, Any] = {"id": member.id, "roles": ROLES[member.role], "region": member.region}
    if member.pia is not None:
        party["pia"] = {"ref": member.pia[0], "validUntil": member.pia[1]}
    if member.mask_key is not None:
        party["maskKey"] = {"kid": f"{member.id}#mask", "x": member.mask_key}
    if member.witness_key is not None:
        party["witnessKey"] = member.witness_key
    return party


def scheduled(document: Mapping[str, Any], asset: str) -> list[str]:
    """Return the scheduled field names of an asset of a document."""
    return [f["name"] for row in document["data"] if row["asset"] == asset for f in row["fields"]]
