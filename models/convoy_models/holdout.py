"""The hold-out of a joint risk run: who is in it, what is asked about it, and how sure the answer is.

Persons are held out by a public hash of their random link id, so both holders hold out the same ones
without a message, in every run of a contract. Held-out rows stay in the masked matrices; they are
multiplied by zero in every training sum, and all others by zero in every sum here.

Every model in an opened sum is public (released under differential privacy), so a person moves a sum
by their own part only, which is cut to the query's clip. For a held-out person: capped claims ``y``,
years ``e``, joint expectation ``a b``, expectation ``s`` of the insurers' model without the carmaker
(the run's own solo cohort, or the joint insurer tower), prior expectation ``n = e priorRate``:

    observed  y, by level of the audited feature       levels    a b, likewise
    ratio     y (log a - log s)   cut to +-1/2         base      s
    score     y (log s - log n)   cut to +-3/2         years     n
    logs      y log b             cut to +-1/2         oem       n b
    null      y (log y - log n)   cut to [0, 6]        squares   (as ratio)^2, for the interval
    insurer   a
    bands     y, by ten bands of a / e                 band/k    a b of band k

Levels are corrected by every insurer on its own book (``risk.model.local_level``), so models are
compared at their best level: with ``Y = sum y`` and ``M = sum m``, the log likelihood of ``m`` is that of
``m Y / M``, and

    v(joint) - v(insurers) = Y log(S / AB) + ratio + logs         v(insurers) - v(one rate) = score - Y log(S / N)

What an insurer can do ALONE is not public: its model depends on its training rows in a way that no clip
bounds. So that comparison is made at home (``compare_alone``): the insurer adds its exact figures to a
noisy sum over its own held-out customers that only it can read (``plan_holdout``), and takes the mean
of the carmaker's factor from the opened sums. What leaves is one word - better, worse, undecided -
which is the insurer's own decision and is NOT covered by epsilon, as its veto is not.

Does not: charge less for held-out persons or for disjoint insurers (parallel composition); everybody in
the joint cohort pays for every sum.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from convoy_models.fixedpoint import FACTOR_BITS, Floats
from convoy_models.plan import EVALUATION_LOG_BOUND, EVALUATION_RATIO_BOUND, Plan
from convoy_models.plan_holdout import BANDS, NULL_BOUND, SCORE_BOUND

_SMALLEST: Final = 2.0**-FACTOR_BITS
BAND_EDGES: Final = (-0.6, -0.4, -0.25, -0.12, 0.0, 0.12, 0.25, 0.4, 0.6)
"""Log of the yearly insurer factor over the model's level where one band ends and the next begins; public."""
Z95: Final = 1.959964
Word = Literal["better", "worse", "undecided"]


def held_out(links: Sequence[bytes], holdout_milli: int) -> npt.NDArray[np.bool_]:
    """Return which persons are held out, (N,): a public hash of the link id below the share."""
    top = holdout_milli * (1 << 32) // 1000
    made = (hashlib.sha256(b"convoy holdout/1\0" + link).digest() for link in links)
    return np.array([int.from_bytes(digest[:4], "big") < top for digest in made], dtype=bool)


def log_factor(factor: Floats) -> Floats:
    """Return the OEM factor's log, cut to [-bound, bound]: (N,)."""
    logs = np.log(np.maximum(factor, _SMALLEST))
    return np.clip(logs, -EVALUATION_LOG_BOUND, EVALUATION_LOG_BOUND)


@dataclass(frozen=True, slots=True)
class InsurerRows:
    """What an insurer knows of its held-out persons, (N,) each.

    own: joint insurer factor ``a``, exposure included; base: ``s``; prior: ``n``; claims: capped.
    cap: on the expected count of a person.
    """

    own: Floats
    base: Floats
    prior: Floats
    claims: Floats
    cap: float

    def value(self, purpose: str, ratio: float = 1.0) -> Floats:
        """Return what each person adds to a LOCAL sum of one number, (N,).

        Args:
            purpose: of the planned query.
            ratio: public; by it ``base`` is corrected in the sums without one insurer.

        Raises:
            ValueError: a purpose that is no such sum.
        """
        y, s, n = self.claims, np.minimum(self.base, self.cap), np.minimum(self.prior, self.cap)
        match purpose:
            case "holdout-observed":
                return y
            case "holdout-base":
                return s
            case "holdout-insurer":
                return np.minimum(self.own, self.cap)
            case "holdout-years":
                return n
            case "holdout-ratio":
                return np.asarray(y * _log(self.own, self.base, EVALUATION_RATIO_BOUND))
            case "holdout-squares":
                return np.asarray(y * _log(self.own, self.base, EVALUATION_RATIO_BOUND) ** 2)
            case "holdout-score":
                return np.asarray(y * _log(self.base, self.prior, SCORE_BOUND))
            case "holdout-null":
                logs = np.clip(-np.log(np.maximum(self.prior, _SMALLEST)), 0.0, NULL_BOUND)
                return np.asarray(y * (np.log(np.maximum(y, 1.0)) + logs))
            case "holdout-less-base":
                corrected = np.minimum(ratio * self.base, self.cap)
                return np.asarray(corrected + y * _log(self.own, ratio * self.base, EVALUATION_RATIO_BOUND))
            case _:
                raise ValueError(purpose)


