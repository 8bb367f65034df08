"""Monotone price curves for explanation: a released model, reshaped after the fact at no cost of privacy.

A contract may promise that a premium never falls with mileage, say. The nearest monotone curve (weighted least squares on
log factors, pool adjacent violators) replaces the trained one, then the block is centred again so that the level stays.

For explanation, not for accuracy: where the promised direction is wrong by a little, D2 falls (``models/LOG.md``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression

from convoy_contracts.specification import Knots
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import Floats
from convoy_models.risk.model import DECIMALS, RiskModel
from convoy_models.risk.severity import SeverityModel

Direction = Literal["up", "down"]
Directions = Mapping[str, Direction]


class DirectionRefused(ModelsError):
    """A direction for something that has no order."""

    code = "DIRECTION_REFUSED"
    fix = "Name features with knots, each 'up' or 'down'."
    fix_zh = "请仅为带节点的特征指定方向：'up' 或 'down'。"


def monotone(model: RiskModel, directions: Directions, weights: Mapping[str, Floats] | None = None) -> RiskModel:
    """Return the model with monotone curves.

    Args:
        model: a released model.
        directions: 'up' (factor never falls with the value) or 'down', by feature.
        weights: (knots,) positive weight of every knot by feature, e.g. public margins; equal by default.

    Raises:
        DirectionRefused: a feature that the model lacks or that has levels, weights that do not fit.
    """
    features = {f.name: f for tower in model.specification.towers for f in tower.features}
    for name, direction in directions.items():
        if not isinstance(features.get(name), Knots) or direction not in ("up", "down"):
            raise DirectionRefused(f"feature {name!r} cannot be made monotone")
    cohorts = {}
    for key, cohort in model.cohorts.items():
        towers = {}
        for role, curves in cohort.weights.items():
            towers[role] = {
                name: _curve(name, np.asarray(curve, dtype=np.float64), directions[name], weights)
                if name in directions
                else curve
                for name, curve in curves.items()
            }
        cohorts[key] = replace(cohort, weights=towers)
    return replace(model, cohorts=cohorts)


def monotone_severity(
    model: SeverityModel, directions: Directions, weights: Mapping[str, Floats] | None = None
) -> SeverityModel:
    """Return a severity model with monotone curves of the amount.

    Raises:
        DirectionRefused: see ``monotone``.
    """
    turned: dict[str, Direction] = {name: "down" if d == "up" else "up" for name, d in directions.items()}
    if set(directions.values()) - {"up", "down"}:
        raise DirectionRefused("a direction is neither 'up' nor 'down'")
    return replace(model, inverse=monotone(model.inverse, turned, weights))


def _curve(name: str, curve: Floats, direction: Direction, weights: Mapping[str, Floats] | None) -> Floats:
    weight = np.ones(curve.size) if weights is None or name not in weights else np.asarray(weights[name], np.float64)
    if weight.shape != curve.shape or not np.all(weight > 0) or not np.isfinite(weight).all():
        raise DirectionRefused(f"weights of feature {name!r} are not {curve.size} positive numbers")
    made = np.asarray(isotonic_regression(curve, weights=weight, increasing=direction == "up").x)
    # Pooling keeps the weighted mean, so the level of the price stays where it was.
    return np.round(made, DECIMALS)
