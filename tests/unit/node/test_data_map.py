"""Proposals for a partner's columns: sure where the names leave no doubt, marked where not, never invented."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from convoy_node.columns import Column
from convoy_node.data_map import mapping_text, propose

OEM = ["km_1000", "harsh_braking_100km", "speeding_share", "collision_warnings_1000km"]


def test_names_of_known_systems_are_sure() -> None:
    """VSS paths, CRM names and Chinese headings are known names of fields."""
    present = ["客户号", "Vehicle.TraveledDistance", "hard_brakes", "超速占比", "FCW_events"]
    found = {p.field: (p.column, p.is_sure) for p in propose(present, ["person_id", *OEM])}
    assert found == {
        "person_id": ("客户号", True),
        "km_1000": ("Vehicle.TraveledDistance", True),
        "harsh_braking_100km": ("hard_brakes", True),
        "speeding_share": ("超速占比", True),
        "collision_warnings_1000km": ("FCW_events", True),
    }


def test_what_is_only_alike_is_marked_and_what_is_not_alike_is_left_open() -> None:
    """A near name carries a question mark; a field without a like column says so."""
    person, *fields = propose(["customer_no", "harsh_brakings", "colour"], ["person_id", *OEM])
    columns = {name: Column(name, "numeric") for name in OEM}
    text = mapping_text("rows", person, fields, columns, grouped=False)
    lines = {line.split(" = ")[0]: line for line in text.splitlines() if " = " in line}
    assert "? likeness" in lines["harsh_braking_100km"]
    assert "? no column is like it" in lines["speeding_share"]
    assert tomllib.loads(text)["person"] == '"customer_no"'


def test_rows_of_one_person_become_one_by_the_kind_of_field() -> None:
    """Claims and exposure add up, numbers are averaged."""
    wanted = {"claim_count": Column("claim_count", "claims"), "bonus_malus": Column("bonus_malus", "numeric")}
    person, *fields = propose(["customer_no", "claims", "bm"], ["person_id", *wanted])
    made = tomllib.loads(mapping_text("crm.policies", person, fields, wanted, grouped=True))
    assert made["fields"] == {"claim_count": 'sum("claims")', "bonus_malus": 'avg("bm")'}


@given(st.lists(st.text(min_size=1, max_size=12), max_size=8, unique=True))
def test_any_column_names_make_a_mapping_that_can_be_read(present: list[str]) -> None:
    """Quotes, newlines and emoji in a heading break nothing; no column serves two fields."""
    person, *fields = propose(present, ["person_id", *OEM])
    text = mapping_text("rows", person, fields, {name: Column(name, "numeric") for name in OEM}, grouped=False)
    used = [p.column for p in (person, *fields) if p.column is not None]
    assert len(used) == len(set(used))
    assert set(tomllib.loads(text)["fields"]) == set(OEM)
