"""Two towers for ``recommend-towers/1``: inputs, weights, optimiser and released model, in plain numbers.

    score(person, item) = u' e_item + bias_item,   u = B tanh(A [profile, history] + a)

``profile`` are the operator's own columns as hat functions and levels, divided by the root of their number; ``history`` is
scaled to norm 1. Biases start at the log of the noisy popularity, which a sum of its own opens first: DP-SGD then has to
learn only what makes a person different from everybody (measured: ``models/LOG.md``). A person without a history is scored
from its profile alone (cold start); with both, one network blends them.

    steps = TowersFit(specification, plan).steps()       # same protocol as ``risk.fit.RiskFit``

What may never change: names and order of the arrays (``NAMES``, ``popularity``).
Source of the architecture: two-tower retrieval (Covington et al. 2016; Yi et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import TowersSpecification
from convoy_models.errors import ModelsError, ShapeMismatch
from convoy_models.features import encode_all
from convoy_models.fixedpoint import Floats
from convoy_models.neural.path import LARGEST_WEIGHT, Path
from convoy_models.recommend.items import used_items
from convoy_models.recommend.model import ItemsMalformed
from convoy_models.risk.fit import Ask, Sums, checked_sum

if TYPE_CHECKING:
    from convoy_models.plan import Plan

Bools = npt.NDArray[np.bool_]
NAMES = ("first.weight", "first.bias", "person.weight", "items.weight", "items.bias")
POPULARITY = "popularity"
NETWORK, GENERAL = "network", "general"
"""Keys of public weights in an ask: of the network, and the noisy popularity of the items."""
LISTS = 4
"""Counts of the hold-out: hidden item in both lists, in the personal one, in the general one, in none."""

TowersSteps = Generator[list[Ask], Sums, "TowersModel"]


class TowersRefused(ModelsError):
    """Public weights that are not those of the network in the signed specification."""

    code = "TOWERS_REFUSED"
    fix = "Send one finite number for each weight of the network and each item of the specification."
    fix_zh = "请为规格中网络的每个权重及每个物品提供一个有限数值。"


# Inputs ------------------------------------------------------------------------------------------------------------------


def profile_rows(spec: TowersSpecification, columns: Mapping[str, Any], persons: int) -> Floats:
    """Return the operator's columns as bounded numbers, (persons, sum of widths); no columns where the profile is empty.

    Raises:
        ColumnRefused: every fault of every column at once.
    """
    if not spec.profile:
        return np.zeros((persons, 0))
    blocks = encode_all(spec.profile, columns)
    return np.asarray(np.concatenate([block.dense() for block in blocks], axis=1) / math.sqrt(len(blocks)))


def features(profile: Floats, used: Bools) -> Floats:
    """Return the network's input: profile, then the history scaled to norm 1."""
    return np.asarray(np.concatenate([profile, bounded_history(used)], axis=1), dtype=np.float64)


