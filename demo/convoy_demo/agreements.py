"""The demo's two contracts, as the partners would draft them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from convoy_contracts.build import Asset, recommendation_contract, risk_contract
from convoy_contracts.build import Member as ContractMember
from convoy_contracts.instants import timestamp
from convoy_demo.party_data import ConsentTerms
from convoy_demo.places import AUDITOR, CHARGING, INSURER_SHORTS, MEMBERS, OEM, Member
from convoy_demo.scenario import Scenario

RISK, RECOMMENDATION = "risk", "recommendation"
UIDS = {RISK: "urn:convoy:contract:demo-risk", RECOMMENDATION: "urn:convoy:contract:demo-recommendation"}
NOTICES = {RISK: "oem-ubi@1", RECOMMENDATION: "oem-offers@1"}
PURPOSES = {RISK: "convoy:RiskModelTraining", RECOMMENDATION: "convoy:Recommendation"}
TERM = timedelta(days=365)
FINEST = "0.001"


def fields_of(member: Member, scenario: Scenario) -> tuple[str, ...]:
    """Return the fields of a party's asset over both contracts, each once."""
    risk, offers = scenario.risk, scenario.offers
    if member.role == "charging":
        return ("items",)
    names = [feature.name for tower in risk.towers if tower.role == member.role for feature in tower.features]
    if member.role == "insurer":
        names += [risk.claims, risk.exposure]
    else:
        names += [feature.name for feature in offers.profile]
    return tuple(dict.fromkeys(names))


def recipients_of(contract: str) -> tuple[str, ...]:
    """Return who gets the model."""
    shorts = (*INSURER_SHORTS, OEM) if contract == RISK else (OEM, CHARGING)
    return tuple(sorted(member.id for member in MEMBERS if member.short in shorts))


def terms_of(contract: str, now: datetime) -> ConsentTerms:
    """Return what a driver was told and agreed to, a month ago, for a year."""
    return ConsentTerms(
        notice=NOTICES[contract],
        purpose=PURPOSES[contract],
        recipients=recipients_of(contract),
        given=timestamp(now - timedelta(days=30)),
        until=timestamp(now + TERM),
    )


def contract_document(contract: str, cards: Mapping[str, Any], scenario: Scenario, now: datetime) -> dict[str, Any]:
    """Return a contract document.

    Args:
        contract: ``RISK`` or ``RECOMMENDATION``.
        cards: each party's published keys, by short name.
        scenario: specifications, floors and caps.
        now: aware; the term starts a day before.
    """
    shorts = (OEM, *INSURER_SHORTS, AUDITOR) if contract == RISK else (OEM, CHARGING, AUDITOR)
    members = [member for member in MEMBERS if member.short in shorts]
    common: dict[str, Any] = {
        "uid": UIDS[contract],
        "version": 1,
        "nonce": f"demo-{contract}-1",
        "offer_until": timestamp(now + timedelta(days=7)),
        "not_before": timestamp(now - timedelta(days=1)),
        "not_after": timestamp(now + TERM),
        "parties": [_party(member, cards[member.short], now) for member in members],
        "assets": [_asset(member, contract, scenario) for member in members if member.asset],
        "assignees": recipients_of(contract),
        "recipients": recipients_of(contract),
        "notices": [NOTICES[contract]],
        "total_micro": scenario.cap_micro,
        "min_subjects": scenario.min_subjects,
        "max_runs": scenario.max_runs,
    }
    if contract == RISK:
        return risk_contract(
            title="Joint driver risk 联合驾驶风险", specification=scenario.risk, min_providers=4, **common
        )
    return recommendation_contract(
        title="Charging and service offers 充电与服务推荐", specification=scenario.offers, min_providers=2, **common
    )


def _party(member: Member, card: Any, now: datetime) -> ContractMember:
    pia = None if member.role == "trustee" else (f"PIA-{member.short}", timestamp(now + TERM + timedelta(days=1)))
    return ContractMember(
        id=member.id,
        role=member.role,
        region=member.region,
        mask_key=card.mask_key,
        witness_key=card.witness_key,
        pia=pia,
    )


def _asset(member: Member, contract: str, scenario: Scenario) -> Asset:
    names: Sequence[str] = fields_of(member, scenario)
    if member.role == "oem" and contract == RECOMMENDATION:
        names = [feature.name for feature in scenario.offers.profile]
    elif member.role == "oem":
        names = [feature.name for tower in scenario.risk.towers if tower.role == "oem" for feature in tower.features]
    return Asset(member.asset, member.id, [(name, "L3", False, FINEST) for name in names])
