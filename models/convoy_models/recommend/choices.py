"""Which new site comes next? A softmax over public items, from a history and a context.

A row is a moment at which a person went to an item for the first time: ``x = [1, history / norm,
context blocks / sqrt(m)]`` divided by sqrt(3), so ``||x|| <= 1``; items already used are out of the
choice. A person's mean gradient ``mean x (onehot - p)'`` has norm <= sqrt(2) and is cut to the clip.

The context (share of rapid chargers, energy per visit, hours) says what history alone cannot: with
27 sites and a median of two of them, a history is one or two bits (measured: ``models/LOG.md``).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convoy_models.errors import ModelsError
from convoy_models.features import Block
from convoy_models.fixedpoint import Floats

MAX_WEIGHTS = 200_000
OUT = -1e9


class ChoicesRefused(ModelsError):
    """Rows that make no choice model."""

    code = "CHOICES_REFUSED"
    fix = "Correct the rows that the message names; merge rare items into one."
    fix_zh = "请更正提示中所指的数据行；可将罕见物品合并为一项。"


def choice_rows(used: npt.NDArray[np.bool_], context: tuple[Block, ...] = ()) -> Floats:
    """Return rows (N, 1 + items + widths) of L2 norm <= 1.

    Args:
        used: (N, items) before the choice.
        context: blocks of ``features``, each (N, width).
    """
    history = used / np.maximum(1.0, np.sqrt(used.sum(axis=1, keepdims=True)))
    parts = [np.ones((used.shape[0], 1)), history]
    parts += [block.dense() / math.sqrt(len(context)) for block in context]
    return np.asarray(np.concatenate(parts, axis=1) / math.sqrt(3.0))


class ChoiceRows:
    """One party's persons; a ``Holder`` of ``descent``.

    Args:
        rows: (N, width) of ``choice_rows``.
        used: (N, items) out of the choice.
        chosen: (N,) item.
        person: (N,) whose choice it is.

    Raises:
        ChoicesRefused: lengths differ, an item is unknown or out of its own choice, or too many weights.
    """

    def __init__(
        self, rows: Floats, used: npt.NDArray[np.bool_], chosen: npt.NDArray[np.int64], person: npt.NDArray[Any]
    ) -> None:
        count, items = used.shape
        if not (rows.shape[0] == count == chosen.size == person.size):
            raise ChoicesRefused("rows, histories, choices and persons have different lengths")
        if count and (chosen.min() < 0 or chosen.max() >= items or used[np.arange(count), chosen].any()):
            raise ChoicesRefused("a choice is unknown, or was used before")
        if rows.shape[1] * items > MAX_WEIGHTS:
            raise ChoicesRefused(f"{rows.shape[1] * items} weights; at most {MAX_WEIGHTS}")
        self._rows, self._used, self._chosen = rows, used, chosen
        names, place, times = np.unique(person, return_inverse=True, return_counts=True)
        self._mean = sparse.csr_matrix((1.0 / times[place], (place, np.arange(count))), shape=(names.size, count))

    @property
    def persons(self) -> int:
        """How many persons have choices here."""
        return int(self._mean.shape[0])

    @property
    def size(self) -> int:
        """How many weights: width x items, rows first."""
        return int(self._rows.shape[1] * self._used.shape[1])

    def gradients(self, weights: Floats) -> Floats:
        """Return each person's mean of ``x (onehot - p)'``, flattened: (persons, size)."""
        logits = choice_scores(self._rows, self._used, weights)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = -shifted / shifted.sum(axis=1, keepdims=True)
        error[np.arange(error.shape[0]), self._chosen] += 1.0
        width, items = self._rows.shape[1], error.shape[1]
        out = np.empty((self.persons, width, items))
        for column in range(width):  # one column at a time: memory stays at persons x size
            out[:, column, :] = self._mean @ (self._rows[:, column, None] * error)
        return out.reshape(self.persons, -1)


def choice_scores(rows: Floats, used: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """Return scores (N, items); used items at -1e9. weights: (width x items,)."""
    matrix = weights.reshape(rows.shape[1], used.shape[1])
    return np.where(used, OUT, rows @ matrix)
