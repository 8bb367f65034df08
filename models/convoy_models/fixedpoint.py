"""Fixed point in the ring Z_2^64: how real numbers become exact sums.

A number ``x`` is the integer ``rint(x * 2^bits)`` in two's complement. Sums and products in the
ring are exact as long as the true result stays below 2^63 in size; ``check_headroom`` proves that
beforehand from public bounds, so that nothing wraps silently.

What may never change: the bits below and the rounding (half to even), because every party must
encode alike.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convoy_models.errors import RingOverflow, ValueRefused

Words = NDArray[np.uint64]
"""Elements of the ring."""
Floats = NDArray[np.float64]

MATRIX_BITS: Final = 13
"""Fraction bits of a feature matrix, entries in [-1, 1]."""
FACTOR_BITS: Final = 15
"""Fraction bits of a factor or label."""
LOCAL_BITS: Final = 20
"""Fraction bits of a LOCAL sum."""
LIMIT_BITS: Final = 62
"""An encoded number stays below 2^62: one bit for the sign, one to spare."""
NOISE_TAIL: Final = 16.0
"""Standard deviations of noise that the head-room includes (passed with p < 1e-56)."""


def encode(x: ArrayLike, bits: int) -> Words:
    """Return ``rint(x * 2^bits)`` as ring elements.

    Args:
        x: any shape, finite.
        bits: fraction bits, 0..52.

    Raises:
        ValueRefused: a value that is not finite.
        RingOverflow: ``|x| * 2^bits`` reaches 2^62.
    """
    values = np.asarray(x, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueRefused("a value is not a finite number.")
    scaled = np.rint(np.ldexp(values, bits))
    if scaled.size and float(np.abs(scaled).max()) >= 2.0**LIMIT_BITS:
        raise RingOverflow(f"a value does not fit the ring with {bits} fraction bits.")
    return scaled.astype(np.int64).view(np.uint64)


def encode_capped(x: ArrayLike, bits: int, cap: float) -> Words:
    """Encode values that must lie in [-cap, cap]; rounding never passes the cap.

    The largest integer is ``floor(cap * 2^bits)``, so a cap bounds what a person contributes
    exactly.

    Raises:
        ValueRefused: a value that is not finite, or above the cap.
        RingOverflow: the cap itself does not fit.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.size and not float(np.abs(values).max()) <= cap:
        raise ValueRefused(f"a value is not finite or is above the cap {cap:g}.")
    words = encode(values, bits)
    top = math.floor(math.ldexp(cap, bits))
    return np.clip(words.view(np.int64), -top, top).view(np.uint64)


def decode(words: Words, bits: int) -> Floats:
    """Return the real numbers of ring elements with ``bits`` fraction bits."""
    return np.ldexp(words.view(np.int64).astype(np.float64), -bits)


def local_clip(norm: float, size: int) -> float:
    """Return the L2 sensitivity of a LOCAL sum whose parts have at most this norm, once they are rounded to the grid.

    Rounding moves each of ``size`` numbers by less than one step. Every party must compute the same bits.
    """
    return widened(norm + math.sqrt(size) * 2.0**-LOCAL_BITS)


def widened(norm: float) -> float:
    """Return a bound of a norm that also covers the float64 arithmetic by which it was found."""
    return norm * (1 + 2.0**-40)


def check_headroom(rows: int, bound: float, bits: int, noise_scale: float = 0.0) -> None:
    """Refuse a sum that could leave the ring.

    Args:
        rows: how many rows are summed at most, all pairs together.
        bound: the largest size of one coordinate of one row's contribution.
        bits: fraction bits of the result.
        noise_scale: standard deviation of all noise together, in natural units.

    Raises:
        RingOverflow: ``(rows * bound + 16 * noise) * 2^bits`` reaches 2^63.
    """
    largest = (rows * bound + NOISE_TAIL * noise_scale) * 2.0**bits
    if not largest < 2.0**63:
        needed = math.log2(largest) if 0 < largest < math.inf else math.inf
        raise RingOverflow(
            f"{rows} rows of size up to {bound:g} with {bits} fraction bits need {needed:.1f} of 63 bits."
        )
