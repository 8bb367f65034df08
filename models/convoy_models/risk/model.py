"""A trained risk model: exact price factors per feature, and prices from columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from convoy_contracts.specification import RiskSpecification

from convoy_models.features import Floats, encode_all


@dataclass(frozen=True, slots=True)
class CohortModel:
    """One cohort: the log yearly rate of the reference driver and log factors by tower role and feature."""

    level: float
    weights: Mapping[str, Mapping[str, Floats]]


@dataclass(frozen=True, slots=True)
class RiskModel:
    specification: RiskSpecification
    cohorts: Mapping[str, CohortModel]

    def rate(self, cohort: str, columns: Mapping[str, Any]) -> Floats:
        """Return the yearly claim rate, (N,)."""
        chosen = self.cohorts[cohort]
        score: Floats | None = None
        for tower in self.specification.towers:
            if tower.role not in chosen.weights:
                continue
            for block in encode_all(tower.features, columns):
                part = block.score(np.asarray(chosen.weights[tower.role][block.name]))
                score = part if score is None else score + part
        if score is None:
            raise ValueError
        return np.exp(chosen.level + score)
