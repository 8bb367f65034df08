"""What joining would be worth, before anybody signs: from public priors and counts, with its uncertainty.

Nothing is asked of anybody: the figures rest on what was measured on generated drivers
(private_ml.md §10 and models/LOG.md), on the specification, and on how many persons there are.

    alone(n)    = A / (1 + n_a / n)                      an insurer's own model, n customers
    joint(N, mu) = D / (1 + (x0 / (N mu))^p)              N persons in the joint cohort

``x = N mu`` is what decides: noise per person falls with both. Measured (112 terms, three insurers, noise
of ``honest-one/1``), D2 in per cent: x 1,000: .8; 3,400: 3.1; 10,000: 4.6; 34,000: 5.3; 102,000: 5.4 (eps 4), and .26,
.78, 2.6, 5.0, 5.3 at a quarter of mu, so D = 5.45, x0 = 3,000, p = 1.6. x0 grows with the root of the number of
terms (``gates``) and of the noise that is really added. Alone: 1.90 at 10k customers, 2.15 at 30k, 2.2 at 60k, so
A = 2.3 and n_a = 2,100.

Does not: know your market. D and A are those of one generated world; how much driving data tell
differs between markets, which is why they are given a wide spread (a third up or down, one sd 15 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from convoy_contracts.specification import (
    RiskSpecification,
    Specification,
)
from convoy_models.accounting import mu_of
from convoy_models.card import show_delta, show_epsilon
from convoy_models.errors import ModelsError
from convoy_models.gates import cohort_floor

D_FULL, A_FULL, SPREAD = 5.45, 2.3, 0.15
X_HALF, X_POWER, X_SPREAD = 3_000.0, 1.6, 0.25
N_HALF, N_SPREAD = 2_100.0, 0.4
MEASURED_TERMS, MEASURED_NOISE = 112, 2.5
DRAWS: Final = 20_000


class ValueUnknown(ModelsError):
    """There is no public prior for this kind of model, or the counts make no forecast."""

    code = "VALUE_UNKNOWN"
    fix = "A forecast needs a risk-towers/1 specification with a carmaker, a book and a cohort of at least one person."
    fix_zh = "预测需要包含车企的 risk-towers/1 规格，以及至少一人的客户数与联合人数。"


@dataclass(frozen=True, slots=True)
class Range:
    """A forecast: median, and the 10th and 90th percentile."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What joining would be worth to an insurer.

    alone, joint, gain: D2 in per cent of deviance; chance: that joint is better than alone; floor: joint cohort below which
    noise eats the gain; epsilon_micro, delta_nano: cost per person of one run.
    """

    book: int
    cohort: int
    cohort_sd: float
    terms: int
    epsilon_micro: int
    delta_nano: int
    alone: Range
    joint: Range
    gain: Range
    chance: float
    floor: int

    @property
    def statement(self) -> str:
        """The sentence that a manager reads."""
        return (
            f"Your book {self.book:,}, joint cohort about {self.cohort:,}: alone {self.alone.middle:.1f} "
            f"({self.alone.low:.1f}-{self.alone.high:.1f}), joint {self.joint.middle:.1f} "
            f"({self.joint.low:.1f}-{self.joint.high:.1f}) per cent of deviance explained; joining pays with probability "
            f"{self.chance:.0%}; costs epsilon {show_epsilon(self.epsilon_micro)} per person and run (delta "
            f"{show_delta(self.delta_nano)}, towards the coordinator and every recipient)."
        )


def forecast(
    specification: Specification, insurers: int, book: int, cohort: int, cohort_sd: float = 0.0, seed: int = 0
) -> Forecast:
    """Forecast the value of a joint risk run for an insurer.

    Args:
        specification: of the contract's algorithm.
        insurers: how many take part.
        book: the insurer's customers.
        cohort: persons in the joint cohort, over all insurers.
        cohort_sd: standard deviation of the noise in ``cohort``, if it is a count under differential privacy.
        seed: of the draws; the same arguments give the same forecast.

    Raises:
        ValueUnknown: no prior for this kind, or numbers that make no forecast.
    """
    if not isinstance(specification, RiskSpecification):
        raise ValueUnknown(f"there is no public prior for a model of kind {specification.kind}.")
    if len(specification.towers) < 2 or insurers < 1 or book < 1 or cohort < 1 or not cohort_sd >= 0:
        raise ValueUnknown("no carmaker, or a book or a cohort of nobody.")
    terms = sum(feature.width for tower in specification.towers for feature in tower.features)
    limit, share, held = _training(specification)
    noise = 2.0 if insurers == 1 else 1 + insurers / (insurers - 1)
    half = X_HALF * math.sqrt(terms / MEASURED_TERMS * noise / MEASURED_NOISE)
    random = np.random.default_rng(seed)
    full = D_FULL * np.exp(SPREAD * random.normal(size=DRAWS))
    own = np.minimum(A_FULL * np.exp(SPREAD * random.normal(size=DRAWS)), full)
    persons = np.maximum(cohort + cohort_sd * random.normal(size=DRAWS), 1.0) * (1 - held)
    x = persons * math.sqrt(limit * (1 - share))
    joint = full / (1 + (half * np.exp(X_SPREAD * random.normal(size=DRAWS)) / x) ** X_POWER)
    alone = own / (1 + N_HALF * np.exp(N_SPREAD * random.normal(size=DRAWS)) / book)
    return Forecast(
        book=book,
        cohort=cohort,
        cohort_sd=cohort_sd,
        terms=terms,
        epsilon_micro=specification.epsilonMicro,
        delta_nano=specification.deltaNano,
        alone=_range(alone),
        joint=_range(joint),
        gain=_range(joint - alone),
        chance=float(np.mean(joint > alone)),
        floor=cohort_floor(math.sqrt(limit), terms),
    )


def _training(spec: RiskSpecification) -> tuple[float, float, float]:
    """Return mu^2 of the run, the share that its evaluation takes, and the share of persons held out."""
    limit = mu_of(spec.epsilonMicro / 1e6, spec.deltaNano / 1e9) ** 2
    if spec.evaluation is None:
        return limit, 0.0, 0.0
    return limit, spec.evaluation.shareMilli / 1000, spec.evaluation.holdoutMilli / 1000


def _range(draws: np.ndarray) -> Range:
    low, middle, high = (float(value) for value in np.quantile(draws, (0.1, 0.5, 0.9)))
    return Range(middle, low, high)
