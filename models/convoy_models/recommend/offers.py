"""Will this person take this offer? Logistic model on public blocks and crosses of two blocks.

A row is an offer shown to a person (offer, context, who they are) with an answer yes / no. Its
design is one block per term - a feature, or the product of two - on the public knots and levels of
``features``; ``m`` blocks are divided by sqrt(m), so a row has L2 norm <= 1 and a person's mean
gradient, ``mean x (y - p)``, has norm <= 1. Every weight belongs to one cell of a table that can be
read, printed and explained; there is nothing else in the model.

Crosses carry what plain additive models miss (a bar coupon for somebody who goes to bars); they are
chosen by people who know the business and written into the specification, never picked on data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from convoy_contracts.specification import Knots, Levels
from convoy_models.errors import ModelsError
from convoy_models.features import Block, encode
from convoy_models.fixedpoint import Floats

Feature = Knots | Levels
MAX_CELLS = 20_000
"""More weights than this are refused: noise per cell does not shrink, so they could only hurt."""


class OffersRefused(ModelsError):
    """Features, crosses or rows that make no offer model."""

    code = "OFFERS_REFUSED"
    fix = "Correct the description that the message names."
    fix_zh = "请更正提示中所指的描述。"


@dataclass(frozen=True, slots=True)
class OfferDesign:
    """Which blocks and crosses make a row. ``terms``: one or two feature names each."""

    features: tuple[Feature, ...]
    terms: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        names = {feature.name for feature in self.features}
        wrong = [term for term in self.terms if not 1 <= len(term) <= 2 or not set(term) <= names]
        if not self.terms or wrong or len(set(self.terms)) != len(self.terms):
            raise OffersRefused(f"terms must be one or two known features, each once; wrong: {wrong[:5]}")
        if self.size > MAX_CELLS:
            raise OffersRefused(f"{self.size} cells; at most {MAX_CELLS}: leave out crosses or merge levels")

    @property
    def widths(self) -> tuple[int, ...]:
        """Cells of each term."""
        width = {feature.name: feature.width for feature in self.features}
        return tuple(math.prod(width[name] for name in term) for term in self.terms)

    @property
    def size(self) -> int:
        """All cells: the number of weights."""
        return sum(self.widths)

    def rows(self, columns: Mapping[str, Any]) -> sparse.csr_matrix:
        """Return the design (N, size), rows of L2 norm <= 1.

        Raises:
            ColumnRefused: a value outside the public levels, missing or not finite.
            OffersRefused: a column is absent.
        """
        needed = {name for term in self.terms for name in term}
        absent = sorted(needed - set(columns))
        if absent:
            raise OffersRefused(f"columns are absent: {', '.join(absent)}")
        blocks = {f.name: _sparse(encode(f, columns[f.name])) for f in self.features if f.name in needed}
        parts = [blocks[term[0]] if len(term) == 1 else _cross(blocks[term[0]], blocks[term[1]]) for term in self.terms]
        return sparse.csr_matrix(sparse.hstack(parts, format="csr") / math.sqrt(len(parts)))


def _sparse(block: Block) -> sparse.csr_matrix:
    rows = np.arange(block.low.size)
    right = np.minimum(block.low + 1, block.width - 1)
    cells = np.concatenate([1.0 - block.upper, block.upper])
    places = (np.concatenate([rows, rows]), np.concatenate([block.low, right]))
    out = sparse.csr_matrix((cells, places), shape=(rows.size, block.width))
    out.eliminate_zeros()
    return out


def _cross(left: sparse.csr_matrix, right: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return row-wise products, (N, a b): entries >= 0 that sum to 1, hence of norm <= 1."""
    width = right.shape[1]
    columns = [right.multiply(left[:, cell]) for cell in range(left.shape[1])]
    return sparse.hstack(columns, format="csr") if width else left


class OfferRows:
    """One party's persons: rows of offers with their answers; a ``Holder`` of ``descent``.

    Args:
        rows: (N, size) of ``OfferDesign.rows``.
        taken: (N,) 0 or 1.
        person: (N,) whose row it is; any integers or texts.

    Raises:
        OffersRefused: lengths differ, or an answer is neither 0 nor 1.
    """

    def __init__(self, rows: sparse.csr_matrix, taken: npt.ArrayLike, person: npt.NDArray[Any]) -> None:
        answers = np.asarray(taken, dtype=np.float64)
        if not (rows.shape[0] == answers.size == person.size):
            raise OffersRefused("rows, answers and persons have different lengths")
        if not np.isin(answers, (0.0, 1.0)).all():
            raise OffersRefused("an answer is neither 0 nor 1")
        self._rows = rows
        self._taken = answers
        names, place, count = np.unique(person, return_inverse=True, return_counts=True)
        self._mean = sparse.csr_matrix(
            (1.0 / count[place], (place, np.arange(answers.size))), shape=(names.size, answers.size)
        )

    @property
    def persons(self) -> int:
        """How many persons have rows here."""
        return int(self._mean.shape[0])

    @property
    def size(self) -> int:
        """How many weights."""
        return int(self._rows.shape[1])

    def gradients(self, weights: Floats) -> Floats:
        """Return each person's mean of ``x (y - p)``: (persons, size)."""
        error = self._taken - probability(self._rows, weights)
        return np.asarray((self._mean @ sparse.diags_array(error) @ self._rows).toarray())


def probability(rows: sparse.csr_matrix, weights: Floats) -> Floats:
    """Return the probability that each offer is taken, (N,)."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(rows @ weights, -30.0, 30.0))))


def log_odds(probabilities: Floats) -> Floats:
    """Return log odds of probabilities, cut to [-12, 12]; used to mix two models."""
    inside = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def tables(design: OfferDesign, weights: Floats) -> dict[str, list[tuple[str, float]]]:
    """Return every term as a readable table: (cell, change of the log odds), in design order."""
    feature = {f.name: f for f in design.features}
    out: dict[str, list[tuple[str, float]]] = {}
    start, scale = 0, math.sqrt(len(design.terms))
    for term, width in zip(design.terms, design.widths, strict=True):
        names: Sequence[str] = [""]
        for part in term:
            names = [f"{left} x {cell}" if left else cell for left in names for cell in _cells(feature[part])]
        values = weights[start : start + width] / scale
        out[" x ".join(term)] = list(zip(names, (float(value) for value in values), strict=True))
        start += width
    return out


def _cells(feature: Feature) -> tuple[str, ...]:
    return tuple(feature.knots) if isinstance(feature, Knots) else tuple(feature.levels)
