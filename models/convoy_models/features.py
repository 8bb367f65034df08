"""Columns to bounded design blocks: hat functions on public knots, one-hot columns for levels.

Guarantees: every row of a block is non-negative, sums to 1 and has L2 norm <= 1, so a row of ``m``
blocks has L2 norm <= sqrt(m) (``plan`` builds every sensitivity on this). Entries lie on the grid
of ``MATRIX_BITS`` fraction bits, so fixed-point encoding of a design is exact and the guarantee
survives it. Knots, bounds and levels come from the signed specification, never from data.

Does not: impute. A value that is NaN, infinite, missing, of another type or an unknown level is
refused with the column, the number of rows and the fix; a value outside the outer knots is clipped
to them, as the contract says.

What may never change for ``risk-towers/1``: order of columns inside a block, the two scales, the
rounding rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import Cuts, Knots, Levels
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import MATRIX_BITS, Floats


class ColumnRefused(ModelsError):
    """A column of a party's data cannot be used; the message names column, cause and fix."""

    code = "COLUMN_REFUSED"
    fix = "Correct the column at its source, or leave these persons out, and start again."
    fix_zh = "请在数据源修正该列，或剔除这些人员，然后重新开始。"


@dataclass(frozen=True, slots=True)
class Block:
    """One feature's columns, stored compactly: row i has ``1 - upper[i]`` in column ``low[i]``,
    ``upper[i]`` in the next.

    low: (N,) int32 in [0, width); upper: (N,) float64 in [0, 1], 0 wherever ``low`` is the last
    column.
    """

    name: str
    width: int
    low: npt.NDArray[np.int32]
    upper: Floats

    def dense(self) -> Floats:
        """Return the block as (N, width) float64."""
        rows = np.arange(self.low.size)
        out = np.zeros((self.low.size, self.width))
        out[rows, self.low] = 1.0 - self.upper
        out[rows, np.minimum(self.low + 1, self.width - 1)] += self.upper
        return out

    def score(self, weights: Floats) -> Floats:
        """Return the block's share of the log factor, (N,): linear interpolation of ``weights``
        (width,)."""
        right = weights[np.minimum(self.low + 1, self.width - 1)]
        left = weights[self.low]
        return left + self.upper * (right - left)

    def sums(self, values: Floats) -> Floats:
        """Return ``dense().T @ values``, (width,), without building the dense block. values:
        (N,)."""
        upper = np.bincount(self.low, self.upper * values, self.width)
        lower = np.bincount(self.low, values, self.width) - upper
        lower[1:] += upper[:-1]
        lower[-1] += upper[-1]
        return np.asarray(lower, dtype=np.float64)


def numeric(name: str, values: Any) -> Floats:
    """Return a column as finite float64 (N,), or refuse it.

    Raises:
        ColumnRefused: not a number, NaN or infinite.
    """
    array = np.ma.getdata(np.asarray(values)) if np.ma.isMaskedArray(values) else np.asarray(values)
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        raise ColumnRefused(f"column {name!r} has missing values")
    if array.ndim != 1:
        raise ColumnRefused(f"column {name!r} has {array.ndim} dimensions")
    if array.dtype.kind not in "iufb":
        raise ColumnRefused(f"column {name!r} holds {array.dtype}, not numbers")
    out = array.astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(out)))
    if bad:
        raise ColumnRefused(f"column {name!r} has {bad} of {out.size} values that are NaN or infinite")
    return out


def encode(feature: Knots | Levels, values: Any) -> Block:
    """Turn one column into its block.

    Args:
        feature: public knots or levels of the signed specification.
        values: (N,) numbers for ``Knots``; (N,) texts, numbers or booleans for ``Levels`` (compared
            as text).

    Raises:
        ColumnRefused: see the module docstring.
    """
    return _hats(feature, values) if isinstance(feature, Knots) else _one_hot(feature, values)


