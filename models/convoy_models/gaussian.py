"""Exact discrete Gaussians, many at a time: the sampler behind ``noise.DiscreteGaussian``.

    N_Z(0, sigma^2):   P(n) proportional to exp(-n^2 / (2 sigma^2)),  n an integer

Guarantee: the distribution is the one above to the last bit, for the float64 ``sigma`` as the rational number that it
is. Floats only decide comparisons that are not close: ``U < exp(-q)`` is compared with a margin of 2^-36, the rounding of
``q`` and of ``exp`` is below 2^-42, and what falls inside the margin (once in some 10^10 draws) is decided by rational
arithmetic on further random bits. So there is no floating-point leak (Mironov 2012). Random bits come from the
operating system; there is no seed.

Does not: hide how long it takes. As with every rejection sampler the time depends on how many candidates were refused,
not on those that were taken.

A candidate, from independent uniform U, V in [0, 1), j in 0 .. ceil(sigma) - 1 and a sign:

1. ``k = max {k : U < exp(-k/2)}``, so P(k) is proportional to exp(-k/2);
2. ``n = ceil(k sigma) + j``; refused where ``n >= (k + 1) sigma``, so every integer of the k-th interval is as likely;
3. taken if ``V < exp(-q)`` with ``q = (n^2 / sigma^2 - k) / 2 >= 0``: both together are exp(-n^2 / (2 sigma^2));
4. the sign; ``-0`` is refused, or zero would count twice.

Source: Karney 2016, "Sampling exactly from the normal distribution", ACM TOMS 42(1), Algorithm D, arXiv:1303.6257.
Deviations: his two coin loops for k are one uniform number (step 1), his last loop is one comparison (step 3); both draw
further bits only where the first 64 do not decide, as his U-rands do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bits = Callable[[int], bytes]
"""Return that many random bytes."""
Words = NDArray[np.uint64]

MARGIN: Final = 2.0**-36
"""Relative distance below which a comparison of floats is not believed; above all rounding by a factor of 64."""
LARGEST_K: Final = 15
"""Steps beyond it are taken once in e^120 candidates; floats do not decide them."""
ROOM: Final = 1.15
"""Candidates are asked for with this surplus, and again where they did not suffice."""
CHUNK: Final = 65_536
"""Draws made together: bounds memory, changes nothing else."""
_ONE: Final = 1 << 64
_LIMIT: Final = (1 << 63) - 1


def discrete_gaussian(sigma: float, size: int, bits: Bits = os.urandom) -> NDArray[np.int64]:
    """Return ``size`` independent draws of N_Z(0, sigma^2).

    Args:
        sigma: grid steps, 1 <= sigma <= 2^58 (``noise.check_scale`` asks for more). A draw beyond 2^63 - 1 is cut to it;
            at the largest sigma that is one in 2^700.
        size: >= 0.
        bits: the operating system's, and nothing else outside tests.
    """
    parts: list[NDArray[np.int64]] = []
    left = size
    while left > 0:
        # About half of the candidates pass step 3, and sigma / 2^bit_length of them step 2.
        hope = 0.49 * sigma / (1 << (math.ceil(sigma) - 1).bit_length())
        parts.append(_taken(sigma, math.ceil(ROOM * min(left, CHUNK) / hope) + 16, bits)[:left])
        left -= parts[-1].size
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _taken(sigma: float, count: int, bits: Bits) -> NDArray[np.int64]:
    """Return those of ``count`` candidates that are taken, in their order."""
    first, offset, second, signs = (np.frombuffer(bits(8 * count), dtype=np.uint64) for _ in range(4))
    top = math.ceil(sigma)
    j = offset >> np.uint64(64 - max((top - 1).bit_length(), 1))
    inside = j < np.uint64(top)
    # Most candidates need no more than this: k from the table, the rest in floats with a margin.
    k = np.searchsorted(_ends(), ~first, side="right")
    is_close = _is_end(first)
    is_far = k > LARGEST_K
    starts, stops = _starts(sigma)
    at = np.minimum(k, LARGEST_K)
    n = starts[at] + j.astype(np.int64)
    inside &= is_far | is_close | (n < stops[at])
    ratio = n.astype(np.float64) / sigma
    chance = np.exp((at - ratio * ratio) / 2)
    low, high = second.astype(np.float64) / _ONE, (second.astype(np.float64) + 1.0) / _ONE
    taken = high <= chance * (1 - MARGIN)
    unsure = ~taken & (low < chance * (1 + MARGIN))
    # A far step is taken with a chance below e^-120 < 2^-64: refused unless all 64 bits of V are zero.
    unsure = np.where(is_far, second == 0, unsure) | is_close
    taken &= ~unsure & ~is_far & inside
    negative = (signs >> np.uint64(63)).astype(bool)
    value = np.where(negative, -n, n)
    taken &= ~(negative & (n == 0))
    for place in np.flatnonzero(unsure & inside):
        found = _decided(sigma, int(first[place]), int(j[place]), int(second[place]), bool(negative[place]), bits)
        taken[place] = found is not None
        value[place] = 0 if found is None else found
    return value[taken]


def _decided(sigma: float, first: int, j: int, second: int, is_negative: bool, bits: Bits) -> int | None:
    """Return a candidate's number, or None where it is refused; every step in rational arithmetic."""
    spread, k, u = Fraction(sigma), 0, Uniform(first, bits)
    while u.is_below(Fraction(k + 1, 2)):
        k += 1
    n = math.ceil(k * spread) + j
    if n >= (k + 1) * spread or (is_negative and n == 0):
        return None
    if not Uniform(second, bits).is_below((n * n / spread**2 - k) / 2):
        return None
    return max(-_LIMIT, min(_LIMIT, -n if is_negative else n))


