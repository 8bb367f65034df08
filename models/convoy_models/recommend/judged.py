"""Is a recommender better than the general list? Four noisy counts over persons it was never trained on, and the gate.

One item of each held-out person is hidden (a coin of its node); a list of ``length`` is made from the rest of the history
once by the model and once by popularity. A person is in one of four counts, so its part has norm 1: the hidden item was in
both lists, in the personal one only, in the general one only, in none. Everything below is post-processing of these counts.

At home, outside epsilon, an operator also compares with what it can do alone: an item-item model (EASE) of its own
persons without noise. It says *better*, *worse* or *undecided*, never a figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from convoy_models.card import Text
from convoy_models.evaluation import hits
from convoy_models.fixedpoint import Floats
from convoy_models.gates import Verdict
from convoy_models.holdout import Word
from convoy_models.plan import PlannedQuery
from convoy_models.recommend.towers import LISTS, bounded_history

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
RIDGE = 20.0
"""Of the own item-item model; fixed beforehand."""
FEWEST = 50
"""Below as many held-out persons an operator decides nothing."""


@dataclass(frozen=True, slots=True)
class Lists:
    """What the hold-out's counts say. ``sd``: noise of each count; numbers may be negative under noise."""

    both: float
    personal: float
    general: float
    none: float
    sd: float

    @property
    def persons(self) -> float:
        """Held-out persons with a history, noisy, at least 1."""
        return max(self.both + self.personal + self.general + self.none, 1.0)

    @property
    def hit_personal(self) -> float:
        """Share of persons whose hidden item was in the personal list."""
        return (self.both + self.personal) / self.persons

    @property
    def hit_general(self) -> float:
        """Share of persons whose hidden item was in the general list."""
        return (self.both + self.general) / self.persons

    @property
    def gain(self) -> float:
        """Personal minus general, in points of hit rate (0 to 1)."""
        return (self.personal - self.general) / self.persons

    @property
    def gain_sd(self) -> float:
        """Standard deviation of ``gain``: who was held out (McNemar) and the noise of two counts."""
        chance = max(self.personal + self.general, 0.0)
        return math.sqrt(chance + 2 * self.sd**2) / self.persons

    def low(self, confidence: float) -> float:
        """Return the lower end of the gain at a one-sided confidence."""
        return self.gain - NormalDist().inv_cdf(confidence) * self.gain_sd


def read_lists(query: PlannedQuery, opened: Floats) -> Lists:
    """Return the counts of an opened hold-out sum. opened: (4,)."""
    both, personal, general, none = (float(value) for value in opened)
    return Lists(both, personal, general, none, query.noise_sd)


def counts(personal: Floats, general: Floats, rest: Bools, hidden: Ints, length: int) -> Floats:
    """Return the four counts of some persons, (4,) whole numbers.

    Args:
        personal: (N, items) scores of the model.
        general: (items,) or (N, items) scores of the list it is compared with.
        rest: (N, items) the history without the hidden item, left out of both lists.
        hidden: (N,) items.
        length: of the lists.
    """
    if not hidden.size:
        return np.zeros(LISTS)
    mine = hits(personal, rest, hidden, length)
    common = hits(np.broadcast_to(general, rest.shape), rest, hidden, length)
    return np.bincount(2 * ~mine + ~common, minlength=LISTS).astype(np.float64)


def lists_gate(found: Lists, words: Mapping[str, Word], confidence: float) -> Verdict:
    """Judge a recommender. It is released if both hold:

    * on the hold-out of all operators its lists are better than the general list: the lower end of the gain is above zero;
    * not every operator found it worse than its own model, at home.

    Args:
        found: on the hold-out.
        words: of the operators, by party.
        confidence: one-sided, in [.5, 1); a public term of the contract.
    """
    figures = f"{100 * found.hit_personal:.1f} % / {100 * found.hit_general:.1f} %"
    if found.low(confidence) <= 0:
        return Verdict(
            False,
            "UTILITY_GATE",
            Text(
                f"在差分隐私评估的留出样本上未能以 {confidence:.0%} 的把握优于通用列表（个性化/通用命中率 {figures}）。不予发布。",
                f"Not better than the general list on the DP-evaluated hold-out, at {confidence:.0%} confidence (hidden item in the "
                f"personal / general list: {figures}). Not released.",
            ),
        )
    if words and all(word == "worse" for word in words.values()):
        return Verdict(
            False,
            "UTILITY_GATE",
            Text(
                "每家充电运营商都认为它不如自己单独的模型。不予发布。",
                "Not better than alone: every charging operator found it worse than its own model on its own held-out persons. "
                "Not released.",
            ),
        )
    return Verdict(
        True,
        "PASSED",
        Text(f"优于通用列表：命中率 {figures}。", f"Better than the general list: hit rates {figures}."),
    )


def own_item_item(used: Bools) -> Floats:
    """Return what an operator can do alone, (items, items): EASE (Steck 2019, arXiv:1905.03375, eq. 8) without noise."""
    rows = bounded_history(used)
    inverse = np.linalg.inv(rows.T @ rows + RIDGE * np.eye(used.shape[1]))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)


def word_of(own: Floats, confidence: float) -> Word:
    """Return an operator's verdict from its own exact counts (4,), where 'general' is its own model's list."""
    if own.sum() < FEWEST:
        return "undecided"
    both, mine, alone, none = (float(value) for value in own)
    found = Lists(both, mine, alone, none, 0.0)
    away = NormalDist().inv_cdf(confidence) * found.gain_sd
    if found.gain > away:
        return "better"
    return "worse" if found.gain < -away else "undecided"