def band_of(own: Floats, years: Floats, edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """Return each person's band, (N,) in 0 .. 9, by the yearly insurer factor."""
    return np.asarray(np.searchsorted(np.asarray(edges, dtype=np.float64), own / years, side="right"), dtype=np.int64)


def _log(over: Floats, under: Floats, bound: float) -> Floats:
    logs = np.log(np.maximum(over, _SMALLEST)) - np.log(np.maximum(under, _SMALLEST))
    return np.asarray(np.clip(logs, -bound, bound))


@dataclass(frozen=True, slots=True)
class Level:
    """Observed and expected claims of one group, with the standard deviation of the noise of each."""

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
class Gain:
    """Log likelihood that one model has over another on the hold-out, nats (half the deviance).

    noise_sd: of the DP noise; chance_sd: of the draw of the hold-out (an upper estimate).
    """

    value: float
    noise_sd: float
    chance_sd: float

    @property
    def sd(self) -> float:
        """Standard deviation, noise and chance together."""
        return math.hypot(self.noise_sd, self.chance_sd)

    def interval(self, z: float = Z95) -> tuple[float, float]:
        """Return the interval, 95 % by default."""
        return self.value - z * self.sd, self.value + z * self.sd

    def low(self, confidence: float) -> float:
        """Return the lower end at a one-sided confidence."""
        return self.value - NormalDist().inv_cdf(confidence) * self.sd

    def high(self, confidence: float) -> float:
        """Return the upper end at a one-sided confidence."""
        return self.value + NormalDist().inv_cdf(confidence) * self.sd


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A joint model on the hold-out, under differential privacy.

    Attributes:
        together: over the insurers' own model without the carmaker.
        carmaker_mean: mean of the carmaker's factor, weighted by the insurers' part of the price.
        insurers: of that model over one rate for everybody; ``carmaker``: of the carmaker's factor alone over one rate.
        deviance: half the deviance of one rate, nats; gains in per cent of it are D2.
        claims: observed claims of the hold-out, noisy.
        audited: feature whose levels are ``levels``.
        bands: by ten bands of the insurers' part of the price.
        without: ``together`` without one insurer's customers, by party (K >= 4).
    """

    together: Gain
    insurers: Gain
    carmaker: Gain
    deviance: float
    claims: float
    audited: str
    levels: tuple[Level, ...]
    carmaker_mean: float = 1.0
    bands: tuple[Level, ...] = ()
    without: Mapping[str, Gain] | None = None

    def d2(self, gain: float) -> float:
        """Return a gain as per cent of the deviance of one rate."""
        return 100.0 * gain / self.deviance

    @property
    def d2_joint(self) -> float:
        """Deviance explained by the joint model, per cent."""
        return self.d2(self.insurers.value + self.together.value)

    @property
    def d2_insurers(self) -> float:
        """Deviance explained by the insurers' model without the carmaker, per cent."""
        return self.d2(self.insurers.value)

    @property
    def shares(self) -> Mapping[str, float]:
        """Shapley value of the two modules, D2 points: who brought what."""
        both = self.insurers.value + self.together.value
        oem = (both - self.insurers.value + self.carmaker.value) / 2
        return {"oem": self.d2(oem), "insurer": self.d2(both - oem)}


def read_evaluation(
    plan: Plan, opened: Mapping[str, Floats], audited: str, names: Sequence[str], claim_cap: int,
    less: Mapping[str, Floats] | None = None,
) -> Evaluation:  # fmt: skip
    """Combine the opened sums of the evaluation.

    Args:
        plan: of the run, with evaluation queries.
        opened: sums by query id, without those that an insurer opens at home.
        audited: feature of the levels; names: its levels or knots, in design order.
        claim_cap: of the specification.
        less: the sums without one insurer, asked afterwards.
    """
    by = {
        q.purpose.removeprefix("holdout-"): q for q in plan.evaluation.queries if "/" not in q.id.removeprefix("joint/")
    }
    sums = {name: float(opened[query.id].sum()) for name, query in by.items() if query.id in opened}
    noise = {name: query.noise_sd * math.sqrt(query.size) for name, query in by.items()}
    y = max(sums["observed"], 1.0)
    s, ab, n, nb = (max(sums[name], noise[name], 1.0) for name in ("base", "levels", "years", "oem"))
    # Chance: the claims' log ratios. Ours are asked; the OEM's are at most half the bound on average (root mean square).
    own = max(sums["squares"], 0.0) * claim_cap
    theirs = y * claim_cap * (EVALUATION_LOG_BOUND / 2) ** 2

    def spread(*parts: str) -> float:
        return math.sqrt(sum(noise[part] ** 2 for part in parts))

    together = Gain(
        y * math.log(s / ab) + sums["ratio"] + sums["logs"],
        spread("ratio", "logs", "base", "levels"),
        math.sqrt(own + theirs),
    )
    insurers = Gain(
        sums["score"] - y * math.log(s / n), spread("score", "base", "years"), math.sqrt(y * claim_cap) * 0.35
    )
    carmaker = Gain(sums["logs"] - y * math.log(nb / n), spread("logs", "oem", "years"), math.sqrt(theirs))
    deviance = max(sums["null"] - y * math.log(y / n), 1.0)
    bands = [q for q in plan.evaluation.queries if q.purpose == "holdout-band"]
    return Evaluation(
        carmaker_mean=ab / max(sums["insurer"], noise["insurer"], 1.0),
        together=together,
        insurers=insurers,
        carmaker=carmaker,
        deviance=deviance,
        claims=sums["observed"],
        audited=audited,
        levels=tuple(
            Level(str(name), float(o), float(e), by["observed"].noise_sd, by["levels"].noise_sd)
            for name, o, e in zip(names, opened[by["observed"].id], opened[by["levels"].id], strict=True)
        ),
        bands=tuple(
            Level(
                _band_name(place), float(opened[by["bands"].id][place]), float(opened[query.id].sum()),
                by["bands"].noise_sd, query.noise_sd * math.sqrt(query.size),
            )
            for place, query in enumerate(bands)
        ),
        without=None if not less else _without(plan, less, together),
    )  # fmt: skip


def _without(plan: Plan, less: Mapping[str, Floats], together: Gain) -> dict[str, Gain]:
    out: dict[str, Gain] = {}
    asked = [q for q in plan.evaluation.queries if q.purpose == "holdout-less-base"]
    for base in asked:
        party = base.id.rpartition("/")[2]
        parts = [plan[f"joint/holdout-less-{name}/{party}"] for name in ("base", "expected", "logs")]
        made = [float(less[query.id].sum()) for query in parts]
        noise = math.sqrt(sum(query.noise_sd**2 * query.size for query in parts))
        # base is corrected to the joint model's level, so here the levels are alike and no correction is left.
        out[party] = Gain(made[0] - made[1] + made[2], noise, together.chance_sd)
    return out


def _band_name(place: int) -> str:
    low = "" if place == 0 else f"{math.exp(BAND_EDGES[place - 1]):.2f}"
    high = "" if place == BANDS - 1 else f"{math.exp(BAND_EDGES[place]):.2f}"
    return f"{low}-{high}"


@dataclass(frozen=True, slots=True)
class OwnValue:
    """What joining was worth to one insurer, on its own held-out customers; computed at home and kept there.

    d2_alone: exact; d2_joint: from one noisy sum of its own; gain: of joint over alone, nats; claims: observed.
    """

    customers: int
    claims: int
    d2_alone: float
    d2_joint: float
    d2_sd: float
    gain: Gain

    def word(self, confidence: float) -> Word:
        """Return the insurer's verdict at a one-sided confidence."""
        if self.gain.low(confidence) > 0:
            return "better"
        return "worse" if self.gain.high(confidence) < 0 else "undecided"


def compare_alone(rows: InsurerRows, alone: Floats, mean: float, logs: tuple[float, float], claim_cap: int) -> OwnValue:
    """Compare the joint model with the insurer's own, both at their level, on its held-out customers.

    Args:
        rows: the insurer's held-out persons.
        alone: (N,) expected claims of its own model, exposure included.
        mean: of the carmaker's factor (``Evaluation.carmaker_mean``); it sets the joint model's level.
        logs: sum of ``y log b`` over these persons, and its noise.
        claim_cap: of the specification.
    """
    y = rows.claims
    total = max(float(y.sum()), 1.0)
    ratios = np.log(np.maximum(rows.own, _SMALLEST)) - np.log(np.maximum(alone, _SMALLEST))
    gain = Gain(
        total * math.log(max(float(alone.sum()), 1e-9) / max(mean * float(rows.own.sum()), 1e-9))
        + float(y @ ratios)
        + logs[0],
        logs[1],
        math.sqrt(float(y @ ratios**2) * claim_cap + total * claim_cap * (EVALUATION_LOG_BOUND / 2) ** 2),
    )
    prior = np.maximum(rows.prior, _SMALLEST)
    null = float(y @ (np.log(np.maximum(y, 1.0)) - np.log(prior))) - total * math.log(
        total / max(float(prior.sum()), 1e-9)
    )
    null = max(null, 1.0)
    mine = float(y @ (np.log(np.maximum(alone, _SMALLEST)) - np.log(prior)))
    mine -= total * math.log(max(float(alone.sum()), 1e-9) / max(float(prior.sum()), 1e-9))
    return OwnValue(
        customers=int(y.size),
        claims=int(y.sum()),
        d2_alone=100 * mine / null,
        d2_joint=100 * (mine + gain.value) / null,
        d2_sd=100 * gain.sd / null,
        gain=gain,
    )
