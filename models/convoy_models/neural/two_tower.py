"""Persons and items in one space, trained by clipped sums: the neural second backend of the recommender.

    Towers.build(specification, columns, histories)     one node's persons in a run of ``recommend-towers/1``
    .local_sum(query, weights) -> (query.size,)         popularity, one step of a secret Poisson sample, or the hold-out
    Persons                                             the same network as a holder for ``recommend.descent`` (full batches)

The network is that of ``recommend.towers``. A person is ONE row and has one loss: the mean cross entropy of its own items
under a softmax over all public items. So the clip bounds a person, whatever the length of its history. Ghost clipping is
Opacus' (``clipped``), so (persons, size) gradients are never held in memory; noise is the node's own, under masks.

While it trains, half of a person's items (a coin each, thrown anew for every sum) are its input and the other half what is
to be guessed; at use the whole history goes in. Nothing of a sample is kept after its sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from convoy_contracts.specification import TowersSpecification
from convoy_models.errors import ShapeMismatch
from convoy_models.fixedpoint import Floats
from convoy_models.neural.clipped import ClippedSums, Rows
from convoy_models.neural.sampling import Coins, SecretCoins
from convoy_models.plan import PlannedQuery
from convoy_models.recommend import judged, towers
from convoy_models.recommend.items import used_items
from convoy_models.recommend.towers import features, first_weights, scores

__all__ = ["Persons", "Towers", "TwoTowers", "features", "first_weights", "scores"]

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
KEPT = 0.5
"""Chance of an item of the history to stay in the input while training."""
LARGEST_COUNT = 1e12
"""No popularity of a message may be larger."""


class TwoTowers(nn.Module):
    """(B, profile + items) -> scores (B, items)."""

    def __init__(self, profile: int, items: int, units: int, space: int) -> None:
        super().__init__()
        self.first = nn.Linear(profile + items, units)
        self.person = nn.Linear(units, space, bias=False)
        self.items = nn.Linear(space, items)

    def forward(self, x: Tensor) -> Tensor:
        """Return a score for every item."""
        made: Tensor = self.items(self.person(torch.tanh(self.first(x))))
        return made


class Persons:
    """One party's persons for ``descent.train``; has ``clipped_sum``, so gradients are never materialised.

    Args:
        profile: (N, profile) bounded numbers; may have no columns.
        used: (N, items) the history of each person.
        units, space: public sizes of the network.
        clip: L2 bound of one person.
        rng: coins of the dropped items; not secret, not part of any promise.

    Raises:
        ShapeMismatch: profiles and histories of different persons.
    """

    def __init__(
        self, profile: Floats, used: Bools, units: int, space: int, clip: float, rng: np.random.Generator | None = None
    ) -> None:
        if profile.shape[0] != used.shape[0]:
            raise ShapeMismatch(f"{profile.shape[0]} profiles and {used.shape[0]} histories.")
        self.profile, self._used = profile, used
        self._rng = rng or np.random.default_rng()
        self._clip = clip
        self._sums = ClippedSums(TwoTowers(profile.shape[1], used.shape[1], units, space), clip)

    @property
    def persons(self) -> int:
        """How many."""
        return int(self._used.shape[0])

    @property
    def size(self) -> int:
        """How many weights."""
        return self._sums.size

    def clipped_sum(self, weights: Floats, clip: float) -> Floats:
        """Return the sum of clipped ascent directions of all persons, (size,).

        Raises:
            ShapeMismatch: another clip than the one these persons were built with.
        """
        if clip != self._clip:
            raise ShapeMismatch(f"built for a clip of {self._clip:g}, asked for {clip:g}.")
        return self.sum_of(weights, np.ones(self.persons, dtype=np.bool_))

    def sum_of(self, weights: Floats, chosen: Bools) -> Floats:
        """Return the sum of clipped ascent directions of the chosen persons, (size,). chosen: (N,)."""
        used = self._used[chosen]
        seen = used & (self._rng.random(used.shape) < KEPT)
        asked = used & ~seen
        asked[~asked.any(axis=1)] = used[~asked.any(axis=1)]
        seen = used & ~asked  # nobody is asked to guess what it was told
        targets = asked / np.maximum(1.0, asked.sum(axis=1, keepdims=True).astype(np.float64))
        x = features(self.profile[chosen], seen)

        def losses(net: nn.Module, rows: Rows) -> Tensor:
            logs = torch.log_softmax(net(torch.from_numpy(x[rows])), dim=1)
            return -(torch.from_numpy(targets[rows]) * logs).sum(dim=1)

        return -self._sums.sum(weights, np.arange(len(x)), losses)


@dataclass(slots=True)
class Towers:
    """One node's persons in a run of ``recommend-towers/1``.

    Who is held out, and which of its items is hidden, is drawn once, when the run begins, by coins that no data decide.
    """

    spec: TowersSpecification
    coins: Coins
    learners: Persons
    learned: Bools
    profile: Floats
    rest: Bools
    hidden: Ints

    @classmethod
    def build(
        cls,
        spec: TowersSpecification,
        columns: Mapping[str, Any],
        histories: Iterable[Iterable[str]],
        coins: Coins | None = None,
        rng: np.random.Generator | None = None,
    ) -> Towers:
        """Encode the persons of one node.

        Args:
            spec: the signed specification.
            columns: the operator's own columns, (N,) each.
            histories: item ids of each person.
            coins: of the samples and of the hold-out; a node's own by default, others are for tests.
            rng: of dropped and hidden items; not secret, not part of any promise.

        Raises:
            ModelsError: columns or items that do not fit; every fault of the columns at once.
        """
        coins, rng, net = coins or SecretCoins(), rng or np.random.default_rng(), spec.network
        used = used_items(spec.items, histories)
        profile = towers.profile_rows(spec, columns, len(used))
        out = coins.throw(len(used), spec.test.holdoutMilli * 1000)
        learned = used[~out]
        persons = Persons(profile[~out], learned, net.units, net.space, float(net.clip), rng)
        judged_on = out & used.any(axis=1)  # who used nothing has nothing to hide
        return cls(spec, coins, persons, learned, profile[judged_on], *_hide(used[judged_on], rng))

    def local_sum(self, query: PlannedQuery, weights: object) -> Floats:
        """Return this node's part of one sum, (query.size,) float64, before noise.

        Args:
            query: of the plan.
            weights: public, by the keys of ``towers``; none for popularity.

        Raises:
            TowersRefused: weights that do not fit.
        """
        if query.purpose == "popularity":
            return np.asarray(towers.bounded_history(self.learned).sum(axis=0))
        network, general = _numbers(weights, towers.NETWORK), _numbers(weights, towers.GENERAL)
        if query.purpose == "descent":
            now = towers.checked(network, towers.weight_count(self.spec))
            return self.learners.sum_of(now, self.coins.throw(self.learners.persons, self.spec.network.rateMicro))
        if query.purpose == "holdout-lists":
            return self.counts(network, general)
        raise towers.TowersRefused(f"query {query.id!r} is no sum of {self.spec.kind}")

    def counts(self, network: object, general: object) -> Floats:
        """Return the four counts of own held-out persons, (4,): the network's list against a general one.

        Args:
            network: public weights, (weight_count,).
            general: a score for each item, (items,).

        Raises:
            TowersRefused: weights that do not fit.
        """
        mine = self._scores(towers.checked(network, towers.weight_count(self.spec)))
        popular = towers.checked(general, len(self.spec.items), LARGEST_COUNT)
        return judged.counts(mine, popular, self.rest, self.hidden, self.spec.test.length)

    def own_counts(self, network: object) -> Floats:
        """Return the same counts against the list of an own item-item model without noise; for use at home only.

        Raises:
            TowersRefused: weights that do not fit.
        """
        mine = self._scores(towers.checked(network, towers.weight_count(self.spec)))
        alone = towers.bounded_history(self.rest) @ judged.own_item_item(self.learned)
        return judged.counts(mine, alone, self.rest, self.hidden, self.spec.test.length)

    def membership(self, network: object) -> tuple[Floats, Bools]:
        """Return what a membership attack at home rests on: each person's score, and whether they were not trained on, (N,).

        The score is the log chance that the network gives to one hidden item of the person after seeing the others.

        Raises:
            TowersRefused: weights that do not fit.
        """
        weights, used = towers.checked(network, towers.weight_count(self.spec)), self.learned.any(axis=1)
        rest, hidden = _hide(self.learned[used], np.random.default_rng())
        parts = [(self.learners.profile[used], rest, hidden), (self.profile, self.rest, self.hidden)]
        made = []
        for profile, seen, asked in parts:
            logits = scores(weights, profile, seen, self.spec.network.units, self.spec.network.space)
            made.append(logits[np.arange(len(asked)), asked] - logsumexp(logits, axis=1))
        return np.concatenate(made), np.arange(len(hidden) + len(self.hidden)) >= len(hidden)

    def _scores(self, weights: Floats) -> Floats:
        return scores(weights, self.profile, self.rest, self.spec.network.units, self.spec.network.space)


def _hide(used: Bools, rng: np.random.Generator) -> tuple[Bools, Ints]:
    """Return histories, each with one item at least, without one of them at random, and which, (N,)."""
    hidden = np.argmax(used * rng.random(used.shape), axis=1)
    rest = used.copy()
    rest[np.arange(len(rest)), hidden] = False
    return rest, hidden.astype(np.int64)


def _numbers(weights: object, key: str) -> object:
    given = weights.get(key) if isinstance(weights, Mapping) else None
    return given.get("weights") if isinstance(given, Mapping) else None
