"""Node side of ``risk-pairs/1``: a person's cell in every table, and LOCAL sums over cells.

A person adds one number to one cell of each table that is asked: capped claims, or the claims that
the public model expects of it under the same cap. Nothing else of a row enters a sum, so the L2
sensitivity is ``sqrt(tables) * cap`` whatever the row holds (``plan``).

Cut points and levels are public and data-independent; nothing is learned about where to split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification
from convoy_models.features import ColumnRefused, cells_of, coarse_map
from convoy_models.fixedpoint import Floats
from convoy_models.plan import PlannedQuery, Table, pair_width, table_cells, table_rounds
from convoy_models.risk.towers import LARGEST_WEIGHT, Labels, WeightsRefused

Cells = npt.NDArray[np.int32]
LEVEL = "*"
"""Key of the log level among public weights; no feature may have this name."""


def ordered_tables(spec: PairsSpecification) -> tuple[Table, ...]:
    """Return all tables in the order of the sums: one feature first, then pairs."""
    tables = [table for turn in table_rounds(spec) for table in turn]
    return tuple(sorted(tables, key=len))


def tables_in(spec: PairsSpecification, query: PlannedQuery) -> tuple[Table, ...]:
    """Return the tables whose cells a planned query sums, in the order of its numbers."""
    inside, place = [], 0
    for table in ordered_tables(spec):
        size = table_cells(spec, table)
        if query.columns[0] <= place and place + size <= query.columns[1]:
            inside.append(table)
        place += size
    return tuple(inside)


def key_of(table: Table) -> str:
    """Return the name of a table in messages and model files: ``age`` or ``age*fuel``."""
    return "*".join(table)


@dataclass(frozen=True, slots=True)
class TableRows:
    """Cells of some persons. own: (N,) by feature; labels: claims and exposure, rows aligned, or None to score."""

    spec: PairsSpecification
    own: Mapping[str, Cells]
    labels: Labels | None
    _paired: dict[Table, Cells] = field(default_factory=dict)
    _last: dict[str, Floats] = field(default_factory=dict)
    _score: list[Floats] = field(default_factory=list)

    @classmethod
    def build(cls, spec: PairsSpecification, columns: Mapping[str, Any], *, labelled: bool = True) -> TableRows:
        """Encode every feature; every fault of every column at once.

        Raises:
            ColumnRefused: a feature that cannot be used.
            LabelsRefused: claims or exposure that cannot be used.
        """
        own: dict[str, Cells] = {}
        faults: list[str] = []
        for feature in spec.features:
            if feature.name not in columns:
                faults.append(f"column {feature.name!r} is absent; the contract's schedule names it")
                continue
            try:
                own[feature.name] = cells_of(feature, columns[feature.name])
            except ColumnRefused as refusal:
                faults.append(refusal.cause)
        if len({cells.size for cells in own.values()}) > 1:
            faults.append("columns have different lengths")
        if faults:
            raise ColumnRefused("; ".join(faults))
        return cls(spec, own, Labels.build(spec, columns) if labelled else None)

    @property
    def size(self) -> int:
        """Number of persons."""
        return int(next(iter(self.own.values())).size)

    def cells(self, table: Table) -> Cells:
        """Return the cell of each person in a table, (N,) int32."""
        if len(table) == 1:
            return self.own[table[0]]
        if table not in self._paired:
            features = {feature.name: feature for feature in self.spec.features}
            first, second = (features[name] for name in table)
            rows = coarse_map(first)[self.own[first.name]]
            self._paired[table] = rows * pair_width(second) + coarse_map(second)[self.own[second.name]]
        return self._paired[table]

    def score(self, weights: Mapping[str, Floats]) -> Floats:
        """Return the log yearly rate, (N,), from checked weights.

        Only tables that differ from the last call's are looked up again.
        """
        if not self._score:
            self._score.append(np.zeros(self.size))
        score = self._score[0]
        for key in (LEVEL, *(key_of(table) for table in ordered_tables(self.spec))):
            new, old = np.asarray(weights[key], dtype=np.float64), self._last.get(key)
            change = new if old is None else new - old
            if not change.any():
                continue
            score += change[0] if key == LEVEL else change[self.cells(tuple(key.split("*")))]
            self._last[key] = new.copy()
        return score

    def local_sum(self, query: PlannedQuery, weights: object) -> Floats:
        """Return this node's part of a planned sum, (query.size,) float64, before noise.

        Args:
            query: from the plan of the same specification.
            weights: public weights of the ask; unused for label sums.

        Raises:
            WeightsRefused: weights that do not fit the specification.
        """
        values = self.values(query, weights)
        parts = [
            np.bincount(self.cells(table), values, table_cells(self.spec, table))
            for table in tables_in(self.spec, query)
        ]
        out = np.concatenate(parts) if parts else np.zeros(0)
        if out.size != query.size:
            raise WeightsRefused(f"query {query.id!r} does not cover whole tables")
        return np.asarray(out, dtype=np.float64)

    def values(self, query: PlannedQuery, weights: object) -> Floats:
        """Return what each person adds to its cells, (N,) in [0, claimCap] or [0, modelCap]."""
        if self.labels is None:
            raise WeightsRefused("rows without labels answer no sum")
        if query.purpose == "labels":
            return self.labels.capped(self.spec.claimCap)
        checked = check_table_weights(self.spec, weights)
        mean = np.exp(np.minimum(self.score(checked), 5.0)) * self.labels.exposure_years
        return np.minimum(capped_mean(mean, self.spec.claimCap), float(self.spec.modelCap))


def capped_mean(mean: Floats, cap: int) -> Floats:
    """Return the mean of min(Y, cap) for Poisson Y with a given mean, (N,).

    So that capped claims are compared with capped expectations: ``sum over k = 1..cap of P(Y >= k)``.
    """
    term = np.exp(-mean)
    below = term.copy()
    total = 1.0 - below
    for k in range(1, cap):
        term = term * mean / k
        below = below + term
        total = total + 1.0 - below
    return np.maximum(total, 0.0)


def check_table_weights(spec: PairsSpecification, weights: object) -> dict[str, Floats]:
    """Return public weights as arrays if they fit the specification exactly.

    Raises:
        WeightsRefused: a table is missing, unknown, of wrong size, not finite or beyond +-50.
    """
    tables = {key_of(table): table_cells(spec, table) for table in ordered_tables(spec)} | {LEVEL: 1}
    if not isinstance(weights, Mapping) or set(weights) != set(tables):
        raise WeightsRefused("the weights do not name exactly the tables of the specification")
    out: dict[str, Floats] = {}
    faults = []
    for key, size in tables.items():
        values: Sequence[float] | Floats = weights[key]
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            faults.append(f"table {key!r} has weights that are not numbers")
            continue
        if array.shape != (size,):
            faults.append(f"table {key!r} needs {size} weights")
        elif not np.all(np.abs(array) <= LARGEST_WEIGHT):
            faults.append(f"table {key!r} has weights beyond {LARGEST_WEIGHT:g} or not finite")
        out[key] = array
    if faults:
        raise WeightsRefused("; ".join(faults))
    return out
