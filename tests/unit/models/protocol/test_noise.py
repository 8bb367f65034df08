"""The noise is the discrete Gaussian of the plan, and what remains is never less than sigma."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm

from convoy_models.errors import NoiseRefused
from convoy_models.noise import DiscreteGaussian, NoiseSource, share_scale
from convoy_models.testing import NoNoise, SeededNoise

DRAWS = 12_000


def follows(draws: np.ndarray, scale: float) -> bool:
    """Whether variance and both tails are within 1e-4 two-sided limits of N(0, scale^2)."""
    low, high = chi2.ppf([5e-5, 1 - 5e-5], len(draws)) / len(draws)
    variance = low < float(np.mean((draws / scale) ** 2)) < high
    beyond = float(np.mean(np.abs(draws) > 2 * scale))
    share = 2 * norm.sf(2)
    slack = 4 * math.sqrt(share * (1 - share) / len(draws))
    return variance and abs(beyond - share) < slack and abs(float(draws.mean())) < 4 * scale / 100


@pytest.mark.parametrize("scale", [100.0, 6.5 * 2.0**43])
def test_draws_follow_the_discrete_gaussian(scale: float) -> None:
    """Variance, mean, tail, at a small and at a WEIGHTED query's scale (no 32-bit saturation)."""
    draws = DiscreteGaussian().draw(scale, DRAWS)
    assert draws.dtype == np.int64
    assert follows(draws, scale)
    assert len(np.unique(draws)) > 100


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_the_distribution_test_fails_at_another_scale(factor: float) -> None:
    """The test above has the power to see noise x0.8."""
    assert not follows(DiscreteGaussian().draw(100.0 * factor, DRAWS), 100.0)


def test_no_two_draws_repeat() -> None:
    """There is no seed: two sources, two calls, four different vectors."""
    draws = [DiscreteGaussian().draw(2.0**40, 8) for _ in range(2) for _ in range(2)]
    assert len({d.tobytes() for d in draws}) == 4


@pytest.mark.parametrize("scale", [0.0, -1.0, 15.9, math.nan, math.inf, 2.0**59])
def test_a_scale_that_does_not_protect_is_refused(scale: float) -> None:
    """Zero noise is not a little noise."""
    with pytest.raises(NoiseRefused):
        DiscreteGaussian().draw(scale, 4)


@pytest.mark.parametrize("insurers", [1, 2, 3, 4, 10])
def test_what_remains_without_any_one_share_is_at_least_sigma_squared(insurers: int) -> None:
    """Rule honest-one/1 with one carmaker and K insurers."""
    sigma = 3.0
    oem = share_scale(sigma, 1) ** 2
    shares = [share_scale(sigma, insurers) ** 2] * insurers
    total = oem + sum(shares)
    for known in (oem, shares[0]):
        assert total - known >= sigma**2 * (1 - 1e-12)
    assert sum(shares[1:]) + oem >= sigma**2


@pytest.mark.parametrize("insurers", [2, 3, 4, 10])
def test_a_sum_among_insurers_alone_keeps_sigma_without_one_of_them(insurers: int) -> None:
    """LOCAL sums of the solo cohort have no carmaker."""
    share = share_scale(1.0, insurers) ** 2
    assert (insurers - 1) * share == pytest.approx(1.0)


@pytest.mark.parametrize(("sigma", "parties"), [(0.0, 1), (-1.0, 2), (math.nan, 1), (1.0, 0)])
def test_a_side_without_noise_is_refused(sigma: float, parties: int) -> None:
    """Sigma is positive and somebody adds it."""
    with pytest.raises(NoiseRefused):
        share_scale(sigma, parties)


def test_test_sources_satisfy_the_protocol() -> None:
    """They are passed by code where a NoiseSource is wanted."""
    sources: list[NoiseSource] = [DiscreteGaussian(), NoNoise(), SeededNoise(1)]
    assert [len(s.draw(100.0, 3)) for s in sources] == [3, 3, 3]
