"""Persons and items in one space, trained by clipped sums: the neural second backend of the recommender.

    score(person, item) = u(profile, history)' e_item + bias_item,  u = B tanh(A [profile, history] + a)

A person is ONE row and has one loss: the mean cross entropy of its own items under a softmax over all public items.
So the clip bounds a person, whatever the length of its history. ``Persons`` is a holder for ``recommend.descent``:
every step is one LOCAL sum with the node's own discrete noise under masks, exactly as in ``descent``; the ghost
clipping is Opacus' (``clipped``), so (persons, size) gradients are never held in memory.

While it trains, half of a person's items (a coin each, thrown anew for every sum) are its input and the other half what is
to be guessed; at use the whole history goes in.

Source of the architecture: two-tower retrieval (Covington et al. 2016; Yi et al. 2019).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from convoy_models.errors import ShapeMismatch
from convoy_models.fixedpoint import Floats
from convoy_models.neural.clipped import ClippedSums, Rows

Bools = npt.NDArray[np.bool_]
KEPT = 0.5
"""Chance of an item of the history to stay in the input while training."""


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
        self._profile, self._used = profile, used
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
        seen = self._used & (self._rng.random(self._used.shape) < KEPT)
        asked = self._used & ~seen
        asked[~asked.any(axis=1)] = self._used[~asked.any(axis=1)]
        seen = self._used & ~asked  # nobody is asked to guess what it was told
        targets = asked / np.maximum(1.0, asked.sum(axis=1, keepdims=True).astype(np.float64))
        x = features(self._profile, seen)

        def losses(net: nn.Module, rows: Rows) -> Tensor:
            logs = torch.log_softmax(net(torch.from_numpy(x[rows])), dim=1)
            return -(torch.from_numpy(targets[rows]) * logs).sum(dim=1)

        return -self._sums.sum(weights, np.arange(self.persons), losses)


def first_weights(profile: int, items: int, units: int, space: int, seed: int) -> Floats:
    """Return public weights to start from: small random numbers, biases zero."""
    rng = np.random.default_rng([seed, 46])
    parts = [
        rng.normal(size=units * (profile + items)) / math.sqrt(2.0),
        np.zeros(units),
        rng.normal(size=space * units) / math.sqrt(units),
        rng.normal(size=items * space) * 0.1,
        np.zeros(items),
    ]
    return np.asarray(np.round(np.concatenate(parts), 6), dtype=np.float64)


def features(profile: Floats, used: Bools) -> Floats:
    """Return the network's input: profile, then the history scaled to norm 1."""
    counts = used.sum(axis=1, keepdims=True).astype(np.float64)
    history = used.astype(np.float64) / np.maximum(1.0, np.sqrt(counts))
    return np.asarray(np.concatenate([profile, history], axis=1), dtype=np.float64)


def scores(weights: Floats, profile: Floats, used: Bools, units: int, space: int) -> Floats:
    """Return scores of every item, (N, items), in numpy: no torch needed at use.

    Raises:
        ShapeMismatch: not the weights of this network.
    """
    x, items = features(profile, used), used.shape[1]
    sizes = (units * x.shape[1], units, space * units, items * space, items)
    if weights.shape != (sum(sizes),):
        raise ShapeMismatch(f"the network has {sum(sizes)} weights, not {weights.size}.")
    a, bias_a, b, e, bias_e = np.split(weights, np.cumsum(sizes)[:-1])
    hidden = np.tanh(x @ a.reshape(units, -1).T + bias_a)
    return np.asarray(hidden @ b.reshape(space, units).T @ e.reshape(items, space).T + bias_e)
