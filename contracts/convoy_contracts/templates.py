"""Templates behind ``convoy-contracts new``: whole drafts that lint accepts once keys and assessments are filled in.

    risk              carmaker + three or more insurers (+ trustee): the joint risk model
    recommendation    carmaker + charging operator (+ trustee): charging and service offers
    bundle            carmaker + insurer(s) + charging operator (+ trustee): bundles of charging and insurance; never a price

Knots and bounds are product terms and domain knowledge; partners change them in the draft before they sign. Every field says why
it is needed; sensitive fields are in no template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoy_contracts.build import Asset, Member, contract
from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.document import Contract
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.lawyers import bind_text
from convoy_contracts.specification import Knots, RecommendSpecification, RiskSpecification, Tower

NEEDS: Mapping[str, Mapping[str, int]] = {
    "risk": {"oem": 1, "insurer": 3},
    "recommendation": {"oem": 1, "charging": 1},
    "bundle": {"oem": 1, "insurer": 1, "charging": 1},
}
"""Least number of parties of each role, besides one trustee."""
NECESSITY = {
    "driver_age": "rating factor of every motor tariff",
    "bonus_malus": "claims history in one number, no single claim",
    "vehicle_power": "rating factor of every motor tariff",
    "claim_count": "what the model predicts",
    "exposure_years": "time at risk, without which a count says nothing",
    "km_1000": "exposure on the road, in thousands of kilometres a year",
    "harsh_braking_100km": "strongest behaviour factor of the pilot; counts only, no places or times",
    "night_share": "share of driving at night; a share only, no times",
    "speeding_share": "share of driving above the limit; a share only, no places",
    "items": "charging sites and bundles that a customer used: what the offers are learnt from",
}
STEPS = {"driver_age": "1", "vehicle_power": "1", "claim_count": "1", "km_1000": "0.1", "items": "1"}
OFFERS = (
    "charging-site-a",
    "charging-site-b",
    "service-package",
    "charging-plus-insurance",
    "night-charging-plus-insurance",
)


def _knots(name: str, *points: str) -> Knots:
    return Knots(kind="knots", name=name, knots=points)


INSURER = (
    _knots("driver_age", "18", "25", "40", "60", "80"),
    _knots("bonus_malus", "0.5", "0.8", "1.2", "1.7"),
    _knots("vehicle_power", "4", "8", "13"),
)
VEHICLE = (
    _knots("km_1000", "2", "12", "40"),
    _knots("harsh_braking_100km", "0", "2", "10"),
    _knots("night_share", "0", "0.12", "0.4"),
    _knots("speeding_share", "0", "0.1", "0.25"),
)
EPSILON_MICRO, DELTA_NANO = 4_000_000, 1_000


def risk_model() -> RiskSpecification:
    """Return the joint claim-frequency model of the template."""
    return RiskSpecification(
        kind="risk-towers/1",
        towers=(Tower(role="insurer", features=INSURER, cap="0.15"), Tower(role="oem", features=VEHICLE, cap="2")),
        claims="claim_count", exposure="exposure_years", claimCap=1, priorRate="0.08", priorScale="0.2",
        smoothness="0.8", sweeps=5, soloSweeps=4, labelShareMilli=650, epsilonMicro=EPSILON_MICRO, deltaNano=DELTA_NANO,
    )  # fmt: skip


def offer_model() -> RecommendSpecification:
    """Return the offer model of the two other templates."""
    return RecommendSpecification(
        kind="recommend-items/1", items=OFFERS, profile=VEHICLE, historyNorm="2", gramShareMilli=500, crossShareMilli=400,
        epsilonMicro=EPSILON_MICRO, deltaNano=DELTA_NANO,
    )  # fmt: skip


def draft(
    template: str,
    *,
    uid: str,
    parties: Sequence[Member],
    offer_until: str,
    not_before: str,
    not_after: str,
    nonce: str,
    version: int = 1,
    title: str | None = None,
    notice: str = "vehicle-owner@1",
    territories: Sequence[str] = ("CN",),
) -> dict[str, Any]:
    """Return a draft document with its texts for people bound to it.

    Raises:
        ArgumentRefused: no such template, or parties are missing.
        DocumentMalformed: a member does not fit, such as a time without offset.
    """
    if template not in NEEDS:
        raise ArgumentRefused(f"no template {template!r}", fix=f"Take one of {', '.join(NEEDS)}.")
    by_role = {role: [member for member in parties if member.role == role] for role in ("oem", "insurer", "charging")}
    short = [f"{n} of role {role}" for role, n in NEEDS[template].items() if len(by_role[role]) < n]
    if short:
        raise ArgumentRefused(f"the {template} contract needs at least {', '.join(short)}", fix="Add --party.")
    providers = by_role["oem"] + (by_role["insurer"] if template == "risk" else by_role["charging"])
    asking = [member.id for member in (*by_role["oem"], *by_role["insurer"])]
    receiving = asking if template == "risk" else [*asking, *(member.id for member in by_role["charging"])]
    document = contract(
        uid=uid, version=version, nonce=nonce, offer_until=offer_until, not_before=not_before, not_after=not_after,
        title=title or TITLES[template], parties=parties, assets=[_asset(member) for member in providers],
        specification=risk_model() if template == "risk" else offer_model(),
        algorithm="risk-towers" if template == "risk" else "recommend-items",
        purpose="convoy:RiskModelTraining" if template == "risk" else "convoy:Recommendation",
        output="convoy:GlobalModel", assignees=asking, recipients=receiving, notices=[notice], territories=territories,
        total_micro=EPSILON_MICRO + EPSILON_MICRO // 2, min_subjects=30_000 if template == "risk" else 3_000,
        min_providers=len(providers),
    )  # fmt: skip
    document["author"] = parties[0].id
    for party, member in zip(document["parties"], parties, strict=True):
        if member.role != "trustee":
            party["tier"] = "T1" if member.role == "charging" else "T2"
    for row in document["data"]:
        for field in row["fields"]:
            field["necessity"] = NECESSITY[field["name"]]
    if template == "bundle":
        document["prohibition"].append({"uid": "x3", "action": "convoy:price"})
    document["duties"] = [
        {"id": "d1", "bearer": "*", "kind": "delete", "trigger": "end", "withinWorkingDays": 10, "blocking": True},
        {"id": "d2", "bearer": "*", "kind": "notify", "trigger": "incident", "withinHours": 2, "blocking": False},
        *(
            {"id": f"d3-{n}", "bearer": member.id, "kind": "explain", "trigger": "price-decision", "withinHours": 72,
             "blocking": False}
            for n, member in enumerate(by_role["insurer"], 1)
        ),
    ]  # fmt: skip
    return bind_text(Contract.parse(canonical_bytes(document)), document)


TITLES = {
    "risk": "Joint driver risk model 联合驾驶风险模型",
    "recommendation": "Charging and service offers 充电与服务推荐",
    "bundle": "Bundles of charging and insurance 充电与保险组合推荐",
}


def _asset(member: Member) -> Asset:
    names = {
        "oem": [item.name for item in VEHICLE],
        "insurer": [*(item.name for item in INSURER), "claim_count", "exposure_years"],
        "charging": ["items"],
    }[member.role]
    short = member.id.rpartition(":")[2]
    grade = "L2" if member.role == "oem" else "L3"
    return Asset(
        f"urn:convoy:asset:{short}:{member.role}:1", member.id,
        [(name, grade, False, STEPS.get(name, "0.01")) for name in names],
    )  # fmt: skip
