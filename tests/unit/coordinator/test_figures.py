"""Numbers on the page: epsilon is never shown smaller than it is, nor what is left larger."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from convoy_coordinator.console.pages import micro_down, micro_up

MICRO = st.integers(min_value=0, max_value=2**53 - 1)


@given(MICRO)
def test_what_is_spent_is_rounded_up_and_what_is_left_down(micro: int) -> None:
    """Two decimals, off by less than a hundredth, always on the careful side."""
    exact = Decimal(micro) / 1_000_000
    assert exact <= Decimal(micro_up(micro)) < exact + Decimal("0.01")
    assert exact - Decimal("0.01") < Decimal(micro_down(micro)) <= exact
