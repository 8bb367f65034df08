"""How good a model is, on persons whose data the caller may see. Nothing here is private.

Shapes: (N,) float64 unless said. Units: ``claims`` counts, ``expected`` claims (rate x exposure),
``exposure_years`` years.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convoy_models.fixedpoint import Floats

Counts = npt.NDArray[np.integer] | Floats


def poisson_deviance(claims: Counts, expected: Floats) -> float:
    """Return the mean Poisson deviance per person: ``2 mean(y log(y / m) - y + m)``; lower is
    better.

    Args:
        claims: y >= 0.
        expected: m > 0, in claims.
    """
    y = np.asarray(claims, dtype=np.float64)
    logs = np.where(y > 0, y * np.log(np.maximum(y, 1e-300) / expected), 0.0)
    return float(2.0 * np.mean(logs - y + expected))


def deviance_per_year(claims: Counts, expected: Floats, exposure_years: Floats) -> float:
    """Return the exposure-weighted deviance: sum of deviance over sum of years."""
    return poisson_deviance(claims, expected) * expected.size / float(exposure_years.sum())


def d2(claims: Counts, expected: Floats, exposure_years: Floats, rate: float | None = None) -> float:
    """Return the share of deviance explained, in per cent of a constant rate.

    Args:
        claims: y.
        expected: m.
        exposure_years: years.
        rate: the constant's yearly rate; by default that of these persons.
    """
    constant = float(np.sum(claims)) / float(exposure_years.sum()) if rate is None else rate
    null = poisson_deviance(claims, constant * exposure_years)
    return 100.0 * (1.0 - poisson_deviance(claims, expected) / null)


def gini(claims: Counts, rate: Floats, exposure_years: Floats) -> float:
    """Return the Gini index of claims over exposure, ordered by predicted yearly rate; ties count
    half."""
    order = np.argsort(rate, kind="stable")
    _, group = np.unique(rate[order], return_inverse=True)
    years = np.bincount(group, exposure_years[order])
    counts = np.bincount(group, np.asarray(claims, dtype=np.float64)[order])
    x = np.concatenate([[0.0], np.cumsum(years) / years.sum()])
    y = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    return float(1.0 - np.sum((y[1:] + y[:-1]) * np.diff(x)))


def auc(is_positive: npt.NDArray[np.bool_], score: Floats) -> float:
    """Return the area under the ROC curve; ties count half."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    positives = int(np.count_nonzero(is_positive))
    negatives = is_positive.size - positives
    total = float(rank[is_positive].sum()) - positives * (positives + 1) / 2.0
    return total / (positives * negatives)


def top_decile_auc(true_rate: Floats, rate: Floats) -> float:
    """Return how well ``rate`` finds the tenth of persons with the highest true rate (generated
    data)."""
    return auc(true_rate >= np.quantile(true_rate, 0.9), rate)


def hit_rate(scores: Floats, used: npt.NDArray[np.bool_], held_out: npt.NDArray[np.int64], k: int = 10) -> float:
    """Return the share of persons whose held-out item is in their list; see ``hits``."""
    return float(np.mean(hits(scores, used, held_out, k)))


def hits(
    scores: Floats, used: npt.NDArray[np.bool_], held_out: npt.NDArray[np.int64], k: int = 10
) -> npt.NDArray[np.bool_]:
    """Return whose held-out item is among the k best items not used yet, (N,).

    Args:
        scores: (N, items).
        used: (N, items) items to leave out of the ranking.
        held_out: (N,) item.
        k: length of the list. Ties count against the model.
    """
    open_scores = np.where(used, -np.inf, scores)
    target = open_scores[np.arange(held_out.size), held_out]
    return np.asarray((open_scores >= target[:, None]).sum(axis=1) - 1 < k)


@dataclass(frozen=True, slots=True)
class GroupLevel:
    """Observed and expected claims of one group; ``ratio`` is observed / expected."""

    group: str
    persons: int
    observed: float
    expected: float

    @property
    def ratio(self) -> float:
        """Observed / expected; 1 is fair."""
        return self.observed / self.expected


def observed_expected(claims: Counts, expected: Floats, groups: npt.NDArray[np.str_]) -> tuple[GroupLevel, ...]:
    """Return observed and expected claims by group, in order of group name. groups: (N,) names."""
    return tuple(
        GroupLevel(
            str(name),
            int(np.count_nonzero(groups == name)),
            float(np.sum(np.asarray(claims)[groups == name])),
            float(np.sum(expected[groups == name])),
        )
        for name in np.unique(groups)
    )
