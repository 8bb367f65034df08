"""Mixed mechanisms: the envelope is above dp-accounting's curve and close to it; the unknown is refused."""

from __future__ import annotations

import dp_accounting as dp
import pytest

from convoy_models.accounting import GaussianEvent, delta_of, epsilon_of
from convoy_models.errors import AccountingRefused
from convoy_models.mechanisms import (
    Envelope,
    SampledGaussian,
    UnsupportedEvent,
    envelope,
    forbid_sampling_of_joint_rows,
    from_dp_event,
    left_of,
    mixed_epsilon,
    to_dp_event,
)

DELTA = 1e-6
DP_SGD = SampledGaussian(1.0, 2.0, 0.04, 400)
"""private_ml.md §6: epsilon 2.0 with and 96.7 without amplification."""


def test_the_published_dp_sgd_costs_two_and_without_amplification_ninety_six() -> None:
    """PLD 2.00 (opacus PRV 2.01); the same steps over rows that both parties know."""
    assert mixed_epsilon([DP_SGD], DELTA) == pytest.approx(2.004, abs=0.002)
    assert envelope([SampledGaussian(1.0, 2.0, 1.0, 400)], DELTA / 50).epsilon(DELTA) == pytest.approx(96.7, abs=0.1)


@pytest.mark.parametrize(
    "event",
    [DP_SGD, SampledGaussian(1.0, 1.0, 0.01, 500), SampledGaussian(2.0, 12.0, 0.2, 100), SampledGaussian(1, 0.8, 0.001, 1)],
)  # fmt: skip
def test_an_envelope_is_never_below_the_pld_and_within_eight_percent(event: SampledGaussian) -> None:
    """At the contract's delta; its tail is a fiftieth of it."""
    made = envelope([event], DELTA / 50)
    exact = mixed_epsilon([event], DELTA)
    assert exact <= made.epsilon(DELTA) <= max(1.08 * exact, exact + 0.12)


def test_an_envelope_holds_at_every_epsilon() -> None:
    """Inequality (1) on a grid that the search did not use."""
    made = envelope([DP_SGD], DELTA / 50)
    accountant = dp.pld.PLDAccountant(value_discretization_interval=1e-4)
    accountant.compose(to_dp_event(DP_SGD))
    for number in range(40):
        epsilon = 0.0037 + 0.0731 * number
        bound = made.tail + (1 - made.tail) * delta_of(made.mu2**0.5, epsilon)
        assert accountant.get_delta(epsilon) <= bound


def test_a_mixed_contract_adds_up_above_the_pld_and_close_to_it() -> None:
    """The heterogeneous contract of private_ml.md §6: 55 sums, 400 DP-SGD steps, 5 histograms: PLD 4.62."""
    gam = [GaussianEvent(1.0, 55**0.5 / 0.838)] * 55
    histograms = [GaussianEvent(1.0, 5**0.5 / 0.124)] * 5
    parts = [envelope(gam, 0.5), envelope([DP_SGD], DELTA / 50), envelope(histograms, 0.5)]
    added = epsilon_of(sum(p.mu2 for p in parts), left_of(DELTA, sum(p.tail for p in parts)))
    exact = mixed_epsilon([*gam, DP_SGD, *histograms], DELTA)
    assert exact == pytest.approx(4.62, abs=0.03)
    assert exact <= added <= exact * 1.02


def test_gaussian_sums_need_no_tail() -> None:
    """And full batches are Gaussian sums."""
    assert envelope([GaussianEvent(1, 2), SampledGaussian(1, 2, 1.0, 3)], 0.5) == Envelope(1.0, 0.0)


def test_opacus_words_are_read_and_the_rest_is_refused() -> None:
    """A composed Poisson-sampled training is understood; fixed batches, Laplace and truncation are not."""
    step = dp.PoissonSampledDpEvent(0.04, dp.GaussianDpEvent(2.0))
    training = dp.ComposedDpEvent([dp.SelfComposedDpEvent(step, 400), dp.GaussianDpEvent(3.0), dp.NoOpDpEvent()])
    assert from_dp_event(training) == [DP_SGD, GaussianEvent(1.0, 3.0)]
    for unknown in (
        dp.SampledWithoutReplacementDpEvent(100, 10, dp.GaussianDpEvent(2.0)),
        dp.SampledWithReplacementDpEvent(100, 10, dp.GaussianDpEvent(2.0)),
        dp.SelfComposedDpEvent(dp.LaplaceDpEvent(1.0), 3),
        dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(1.0)),
        dp.NonPrivateDpEvent(),
    ):
        with pytest.raises(UnsupportedEvent):
            from_dp_event(dp.ComposedDpEvent([unknown]))
    with pytest.raises(UnsupportedEvent):
        envelope([object()], 0.5)  # type: ignore[list-item]


def test_nothing_is_amplified_where_both_parties_know_the_rows() -> None:
    """A joint cohort; inside one node it is fine."""
    with pytest.raises(UnsupportedEvent):
        forbid_sampling_of_joint_rows([DP_SGD], "joint")
    forbid_sampling_of_joint_rows([DP_SGD], "solo")


@pytest.mark.parametrize(
    "bad", [(1, 1, 0.0, 1), (1, 1, 1.1, 1), (1, 1, float("nan"), 1), (1, 0, 0.1, 1), (1, 1, 0.1, 0)]
)
def test_numbers_that_make_no_mechanism_are_refused(bad: tuple[float, float, float, int]) -> None:
    """Rates outside (0, 1], no noise, no steps."""
    with pytest.raises(AccountingRefused):
        SampledGaussian(*bad)
    with pytest.raises(AccountingRefused):
        left_of(DELTA, DELTA)
