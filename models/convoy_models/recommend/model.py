"""Server side of the recommender: from three noisy sums to item tables; and scoring at a node.

Warm: an item-item ridge in closed form (EASE: Steck 2019, arXiv:1905.03375, eq. 8) on the noisy
Gram matrix; deviations: rows are norm-bounded, both halves of the matrix are averaged, negative
eigenvalues are cut, and the ridge grows with the public noise. Cold: ridge from driving profile to
items. Blend: both in standard units of the person. All of it is post-processing of private sums;
user histories and profiles are only ever touched at their node.

What may never change: array names ``item_item``, ``profile_item``, ``popularity``.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np

from convoy_contracts.specification import RecommendSpecification
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Plan
from convoy_models.risk.fit import Ask, FitRefused, Noise, Sums

RIDGE_PER_PERSON = 0.02
RIDGE_PER_NOISE = 0.75
"""Ridge in units of the noise matrix's largest eigenvalue / 2, ``sd sqrt(items)``."""
PROFILE_RIDGE_PER_PERSON = 0.002
PROFILE_RIDGE_PER_NOISE = 2.0

RecommendSteps = Generator[list[Ask], Sums, "RecommendModel"]


class ItemsMalformed(ModelsError):
    """Arrays or rows that do not fit the model's items or profile."""

    code = "ITEMS_MALFORMED"
    fix = "Use rows and arrays made under the same specification."
    fix_zh = "请使用同一规格下生成的行与数组。"


@dataclass(frozen=True, slots=True)
class RecommendModel:
    """item_item: (items, items), zero diagonal; profile_item: (width, items); popularity:
    (items,)."""

    specification: RecommendSpecification
    item_item: Floats
    profile_item: Floats
    popularity: Floats

    def warm(self, rows: Floats) -> Floats:
        """Return scores (N, items) from history rows (N, items)."""
        return self._scores(rows, self.item_item)

    def cold(self, profiles: Floats) -> Floats:
        """Return scores (N, items) from profile rows (N, width); for persons without a history."""
        return self._scores(profiles, self.profile_item)

    def blend(self, rows: Floats, profiles: Floats) -> Floats:
        """Return scores (N, items) from both, each in standard units of the person."""
        return _standard(self.warm(rows)) + _standard(self.cold(profiles))

    def _scores(self, rows: Floats, matrix: Floats) -> Floats:
        if rows.ndim != 2 or rows.shape[1] != matrix.shape[0]:
            raise ItemsMalformed(f"rows of shape {rows.shape} do not fit {matrix.shape[0]} columns")
        return np.asarray(rows @ matrix)

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors."""
        return {
            "item_item": self.item_item,
            "profile_item": self.profile_item,
            "popularity": self.popularity,
        }

    @classmethod
    def from_arrays(cls, specification: RecommendSpecification, arrays: Mapping[str, Floats]) -> RecommendModel:
        """Rebuild a model.

        Raises:
            ItemsMalformed: an array is missing, unknown, of wrong shape or not finite.
        """
        items = len(specification.items)
        width = 1 + sum(knots.width for knots in specification.profile)
        shapes = {
            "item_item": (items, items),
            "profile_item": (width, items),
            "popularity": (items,),
        }
        found = {name: np.asarray(values, dtype=np.float64) for name, values in arrays.items()}
        if {name: array.shape for name, array in found.items()} != shapes:
            raise ItemsMalformed("arrays are missing, unknown or misshapen")
        if not all(np.all(np.isfinite(array)) for array in found.values()):
            raise ItemsMalformed("arrays hold values that are not finite")
        return cls(specification, found["item_item"], found["profile_item"], found["popularity"])

    @classmethod
    def from_flat(cls, specification: RecommendSpecification, arrays: Mapping[str, Floats]) -> RecommendModel:
        """Rebuild a model whose arrays travelled as one row of numbers each, rows first.

        Raises:
            ItemsMalformed: see ``from_arrays``.
        """
        wide = {"item_item", "profile_item"}
        items = len(specification.items)
        if any(np.size(arrays[name]) % items for name in wide & set(arrays)):
            raise ItemsMalformed(f"an array is no table of {items} columns")
        return cls.from_arrays(
            specification,
            {name: np.reshape(values, (-1, items)) if name in wide else values for name, values in arrays.items()},
        )


class RecommendFit:
    """The recommender's optimiser: one exchange with all three sums, then closed forms. Use once.

    Args:
        specification: the signed specification.
        plan: of the same specification.
        noise: 'planned' believes the plan's noise; 'none' is for sums without noise.
    """

    def __init__(self, specification: RecommendSpecification, plan: Plan, noise: Noise = "planned") -> None:
        self._spec = specification
        self._plan = plan
        self._noise = noise

    def steps(self) -> RecommendSteps:
        """Ask once, be sent the sums (flattened, rows first), return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        sums = yield [Ask(query.id, {}) for query in self._plan.queries]
        opened, sd = {}, {}
        for query in self._plan.queries:
            value = np.asarray(sums.get(query.id, np.zeros(0)), dtype=np.float64)
            if value.size != query.size or not np.all(np.isfinite(value)):
                raise FitRefused(f"query {query.id!r} gave {value.size} numbers; {query.size} finite are due")
            opened[query.purpose] = value.reshape(query.shape)
            sd[query.purpose] = query.noise_sd if self._noise == "planned" else 0.0
        return self._solve(opened["gram"], opened["cross"], opened["profile"], sd["gram"], sd["profile"])

    def _solve(self, gram: Floats, cross: Floats, profile: Floats, gram_sd: float, profile_sd: float) -> RecommendModel:
        profile = _positive((profile + profile.T) / 2)
        persons = max(float(profile[0, 0]) * (1 + len(self._spec.profile)), 1.0)
        gram = (gram + gram.T) / 2
        items, width = gram.shape[0], profile.shape[0]
        popularity = np.diag(gram).copy()
        # Averaging the two halves leaves sd / sqrt(2) off the diagonal.
        ridge = RIDGE_PER_PERSON * persons
        ridge += RIDGE_PER_NOISE * gram_sd / math.sqrt(2) * math.sqrt(items)
        inverse = np.linalg.inv(_positive(gram) + ridge * np.eye(items))
        item_item = -inverse / np.diag(inverse)[None, :]
        np.fill_diagonal(item_item, 0.0)
        ridge = PROFILE_RIDGE_PER_PERSON * persons
        ridge += PROFILE_RIDGE_PER_NOISE * profile_sd / math.sqrt(2) * math.sqrt(width)
        profile_item = np.linalg.solve(profile + ridge * np.eye(width), cross)
        return RecommendModel(self._spec, np.round(item_item, 9), np.round(profile_item, 9), np.round(popularity, 6))


def _positive(matrix: Floats) -> Floats:
    """Return the nearest positive semi-definite matrix (Frobenius): negative eigenvalues cut."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def _standard(scores: Floats) -> Floats:
    spread = scores.std(axis=1, keepdims=True)
    return np.asarray((scores - scores.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-12))
