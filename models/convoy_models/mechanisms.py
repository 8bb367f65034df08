"""Mixed mechanisms: Gaussian sums and Poisson-subsampled ones (DP-SGD) in one ledger.

A ledger adds up ``mu^2`` (``accounting``). A sampled Gaussian is not mu-GDP for any useful mu: with
probability q a person is in a batch unprotected by sampling, and the far tail of its privacy loss
shows that. But cut off that tail at a probability ``tail`` and it is: ``envelope`` finds the
smallest mu such that for every epsilon

    delta_mechanism(epsilon)  <=  tail + (1 - tail) delta_mu(epsilon).                          (1)

The right side is the curve of the mechanism "with probability ``tail`` publish everything, else a
mu-GDP mechanism", which therefore dominates (Zhu, Dong, Wang 2022, arXiv:2106.08567, Prop. 2 and
Thm. 10: dominating pairs compose, adaptively too). Charging (mu^2, tail) keeps the ledger's
arithmetic: mu^2 add up, tails add up, and what is used costs epsilon at ``delta - sum of tails``.
(1) is checked, not fitted: between two grid points delta_mechanism is at most its value on the
left and delta_mu at least its value on the right; curves of the mechanism are dp-accounting's
pessimistic PLD in both directions (add and remove).

Amplification holds only where nobody outside the node knows who is in a batch: Poisson sampling,
inside one node, secret, with a fixed public expected batch size. It is refused for sums over
persons whom two parties hold (``forbid_sampling_of_joint_rows``): both know the rows.

What no accountant here covers raises ``UnsupportedEvent``: fixed-size batches, shuffling, sampling
with replacement, Laplace, and whatever is new. Nothing is ever guessed.

Source: Mironov, Talwar, Zhang 2019, arXiv:1908.10530 (mechanism); Doroshenko et al. 2022,
arXiv:2207.04380 (PLD). The envelope is ours; tests compare it with dp-accounting's own PLD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from convoy_models.accounting import MU2_UNITS, GaussianEvent, delta_of, epsilon_of
from convoy_models.errors import AccountingRefused

if TYPE_CHECKING:
    from dp_accounting import DpEvent

TAIL_SHARE: Final = 50
"""An envelope's tail is delta / 50 by default: epsilon grows by under 2 % for it."""
_STEP: Final = 0.01
_INTERVAL: Final = 1e-4
_MU_TOP: Final = 30.0


class UnsupportedEvent(AccountingRefused):
    """A mechanism that the accountant does not cover; it is refused rather than guessed."""

    code = "UNSUPPORTED_EVENT"
    fix = "Use Gaussian sums, or Poisson-sampled Gaussian steps inside one node; then the cost can be stated."
    fix_zh = "请使用高斯求和，或在单一节点内使用泊松抽样的高斯步骤；这样才能给出开销。"


@dataclass(frozen=True, slots=True)
class SampledGaussian:
    """``steps`` DP-SGD steps: each person in a step with probability ``rate``, by a secret coin of its node.

    Args:
        sensitivity: L2 clip per person of one step's sum.
        sigma: noise of one step's sum, same unit.
        rate: in (0, 1]; 1 is no sampling.
        steps: how many steps, >= 1.

    Raises:
        AccountingRefused: numbers outside these ranges.
    """

    sensitivity: float
    sigma: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        GaussianEvent(self.sensitivity, self.sigma)
        if not (math.isfinite(self.rate) and 0 < self.rate <= 1):
            raise AccountingRefused(f"a sampling rate of {self.rate!r} is not in (0, 1].")
        if type(self.steps) is not int or self.steps < 1:
            raise AccountingRefused(f"{self.steps!r} is not a number of steps.")

    @property
    def multiplier(self) -> float:
        """Noise per unit of sensitivity."""
        return self.sigma / self.sensitivity


