"""A risk model is a table of factors; arrays in, arrays out, nothing else in the price."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_demo.population import generate
from convoy_demo.specifications import risk_specification
from convoy_demo.worth import columns_of
from convoy_models.risk.model import CohortModel, ModelMalformed, RiskModel, local_level, local_levels


def made() -> RiskModel:
    """Return a model with random factors."""
    rng, spec = np.random.default_rng(1), risk_specification()
    joint = {t.role: {f.name: rng.normal(0, 0.2, f.width) for f in t.features} for t in spec.towers}
    cohorts = {
        "joint": CohortModel(-2.5, joint),
        "solo": CohortModel(-2.4, {"insurer": joint["insurer"]}),
    }
    return RiskModel(spec, cohorts)


def test_a_price_is_the_product_of_its_table_rows() -> None:
    """A driver who sits on knots pays exp(level) times the factors of those knots."""
    model = made()
    columns = {
        f.name: [float(f.knots[0])] if f.kind == "knots" else [f.levels[0]]
        for t in model.specification.towers
        for f in t.features
    }
    firsts = {(f.tower, f.feature): f.factor for f in reversed(model.table()) if f.cohort == "joint"}
    expected = np.exp(-2.5) * np.prod(list(firsts.values()))
    assert model.rate("joint", columns) == pytest.approx(expected)


def test_two_parties_multiply_their_factors_to_the_price() -> None:
    """Neither needs the other's columns."""
    model, people = made(), generate(50, 1)
    columns = columns_of(people, np.ones(50, dtype=bool), model.specification)
    own = model.tower_factor("joint", "insurer", columns)
    other = model.tower_factor("joint", "oem", columns)
    assert np.allclose(np.exp(-2.5) * own * other, model.rate("joint", columns))


def test_arrays_survive_the_round_trip() -> None:
    """Every number, bit for bit."""
    model = made()
    again = RiskModel.from_arrays(model.specification, model.to_arrays()).to_arrays()
    assert again.keys() == model.to_arrays().keys()
    assert all(np.array_equal(again[k], v) for k, v in model.to_arrays().items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "nan", "level", "cohort", "empty"])
def test_arrays_that_are_no_model_are_refused(fault: str) -> None:
    """Nothing is guessed and nothing else is raised."""
    arrays = made().to_arrays()
    if fault == "missing":
        del arrays["joint/oem/km_1000"]
    elif fault == "unknown":
        arrays["joint/oem/colour"] = np.zeros(2)
    elif fault == "shape":
        arrays["joint/oem/km_1000"] = np.zeros(2)
    elif fault == "nan":
        arrays["solo/insurer/garage"] = np.array([0.0, np.nan])
    elif fault == "level":
        del arrays["joint/level"]
    elif fault == "cohort":
        arrays["other/level"] = np.zeros(1)
    else:
        arrays = {}
    with pytest.raises(ModelMalformed):
        RiskModel.from_arrays(made().specification, arrays)


def test_a_cohort_that_was_not_trained_has_no_price() -> None:
    """The solo model has no OEM factor either."""
    with pytest.raises(ModelMalformed):
        made().rate("all", {})
    with pytest.raises(ModelMalformed):
        made().tower_factor("solo", "oem", {})


def test_a_level_correction_needs_experience_to_move() -> None:
    """With 100 claims it goes half of the way."""
    assert local_level(np.full(100, 1.0), np.full(100, 1.0)) == 1.0
    assert local_level(np.full(200, 1.0), np.full(100, 1.0)) == pytest.approx(1.5)


def test_a_group_is_corrected_as_far_as_it_has_experience() -> None:
    """The book is right as a whole; 400 young claims against 300 expected nearly close the gap, 8 against 6 less than half."""
    old, young, few = (np.full(600, 2.0), np.full(200, 2.0), np.full(4, 2.0))
    claims = np.concatenate([old, young, few])
    expected = np.concatenate([np.full(600, 2.0 + 1 / 6), np.full(200, 1.5), np.full(4, 1.5)])
    groups = np.concatenate([np.zeros(600), np.ones(200), np.full(4, 2)]).astype(np.int64)
    levels = local_levels(claims, expected, groups, 4)
    level = local_level(claims, expected)
    assert level == pytest.approx(1.0, abs=0.005)
    after = [claims[groups == g].sum() / (levels[g] * expected[groups == g].sum()) for g in range(3)]
    assert after[0] == pytest.approx(1.0, abs=0.01)
    assert after[1] == pytest.approx(1.0, abs=0.03)  # 1.33 before
    assert after[2] == pytest.approx(8 / (6 * (8 + 10) / (6 + 10)), abs=0.005)  # ten claims of credibility
    assert levels[3] == pytest.approx(level)  # nobody there


def test_group_levels_that_need_endless_experience_are_one_level() -> None:
    """What ``local_level`` says, for every group."""
    claims, groups = np.array([1.0, 0.0, 2.0, 1.0]), np.array([0, 0, 1, 1])
    expected = np.array([0.5, 0.25, 1.0, 1.0])
    assert local_levels(claims, expected, groups, 2, 1e15) == pytest.approx([local_level(claims, expected)] * 2)
