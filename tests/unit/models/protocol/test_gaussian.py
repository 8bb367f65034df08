"""The vectorised sampler is the exact discrete Gaussian: its floats decide nothing that is close."""

from __future__ import annotations

import math
import os
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency

from convoy_models import gaussian
from convoy_models.gaussian import Uniform, discrete_gaussian

WORD = 1 << 64


class Planted:
    """Random bytes of which the first calls are given."""

    def __init__(self, *words: list[int]) -> None:
        self._given = [b"".join(word.to_bytes(8, "little") for word in row) for row in words]
        self.calls = 0

    def __call__(self, count: int) -> bytes:
        self.calls += 1
        return self._given.pop(0).ljust(count, b"\xff")[:count] if self._given else os.urandom(count)


def exact_exp(exponent: Fraction) -> Fraction:
    """Return exp(-exponent) to 80 digits, by another way than the sampler's: a power of e and a series."""
    with localcontext() as context:
        context.prec = 90
        value = Decimal(exponent.numerator) / Decimal(exponent.denominator)
        whole, rest, term, total = int(value), value - int(value), Decimal(1), Decimal(1)
        for order in range(1, 80):
            term = -term * rest / order
            total += term
        return Fraction(total / Decimal(1).exp() ** whole)


@pytest.mark.parametrize("sigma", [1.0, 1.75, 3.0, 16.3])
def test_every_number_comes_as_often_as_it_should(sigma: float) -> None:
    """Chi-squared against the exact probabilities, 60,000 draws, where the grid is coarse enough to count every integer."""
    draws, reach = discrete_gaussian(sigma, 60_000), math.ceil(3.2 * sigma)
    points = np.arange(-12 * math.ceil(sigma), 12 * math.ceil(sigma) + 1)
    chance = np.exp(-(points**2) / (2 * sigma**2))
    chance /= chance.sum()
    inside = np.abs(points) <= reach
    wanted = np.append(chance[inside], chance[~inside].sum()) * draws.size
    seen = np.array([np.count_nonzero(draws == point) for point in points[inside]])
    seen = np.append(seen, draws.size - seen.sum())
    assert ((seen - wanted) ** 2 / wanted).sum() < chi2.ppf(1 - 1e-5, wanted.size - 1)


@pytest.mark.parametrize("scale", [16.0, 5 * 2.0**19.5])
def test_opendp_draws_from_the_same_distribution(scale: float) -> None:
    """Another implementation of another algorithm: twelve equal cells, 6,000 draws each."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
    theirs = np.array(dp.m.make_gaussian(*space, scale=scale)([0] * 5_000))
    ours = discrete_gaussian(scale, 5_000)
    edges = np.quantile(np.concatenate([ours, theirs]), np.linspace(0, 1, 13)[1:-1])
    table = [np.bincount(np.searchsorted(edges, draws), minlength=12) for draws in (ours, theirs)]
    assert chi2_contingency(table).pvalue > 1e-5


@settings(max_examples=60, deadline=None)
@given(
    sigma=st.floats(16, 2.0**58) | st.integers(4, 58).map(lambda power: 2.0**power),
    first=st.integers(0, WORD - 1),
    share=st.floats(0, 1, exclude_max=True),
    off=st.integers(-3, 3) | st.sampled_from([-(1 << 20), 1 << 20, -(1 << 34), 1 << 34]),
    is_negative=st.booleans(),
)
def test_floats_agree_with_rational_arithmetic_right_beside_the_border(
    sigma: float, first: int, share: float, off: int, is_negative: bool
) -> None:
    """V is put next to exp(-q): the vectorised path takes or refuses just what exact arithmetic does."""
    spread, top = Fraction(sigma), math.ceil(sigma)
    u = Fraction(2 * first + 1, 2 * WORD)
    k = next(k for k in range(200) if u >= exact_exp(Fraction(k + 1, 2)))
    j = min(int(share * top), top - 1)
    n = math.ceil(k * spread) + j
    border = exact_exp((n * n / spread**2 - k) / 2) if k <= 20 else Fraction(0)
    second = min(max(math.floor(border * WORD) + off, 0), WORD - 1)
    shifted = j << (64 - max((top - 1).bit_length(), 1))
    rows = [[first], [shifted], [second], [WORD - 1 if is_negative else 0]]
    found = gaussian._taken(sigma, 1, Planted(*rows))
    if n >= (k + 1) * spread or (is_negative and n == 0):
        assert found.size == 0
    elif Fraction(second + 1, WORD) <= border:
        assert found.tolist() == [-n if is_negative else n]
    elif Fraction(second, WORD) >= border:
        assert found.size == 0
    else:
        assert found.size == 0 or found.tolist() == [-n if is_negative else n]  # further bits decide


@pytest.mark.parametrize(("further", "is_below"), [(0, True), (WORD - 1, False)])
def test_where_64_bits_do_not_decide_the_next_ones_do(further: int, is_below: bool) -> None:
    """The same first word on both sides of exp(-1/2), by the second word; one draw of 8 bytes."""
    first = math.floor(exact_exp(Fraction(1, 2)) * WORD)
    bits = Planted([further])
    assert Uniform(first, bits).is_below(Fraction(1, 2)) is is_below
    assert bits.calls == 1


@pytest.mark.parametrize(("further", "k"), [(0, 1), (WORD - 1, 0)])
def test_a_step_that_64_bits_do_not_decide_is_decided_by_further_ones(further: int, k: int) -> None:
    """U on the border of the first two steps, V = 0: taken, in the step that the next word says."""
    border = math.floor(exact_exp(Fraction(1, 2)) * WORD)
    found = gaussian._taken(16.0, 1, Planted([border], [0], [0], [0], [further]))
    assert found.tolist() == [16 * k]


def test_the_steps_are_those_of_the_exponential() -> None:
    """Every constant of step 1 by another computation; the last is the last that 64 bits can show."""
    ends = [WORD - 1 - int(end) for end in gaussian._ends()]
    assert ends == [math.floor(exact_exp(Fraction(k, 2)) * WORD) for k in range(1, len(ends) + 1)]
    assert math.floor(exact_exp(Fraction(len(ends) + 1, 2)) * WORD) == 0


def test_zero_comes_with_one_sign_only() -> None:
    """j = 0 in step 0 with V = 0: taken as +0, refused as -0."""
    last = WORD - 1
    assert gaussian._taken(16.0, 1, Planted([last], [0], [0], [0])).tolist() == [0]
    assert gaussian._taken(16.0, 1, Planted([last], [0], [0], [last])).size == 0


@pytest.mark.parametrize("size", [0, 1, 5_000])
def test_as_many_are_drawn_as_were_asked(size: int) -> None:
    """Also where half of the offsets are refused: sigma just above a power of two."""
    for sigma in (2.0**30 + 1, 2.0**30):
        draws = discrete_gaussian(sigma, size)
        assert draws.shape == (size,)
        assert draws.dtype == np.int64
