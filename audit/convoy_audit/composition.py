"""What several runs cost a person together, from what each of them was stated to cost.

    composed_micro(epsilons_micro: Iterable[int], delta_nano: int) -> int      micro-epsilon, rounded up

Every run is a Gaussian mechanism with a parameter mu (Gaussian differential privacy: Dong, Roth, Su 2022, Cor. 2.13 and 3.3):
mu^2 adds up, epsilon does not. The mu of a run is the smallest whose curve reaches its (epsilon, delta), rounded up, so the result
is never less than what a ledger that kept mu^2 itself would say, and more only by rounding. Same unit (person), adversary and
assumptions as the statements. Where no delta is known epsilons are added, which is never too little either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

_MU_MOST: Final = 60.0
_MOST_MICRO: Final = 500_000_000
"""Beyond an epsilon of 500 in all nothing is promised anyway; sums stay sums, and floats in their range."""
_STEPS: Final = 200


def composed_micro(epsilons_micro: Iterable[int], delta_nano: int) -> int:
    """Return the epsilon of runs together.

    Args:
        epsilons_micro: of each run at this delta, in millionths; 0 for a run that spent nothing.
        delta_nano: in billionths.
    """
    spent = [micro for micro in epsilons_micro if micro > 0]
    if len(spent) < 2:
        return sum(spent)
    delta = delta_nano / 1e9
    if not 0 < delta < 1 or sum(spent) > _MOST_MICRO:
        return sum(spent)
    mus = [_mu(micro / 1e6, delta) for micro in spent]
    mu = math.sqrt(math.fsum(one * one for one in mus)) * (1 + 1e-12)
    return min(sum(spent), math.ceil(_epsilon(mu, delta) * 1e6))


def _delta(mu: float, epsilon: float) -> float:
    """Return the delta of a mu-GDP mechanism at epsilon."""
    first, second = _normal(mu / 2 - epsilon / mu), _normal(-mu / 2 - epsilon / mu)
    return first - math.exp(epsilon) * second if second else first


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def _mu(epsilon: float, delta: float) -> float:
    """Return the smallest mu, rounded up, whose delta at epsilon is that large."""
    low, high = 0.0, _MU_MOST
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _delta(middle, epsilon) < delta else (low, middle)
    return high


def _epsilon(mu: float, delta: float) -> float:
    """Return the smallest epsilon, rounded up, at which the delta of mu is small enough."""
    low, high = 0.0, mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0  # the zCDP bound lies above the curve
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _delta(mu, middle) > delta else (low, middle)
    return high