def cells_of(feature: Cuts | Levels, values: Any) -> npt.NDArray[np.int32]:
    """Return the cell of each value in the feature's own table, (N,) int32 in [0, width).

    Raises:
        ColumnRefused: see the module docstring; values beyond the outer cuts belong to the outer cells.
    """
    if isinstance(feature, Levels):
        return _one_hot(feature, values).low
    cuts = np.array([float(cut) for cut in feature.cuts])
    return np.searchsorted(cuts, numeric(feature.name, values), side="right").astype(np.int32)


def coarse_map(feature: Cuts | Levels) -> npt.NDArray[np.int32]:
    """Return the pair cell of each own cell, (width,) int32."""
    if isinstance(feature, Levels) or feature.coarse is None:
        return np.arange(feature.width, dtype=np.int32)
    coarse = np.array([float(cut) for cut in feature.coarse])
    ends = np.array([float(cut) for cut in feature.cuts])
    return np.concatenate([[0], np.searchsorted(coarse, ends, side="right")]).astype(np.int32)


def _hats(feature: Knots, values: Any) -> Block:
    knots = np.array([float(k) for k in feature.knots])
    x = np.clip(numeric(feature.name, values), knots[0], knots[-1])
    if feature.scale == "log1p":
        knots, x = np.log1p(knots), np.log1p(x)
    low = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, knots.size - 2)
    upper = (x - knots[low]) / (knots[low + 1] - knots[low])
    grid = float(1 << MATRIX_BITS)
    upper = np.clip(np.rint(upper * grid) / grid, 0.0, 1.0)
    return Block(feature.name, knots.size, low.astype(np.int32), upper)


def _one_hot(feature: Levels, values: Any) -> Block:
    texts = _texts(feature.name, values)
    place = {level: j for j, level in enumerate(feature.levels)}
    other = place[feature.other] if feature.other is not None else -1
    names, inverse = np.unique(texts, return_inverse=True)
    codes = np.array([place.get(str(name), other) for name in names], dtype=np.int32)
    unknown = [str(name) for name, code in zip(names, codes, strict=True) if code < 0]
    if unknown:
        rows = int(np.count_nonzero(codes[inverse] < 0))
        raise ColumnRefused(
            f"column {feature.name!r} has {len(unknown)} value(s) in {rows} row(s) that are not "
            f"among the {len(feature.levels)} levels of the contract",
            fix="Map these values at their source, or agree a level 'other' in the contract.",
        )
    return Block(feature.name, len(feature.levels), codes[inverse].astype(np.int32), np.zeros(texts.size))


def _texts(name: str, values: Any) -> npt.NDArray[np.str_]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ColumnRefused(f"column {name!r} has {array.ndim} dimensions")
    if array.dtype.kind == "f":
        numbers = numeric(name, array)
        if np.any(numbers != np.rint(numbers)):
            raise ColumnRefused(f"column {name!r} holds fractions but its levels are names")
        array = numbers.astype(np.int64)
    if array.dtype.kind == "b":
        return np.where(array, "true", "false")
    if array.dtype.kind == "O":
        missing = sum(1 for v in array.tolist() if v is None or v != v)
        if missing:
            raise ColumnRefused(f"column {name!r} has {missing} missing value(s)")
    return array.astype(np.str_)


def encode_all(features: Sequence[Knots | Levels], columns: Mapping[str, Any]) -> tuple[Block, ...]:
    """Encode every feature of a tower and report all faults at once.

    Raises:
        ColumnRefused: with one line per fault (absent column, unequal length, bad values).
    """
    faults: list[str] = []
    blocks: list[Block] = []
    for feature in features:
        if feature.name not in columns:
            faults.append(f"column {feature.name!r} is absent; the contract's schedule names it")
            continue
        try:
            blocks.append(encode(feature, columns[feature.name]))
        except ColumnRefused as refusal:
            faults.append(refusal.cause)
    lengths = {block.low.size for block in blocks}
    if len(lengths) > 1:
        faults.append(f"columns have different lengths {sorted(lengths)}")
    if faults:
        raise ColumnRefused("; ".join(faults))
    return tuple(blocks)