Mechanism = GaussianEvent | SampledGaussian


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a ledger is charged: ``mu2`` (rounded up to 1e-12) and the probability ``tail`` that (1) sets aside."""

    mu2: float
    tail: float

    def epsilon(self, delta: float) -> float:
        """Return epsilon at ``delta``, rounded up.

        Raises:
            AccountingRefused: the tail uses up delta.
        """
        return epsilon_of(self.mu2, left_of(delta, self.tail))


def left_of(delta: float, tail: float) -> float:
    """Return what of delta is left for the Gaussian curve once tails are set aside.

    Raises:
        AccountingRefused: nothing is left.
    """
    if tail == 0:
        return delta
    if not 0 <= tail < delta:
        raise AccountingRefused("the tails of sampled mechanisms use up delta; no epsilon can be stated.")
    return (delta - tail) * (1 - 1e-12)


def envelope(events: Sequence[Mechanism], tail: float) -> Envelope:
    """Return the charge of all events together: exact for Gaussian sums, (1) for sampled ones.

    Args:
        events: composed; their parameters are fixed beforehand (a run's plan).
        tail: probability that may be set aside for all sampled events of this call, in (0, 1).

    Raises:
        UnsupportedEvent: something that is neither.
        AccountingRefused: a tail out of range, or events beyond any meaningful guarantee.
    """
    gaussian: list[float] = []
    sampled: list[SampledGaussian] = []
    for event in events:
        if isinstance(event, GaussianEvent):
            gaussian.append(event.mu2)
        elif isinstance(event, SampledGaussian):
            if event.rate == 1:
                gaussian.append(event.steps / event.multiplier**2)
            else:
                sampled.append(event)
        else:
            raise UnsupportedEvent(f"{type(event).__name__} has no known cost.")
    mu2 = math.fsum(gaussian)
    if not sampled:
        return Envelope(_up(mu2), 0.0)
    if not 0 < tail < 1:
        raise AccountingRefused(f"a tail of {tail!r} is not in (0, 1).")
    key = tuple(sorted((event.multiplier, event.rate, event.steps) for event in sampled))
    return Envelope(_up(mu2 + _sampled_mu(key, tail) ** 2), tail)


def mixed_epsilon(events: Sequence[Mechanism], delta: float) -> float:
    """Return an upper bound of epsilon by dp-accounting's PLD over all events: the second opinion.

    Raises:
        UnsupportedEvent: an event that dp-accounting or this module does not cover.
    """
    return float(_accountant([to_dp_event(event) for event in events]).get_epsilon(delta))


def to_dp_event(event: Mechanism) -> DpEvent:
    """Return an event in dp-accounting's words.

    Raises:
        UnsupportedEvent: not a mechanism of this module.
    """
    import dp_accounting as dp

    if isinstance(event, GaussianEvent):
        return dp.GaussianDpEvent(event.sigma / event.sensitivity)
    if isinstance(event, SampledGaussian):
        step: Any = dp.GaussianDpEvent(event.multiplier)
        if event.rate < 1:
            step = dp.PoissonSampledDpEvent(event.rate, step)
        return dp.SelfComposedDpEvent(step, event.steps)
    raise UnsupportedEvent(f"{type(event).__name__} has no known cost.")


def from_dp_event(event: DpEvent) -> list[Mechanism]:
    """Read dp-accounting's (so Opacus', TensorFlow Privacy's) description of a training into mechanisms.

    Understood: Gaussian, Poisson-sampled Gaussian, composition and self-composition of these, and
    no-op. Sensitivity is taken as 1, sigma as the noise multiplier.

    Raises:
        UnsupportedEvent: anything else, at any depth.
    """
    import dp_accounting as dp

    match event:
        case dp.NoOpDpEvent():
            return []
        case dp.GaussianDpEvent():
            return [GaussianEvent(1.0, float(event.noise_multiplier))]
        case dp.PoissonSampledDpEvent():
            if not isinstance(event.event, dp.GaussianDpEvent):
                raise UnsupportedEvent(f"Poisson sampling of {type(event.event).__name__} has no known cost.")
            return [SampledGaussian(1.0, float(event.event.noise_multiplier), float(event.sampling_probability), 1)]
        case dp.SelfComposedDpEvent():
            return _repeated(from_dp_event(event.event), int(event.count))
        case dp.ComposedDpEvent():
            return [mechanism for part in event.events for mechanism in from_dp_event(part)]
    raise UnsupportedEvent(f"{type(event).__name__} has no known cost.")


def forbid_sampling_of_joint_rows(events: Iterable[Mechanism], cohort: str) -> None:
    """Refuse amplification where two parties know who is in a batch.

    Raises:
        UnsupportedEvent: a sampled event over the joint cohort.
    """
    if cohort == "joint" and any(isinstance(event, SampledGaussian) and event.rate < 1 for event in events):
        raise UnsupportedEvent("both holders know the rows of a joint cohort; sampling amplifies nothing there.")


def _repeated(mechanisms: list[Mechanism], count: int) -> list[Mechanism]:
    if count < 0:
        raise UnsupportedEvent(f"{count} repetitions have no known cost.")
    out: list[Mechanism] = []
    for mechanism in mechanisms if count else []:
        if isinstance(mechanism, SampledGaussian):
            out.append(SampledGaussian(mechanism.sensitivity, mechanism.sigma, mechanism.rate, mechanism.steps * count))
        else:
            out.append(GaussianEvent(mechanism.sensitivity, mechanism.sigma / math.sqrt(count)))
    return out


def _accountant(events: Sequence[DpEvent]) -> Any:
    import dp_accounting as dp
    from dp_accounting import pld

    accountant = pld.PLDAccountant(value_discretization_interval=_INTERVAL)
    for event in events:
        if not accountant.supports(event):
            raise UnsupportedEvent(f"dp-accounting does not support {type(event).__name__}.")
        accountant.compose(event)
    if not events:
        accountant.compose(dp.NoOpDpEvent())
    return accountant


@lru_cache(maxsize=256)
def _sampled_mu(key: tuple[tuple[float, float, int], ...], tail: float) -> float:
    """Return the smallest mu, rounded up to 1e-9, that satisfies (1) on every interval of the grid."""
    accountant = _accountant([to_dp_event(SampledGaussian(1.0, m, rate, steps)) for m, rate, steps in key])
    end = float(accountant.get_epsilon(tail))
    if not math.isfinite(end):
        raise AccountingRefused("these steps are beyond every meaningful guarantee.")
    grid = np.arange(0.0, end + _STEP, min(_STEP, max(end, 1e-6) / 64))
    deltas = [float(delta) for delta in accountant.get_delta(grid)]  # the whole grid at once: 7 times as fast

    def holds(mu: float) -> bool:
        return all(
            delta <= tail + (1 - tail) * delta_of(mu, float(right))
            for delta, right in zip(deltas[:-1], grid[1:], strict=True)
        )

    low, high = 0.0, _MU_TOP
    if not holds(high):
        raise AccountingRefused("these steps are beyond every meaningful guarantee.")
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if middle > 0 and holds(middle) else (middle, high)
    return high


def _up(mu2: float) -> float:
    return math.ceil(mu2 * MU2_UNITS - 1e-3) / MU2_UNITS
