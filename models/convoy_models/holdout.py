"""The hold-out of a joint risk run: who is in it, what is asked about it, and how sure the answer is.

Persons are held out by a public hash of their random link id, so both holders hold out the same ones
without a message, in every run of a contract. Held-out rows stay in the masked matrices; they are
multiplied by zero in every training sum, and all others by zero in every sum here.

What is asked (the log likelihood of a product of factors is bilinear as well, so nobody sees a
score). For a held-out person with capped claims y, joint expectation ``m = a b``, the insurer's own
expectation ``m0`` (trained without the held-out), all cut to the same public caps:

    gain = sum_i [ m0 - y log m0 ] - [ a b - y (log a + log b) ]          nats; > 0: joint is better

    holdout-alone      LOCAL     m0 + y (log a - log m0)
    holdout-expected   WEIGHTED  a b
    holdout-logs       WEIGHTED  y log b,  |log b| <= 1/2
    holdout-squares    LOCAL     y (log a - log m0)^2, for the interval
    holdout-observed   LOCAL     y      by level of the audited feature
    holdout-levels     WEIGHTED  a b    by level of the audited feature

Does not: charge less for held-out persons. They could be charged apart (disjoint persons compose in
parallel), but the ledgers know two cohorts; the evaluation is paid for by everybody in the joint one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from convoy_models.fixedpoint import FACTOR_BITS, Floats
from convoy_models.plan import EVALUATION_LOG_BOUND, EVALUATION_RATIO_BOUND, Plan

_SMALLEST: Final = 2.0**-FACTOR_BITS


def held_out(links: Sequence[bytes], holdout_milli: int) -> npt.NDArray[np.bool_]:
    """Return which persons are held out, (N,): a public hash of the link id below the share."""
    top = holdout_milli * (1 << 32) // 1000
    made = (hashlib.sha256(b"convoy holdout/1\0" + link).digest() for link in links)
    return np.array([int.from_bytes(digest[:4], "big") < top for digest in made], dtype=bool)


def log_factor(factor: Floats) -> Floats:
    """Return the OEM factor's log, cut to [-bound, bound]: (N,)."""
    logs = np.log(np.maximum(factor, _SMALLEST))
    return np.clip(logs, -EVALUATION_LOG_BOUND, EVALUATION_LOG_BOUND)


def insurer_gain(purpose: str, own: Floats, alone: Floats, claims: Floats, cap: float) -> Floats:
    """Return what a held-out person adds to a LOCAL sum of the evaluation, (N,).

    Args:
        purpose: of the planned query.
        own: joint model's insurer factor, exposure included.
        alone: the insurer's own expected claims, exposure included.
        claims: capped.
        cap: on an expected count of a person.
    """
    if purpose == "holdout-observed":
        return claims
    ratio = np.log(np.maximum(own, _SMALLEST)) - np.log(np.maximum(alone, _SMALLEST))
    ratio = np.clip(ratio, -EVALUATION_RATIO_BOUND, EVALUATION_RATIO_BOUND)
    if purpose == "holdout-squares":
        return np.asarray(claims * ratio**2)
    return np.asarray(np.minimum(alone, cap) + claims * ratio)


@dataclass(frozen=True, slots=True)
class Level:
    """Observed and expected claims of one audited group, with the standard deviation of the noise of each."""

    name: str
    observed: float
    expected: float
    observed_sd: float
    expected_sd: float

    @property
    def ratio(self) -> float:
        """Observed / expected; NaN where the noise is larger than what is expected."""
        return self.observed / self.expected if self.expected > 2 * self.expected_sd else float("nan")

    @property
    def ratio_sd(self) -> float:
        """Standard deviation of the ratio: noise of both, and chance of the observed count."""
        if not self.expected > 2 * self.expected_sd:
            return float("nan")
        chance = max(self.observed, 1.0)
        return math.sqrt(chance + self.observed_sd**2 + (self.ratio * self.expected_sd) ** 2) / self.expected


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Joint against alone on the hold-out, under differential privacy.

    Attributes:
        gain: log likelihood that joining adds over all held-out persons, nats (half the deviance).
        noise_sd: of the DP noise in ``gain``; ``chance_sd``: of the draw of the hold-out (an upper estimate).
        claims: observed claims of the hold-out, noisy.
        audited: feature whose levels are ``levels``.
    """

    gain: float
    noise_sd: float
    chance_sd: float
    claims: float
    audited: str
    levels: tuple[Level, ...]

    @property
    def sd(self) -> float:
        """Standard deviation of ``gain``, noise and chance together."""
        return math.hypot(self.noise_sd, self.chance_sd)

    def interval(self, z: float = 1.959964) -> tuple[float, float]:
        """Return the interval of ``gain``, 95 % by default."""
        return self.gain - z * self.sd, self.gain + z * self.sd


def read_evaluation(
    plan: Plan, opened: Mapping[str, Floats], audited: str, names: Sequence[str], claim_cap: int
) -> Evaluation:
    """Combine the opened sums of the evaluation.

    Args:
        plan: of the run, with evaluation queries.
        opened: sums by query id.
        audited: feature of the levels; names: its levels or knots, in design order.
        claim_cap: of the specification.
    """
    by = {str(query.purpose): query for query in plan.evaluation.queries}
    total = {purpose: float(opened[query.id].sum()) for purpose, query in by.items()}
    noise = {purpose: query.noise_sd * math.sqrt(query.size) for purpose, query in by.items()}
    observed, expected = opened[by["holdout-observed"].id], opened[by["holdout-levels"].id]
    claims = max(total["holdout-observed"], 1.0)
    parts = ("holdout-alone", "holdout-expected", "holdout-logs")
    gain = total["holdout-alone"] - total["holdout-expected"] + total["holdout-logs"]
    noise_sd = math.sqrt(sum(noise[part] ** 2 for part in parts))
    # Chance: the claims' log ratios. Ours are asked; the OEM's are at most half the bound on average (root mean square).
    own = math.sqrt(max(total["holdout-squares"], 0.0) * claim_cap)
    theirs = math.sqrt(claims * claim_cap) * EVALUATION_LOG_BOUND / 2
    levels = tuple(
        Level(
            str(name),
            float(o),
            float(e),
            by["holdout-observed"].noise_sd,
            by["holdout-levels"].noise_sd,
        )
        for name, o, e in zip(names, observed, expected, strict=True)
    )
    return Evaluation(gain, noise_sd, math.hypot(own, theirs), total["holdout-observed"], audited, levels)
