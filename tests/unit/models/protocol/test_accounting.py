"""What a run costs a person, by two accountants that know nothing of each other."""

from __future__ import annotations

import itertools
import math

import pytest

from convoy_models.accounting import (
    GaussianEvent,
    epsilon_of,
    fits,
    gaussian_mu2,
    independent_epsilon,
    micro,
    mu2_of_units,
    mu_of,
    pld_epsilon,
    runs_left,
    shown,
    spent_micro,
    units_of,
)
from convoy_models.errors import AccountingRefused

DELTA = 1e-6


@pytest.mark.parametrize(("epsilon", "mu"), [(0.5, 0.124), (1, 0.237), (2, 0.448), (4, 0.838), (8, 1.532)])
def test_mu_is_the_published_table(epsilon: float, mu: float) -> None:
    """private_ml.md §6, at delta 1e-6."""
    assert mu_of(epsilon, DELTA) == pytest.approx(mu, abs=6e-4)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1, 2, 4, 8, 20])
@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
def test_going_to_mu_and_back_never_gains_epsilon(epsilon: float, delta: float) -> None:
    """mu is rounded down and epsilon up, and both by less than 1e-6."""
    back = epsilon_of(mu_of(epsilon, delta) ** 2, delta)
    assert epsilon - 1e-6 < back <= epsilon
    assert micro(back) <= micro(epsilon)


@pytest.mark.parametrize("mu2", [1e-4, 0.02, 0.7, 1.4, 5.0, 30.0])
def test_the_closed_form_agrees_with_dp_accounting(mu2: float) -> None:
    """To 1e-6, against code that is not ours."""
    events = [GaussianEvent(1.0, math.sqrt(55 / mu2))] * 55
    assert epsilon_of(mu2, DELTA) == pytest.approx(independent_epsilon(events, DELTA), abs=1e-6)


def test_privacy_loss_distributions_agree_event_by_event() -> None:
    """A label sum and 54 model sums at eps 4, composed numerically: PLD 4.00 = GDP 4.00."""
    mu2 = mu_of(4, DELTA) ** 2
    events = [GaussianEvent(2.0, 2 / math.sqrt(0.45 * mu2))]
    events += [GaussianEvent(0.55, 0.55 * math.sqrt(54 / (0.55 * mu2)))] * 54
    composed = sum(gaussian_mu2(e.sensitivity, e.sigma) for e in events)
    assert pld_epsilon(events, DELTA, 1e-3) == pytest.approx(epsilon_of(composed, DELTA), abs=2e-3)


def test_two_runs_at_four_cost_five_point_nine_and_the_third_is_refused() -> None:
    """The demo's contract: a cap of 6 takes two runs of 4."""
    run, cap = mu_of(4, DELTA) ** 2, 6_000_000
    assert epsilon_of(2 * run, DELTA) == pytest.approx(5.9, abs=0.05)
    assert fits(0, run, DELTA, cap)
    assert fits(run, run, DELTA, cap)
    assert not fits(2 * run, run, DELTA, cap)
    assert runs_left(0, run, DELTA, cap) == 2
    assert runs_left(2 * run, run, DELTA, cap) == 0


def test_a_linear_gate_on_the_stated_spend_decides_the_gdp_filter() -> None:
    """``spent + request <= cap`` is the same decision, at every cap around the edge."""
    run, request = mu_of(4, DELTA) ** 2, 4_000_000
    for used, cap in itertools.product((0.0, run, 2 * run), range(3_900_000, 9_000_000, 99_999)):
        linear = spent_micro(used, run, DELTA, request) + request <= cap
        assert linear == (fits(used, run, DELTA, cap) and request <= cap)


def test_ledger_units_add_up_in_any_order_and_never_round_down() -> None:
    """Whole units of 1e-12; 55 rounded-up queries of a run at eps 4 still fit under 4."""
    query = mu_of(4, DELTA) ** 2 / 55
    units = units_of(query)
    assert mu2_of_units(units) >= query
    assert units_of(mu2_of_units(units)) == units
    assert micro(epsilon_of(mu2_of_units(55 * units), DELTA)) == 4_000_000


@pytest.mark.parametrize(
    ("epsilon", "places", "told"),
    [
        (4.0, 3, "4.000"),
        (4.0001, 3, "4.001"),
        (4.00049, 2, "4.01"),
        (0.000001, 3, "0.001"),
        (0.0, 3, "0.000"),
        (3.9999999, 6, "4.000000"),
    ],
)
def test_what_people_read_is_never_less_than_what_was_spent(epsilon: float, places: int, told: str) -> None:
    """Displays round up, like the ledger; to the nearest would promise more privacy than there is."""
    assert shown(epsilon, places) == told


def test_epsilon_of_nothing_is_nothing() -> None:
    """A ledger without entries states 0."""
    assert epsilon_of(0.0, DELTA) == 0.0
    assert epsilon_of(1e-14, DELTA) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0])
def test_meaningless_numbers_are_refused(bad: float) -> None:
    """Epsilon, sensitivity and sigma are positive and finite; delta lies inside (0, 1)."""
    with pytest.raises(AccountingRefused):
        mu_of(bad, DELTA)
    with pytest.raises(AccountingRefused):
        mu_of(1.0, bad)
    with pytest.raises(AccountingRefused):
        gaussian_mu2(bad, 1.0)
    with pytest.raises(AccountingRefused):
        gaussian_mu2(1.0, bad)
    if bad != 0.0:
        with pytest.raises(AccountingRefused):
            epsilon_of(bad, DELTA)
        with pytest.raises(AccountingRefused):
            units_of(bad)
