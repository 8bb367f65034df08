"""What a card says about the attacks before a release, and what an alarm does."""

from __future__ import annotations

import pytest

from convoy_coordinator.federation.errors import NodeRefused
from convoy_coordinator.federation.evaluation import attacks_of, check_vetoes
from convoy_coordinator.federation.membership import attack_limits, attack_measures
from convoy_demo.specifications import recommend_specification, risk_specification


def test_an_alarm_at_one_party_refuses_the_release_with_party_cause_and_fix() -> None:
    """Before any veto is looked at."""
    said = {"a": {"veto": True, "cause": "a veto"}, "b": {"veto": True, "attack": "alarm"}, "c": {"attack": "passed"}}
    with pytest.raises(NodeRefused) as refused:
        check_vetoes(said)
    assert (refused.value.code, refused.value.party) == ("MEMBERS_TOLD", "b")
    assert "epsilon and delta" in refused.value.cause
    assert "Nothing was released" in refused.value.fix


def test_whoever_says_nothing_known_has_run_no_attack() -> None:
    """A node of an older version, or one that makes up words."""
    said = {"b": {"attack": "fine"}, "a": {}, "c": {"attack": "passed"}}
    assert attacks_of(said) == {"a": "not run", "b": "not run", "c": "passed"}


def test_the_card_says_where_no_attack_was_run_and_why() -> None:
    """Too few at a party, or nobody held back under this contract; nothing where all was tried."""
    risk, offers = risk_specification(), recommend_specification().model_copy(update={"cohortFloor": 100})
    assert attack_limits(risk, {"a": "passed", "b": "passed"}) == []
    (few,) = attack_limits(risk, {"a": "passed", "b": "not run", "c": "not run"})
    assert "at b, c" in few.en
    assert few.en.endswith("fewer were held out there.")
    (nobody,) = attack_limits(offers, {"h": "not run"})
    assert "fewer than 2,500 persons a party" in nobody.en
    assert "h" in nobody.zh
    (line,) = attack_measures({"a": "passed", "b": "not run"})
    assert line.value == "1 / 2"
    assert attack_measures({}) == []