def bounded_history(used: Bools) -> Floats:
    """Return histories scaled to norm 1, (N, items); an empty one is zeros."""
    counts = used.sum(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(used / np.maximum(1.0, np.sqrt(counts)), dtype=np.float64)


# Weights -----------------------------------------------------------------------------------------------------------------


def widths(profile: int, items: int, units: int, space: int) -> tuple[int, int, int, int, int]:
    """Return how many weights each array of ``NAMES`` has."""
    return units * (profile + items), units, space * units, items * space, items


def weight_count(spec: TowersSpecification) -> int:
    """Return how many weights the network has."""
    return sum(_widths(spec))


def first_weights(profile: int, items: int, units: int, space: int, seed: int) -> Floats:
    """Return public weights to start from: small random numbers, biases zero."""
    rng = np.random.default_rng([seed, 46])
    parts = [
        rng.normal(size=units * (profile + items)) / math.sqrt(2.0),
        np.zeros(units),
        rng.normal(size=space * units) / math.sqrt(units),
        rng.normal(size=items * space) * 0.1,
        np.zeros(items),
    ]
    return np.asarray(np.round(np.concatenate(parts), 6), dtype=np.float64)


def start(spec: TowersSpecification, popularity: Floats, noise_sd: float) -> Floats:
    """Return the public weights of a run's first step: as ``first_weights``, biases at the log of the noisy popularity.

    Args:
        spec: of the run.
        popularity: (items,) opened.
        noise_sd: of each of these numbers; nothing below it is believed.
    """
    net = spec.network
    weights = first_weights(_profile_width(spec), len(spec.items), net.units, net.space, net.seed)
    weights[-len(spec.items) :] = first_biases(popularity, noise_sd)
    return weights


def first_biases(popularity: Floats, noise_sd: float) -> Floats:
    """Return the log of each item's share of a noisy popularity, (items,); nothing below its noise is believed."""
    seen = np.maximum(popularity, max(noise_sd, 1.0))
    return np.asarray(np.round(np.log(seen / seen.sum()), 6))


def checked(values: object, size: int, largest: float = LARGEST_WEIGHT) -> Floats:
    """Return public numbers of a message as (size,) if they fit.

    Raises:
        TowersRefused: not so many finite numbers within +-``largest``.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TowersRefused("public weights are not numbers") from error
    if array.shape != (size,):
        raise TowersRefused(f"{size} public weights are due, not {array.size}")
    if not np.all(np.abs(array) <= largest):
        raise TowersRefused(f"public weights beyond {largest:g} or not finite")
    return array


def scores(weights: Floats, profile: Floats, used: Bools, units: int, space: int) -> Floats:
    """Return scores of every item, (N, items), in numpy: no torch needed at use.

    Raises:
        ShapeMismatch: not the weights of this network.
    """
    x, items = features(profile, used), used.shape[1]
    sizes = widths(profile.shape[1], items, units, space)
    if weights.shape != (sum(sizes),):
        raise ShapeMismatch(f"the network has {sum(sizes)} weights, not {weights.size}.")
    a, bias_a, b, e, bias_e = np.split(weights, np.cumsum(sizes)[:-1])
    hidden = np.tanh(x @ a.reshape(units, -1).T + bias_a)
    return np.asarray(hidden @ b.reshape(space, units).T @ e.reshape(items, space).T + bias_e)


def _profile_width(spec: TowersSpecification) -> int:
    return sum(feature.width for feature in spec.profile)


def _widths(spec: TowersSpecification) -> tuple[int, int, int, int, int]:
    return widths(_profile_width(spec), len(spec.items), spec.network.units, spec.network.space)


# Model -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TowersModel:
    """A released network. weights: (weight_count,) in the order of ``NAMES``; popularity: (items,), the general list."""

    specification: TowersSpecification
    weights: Floats
    popularity: Floats

    def scores(self, profile: Floats, used: Bools) -> Floats:
        """Return scores (N, items) from ``profile_rows`` (N, width) and histories (N, items); an empty history is cold.

        Raises:
            ItemsMalformed: rows of another specification.
        """
        wanted = (_profile_width(self.specification), len(self.specification.items))
        if (profile.shape[1:], used.shape[1:]) != ((wanted[0],), (wanted[1],)) or len(profile) != len(used):
            raise ItemsMalformed(f"rows of shapes {profile.shape} and {used.shape} do not fit {wanted}")
        net = self.specification.network
        return scores(self.weights, profile, used, net.units, net.space)

    def scores_of(self, columns: Mapping[str, Any], histories: Any) -> Floats:
        """Return scores (N, items) from a node's own columns and lists of item ids.

        Raises:
            ModelsError: columns or items that do not fit; every fault of the columns at once.
        """
        used = used_items(self.specification.items, histories)
        return self.scores(profile_rows(self.specification, columns, len(used)), used)

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors."""
        parts = np.split(self.weights, np.cumsum(_widths(self.specification))[:-1])
        return {POPULARITY: self.popularity, **dict(zip(NAMES, parts, strict=True))}

    @classmethod
    def from_arrays(cls, specification: TowersSpecification, arrays: Mapping[str, Floats]) -> TowersModel:
        """Rebuild a model.

        Raises:
            ItemsMalformed: an array is missing, unknown, of wrong size or not finite.
        """
        wanted = dict(zip(NAMES, _widths(specification), strict=True)) | {POPULARITY: len(specification.items)}
        found = {name: np.ravel(np.asarray(values, dtype=np.float64)) for name, values in arrays.items()}
        if {name: array.size for name, array in found.items()} != wanted:
            raise ItemsMalformed("arrays are missing, unknown or of another size")
        if not all(np.all(np.isfinite(array)) for array in found.values()):
            raise ItemsMalformed("arrays hold values that are not finite")
        return cls(specification, np.concatenate([found[name] for name in NAMES]), found[POPULARITY])


class TowersFit:
    """The optimiser: popularity first, then one LOCAL sum of clipped gradients a step. Use once.

    Args:
        specification: the signed specification.
        plan: of the same specification.
    """

    def __init__(self, specification: TowersSpecification, plan: Plan) -> None:
        self._spec = specification
        self._plan = plan.training

    def steps(self) -> TowersSteps:
        """Ask sum by sum, be sent what was opened, return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        first, *rest = self._plan.queries
        popularity = np.round(checked_sum(first, (yield [Ask(first.id, {})])), 6)
        net = self._spec.network
        path = Path(net, start(self._spec, popularity, first.noise_sd), float(net.batch))
        for query in rest:
            sums = yield [Ask(query.id, {NETWORK: {"weights": path.weights.tolist()}})]
            path.take(checked_sum(query, sums))
        return TowersModel(self._spec, path.mean(), popularity)


def asked_of(model: TowersModel) -> dict[str, dict[str, list[float]]]:
    """Return the public weights that the hold-out's sum is asked with."""
    return {NETWORK: {"weights": model.weights.tolist()}, GENERAL: {"weights": model.popularity.tolist()}}
