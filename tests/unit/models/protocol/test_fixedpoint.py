"""The ring refuses what does not fit; it never wraps silently."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convoy_models.errors import RingOverflow, ValueRefused
from convoy_models.fixedpoint import check_headroom, decode, encode, encode_capped


def test_encoding_rounds_half_to_even_and_keeps_signs() -> None:
    """The integers are those of the specification."""
    words = encode([0.0, 1.0, -1.0, 2.5 / 8, 3.5 / 8, -2.5 / 8], 3)
    assert words.dtype == np.uint64
    assert words.view(np.int64).tolist() == [0, 8, -8, 2, 4, -2]


def test_decoding_returns_the_grid_value() -> None:
    """Also for negative sums in two's complement."""
    values = np.array([-3.75, 0.0, 1e6 + 0.5])
    assert decode(encode(values, 10), 10).tolist() == values.tolist()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(bad: float) -> None:
    """Before any arithmetic."""
    with pytest.raises(ValueRefused):
        encode([0.0, bad], 15)
    with pytest.raises(ValueRefused):
        encode_capped([0.0, bad], 15, 1.0)


def test_a_value_beyond_the_ring_is_refused() -> None:
    """2^62 is the limit, one bit below the sign."""
    encode([2.0**41], 20)
    with pytest.raises(RingOverflow):
        encode([2.0**42], 20)
    with pytest.raises(RingOverflow):
        encode([1e300], 20)


def test_a_value_above_the_cap_is_refused_and_rounding_stays_below_it() -> None:
    """The encoded integer is at most floor(cap * 2^bits)."""
    cap = 0.55
    top = math.floor(cap * 2**15)
    assert encode_capped([cap, -cap], 15, cap).view(np.int64).tolist() == [top, -top]
    with pytest.raises(ValueRefused):
        encode_capped([cap * 1.0001], 15, cap)


def test_headroom_names_what_is_needed() -> None:
    """41,000 joint rows at the demo's caps fit with 43 bits; ten million do not."""
    check_headroom(41_000, 0.55, 43, noise_scale=50.0)
    with pytest.raises(RingOverflow, match="of 63 bits"):
        check_headroom(10_000_000, 0.55, 43)
    with pytest.raises(RingOverflow):
        check_headroom(1, math.nan, 43)
