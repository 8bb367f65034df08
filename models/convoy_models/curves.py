"""A released model as people read it: one table a feature, and what changed between two versions.

A price factor above 1 makes dearer, below 1 cheaper. Nothing here is recomputed from data: the tables ARE
the model (``risk.model``, ``risk.pairs_model``), so a reviewer sees everything that a premium can depend on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from convoy_contracts.specification import (
    Cuts,
    Levels,
    PairsSpecification,
    RecommendSpecification,
    RiskSpecification,
    SeveritySpecification,
    TowersSpecification,
)
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import Floats
from convoy_models.recommend.model import RecommendModel
from convoy_models.recommend.towers import TowersModel
from convoy_models.risk.cann import CannModel, tables_model
from convoy_models.risk.model import Factor, RiskModel
from convoy_models.risk.pairs_model import cell_names
from convoy_models.risk.severity import SeverityModel

WIDTH = 24
LARGEST = 2.0
"""A bar is full at this factor, and empty at one over it."""
Key = tuple[str, str, str, str]


class CurvesRefused(ModelsError):
    """This kind of model has no tables to show."""

    code = "CURVES_REFUSED"
    fix = "Shown are risk-*/1, severity-towers/1 and recommend-*/1; load others with their own tools."
    fix_zh = "可显示 risk-*/1、severity-towers/1 与 recommend-*/1；其他模型请用各自工具加载。"


@dataclass(frozen=True, slots=True)
class Change:
    """One point of a curve in two versions; None where a version does not have it."""

    key: Key
    old: float | None
    new: float | None

    @property
    def size(self) -> float:
        """|log of new over old|; infinite where one is missing."""
        return abs(math.log(self.new / self.old)) if self.old and self.new else math.inf


def factors(specification: Mapping[str, Any], arrays: Mapping[str, Floats]) -> tuple[Factor, ...]:
    """Return every number that the model's answer is made of.

    Args:
        specification: of the bundle. arrays: of the bundle.

    Raises:
        CurvesRefused: a kind without tables.
        ModelsError: arrays that make no model.
    """
    text, kind = json.dumps(specification), specification.get("kind")
    if kind == "risk-towers/1":
        risk = RiskModel.from_arrays(RiskSpecification.model_validate_json(text), arrays)
        levels = [Factor(n, "", "base rate", "", math.exp(c.level)) for n, c in sorted(risk.cohorts.items())]
        return (*levels, *risk.table())
    if kind == "severity-towers/1":
        amounts = SeverityModel.from_arrays(SeveritySpecification.model_validate_json(text), arrays)
        unit = float(amounts.specification.amountUnit)
        means = [
            Factor(n, "", "base amount", "", unit / math.exp(c.level))
            for n, c in sorted(amounts.inverse.cohorts.items())
        ]
        return (*means, *amounts.table())
    if kind == "risk-pairs/1":
        tables = tables_model(PairsSpecification.model_validate_json(text), arrays)
        shape = network_shape(tables) if isinstance(tables, CannModel) else ()
        return (Factor("all", "", "base rate", "", math.exp(tables.level)), *tables.table(), *shape)
    if kind == "recommend-items/1":
        spec = RecommendSpecification.model_validate_json(text)
        return _popularity("joint", spec.items, RecommendModel.from_arrays(spec, arrays).popularity)
    if kind == "recommend-towers/1":  # the network itself stands in no table
        towers = TowersSpecification.model_validate_json(text)
        return _popularity("all", towers.items, TowersModel.from_arrays(towers, arrays).popularity)
    raise CurvesRefused(f"a model of kind {kind} has no tables of factors.")


def network_shape(model: CannModel) -> tuple[Factor, ...]:
    """Return the network's own factor along each feature, all others in their middle cell; 1 in the middle of all.

    What it says about two features together is on no curve: the network stands in no table (``risk.cann``).
    """
    features = {feature.name: feature for feature in model.specification.features}
    middle = {name: points_of(feature)[feature.width // 2] for name, feature in features.items()}
    least = float(model.factor({name: [value] for name, value in middle.items()})[0])
    rows = []
    for name, feature in features.items():
        points = points_of(feature)
        columns = {other: [value] * len(points) for other, value in middle.items()} | {name: points}
        factors = model.factor(columns) / least
        rows += [
            Factor("all", "network", name, point, float(factor))
            for point, factor in zip(cell_names(feature, is_pair=False), factors, strict=True)
        ]
    return tuple(rows)


def points_of(feature: Cuts | Levels) -> list[Any]:
    """Return a value in each cell of a feature: a level, the middle between two cuts, half a cell beyond the outer cuts."""
    if isinstance(feature, Levels):
        return list(feature.levels)
    cuts = [float(cut) for cut in feature.cuts]
    low, high = (cuts[1] - cuts[0], cuts[-1] - cuts[-2]) if len(cuts) > 1 else (1.0, 1.0)
    return [cuts[0] - low / 2, *((a + b) / 2 for a, b in pairwise(cuts)), cuts[-1] + high / 2]


def _popularity(cohort: str, items: Sequence[str], popularity: Floats) -> tuple[Factor, ...]:
    share = np.maximum(popularity, 0.0) / max(float(np.maximum(popularity, 0.0).max()), 1e-9)
    return tuple(
        Factor(cohort, "charging", "popularity", item, float(value)) for item, value in zip(items, share, strict=True)
    )


def show(rows: Sequence[Factor]) -> list[str]:
    """Return the model as lines: one block a feature, one line a point, with a bar around factor 1."""
    lines: list[str] = []
    last = ("", "", "")
    for row in rows:
        here = (row.cohort, row.tower, row.feature)
        if here != last:
            lines += ["", " / ".join(part for part in here if part)]
            last = here
        lines.append(f"  {row.point:>16}  {row.factor:8.4f}  {_bar(row.factor)}".rstrip())
    return lines[1:]


def diff(old: Sequence[Factor], new: Sequence[Factor], least: float = 0.01) -> list[Change]:
    """Return what changed by more than ``least`` (relative), the largest first.

    Raises:
        CurvesRefused: ``least`` is negative or not a number.
    """
    if not least >= 0:
        raise CurvesRefused("the least change must be at least 0.")
    before, after = {_key(row): row.factor for row in old}, {_key(row): row.factor for row in new}
    changes = [Change(key, before.get(key), after.get(key)) for key in {**before, **after}]
    return sorted((c for c in changes if c.size > math.log1p(least)), key=lambda c: (-c.size, c.key))


def show_diff(changes: Sequence[Change]) -> list[str]:
    """Return changes as lines."""
    if not changes:
        return ["Nothing changed."]
    out = []
    for change in changes:
        where = " / ".join(part for part in change.key if part)
        if change.old is None or change.new is None:
            word, value = ("new", change.new) if change.old is None else ("gone", change.old)
            out.append(f"  {word:>8}  {value or 0:8.4f}            {where}")
        else:
            out.append(
                f"  {100 * (change.new / change.old - 1):+7.1f} %  {change.old:8.4f} -> {change.new:8.4f}  {where}"
            )
    return out


def as_json(rows: Sequence[Factor]) -> list[dict[str, Any]]:
    """Return factors as JSON."""
    return [
        {"cohort": r.cohort, "tower": r.tower, "feature": r.feature, "point": r.point, "factor": round(r.factor, 6)}
        for r in rows
    ]


def _key(row: Factor) -> Key:
    return row.cohort, row.tower, row.feature, row.point


def _bar(factor: float) -> str:
    half = WIDTH // 2
    place = max(-half, min(half, round(half * math.log(max(factor, 1e-9)) / math.log(LARGEST))))
    left = " " * (half + min(place, 0)) + "#" * max(-place, 0)
    return f"{left}|{'#' * max(place, 0)}"
