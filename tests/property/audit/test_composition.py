"""Epsilons of several runs together: never less than the accountant's, and more only by rounding."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from convoy_audit.composition import composed_micro
from convoy_models.accounting import epsilon_of, mu_of

EPSILONS = st.lists(st.integers(50_000, 8_000_000), min_size=1, max_size=12)
DELTAS = st.sampled_from([1, 100, 1000, 10_000])


@given(EPSILONS, DELTAS)
def test_runs_compose_as_the_accountant_composes_them(micros: list[int], delta_nano: int) -> None:
    """Against ``convoy_models.accounting``, which is another code with another library."""
    delta = delta_nano / 1e9
    mu2 = math.fsum(mu_of(micro / 1e6, delta) ** 2 for micro in micros)
    exact = epsilon_of(mu2, delta) * 1e6
    found = composed_micro(micros, delta_nano)
    assert exact - 1e-3 <= found <= exact + 2 or found == sum(micros) <= exact + 2
    assert max(micros) <= found <= sum(micros)


@given(EPSILONS)
def test_without_a_delta_epsilons_are_added(micros: list[int]) -> None:
    """Basic composition, which needs none."""
    assert composed_micro(micros, 0) == sum(micros)


def test_the_demo_twice_is_what_its_ledger_says() -> None:
    """Two runs of epsilon 3.999996 at delta 1e-6: 5.934193 a person, not 8."""
    assert 5_934_193 <= composed_micro([3_999_996, 3_999_996], 1000) <= 5_934_194
    assert composed_micro([], 1000) == composed_micro([0], 1000) == 0
    assert composed_micro([300_000_000] * 2, 1000) == 600_000_000
