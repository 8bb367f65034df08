"""Gaussian differential privacy: what a run costs a person, and whether it still fits.

Promises. Unit: person (the consent subject). Relation: add or remove all records of one person. A
noisy sum with L2 sensitivity ``s`` and noise ``sigma`` is mu-GDP with ``mu = s / sigma``; sums
compose exactly by adding ``mu^2``, also when each is chosen in the light of earlier answers;
refusing once the total would pass a limit is a valid filter. ``epsilon_of`` is rounded up and
``mu_of`` down, so that ``epsilon_of(mu_of(e, d) ** 2, d) <= e`` always.

Not covered, and refused: subsampled mechanisms (``AccountingRefused``), and any delta other than
the one asked about. The discrete Gaussian at ring scales (>= 2^4 grid steps) follows the
continuous curve to far below 1e-12 (Canonne, Kamath, Steinke 2020, arXiv:2004.00010, Thm. 7),
which is why the closed form applies.

Source: Dong, Roth, Su 2019, arXiv:1905.02383, Cor. 2.13 (curve) and Cor. 3.3 (composition); Balle
& Wang 2018, arXiv:1805.06530, Thm. 8 (the same curve); Koskela, Tobaben, Honkela 2022,
arXiv:2209.15596 (the filter).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import log_ndtr

from convoy_models.errors import AccountingRefused

EPSILON_STEP = 1e-9
"""Epsilon is rounded up to this grid; ``mu_of`` leaves as much room."""
MU2_UNITS = 10**12
"""A ledger keeps mu^2 as whole units of 1e-12, so that sums do not depend on their order."""
_MU_MAX = 60.0


@dataclass(frozen=True, slots=True)
class GaussianEvent:
    """One noisy sum: L2 sensitivity per person and the noise that remains for the adversary.

    Raises:
        AccountingRefused: a number that is not finite and positive.
    """

    sensitivity: float
    sigma: float

    def __post_init__(self) -> None:
        for name, value in (("sensitivity", self.sensitivity), ("sigma", self.sigma)):
            if not (math.isfinite(value) and value > 0):
                raise AccountingRefused(f"{name} of a noisy sum is {value!r}; it must be positive and finite.")

    @property
    def mu2(self) -> float:
        """The cost of the event, ``(sensitivity / sigma)^2``."""
        return (self.sensitivity / self.sigma) ** 2


def delta_of(mu: float, epsilon: float) -> float:
    """Return the smallest delta of a mu-GDP mechanism at ``epsilon`` (Dong et al., Cor. 2.13)."""
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return -math.exp(first) * math.expm1(second - first) if second < first else 0.0


def mu_of(epsilon: float, delta: float) -> float:
    """Return the largest mu whose curve stays at or below (epsilon, delta), rounded down.

    Args:
        epsilon: > 0.
        delta: in (0, 1).

    Raises:
        AccountingRefused: numbers outside these ranges, or an epsilon beyond mu = 60.
    """
    _check_delta(delta)
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise AccountingRefused(f"epsilon is {epsilon!r}; it must be positive and finite.")
    if delta_of(_MU_MAX, epsilon) < delta:
        raise AccountingRefused(f"epsilon {epsilon} is beyond every meaningful guarantee (mu > {_MU_MAX:g}).")
    low = delta  # delta_of(mu, 0) ~ mu / sqrt(2 pi) < delta at mu = delta
    mu = float(brentq(lambda m: delta_of(m, epsilon) - delta, low, _MU_MAX, xtol=1e-15, rtol=1e-15))
    return _lower(mu, epsilon, delta)


def epsilon_of(mu2: float, delta: float) -> float:
    """Return the epsilon at ``delta`` of sums that cost ``mu2`` together, rounded up to 1e-9.

    Raises:
        AccountingRefused: ``mu2`` negative or not finite, or delta outside (0, 1).
    """
    _check_delta(delta)
    if not (math.isfinite(mu2) and mu2 >= 0):
        raise AccountingRefused(f"mu^2 is {mu2!r}; it must be finite and not negative.")
    mu = math.sqrt(mu2)
    if mu == 0 or delta_of(mu, 0.0) <= delta:
        return 0.0
    high = mu * mu / 2 + mu * math.sqrt(2 * math.log(1 / delta)) + 1.0  # zCDP bound: always above the curve
    exact = float(brentq(lambda e: delta_of(mu, e) - delta, 0.0, high, xtol=1e-13, rtol=1e-15))
    return math.ceil(exact / EPSILON_STEP) * EPSILON_STEP


def gaussian_mu2(sensitivity: float, sigma: float) -> float:
    """Return the cost mu^2 of one noisy sum.

    Raises:
        AccountingRefused: a number that is not finite and positive.
    """
    return GaussianEvent(sensitivity, sigma).mu2


def units_of(mu2: float) -> int:
    """Return mu^2 in whole ledger units of 1e-12, rounded up.

    A value that was rounded up to this grid before stays what it is (float error below 1e-3 units
    is not a unit; ``mu_of`` leaves a thousand times more room).
    """
    if not (math.isfinite(mu2) and mu2 >= 0):
        raise AccountingRefused(f"mu^2 is {mu2!r}; it must be finite and not negative.")
    return math.ceil(mu2 * MU2_UNITS - 1e-3)


def mu2_of_units(units: int) -> float:
    """Return mu^2 of ledger units."""
    if units < 0:
        raise AccountingRefused(f"{units} ledger units; a ledger never goes below zero.")
    return units / MU2_UNITS


def micro(epsilon: float) -> int:
    """Return epsilon in millionths, rounded up; this is the unit of contracts and displays."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise AccountingRefused(f"epsilon is {epsilon!r}; it must be finite and not negative.")
    return math.ceil(round(epsilon * 1e6, 6))


