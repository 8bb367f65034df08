"""Node side of a risk tower: one party's columns as a design, its factor, and sums over its
persons.

The price is ``mu_i = exposure_i * a(insurer columns) * b(OEM columns)``. A node computes its own
factor from the public weights of a query, cut to the tower's cap; the sum ``sum_i x_i a_i b_i`` is
made by ``sums``. Entries of the design lie on the 2^-13 grid and factors on the 2^-15 grid, so the
ring computes exactly what ``Design.sums`` computes in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification, RiskSpecification, Tower
from convoy_models.errors import ModelsError
from convoy_models.features import Block, encode_all, numeric
from convoy_models.fixedpoint import FACTOR_BITS, Floats
from convoy_models.plan import floor_cap, layout

LARGEST_WEIGHT = 50.0
"""A log factor beyond this is no price; the limit keeps the arithmetic finite."""
Weights = Mapping[str, Sequence[float] | Floats]
"""Public log-scale weights by feature name, one number per knot or level."""


class WeightsRefused(ModelsError):
    """The asked weights do not fit the tower of the signed specification."""

    code = "WEIGHTS_REFUSED"
    fix = "Ask with one finite weight per knot or level of every feature of the tower."
    fix_zh = "请为该塔每个特征的每个节点或取值提供一个有限权重。"


@dataclass(frozen=True, slots=True)
class Design:
    """One party's persons as rows of one tower; column order is ``plan.layout``.

    Build with ``Design.build``. ``size`` persons, ``width`` columns.
    """

    tower: Tower
    blocks: tuple[Block, ...]

    @classmethod
    def build(cls, tower: Tower, columns: Mapping[str, Any]) -> Design:
        """Encode the tower's columns.

        Args:
            tower: of the signed specification.
            columns: (N,) values by column name; other columns are ignored.

        Raises:
            ColumnRefused: every fault of every column at once.
        """
        ordered = [feature for group in layout(tower) for feature in group]
        return cls(tower, encode_all(ordered, columns))

    @property
    def size(self) -> int:
        """Number of persons."""
        return int(self.blocks[0].low.size)

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(block.width for block in self.blocks)

    def slices(self) -> dict[str, slice]:
        """Return each feature's columns."""
        return slices(self.tower)

    def dense(self, start: int = 0, stop: int | None = None) -> Floats:
        """Return rows ``start:stop`` as (rows, width) float64 in [0, 1]."""
        parts = [Block(b.name, b.width, b.low[start:stop], b.upper[start:stop]).dense() for b in self.blocks]
        return np.concatenate(parts, axis=1)

    def factor(self, weights: Weights, exposure: Floats | None = None) -> Floats:
        """Return the party's factor, (N,) in [0, cap] on the 2^-15 grid.

        Args:
            weights: public weights of the query; every feature of the tower, finite.
            exposure: (N,) years in [0, 1] or more, for the insurer tower; None elsewhere.

        Raises:
            WeightsRefused: a feature is missing, unknown, of wrong length, or not finite.
        """
        checked = check_weights(self.tower, weights)
        score = np.zeros(self.size)
        for block in self.blocks:
            score += block.score(checked[block.name])
        value = np.exp(np.minimum(score, 30.0))
        if exposure is not None:
            value = value * exposure
        grid = float(1 << FACTOR_BITS)
        return np.minimum(np.rint(np.minimum(value, floor_cap(self.tower)) * grid) / grid, floor_cap(self.tower))

    def sums(self, values: Floats, columns: tuple[int, int] | None = None) -> Floats:
        """Return ``dense().T @ values`` for a slice of columns that covers whole features. values:
        (N,)."""
        start, stop = columns if columns is not None else (0, self.width)
        parts, place = [], 0
        for block in self.blocks:
            if start <= place and place + block.width <= stop:
                parts.append(block.sums(values))
            place += block.width
        out = np.concatenate(parts) if parts else np.zeros(0)
        if out.size != stop - start:
            raise WeightsRefused(f"columns {start}:{stop} cut a feature of tower {self.tower.role!r} in two")
        return out


def slices(tower: Tower) -> dict[str, slice]:
    """Return each feature's columns in the design of a tower."""
    out, place = {}, 0
    for group in layout(tower):
        for feature in group:
            out[feature.name] = slice(place, place + feature.width)
            place += feature.width
    return out


def check_weights(tower: Tower, weights: Weights) -> dict[str, Floats]:
    """Return the weights as arrays if they fit the tower exactly.

    Raises:
        WeightsRefused: see ``Design.factor``.
    """
    if not isinstance(weights, Mapping):
        raise WeightsRefused(f"weights of tower {tower.role!r} are not a mapping of features")
    widths = {feature.name: feature.width for feature in tower.features}
    faults = [f"unknown feature {name!r}" for name in sorted(map(str, set(weights) - set(widths)))]
    out: dict[str, Floats] = {}
    for name, width in widths.items():
        if name not in weights:
            faults.append(f"feature {name!r} is missing")
            continue
        try:
            array = np.asarray(weights[name], dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            faults.append(f"feature {name!r} has weights that are not numbers")
            continue
        if array.shape != (width,):
            faults.append(f"feature {name!r} needs {width} weights")
        elif not np.all(np.abs(array) <= LARGEST_WEIGHT):
            faults.append(f"feature {name!r} has weights beyond {LARGEST_WEIGHT:g} or not finite")
        out[name] = array
    if faults:
        raise WeightsRefused(f"weights of tower {tower.role!r}: " + "; ".join(faults))
    return out


@dataclass(frozen=True, slots=True)
class Labels:
    """Claims and exposure of an insurer's persons, checked.

    claims: (N,) integers >= 0 (uncapped); exposure_years: (N,) in (0, 10].
    """

    claims: npt.NDArray[np.int64]
    exposure_years: Floats

    @classmethod
    def build(cls, specification: RiskSpecification | PairsSpecification, columns: Mapping[str, Any]) -> Labels:
        """Read and check the two columns named by the specification.

        Raises:
            LabelsRefused: absent, negative or fractional claims; exposure not in (0, 10] years.
        """
        faults = [
            f"column {name!r} is absent"
            for name in (specification.claims, specification.exposure)
            if name not in columns
        ]
        if faults:
            raise LabelsRefused("; ".join(faults))
        claims = numeric(specification.claims, columns[specification.claims])
        exposure = numeric(specification.exposure, columns[specification.exposure])
        if claims.size != exposure.size:
            faults.append("claims and exposure have different lengths")
        if np.any(claims < 0) or np.any(claims != np.rint(claims)):
            count = int(np.count_nonzero((claims < 0) | (claims != np.rint(claims))))
            faults.append(f"column {specification.claims!r} has {count} negative or fractional claim count(s)")
        bad = int(np.count_nonzero((exposure <= 0) | (exposure > 10)))
        if bad:
            faults.append(f"column {specification.exposure!r} has {bad} value(s) outside (0, 10] years")
        if faults:
            raise LabelsRefused("; ".join(faults))
        return cls(claims.astype(np.int64), exposure)

    def capped(self, cap: int) -> Floats:
        """Return min(claims, cap) as float64 (N,): what label sums use."""
        return np.minimum(self.claims, cap).astype(np.float64)


class LabelsRefused(ModelsError):
    """Claims or exposure cannot be used; the message names column, cause and fix."""

    code = "LABELS_REFUSED"
    fix = "Correct claims and exposure at their source, or leave these persons out."
    fix_zh = "请在数据源修正赔案数与风险暴露，或剔除这些人员。"
