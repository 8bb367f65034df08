"""The forecast before signing agrees with what was measured, and says how unsure it is."""

from __future__ import annotations

import pytest

from convoy_demo.specifications import evaluated_risk_specification, recommend_specification, risk_specification
from convoy_models.value import ValueUnknown, forecast

MEASURED = (
    # joint cohort, epsilon, D2 on generated drivers (models/LOG.md)
    (4_100, 4.0, 3.14),
    (12_000, 4.0, 4.63),
    (41_000, 4.0, 5.33),
    (122_000, 4.0, 5.39),
    (12_000, 1.0, 2.64),
    (41_000, 1.0, 4.95),
    (122_000, 1.0, 5.30),
)


@pytest.mark.parametrize(("cohort", "epsilon", "measured"), MEASURED)
def test_the_forecast_covers_what_was_measured(cohort: int, epsilon: float, measured: float) -> None:
    """Inside the 80 % range, and within half a point of its middle."""
    found = forecast(risk_specification(int(epsilon * 1e6)), 3, 10_000, cohort)
    assert found.joint.low <= measured <= found.joint.high
    assert found.joint.middle == pytest.approx(measured, abs=0.5)


def test_alone_grows_with_the_book_and_joining_pays_most_for_the_small() -> None:
    """10k, 30k and 60k customers: 1.9, 2.15, 2.2 measured."""
    found = [forecast(risk_specification(), 3, book, 41_000) for book in (10_000, 30_000, 60_000)]
    assert [round(f.alone.middle, 1) for f in found] == [1.9, 2.1, 2.2]
    assert found[0].gain.middle > found[2].gain.middle
    assert "alone 1.9" in found[0].statement
    assert (
        "epsilon 4.00 per person and run (delta 1e-6, towards the coordinator and every recipient)"
        in found[0].statement
    )
    assert found[0].chance > 0.99


def test_a_tiny_cohort_is_told_that_joining_does_not_pay() -> None:
    """1,200 persons at epsilon 1: noise eats all of it, and the floor says where it would not."""
    found = forecast(risk_specification(1_000_000), 3, 10_000, 1_200)
    assert found.chance < 0.05
    assert found.floor > 35_000


def test_a_noisy_count_and_a_hold_out_widen_or_lower_the_forecast() -> None:
    """Uncertainty is carried through; judging a model costs persons and budget."""
    sure, unsure = (forecast(risk_specification(), 3, 10_000, 6_000, sd) for sd in (0.0, 3_000.0))
    assert unsure.joint.high - unsure.joint.low > sure.joint.high - sure.joint.low
    judged = forecast(evaluated_risk_specification(), 3, 10_000, 6_000)
    assert judged.joint.middle < sure.joint.middle


def test_what_has_no_prior_is_refused() -> None:
    """Recommendation, nobody, and a count with a negative noise."""
    with pytest.raises(ValueUnknown):
        forecast(recommend_specification(), 3, 10_000, 41_000)
    with pytest.raises(ValueUnknown):
        forecast(risk_specification(), 3, 0, 41_000)
    with pytest.raises(ValueUnknown):
        forecast(risk_specification(), 3, 10_000, 41_000, -1.0)
