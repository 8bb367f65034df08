"""A trained risk model: exact price factors per feature.

``rate = exp(level) * prod over features of factor(value)``, exactly: a factor is ``exp`` of the
linear interpolation between two knots, or the number of a level. There is nothing else in the
price, so every premium can be explained by its table. Canonical form: in every block the mean log
factor over the training margins is 0, numbers have six decimals.

What may never change: array names ``<cohort>/level`` and ``<cohort>/<tower>/<feature>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import Knots, RiskSpecification, Tower
from convoy_models.errors import ModelsError
from convoy_models.features import encode_all
from convoy_models.fixedpoint import Floats
from convoy_models.plan import layout
from convoy_models.risk.towers import check_weights

DECIMALS = 6


class ModelMalformed(ModelsError):
    """Arrays or a cohort that do not make a model of this specification."""

    code = "MODEL_MALFORMED"
    fix = "Load the arrays together with the specification they were trained under."
    fix_zh = "请将参数数组与其训练所依据的规格一并加载。"


@dataclass(frozen=True, slots=True)
class CohortModel:
    """One cohort. level: log yearly claim rate of the average driver; weights: log factors by tower
    role and feature."""

    level: float
    weights: Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True, slots=True)
class Factor:
    """One row of the price table; ``point`` is a knot value or a level."""

    cohort: str
    tower: str
    feature: str
    point: str
    factor: float


@dataclass(frozen=True, slots=True)
class RiskModel:
    """Models by cohort: 'joint' and 'solo', or 'all' where there is one pattern only."""

    specification: RiskSpecification
    cohorts: Mapping[str, CohortModel]

    def tower_factor(self, cohort: str, role: str, columns: Mapping[str, Any]) -> Floats:
        """Return one party's factor of the price, (N,), without level and exposure.

        Raises:
            ModelMalformed: no such cohort or tower.
            ColumnRefused: bad columns.
        """
        if cohort not in self.cohorts or role not in self.cohorts[cohort].weights:
            raise ModelMalformed(f"the model has no tower {role!r} for cohort {cohort!r}")
        tower = next(tower for tower in self.specification.towers if tower.role == role)
        weights = check_weights(tower, self.cohorts[cohort].weights[role])
        blocks = encode_all(tower.features, columns)
        score = np.zeros(blocks[0].low.size)
        for block in blocks:
            score += block.score(weights[block.name])
        return np.asarray(np.exp(score), dtype=np.float64)

    def rate(self, cohort: str, columns: Mapping[str, Any]) -> Floats:
        """Return the yearly claim rate, (N,), from the columns of all towers of the cohort."""
        if cohort not in self.cohorts:
            raise ModelMalformed(f"the model has no cohort {cohort!r}; it has {sorted(self.cohorts)}")
        chosen = self.cohorts[cohort]
        parts = [self.tower_factor(cohort, role, columns) for role in chosen.weights]
        return np.asarray(np.exp(chosen.level) * np.prod(parts, axis=0), dtype=np.float64)

    def table(self) -> tuple[Factor, ...]:
        """Return the whole model as price factors."""
        rows = []
        for name, cohort in self.cohorts.items():
            for tower in self.specification.towers:
                for feature in tower.features if tower.role in cohort.weights else ():
                    points = feature.knots if isinstance(feature, Knots) else feature.levels
                    values = np.exp(cohort.weights[tower.role][feature.name])
                    rows += [
                        Factor(name, tower.role, feature.name, point, float(value))
                        for point, value in zip(points, values, strict=True)
                    ]
        return tuple(rows)

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors."""
        out: dict[str, Floats] = {}
        for name, cohort in self.cohorts.items():
            out[f"{name}/level"] = np.array([cohort.level])
            for role, weights in cohort.weights.items():
                for feature, values in weights.items():
                    out[f"{name}/{role}/{feature}"] = np.asarray(values, dtype=np.float64)
        return out

    @classmethod
    def from_arrays(cls, specification: RiskSpecification, arrays: Mapping[str, Floats]) -> RiskModel:
        """Rebuild a model from its specification and arrays.

        Raises:
            ModelMalformed: an array is missing, unknown, of wrong shape or not finite.
        """
        cohorts: dict[str, CohortModel] = {}
        left = set(arrays)
        for name in sorted({key.partition("/")[0] for key in arrays}):
            level = arrays.get(f"{name}/level")
            if (
                name not in ("joint", "solo", "all")
                or level is None
                or np.shape(level) != (1,)
                or not np.isfinite(level[0])
            ):
                raise ModelMalformed(f"cohort {name!r} is unknown or has no finite level")
            left.discard(f"{name}/level")
            weights: dict[str, dict[str, Floats]] = {}
            for tower in specification.towers:
                if name == "solo" and tower.role != "insurer":
                    continue
                weights[tower.role] = _tower_arrays(name, tower, arrays)
                left -= {f"{name}/{tower.role}/{feature.name}" for feature in tower.features}
            cohorts[name] = CohortModel(float(level[0]), weights)
        if left or not cohorts:
            raise ModelMalformed(f"arrays that no feature names: {sorted(left)[:5]}" if left else "there are no arrays")
        return cls(specification, cohorts)


