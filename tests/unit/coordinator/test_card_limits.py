"""A card says what is weak about its kind of model, and nothing about another kind's weaknesses."""

from __future__ import annotations

from convoy_coordinator.federation.release import LEVELS, NOT_EVALUATED, limits_of
from convoy_demo.specifications import recommend_specification, risk_specification


def test_the_card_of_a_risk_model_asks_insurers_to_correct_levels_by_group() -> None:
    """Towers with caps misprice small groups of high risks; an offer model has no level."""
    assert LEVELS in limits_of(risk_specification(), is_evaluated=True)
    assert LEVELS not in limits_of(recommend_specification(), is_evaluated=True)


def test_only_a_release_that_held_nobody_out_says_so() -> None:
    """The sentence depends on the run, not on the kind."""
    for spec in (risk_specification(), recommend_specification()):
        assert NOT_EVALUATED in limits_of(spec, is_evaluated=False)
        assert NOT_EVALUATED not in limits_of(spec, is_evaluated=True)
