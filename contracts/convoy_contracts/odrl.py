"""The export view: a contract as ODRL 2.2 with DPV 2.3 terms in JSON-LD. Read-only; the signed bytes are our document.

ODRL's default for a conflict is that the whole policy is void; ours is that prohibition wins, and the view says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convoy_contracts.document import Contract
from convoy_contracts.events import ALL
from convoy_contracts.lifecycle import DPV, State

_IRI = {"@type": "@id"}
CONTEXT = [
    "http://www.w3.org/ns/odrl.jsonld",
    {
        "dpv": "https://w3id.org/dpv#",
        "convoy": "urn:convoy:vocabulary:1#",
        "dct": "http://purl.org/dc/terms/",
        "xsd": "http://www.w3.org/2001/XMLSchema#",
        "dpv:hasDataController": _IRI,
        "dpv:hasDataSource": _IRI,
        "dpv:hasPurpose": _IRI,
        "dpv:hasRecipient": _IRI,
        "dpv:hasStatus": _IRI,
        "convoy:party": _IRI,
        "convoy:asset": _IRI,
    },
]
"""ODRL's own terms are used as its context defines them, so that parties, assets and purposes are read as IRIs, not as text."""
OPERANDS = {
    "purpose": "odrl:purpose",
    "algorithm": "convoy:algorithm",
    "recipient": "odrl:recipient",
    "elapsedRounds": "odrl:count",
}
NAMES_TERMS = ("purpose", "recipient")
"""Operands whose right side names things rather than text or numbers."""
OPERATORS = {"eq": "odrl:eq", "isA": "odrl:isA", "isAnyOf": "odrl:isAnyOf", "lteq": "odrl:lteq"}
ACTIONS = {"use": "odrl:use"}


def export(contract: Contract, state: State | None = None) -> dict[str, Any]:
    """Return the JSON-LD view of a contract.

    Args:
        contract: parsed.
        state: where it stands, if that is known.
    """
    name = f"{contract.uid}:{contract.version}"
    view: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "odrl:Agreement",
        "uid": name,
        "profile": "urn:convoy:odrl-profile:1",
        "conflict": "odrl:prohibit",
        "convoy:digest": contract.digest,
        "dpv:hasDataController": [p.id for p in contract.parties if "convoy:Controller" in p.roles],
        "permission": [_permission(name, rule) for rule in contract.permission],
        "prohibition": [_prohibition(name, rule) for rule in contract.prohibition],
        "obligation": [_duty(name, duty) for duty in contract.duties or ()],
        "dpv:hasDuration": {
            "@type": "dpv:TemporalDuration",
            "convoy:notBefore": _time(contract.term.notBefore),
            "convoy:notAfter": _time(contract.term.notAfter),
        },
        "dpv:hasPersonalData": [
            {
                "@id": f"{row.asset}#{item.name}",
                "@type": "dpv:SensitivePersonalData" if item.sensitive else "dpv:PersonalData",
                "dpv:hasDataSource": row.provider,
                "convoy:grade": item.grade,
                "convoy:step": item.step,
                **({"dpv:hasNecessity": item.necessity} if item.necessity else {}),
            }
            for row in contract.data
            for item in row.fields
        ],
        "dpv:hasRecipient": sorted({party for output in contract.outputs for party in output.recipients}),
        "dpv:hasLocation": list(contract.location.processing),
        "dpv:hasTechnicalMeasure": [
            {
                "@type": "dpv:DifferentialPrivacy",
                "convoy:asset": asset,
                "convoy:epsilonMicroPerRun": budget.perRoundMicro,
                "convoy:epsilonMicroTotal": budget.totalMicro,
                "convoy:deltaNano": budget.deltaNano,
            }
            for asset, budget in sorted(contract.privacy.items())
        ],
        "dpv:hasNotice": list(contract.consent.notices),
        "dpv:hasImpactAssessment": [
            {"@type": "dpv:PIA", "convoy:party": p.id, "convoy:ref": p.pia.ref, "convoy:validUntil": _time(p.pia.validUntil)}
            for p in contract.parties
            if p.pia is not None
        ],
    }  # fmt: skip
    if contract.title is not None:
        view["dct:title"] = contract.title
    if state is not None:
        view["dpv:hasStatus"] = DPV[state]
    return view


def _permission(name: str, rule: Any) -> dict[str, Any]:
    return {
        "uid": f"{name}#{rule.uid}",
        "action": ACTIONS.get(rule.action, rule.action),
        "target": list(rule.target),
        "assignee": list(rule.assignee),
        "constraint": [_constraint(c) for c in rule.constraint],
        "dpv:hasPurpose": _purposes(rule.constraint),
    }


def _prohibition(name: str, rule: Any) -> dict[str, Any]:
    return {
        "uid": f"{name}#{rule.uid}",
        "action": ACTIONS.get(rule.action, rule.action),
        "target": list(rule.target) or "convoy:EveryAsset",
        "constraint": [_constraint(c) for c in rule.constraint],
    }


def _duty(name: str, duty: Any) -> dict[str, Any]:
    unit, amount = ("H", duty.withinHours) if duty.withinHours else ("WD", duty.withinWorkingDays)
    return {
        "uid": f"{name}#{duty.id}",
        "action": f"convoy:{duty.kind}",
        "assignee": "convoy:EveryParty" if duty.bearer == ALL else duty.bearer,
        "convoy:trigger": duty.trigger,
        "convoy:within": f"{amount} {unit}",
        "convoy:blocking": duty.blocking,
    }


def _constraint(constraint: Mapping[str, Any]) -> dict[str, Any]:
    left, operator, right = (constraint.get(member) for member in ("leftOperand", "operator", "rightOperand"))
    terms = right if isinstance(right, list) else [right]
    named = [{"@id": term} for term in terms if isinstance(term, str)] if left in NAMES_TERMS else terms
    return {
        "leftOperand": OPERANDS.get(str(left), left),
        "operator": OPERATORS.get(str(operator), operator),
        "rightOperand": named,
    }


def _purposes(constraints: list[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for constraint in constraints:
        if constraint.get("leftOperand") == "purpose":
            right = constraint.get("rightOperand")
            found += [term for term in (right if isinstance(right, list) else [right]) if isinstance(term, str)]
    return found


def _time(text: str) -> dict[str, str]:
    return {"@type": "xsd:dateTime", "@value": text}