def _tower_arrays(cohort: str, tower: Tower, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    out: dict[str, Floats] = {}
    for feature in (feature for group in layout(tower) for feature in group):
        array = np.asarray(arrays.get(f"{cohort}/{tower.role}/{feature.name}", np.zeros(0)), dtype=np.float64)
        if array.shape != (feature.width,) or not np.all(np.isfinite(array)):
            raise ModelMalformed(f"array '{cohort}/{tower.role}/{feature.name}' is missing, misshapen or not finite")
        out[feature.name] = array
    return out


def local_level(claims: Floats, expected: Floats, credibility_claims: float = 100.0) -> float:
    """Return the factor by which an insurer corrects the level on its own customers; it stays with
    the insurer.

    Claims are capped in training and markets differ, so the level of the joint model is off by a
    few per cent. One number from the insurer's own book repairs that; it is computed and kept at
    its node and never released.

    Args:
        claims: (N,) uncapped counts of its training customers.
        expected: (N,) rate x exposure for the same customers.
        credibility_claims: claims at which own experience and the joint level weigh the same.
    """
    return float((claims.sum() + credibility_claims) / (expected.sum() + credibility_claims))


GROUP_CREDIBILITY_CLAIMS = 10.0
"""Claims at which a group's own experience and the insurer's level weigh the same (chosen on generated populations, ``LOG.md``)."""


def local_levels(
    claims: Floats,
    expected: Floats,
    groups: npt.NDArray[np.integer[Any]],
    count: int,
    group_claims: float = GROUP_CREDIBILITY_CLAIMS,
) -> Floats:
    """Return the factors by which an insurer corrects the level of every audited group on its own customers.

    Caps and noise move the price of a small group of high risks more than that of all: claims beyond the cap are not
    counted, factors beyond theirs are not expected, and noise shrinks what few persons say. Drivers under 25 are off by
    -5 to +10 per cent (``LOG.md``). So the insurer's level is corrected once more per group, by the group's own experience
    as far as it has some. As ``local_level``: computed and kept at its node, never released.

    Args:
        claims: (N,) uncapped counts of its training customers with one pattern of data.
        expected: (N,) rate x exposure for the same customers, before any correction.
        groups: (N,) in 0 .. count - 1, by public cuts of the audited feature (``features.cells_of``).
        count: number of groups.
        group_claims: claims at which a group's experience and the insurer's level weigh the same.

    Returns:
        (count,) positive factors of ``expected``; a group without customers has the insurer's level.
    """
    level = local_level(claims, expected)
    return np.array(
        [level * local_level(claims[groups == g], level * expected[groups == g], group_claims) for g in range(count)]
    )
