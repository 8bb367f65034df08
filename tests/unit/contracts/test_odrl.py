"""The export view: what is signed, in the words of ODRL and DPV, and nothing that a JSON-LD processor would drop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from convoy_contracts.document import Contract
from convoy_contracts.lifecycle import DPV, State
from convoy_contracts.odrl import CONTEXT, export
from convoy_contracts.testing import INSURERS, OEM, example_document

DOCUMENT = example_document() | {
    "duties": [
        {"id": "d1", "bearer": "*", "kind": "delete", "trigger": "end", "withinWorkingDays": 10, "blocking": True}
    ]
}
CONTRACT = Contract.parse(json.dumps(DOCUMENT))
ODRL_TERMS = {
    "uid", "profile", "conflict", "permission", "prohibition", "obligation", "action", "target", "assignee", "constraint",
    "leftOperand", "operator", "rightOperand",
}  # fmt: skip
"""Terms of the W3C's context that the view uses as they are."""


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """Every member of every object, the context aside."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name != "@context":
                yield name, item
                yield from members(item)
    elif isinstance(value, list):
        for item in value:
            yield from members(item)


def test_every_member_is_a_known_term_or_a_prefixed_name() -> None:
    """A processor drops what its context does not define."""
    prefixes = {name for name in CONTEXT[1] if ":" not in name}  # type: ignore[union-attr]
    for name, _ in members(export(CONTRACT)):
        assert name.startswith("@") or name in ODRL_TERMS or name.split(":")[0] in prefixes, name


def test_no_object_names_itself_twice() -> None:
    """``uid`` is ODRL's word for ``@id``; both in one object is an error of JSON-LD."""
    view = export(CONTRACT)
    for item in (view, *view["permission"], *view["prohibition"], *view["obligation"]):
        assert "uid" in item
        assert "@id" not in item
    uids = [item["uid"] for item in (view, *view["permission"], *view["prohibition"], *view["obligation"])]
    assert len(set(uids)) == len(uids)


def test_the_view_says_what_was_signed() -> None:
    """Digest, parties, rules with purposes as names, budgets, and that a prohibition wins."""
    view = export(CONTRACT, State.ACTIVE)
    assert view["convoy:digest"] == CONTRACT.digest
    assert view["conflict"] == "odrl:prohibit"
    assert view["dpv:hasStatus"] == DPV[State.ACTIVE]
    assert view["dpv:hasDataController"] == [OEM, *INSURERS]
    rule = view["permission"][0]
    assert rule["assignee"] == list(INSURERS)
    purpose = next(c for c in rule["constraint"] if c["leftOperand"] == "odrl:purpose")
    assert purpose["rightOperand"] == [{"@id": "convoy:RiskModelTraining"}]
    assert rule["dpv:hasPurpose"] == ["convoy:RiskModelTraining"]
    rounds = next(c for c in rule["constraint"] if c["leftOperand"] == "odrl:count")
    assert rounds["rightOperand"] == [50]
    duty = view["obligation"][0]
    assert (duty["assignee"], duty["convoy:within"]) == ("convoy:EveryParty", "10 WD")
    assert {measure["@type"] for measure in view["dpv:hasTechnicalMeasure"]} == {"dpv:DifferentialPrivacy"}


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_word_of_dpv(state: State) -> None:
    """Where a contract stands is said in DPV's words as well."""
    assert export(CONTRACT, state)["dpv:hasStatus"].startswith("dpv:Contract")