class Uniform:
    """A uniform number in [0, 1) of which 64 bits are known; further ones are drawn where they matter.

    Args:
        first: the first 64 bits.
        bits: source of the others.
    """

    def __init__(self, first: int, bits: Bits) -> None:
        self._bits, self._known, self._length = bits, first, 64

    def is_below(self, exponent: Fraction) -> bool:
        """Return whether it is less than exp(-exponent), exponent >= 0; never wrong, whatever the rounding."""
        if exponent == 0:
            return True
        while True:
            low, high = _exp_between(exponent, self._length + 32)
            if Fraction(self._known + 1, 1 << self._length) <= low:
                return True
            if Fraction(self._known, 1 << self._length) >= high:
                return False
            self._known = self._known << 64 | int.from_bytes(self._bits(8), "big")
            self._length += 64


def _exp_between(exponent: Fraction, bits: int) -> tuple[Fraction, Fraction]:
    """Return bounds of exp(-exponent), exponent > 0, that differ by less than 2^-bits of it, roughly.

    ``decimal`` rounds division and exp correctly, so each is off by less than one unit of the last digit; with D digits the
    argument is off by |q| 10^(1-D), and exp by as much, relatively, plus its own 10^(1-D).
    """
    digits = math.ceil(bits * 0.302) + len(str(math.ceil(exponent))) + 4
    context = Context(prec=digits, Emin=-(10**9), Emax=10**9)
    argument = context.divide(Decimal(exponent.numerator), Decimal(exponent.denominator))
    middle = Fraction(context.exp(argument.copy_negate()))
    error = 2 * (exponent + 1) * Fraction(1, 10 ** (digits - 1))
    return middle * (1 - error), middle * (1 + error)


@cache
def _ends() -> Words:
    """Return ~floor(exp(-k/2) 2^64) for k = 1, 2, ... while it is positive: increasing, for ``searchsorted`` of ~U."""
    out: list[int] = []
    k = 1
    while True:
        floor = math.floor(_exp_between(Fraction(k, 2), 256)[0] * _ONE)  # no bound of these is that near to an integer
        if floor == 0:
            return np.array(out, dtype=np.uint64)
        out.append(_ONE - 1 - floor)
        k += 1


def _is_end(first: Words) -> NDArray[np.bool_]:
    """Return where 64 bits do not say on which side of a step U lies: one in 2^57."""
    ends = _ends()
    place = np.minimum(np.searchsorted(ends, ~first), ends.size - 1)
    return np.asarray((ends[place] == ~first) | (first == 0), dtype=np.bool_)


@lru_cache(maxsize=256)
def _starts(sigma: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ceil(k sigma) and ceil((k + 1) sigma), k = 0 .. LARGEST_K, exactly."""
    ends = [math.ceil(k * Fraction(sigma)) for k in range(LARGEST_K + 2)]
    return np.array(ends[:-1], dtype=np.int64), np.array(ends[1:], dtype=np.int64)
