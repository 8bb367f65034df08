"""Grades, tiers and who must sign a change of an asset's entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from convoy_contracts.catalogue import TIERS, Change, derived_grade, first_tier, parse_entry, regrade, tier_faults
from convoy_contracts.decide.world import read_keys
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.grants import entry_signers, grant_signers, parse_grant, signed_value, value_faults
from convoy_contracts.testing import INSURERS, OEM, SIGNED_AT, key_entry, key_of

Json = dict[str, Any]
FIELD: Json = {
    "name": "harsh_brake", "grade": "L2", "sensitive": False, "step": "0.1",
    "necessity": {"convoy:RiskModelTraining": "how the car is driven"},
}  # fmt: skip
ENTRY: Json = {
    "schema": "convoy-catalogue/1", "asset": "urn:convoy:asset:drive", "version": 1, "owner": OEM, "steward": "data-office",
    "processedIn": "vehicle", "collectionDefault": "off", "fields": [FIELD], "at": SIGNED_AT,
}  # fmt: skip
NEXT: Json = ENTRY | {"version": 2, "previous": parse_entry(json.dumps(ENTRY)).digest}


def with_field(**members: Any) -> Json:
    """The second version with other members of its one field."""
    return NEXT | {"fields": [FIELD | members]}


CHANGES: list[tuple[str, Change, bool, Json]] = [
    ("grade raised", Change.RAISED, False, with_field(grade="L4")),
    ("grade lowered", Change.LOWERED, True, with_field(grade="L1")),
    ("now sensitive", Change.RAISED, False, with_field(sensitive=True)),
    ("finer", Change.FINER, True, with_field(step="0.01")),
    ("coarser", Change.OTHER, False, with_field(step="1")),
    ("the same step, written otherwise", Change.OTHER, False, with_field(step="0.10", transform="log1p")),
    ("another owner", Change.NEW_OWNER, True, NEXT | {"owner": INSURERS[0]}),
    ("leaves the vehicle", Change.LESS_PROTECTED, True, NEXT | {"processedIn": "node"}),
    ("a new field", Change.NEW_FIELD, False, NEXT | {"fields": [FIELD, FIELD | {"name": "speed"}]}),
    ("a field less", Change.DROPPED_FIELD, False, NEXT | {"fields": [FIELD | {"name": "speed"}]}),
]


@pytest.mark.parametrize(("change", "loosens", "new"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_tightening_is_immediate_and_loosening_needs_everybody(change: Change, loosens: bool, new: Json) -> None:
    """The owner alone tightens; owner, new owner and all who rely on the entry loosen."""
    before, after = parse_entry(json.dumps(ENTRY)), parse_entry(json.dumps(new))
    assert change in {found.change for found in regrade(before, after)}
    signers, changes = entry_signers(before, after, INSURERS)
    assert any(found.is_loosening for found in changes) == loosens
    assert signers == (frozenset({OEM, after.owner, *INSURERS}) if loosens else frozenset({OEM}))


def test_a_new_asset_needs_its_owner_only() -> None:
    """Nobody relies on it yet."""
    assert entry_signers(None, parse_entry(json.dumps(ENTRY)), INSURERS) == (frozenset({OEM}), [])


REFUSED: list[tuple[str, Callable[[Json], object]]] = [
    ("collected by default", lambda e: e.update(collectionDefault="on")),
    ("no owner", lambda e: e.pop("owner")),
    ("no steward", lambda e: e.update(steward="")),
    ("no fields", lambda e: e.update(fields=[])),
    ("a field twice", lambda e: e.update(fields=[FIELD, FIELD])),
    ("no necessity", lambda e: e.update(fields=[FIELD | {"necessity": {}}])),
    ("necessity for an unknown purpose", lambda e: e.update(fields=[FIELD | {"necessity": {"convoy:Fun": "why not"}}])),
    ("an unknown grade", lambda e: e.update(fields=[FIELD | {"grade": "L5"}])),
    ("a first version with a previous one", lambda e: e.update(previous="sha256:" + "0" * 64)),
    ("a later version without", lambda e: e.update(version=2)),
    ("a time without offset", lambda e: e.update(at="2026-11-25T10:00:00")),
]


@pytest.mark.parametrize("spoil", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_an_entry_without_its_due_is_refused(spoil: Callable[[Json], object]) -> None:
    """Each asset has an accountable owner, a steward, a necessity for each field, and is off by default."""
    entry = dict(ENTRY)
    spoil(entry)
    with pytest.raises(DocumentMalformed) as caught:
        parse_entry(json.dumps(entry))
    assert caught.value.problems


def test_derived_data_has_the_grade_of_its_highest_input() -> None:
    """Noise does not lower a grade; only signatures do."""
    assert derived_grade(["L2", "L4", "L3"]) == "L4"
    assert derived_grade(["L1", "I"]) == "I"
    assert derived_grade([]) == "L1"


def test_tiers_grow_and_charging_operators_start_at_t1() -> None:
    """What a tier allows, the next one allows too; nobody may *use* as a whole."""
    assert (first_tier(["convoy:ChargingOperator"]), first_tier(["convoy:Insurer"])) == ("T1", "T0")
    tiers = list(TIERS.values())
    assert all(low.actions <= high.actions for low, high in pairwise(tiers))
    assert tier_faults("T2", "convoy:train", {"a": "L3"}) == []
    assert len(tier_faults("T1", "convoy:train", {"a": "L3", "b": "L1"})) == 2
    assert tier_faults("T3", "use", {}) == ["tier T3 does not allow use"]
    assert tier_faults("T9", "use", {}) == ["tier 'T9' is unknown"]


def test_a_rise_needs_all_and_a_fall_one() -> None:
    """The partner and every owner of assets sign a rise; any one of them may take it back."""
    grant = {"schema": "convoy-tier-grant/1", "party": INSURERS[0], "tier": "T2", "at": SIGNED_AT}
    parsed = parse_grant(json.dumps(grant))
    assert grant_signers("T1", parsed, [OEM]) == (frozenset({INSURERS[0], OEM}), 2)
    assert grant_signers("T3", parsed, [OEM]) == (frozenset({INSURERS[0], OEM}), 1)


def test_a_proof_holds_for_one_value_and_one_kind_only() -> None:
    """An entry's signature is no grant's, and another byte breaks it."""
    keys = read_keys({"keys": {f"{OEM}#1": key_entry(OEM)}})
    entry = parse_entry(json.dumps(ENTRY))
    proof = signed_value(entry, party=OEM, kid=f"{OEM}#1", private_key=key_of(OEM))
    assert value_faults(entry, [proof], keys) == {}
    other = parse_entry(json.dumps(ENTRY | {"steward": "somebody"}))
    assert value_faults(other, [proof], keys) == {OEM: "SIGNATURE_INVALID"}
    grant = parse_grant(json.dumps({"schema": "convoy-tier-grant/1", "party": OEM, "tier": "T1", "at": SIGNED_AT}))
    assert value_faults(grant, [proof], keys) == {OEM: "SIGNATURE_INVALID"}
