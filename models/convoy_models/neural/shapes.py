"""The CANN residual: one hidden layer on top of the tables of ``risk-pairs/1``, in plain numbers.

    log rate = level + sum of table entries + v' tanh(W x + b) / sqrt(hidden)

``x`` places every numeric feature between -1 and 1 along its public cuts (linear between two cuts, so
that it says more than a cell does) and turns levels into one-hot columns. Cuts and levels are public.

What may never change for a residual: order of inputs, order of weights (W by row, then b, then v).
Source of the architecture: Schelldorfer and Wuethrich 2019 (CANN: a network beside a GLM, as an offset).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from convoy_contracts.specification import Cuts, Levels, PairsSpecification
from convoy_models.errors import ModelsError
from convoy_models.features import ColumnRefused, cells_of, numeric
from convoy_models.fixedpoint import Floats
from convoy_models.neural.path import LARGEST_WEIGHT

NAMES = ("hidden.weight", "hidden.bias", "output.weight")


class ResidualRefused(ModelsError):
    """Weights that are not those of the residual in the signed specification."""

    code = "RESIDUAL_REFUSED"
    fix = "Send one finite number for each weight of the residual of the specification."
    fix_zh = "请为规格中残差网络的每个权重提供一个有限数值。"


def input_width(spec: PairsSpecification) -> int:
    """Return how many numbers describe a person: one per feature of cuts, one per level."""
    return sum(feature.width if isinstance(feature, Levels) else 1 for feature in spec.features)


def hidden_units(spec: PairsSpecification) -> int:
    """Return the width of the hidden layer.

    Raises:
        ResidualRefused: the specification has no residual.
    """
    if spec.residual is None:
        raise ResidualRefused("the specification has no residual")
    return spec.residual.hidden


def weight_count(spec: PairsSpecification) -> int:
    """Return how many weights the residual has."""
    return hidden_units(spec) * (input_width(spec) + 2)


def inputs(spec: PairsSpecification, columns: Mapping[str, Any]) -> Floats:
    """Return the inputs of every person, (N, input_width).

    Raises:
        ColumnRefused: an absent or bad column.
    """
    parts = []
    for feature in spec.features:
        if feature.name not in columns:
            raise ColumnRefused(f"column {feature.name!r} is absent; the contract's schedule names it")
        if isinstance(feature, Levels):
            parts.append(np.eye(feature.width)[cells_of(feature, columns[feature.name])])
        else:
            parts.append(_place(feature, numeric(feature.name, columns[feature.name]))[:, None])
    return np.concatenate(parts, axis=1)


def _place(feature: Cuts, values: Floats) -> Floats:
    cuts = np.array([float(cut) for cut in feature.cuts])
    if cuts.size == 1:
        return np.where(values < cuts[0], -1.0, 1.0)
    # One cell's width beyond the outer cuts still counts.
    ends = np.concatenate([[2 * cuts[0] - cuts[1]], cuts, [2 * cuts[-1] - cuts[-2]]])
    return np.asarray(np.interp(values, ends, np.linspace(-1.0, 1.0, ends.size)))


def first_weights(spec: PairsSpecification) -> Floats:
    """Return the public weights a training starts from: W and b drawn from the seed, v = 0, so the residual is 0."""
    units, width = hidden_units(spec), input_width(spec)
    seed = spec.residual.seed if spec.residual is not None else 0
    drawn = np.random.default_rng([seed, 45]).normal(size=units * (width + 1))
    drawn[: units * width] /= math.sqrt(len(spec.features) / 2)
    return np.concatenate([np.round(drawn, 6), np.zeros(units)])


def checked(spec: PairsSpecification, weights: object) -> Floats:
    """Return public weights as (weight_count,) if they fit.

    Raises:
        ResidualRefused: not so many finite numbers within +-50.
    """
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ResidualRefused("weights of the residual are not numbers") from error
    if array.shape != (weight_count(spec),):
        raise ResidualRefused(f"the residual has {weight_count(spec)} weights, not {array.size}")
    if not np.all(np.abs(array) <= LARGEST_WEIGHT):
        raise ResidualRefused(f"weights of the residual beyond {LARGEST_WEIGHT:g} or not finite")
    return array


def split(spec: PairsSpecification, weights: Floats) -> dict[str, Floats]:
    """Return flat weights as the arrays of the network, by ``NAMES``."""
    units, width = hidden_units(spec), input_width(spec)
    place = units * width
    return {
        NAMES[0]: weights[:place].reshape(units, width),
        NAMES[1]: weights[place : place + units],
        NAMES[2]: weights[place + units :].reshape(1, units),
    }


def joined(arrays: Mapping[str, Floats]) -> Floats:
    """Return the arrays of ``split`` as flat weights."""
    return np.concatenate([np.asarray(arrays[name], dtype=np.float64).ravel() for name in NAMES])


def residual(spec: PairsSpecification, weights: Floats, x: Floats) -> Floats:
    """Return the residual's share of the log rate, (N,). x: (N, input_width)."""
    parts = split(spec, weights)
    hidden = np.tanh(x @ parts[NAMES[0]].T + parts[NAMES[1]])
    return np.asarray(hidden @ parts[NAMES[2]][0] / math.sqrt(hidden_units(spec)))
