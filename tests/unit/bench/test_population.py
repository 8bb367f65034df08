"""The audit of the young sees a wrong price, and what insurers correct at home reaches it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

from convoy_demo.population import generate
from convoy_demo.specifications import risk_specification
from convoy_demo.worth import priced
from convoy_models.risk.model import CohortModel, RiskModel

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
import population


def one_rate() -> RiskModel:
    """Return a model that knows nothing: every factor 1."""
    spec = risk_specification()
    flat = {tower.role: {feature.name: np.zeros(feature.width) for feature in tower.features} for tower in spec.towers}
    solo = {"insurer": flat["insurer"]}
    return RiskModel(spec, {"joint": CohortModel(math.log(0.08), flat), "solo": CohortModel(math.log(0.08), solo)})


@pytest.mark.parametrize("cohort", ["joint", "solo"])
def test_levels_by_age_group_close_most_of_the_gap_of_a_model_without_age(cohort: str) -> None:
    """The young claim more than half as much again as one rate expects; their insurers' own groups know it."""
    training, fresh = generate(60_000, 21), generate(60_000, 22)
    judged = fresh.has_oem if cohort == "joint" else ~fresh.has_oem
    true, expected = population.young_claims(population.one_level(one_rate(), cohort, training, fresh), fresh, judged)
    _, grouped = population.young_claims(priced(one_rate(), cohort, training, fresh), fresh, judged)
    assert true / expected > 1.4
    assert abs(math.log(true / grouped)) < math.log(true / expected) / 2


def test_the_audit_finds_the_truth_right_and_a_tenth_too_much_wrong() -> None:
    """Rates of the world itself are at 1, whatever the luck of claims; a tenth more is at 1 / 1.1."""
    fresh = generate(5_000, 23)
    everybody = np.ones(fresh.size, dtype=bool)
    right = [population.young_claims(fresh.rate, fresh, everybody)] * 2
    dear = [population.young_claims(1.1 * fresh.rate, fresh, everybody)] * 2
    assert population.spread(right) == {"ratio": 1.0, "sd of one run": 0.0, "standard error": 0.0}
    assert population.spread(dear)["ratio"] == pytest.approx(1 / 1.1, abs=1e-3)