def shown(epsilon: float, places: int = 3) -> str:
    """Return epsilon as people read it: rounded up to ``places`` decimals, never to the nearest."""
    whole = -(-micro(epsilon) // 10 ** (6 - places))
    return f"{whole / 10**places:.{places}f}"


def spent_micro(mu2_used: float, mu2_request: float, delta: float, request_micro: int) -> int:
    """Return the ``spent`` to state so that a linear gate decides exactly the GDP filter.

    The gate permits when ``spent + request <= cap``; with this value that is ``epsilon(used +
    request) <= cap``.
    """
    return max(0, micro(epsilon_of(mu2_used + mu2_request, delta)) - request_micro)


def fits(mu2_used: float, mu2_request: float, delta: float, cap_micro: int) -> bool:
    """Tell whether a request stays within a cap: the GDP filter, before anything is spent."""
    return micro(epsilon_of(mu2_used + mu2_request, delta)) <= cap_micro


def runs_left(mu2_used: float, mu2_run: float, delta: float, cap_micro: int) -> int:
    """Return how many more runs of cost ``mu2_run`` fit under a cap."""
    if not mu2_run > 0:
        raise AccountingRefused("a run that costs nothing cannot be counted.")
    count = 0
    while fits(mu2_used + count * mu2_run, mu2_run, delta, cap_micro):
        count += 1
    return count


def independent_epsilon(events: Sequence[GaussianEvent], delta: float) -> float:
    """Return epsilon of the composed events as Google's dp-accounting computes it (not our code).

    Agrees with ``epsilon_of(sum of mu^2)`` to 1e-6; a test says so.
    """
    from dp_accounting import get_epsilon_gaussian

    _check_delta(delta)
    mu2 = total_mu2(events)
    return 0.0 if mu2 == 0 else float(get_epsilon_gaussian(1 / math.sqrt(mu2), delta))


def pld_epsilon(events: Sequence[GaussianEvent], delta: float, interval: float = 1e-4) -> float:
    """Return an upper bound of epsilon by privacy loss distributions, event by event.

    A second, numerical opinion that knows nothing of the closed form; it lies above it by about
    ``interval``.
    """
    import dp_accounting
    from dp_accounting import pld

    _check_delta(delta)
    accountant = pld.PLDAccountant(value_discretization_interval=interval)
    counts: dict[float, int] = {}
    for event in events:
        multiplier = event.sigma / event.sensitivity
        counts[multiplier] = counts.get(multiplier, 0) + 1
    for multiplier, count in counts.items():
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier), count)
    return float(accountant.get_epsilon(delta))


def total_mu2(events: Iterable[GaussianEvent]) -> float:
    """Return the cost of all events together."""
    return math.fsum(event.mu2 for event in events)


def _lower(mu: float, epsilon: float, delta: float) -> float:
    """Step down until the rounded-up epsilon of ``mu`` is within ``epsilon``."""
    for slack in (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4):
        candidate = mu * (1 - slack)
        if epsilon_of(candidate * candidate, delta) <= epsilon:
            return candidate
    raise AccountingRefused(f"no mu below epsilon {epsilon} at delta {delta} within rounding.")


def _check_delta(delta: float) -> None:
    if not (math.isfinite(delta) and 0 < delta < 1):
        raise AccountingRefused(f"delta is {delta!r}; it must lie between 0 and 1.")
