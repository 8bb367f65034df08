"""Attacks on our own pipeline: what an adversary can prove about epsilon, and about membership in a model.

Every function takes what the attack has seen and returns a *lower* bound of the privacy loss, with
a stated confidence. A bound above what the ledger claims is an alarm: there is a defect (noise too
small, a share of it missing, a clip missing, a person counted twice). No alarm proves nothing; the
promise rests on the derivation in ``plan``.

``gdp_bound``        two-sample audit of a Gaussian sum: canaries in or out by a fair coin, each with
                     a coordinate of its own at the clip bound. Strong at epsilon 4 and above: noise
                     x0.8 is seen with 8000 canaries; at epsilon 1 it is not (private_ml.md §6).
``one_run_bound``    Steinke, Nasr, Jagielski 2023, arXiv:2305.08846, Thm. 5.2 and Alg. 1: any
                     mechanism, one run; weaker.
``membership``       advantage of a membership attack (loss threshold, or LiRA's likelihood ratio:
                     Carlini et al. 2022, arXiv:2112.03570) against what mu-GDP allows,
                     ``TPR - FPR <= 2 Phi(mu / 2) - 1`` (Dong, Roth, Su 2019, Cor. 2.13).
``shadow_membership`` the same through shadow models that a caller trains; what a release gate uses.

Draws no noise and reads no data: callers give arrays. Generators are passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from convoy_models.accounting import epsilon_of, mu_of
from convoy_models.errors import AccountingRefused
from convoy_models.fixedpoint import Floats

CONFIDENCE: Final = 0.9999
"""Of a bound, where not said otherwise: one false alarm in ten thousand audits of a correct pipeline."""
Coins = NDArray[np.bool_]


class AuditRefused(AccountingRefused):
    """An attack without enough on either side to say anything."""

    code = "AUDIT_REFUSED"
    fix = "Give at least ten canaries or persons on either side, with finite scores."
    fix_zh = "请在两侧各提供至少十个探针或个人，且分数为有限数值。"


@dataclass(frozen=True, slots=True)
class Membership:
    """How well an attack tells members from others.

    ``advantage``: best TPR - FPR of a threshold; ``proven``: its lower confidence bound at a threshold
    that was chosen on the other half of the persons; ``allowed``: the most that mu-GDP permits.
    """

    advantage: float
    proven: float
    allowed: float
    auc: float
    persons: int

    @property
    def is_alarm(self) -> bool:
        """Whether the attack proves more than the claim allows."""
        return self.proven > self.allowed


def gdp_bound(inside: Coins, scores: Floats, delta: float, confidence: float = CONFIDENCE) -> float:
    """Return the epsilon at ``delta`` that a two-sample attack proves about a Gaussian sum.

    Args:
        inside: (canaries,) whether each took part.
        scores: (canaries,) the opened coordinate of each, less whatever the adversary knows.
        delta: in (0, 1).
        confidence: of the bound.
    """
    members, others = _split(inside, scores)
    spread = math.sqrt((members.var(ddof=1) + others.var(ddof=1)) / 2)
    mu = float(members.mean() - others.mean()) / spread if spread > 0 else math.inf
    count = len(scores)
    mu -= float(ndtri(confidence)) * math.sqrt(4 / count + mu**2 / (2 * count)) if math.isfinite(mu) else 0.0
    if not mu < 60:
        return math.inf
    return epsilon_of(max(0.0, mu) ** 2, delta)


def one_run_bound(
    inside: Coins, scores: Floats, delta: float, confidence: float = 0.95, guesses: int | None = None
) -> float:
    """Return the epsilon at ``delta`` that one run proves about any mechanism.

    The attack guesses "in" for the highest and "out" for the lowest scores.

    Args:
        inside: (canaries,) fair coins.
        scores: (canaries,).
        delta: in (0, 1).
        confidence: of the bound; 0.95, because delta times the number of canaries limits what can be
            proven at more (and a correct Gaussian sum stays far below its epsilon here).
        guesses: how many canaries are guessed in all; a tenth of them by default.
    """
    _split(inside, scores)
    count = len(scores)
    half = max(1, (guesses if guesses is not None else count // 10) // 2)
    order = np.argsort(scores, kind="stable")
    right = int(inside[order[-half:]].sum() + (~inside[order[:half]]).sum())
    low, high = 0.0, 1.0
    while _p_value(count, 2 * half, right, high, delta) <= 1 - confidence and high < 64:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _p_value(count, 2 * half, right, middle, delta) <= 1 - confidence else (low, middle)
        )
    return low


def membership(
    members: Floats, others: Floats, epsilon: float, delta: float, confidence: float = CONFIDENCE
) -> Membership:
    """Return what scores say about membership (larger: rather a member), against the claim.

    Args:
        members: (n,) scores of persons whose data were used: minus the loss, or a likelihood ratio.
        others: (m,) scores of comparable persons whose data were not used.
        epsilon: the claim, with ``delta``.
        delta: in (0, 1).
        confidence: of ``proven``.

    Raises:
        AuditRefused: fewer than ten on a side, or scores that are not finite.
    """
    joined = np.concatenate([np.asarray(members, float), np.asarray(others, float)])
    _split(np.arange(len(joined)) < len(members), joined)
    mu = mu_of(epsilon, delta)
    threshold = _best_threshold(members[::2], others[::2])[1]
    rest_in, rest_out = members[1::2], others[1::2]
    found = float((rest_in >= threshold).mean() - (rest_out >= threshold).mean())
    z = float(ndtri(confidence))
    error = math.sqrt(0.25 / len(rest_in) + 0.25 / len(rest_out))
    order = np.concatenate([members, others]).argsort(kind="stable").argsort(kind="stable")
    auc = (order[: len(members)].mean() - (len(members) - 1) / 2) / len(others)
    return Membership(
        advantage=_best_threshold(members, others)[0],
        proven=found - z * error,
        allowed=2 * float(ndtr(mu / 2)) - 1,
        auc=float(auc),
        persons=len(joined),
    )


def shadow_membership(
    train: Callable[[Coins], Floats],
    targets: int,
    epsilon: float,
    delta: float,
    rng: np.random.Generator,
    *,
    shadows: int = 24,
    trials: int = 24,
    confidence: float = CONFIDENCE,
) -> Membership:
    """Return the advantage of LiRA over target persons (Carlini et al. 2022, Alg. 1, online).

    Args:
        train: trains one model, with its noise, on a fixed population plus the targets that the coins
            put in; returns (targets,) statistics of that model, one per target (its score or loss).
        targets: how many target persons.
        epsilon: the claim, with ``delta``.
        delta: in (0, 1).
        rng: of the coins.
        shadows: models from which each target's two Gaussians are fitted.
        trials: further models that are attacked.
        confidence: of the result.
    """
    coins = rng.random((shadows + trials, targets)) < 0.5
    coins[0], coins[1] = True, False
    coins[2], coins[3] = True, False
    seen = np.stack([np.asarray(train(row), dtype=np.float64) for row in coins])
    if seen.shape != coins.shape or not np.isfinite(seen).all():
        raise AuditRefused("a shadow model gave no finite statistic for every target.")
    fitted, chosen = seen[:shadows], coins[:shadows]
    means, spreads = [], []
    for side in (chosen, ~chosen):
        count = side.sum(axis=0)
        mean = np.where(side, fitted, 0.0).sum(axis=0) / count
        means.append(mean)
        spreads.append((np.where(side, fitted - mean, 0.0) ** 2).sum(axis=0))
    spread = np.sqrt((spreads[0] + spreads[1]) / (shadows - 2)) + 1e-300
    ratio = ((seen - means[1]) ** 2 - (seen - means[0]) ** 2) / (2 * spread**2)
    tried, inside = ratio[shadows:].ravel(), coins[shadows:].ravel()
    return membership(tried[inside], tried[~inside], epsilon, delta, confidence)


def _best_threshold(members: Floats, others: Floats) -> tuple[float, float]:
    """Return the largest TPR - FPR and its threshold."""
    values = np.concatenate([members, others])
    step = np.concatenate([np.full(len(members), 1 / len(members)), np.full(len(others), -1 / len(others))])
    order = np.argsort(-values, kind="stable")
    gain = np.cumsum(step[order])
    last = np.append(np.diff(values[order]) != 0, True)  # thresholds lie between different values
    best = int(np.argmax(np.where(last, gain, -np.inf)))
    return max(0.0, float(gain[best])), float(values[order][best])


def _p_value(count: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return how probable at least ``right`` right guesses are under (epsilon, delta) (Thm. 5.2)."""
    from scipy.stats import binom  # here: every node imports this module, and none needs half a second of statistics

    chance = 1 / (1 + math.exp(-epsilon))
    base = float(binom.sf(right - 1, guesses, chance))
    masses = np.cumsum(binom.pmf(right - np.arange(1, right + 1), guesses, chance))
    alpha = float((masses / np.arange(1, right + 1)).max()) if right else 0.0
    return min(1.0, base + alpha * delta * 2 * count)


def _split(inside: Coins, scores: Floats) -> tuple[Floats, Floats]:
    members, others = scores[inside], scores[~inside]
    if min(len(members), len(others)) < 10 or not np.isfinite(scores).all():
        raise AuditRefused(f"{len(members)} inside and {len(others)} outside, or a score that is not finite.")
    return members, others
