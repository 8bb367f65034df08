"""A trained ``risk-pairs/1`` model: a level, one table per feature and one per pair of features.

``rate = exp(level) * prod of table entries``, exactly; every factor of a premium is a number that
stands in a table. Canonical form: pair tables hold only what the two features alone cannot say
(their weighted row and column means are moved into the features' tables), every table has mean log
factor 0 over the training margins, numbers have six decimals.

What may never change: array names ``all/level`` and ``all/insurer/<feature>[*<feature>]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from convoy_contracts.specification import Cuts, Levels, PairsSpecification
from convoy_models.features import coarse_map
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Table, pair_width, table_cells
from convoy_models.risk.model import DECIMALS, Factor, ModelMalformed
from convoy_models.risk.tables import LEVEL, TableRows, key_of, ordered_tables

PURIFYING_PASSES = 20


@dataclass(frozen=True, slots=True)
class PairsModel:
    """level: log yearly claim rate; tables: log factors by ``feature`` or ``feature*feature``, (cells,)."""

    specification: PairsSpecification
    level: float
    tables: Mapping[str, Floats]

    @classmethod
    def canonical(
        cls,
        specification: PairsSpecification,
        level: float,
        tables: Mapping[str, Floats],
        margins: Mapping[str, Floats],
    ) -> PairsModel:
        """Return the same prices in canonical form.

        Args:
            specification: of the run.
            level: log rate.
            tables: log factors by key.
            margins: positive weights by key, same shapes: expected claims of each cell.
        """
        out = {key: np.array(values, dtype=np.float64) for key, values in tables.items()}
        features = {feature.name: feature for feature in specification.features}
        pairs = [table for table in ordered_tables(specification) if len(table) == 2]
        for table in pairs:
            first, second = (features[name] for name in table)
            shape = (pair_width(first), pair_width(second))
            grid, weight = out[key_of(table)].reshape(shape), margins[key_of(table)].reshape(shape)
            for _ in range(PURIFYING_PASSES):
                rows = (grid * weight).sum(1) / weight.sum(1)
                grid -= rows[:, None]
                out[first.name] += rows[coarse_map(first)]
                columns = (grid * weight).sum(0) / weight.sum(0)
                grid -= columns[None, :]
                out[second.name] += columns[coarse_map(second)]
        for key, values in out.items():
            mean = float(margins[key] @ values / margins[key].sum())
            level += mean
            out[key] = np.round(values - mean, DECIMALS)
        return cls(specification, round(level, DECIMALS), out)

    def rate(self, columns: Mapping[str, Any]) -> Floats:
        """Return the yearly claim rate, (N,).

        Raises:
            ColumnRefused: bad columns.
        """
        return self.rate_of(TableRows.build(self.specification, columns, labelled=False))

    def rate_of(self, rows: TableRows) -> Floats:
        """Return the yearly claim rate of encoded rows, (N,)."""
        return np.asarray(np.exp(rows.score({**self.tables, LEVEL: np.array([self.level])})), dtype=np.float64)

    def table(self) -> tuple[Factor, ...]:
        """Return the whole model as price factors; a pair's point is ``first & second``."""
        features = {feature.name: feature for feature in self.specification.features}
        rows = []
        for table in ordered_tables(self.specification):
            names = [cell_names(features[name], is_pair=len(table) == 2) for name in table]
            points = names[0] if len(table) == 1 else [f"{a} & {b}" for a in names[0] for b in names[1]]
            factors = np.exp(self.tables[key_of(table)])
            rows += [
                Factor("all", "insurer", key_of(table), point, float(factor))
                for point, factor in zip(points, factors, strict=True)
            ]
        return tuple(rows)

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors."""
        return {"all/level": np.array([self.level])} | {
            f"all/insurer/{key}": np.asarray(values, dtype=np.float64) for key, values in self.tables.items()
        }

    @classmethod
    def from_arrays(cls, specification: PairsSpecification, arrays: Mapping[str, Floats]) -> PairsModel:
        """Rebuild a model from its specification and arrays.

        Raises:
            ModelMalformed: an array is missing, unknown, of wrong shape or not finite.
        """
        shapes = {f"all/insurer/{key_of(t)}": table_cells(specification, t) for t in ordered_tables(specification)}
        shapes["all/level"] = 1
        faults = [f"unknown array {name!r}" for name in sorted(set(arrays) - set(shapes))]
        for name, size in shapes.items():
            array = np.asarray(arrays.get(name, np.zeros(0)), dtype=np.float64)
            if array.shape != (size,) or not np.all(np.isfinite(array)):
                faults.append(f"array {name!r} is missing, misshapen or not finite")
        if faults:
            raise ModelMalformed("; ".join(faults[:5]))
        tables = {name.removeprefix("all/insurer/"): np.asarray(arrays[name]) for name in shapes if name != "all/level"}
        return cls(specification, float(arrays["all/level"][0]), tables)


def cell_names(feature: Cuts | Levels, *, is_pair: bool) -> list[str]:
    """Return how a feature's cells are called, alone or in a pair."""
    if isinstance(feature, Levels):
        return list(feature.levels)
    cuts = feature.coarse if is_pair and feature.coarse is not None else feature.cuts
    return [f"< {cuts[0]}", *(f"{a} to {b}" for a, b in pairwise(cuts)), f">= {cuts[-1]}"]


def table_of(key: str) -> Table:
    """Return the features of a table key."""
    return tuple(key.split("*"))
