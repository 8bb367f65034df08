"""A released model as people read it, and what changed between two versions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convoy_contracts.build import specification_json
from convoy_contracts.specification import Cuts, Levels, PairsSpecification, Residual, SeveritySpecification, Tower
from convoy_demo.specifications import risk_specification
from convoy_models.curves import Change, CurvesRefused, diff, factors, show, show_diff
from convoy_models.neural.shapes import weight_count
from convoy_models.risk.cann import CannModel
from convoy_models.risk.model import CohortModel, RiskModel
from convoy_models.risk.severity import SeverityModel

SPEC = risk_specification()
SEVERITY = SeveritySpecification(
    kind="severity-towers/1",
    towers=(Tower(role="insurer", features=(Levels(kind="levels", name="car", levels=("small", "large")),), cap="3"),),
    claims="n", amount="paid", claimCap=1, amountCap="5000", amountUnit="2000", epsilonMicro=4_000_000, deltaNano=1_000,
)  # fmt: skip
NETWORK = PairsSpecification(
    kind="risk-pairs/1", claims="n", exposure="t", priorRate="0.1", epsilonMicro=4_000_000, deltaNano=1_000,
    features=(
        Cuts(kind="cuts", name="age", cuts=("25", "60")),
        Levels(kind="levels", name="fuel", levels=("diesel", "petrol")),
    ),
    residual=Residual(hidden=4, steps=4, rateMicro=1_000_000, batch=300, noiseMilli=9_000, costMicro=50_000),
)  # fmt: skip


def model(bump: float = 0.0) -> RiskModel:
    """Return a model whose youngest drivers pay exp(bump) times more."""
    weights = {tower.role: {f.name: np.zeros(f.width) for f in tower.features} for tower in SPEC.towers}
    weights["insurer"]["driver_age"][0] = 0.3 + bump
    return RiskModel(SPEC, {"joint": CohortModel(-2.0, weights)})


def rows(made: RiskModel) -> tuple:
    """Return the factors of a model as a bundle holds it."""
    return factors(specification_json(SPEC), made.to_arrays())


def test_every_number_of_the_model_is_shown_with_its_point() -> None:
    """Base rate first, then one line a knot or level."""
    shown = rows(model())
    assert len(shown) == 1 + sum(f.width for tower in SPEC.towers for f in tower.features)
    assert shown[0].factor == pytest.approx(math.exp(-2.0))
    lines = show(shown)
    line = next(line for line in lines if line.strip().startswith("18 "))
    assert "1.3499" in line
    assert "|####" in line


def test_a_diff_names_what_changed_and_by_how_much() -> None:
    """One point moved by a tenth is one line; nothing moved is said."""
    old, new = rows(model()), rows(model(math.log(1.1)))
    changes = diff(old, new)
    assert [change.key for change in changes] == [("joint", "insurer", "driver_age", "18")]
    assert "+10.0 %" in show_diff(changes)[0]
    assert diff(old, new, least=0.2) == []
    assert show_diff([]) == ["Nothing changed."]


def test_points_that_appear_or_vanish_come_first() -> None:
    """A version with another knot is not compared point by point where it cannot be."""
    old, new = rows(model()), rows(model(0.2))
    changes = diff(old[:-1], new)
    assert changes[0] == Change((*_place(new[-1]),), None, new[-1].factor)
    assert "new" in show_diff(changes)[0]


def _place(row: object) -> tuple[str, str, str, str]:
    return row.cohort, row.tower, row.feature, row.point  # type: ignore[attr-defined]


def test_a_severity_is_shown_in_amounts_and_its_versions_are_compared() -> None:
    """The mean amount of the base, and factors above 1 where claims are dearer."""
    weights = {t.role: {f.name: np.zeros(f.width) for f in t.features} for t in SEVERITY.towers}
    old = SeverityModel(SEVERITY, RiskModel(SEVERITY.as_frequency(), {"joint": CohortModel(-0.5, weights)}))
    dearer = {role: dict(tower) for role, tower in weights.items()}
    dearer["insurer"]["car"] = np.array([0.0, -0.4])
    new = SeverityModel(SEVERITY, RiskModel(SEVERITY.as_frequency(), {"joint": CohortModel(-0.5, dearer)}))
    shown = [factors(specification_json(SEVERITY), made.to_arrays()) for made in (old, new)]
    assert shown[0][0].feature == "base amount"
    assert shown[0][0].factor == pytest.approx(2_000 * math.exp(0.5))
    (change,) = diff(*shown)
    assert change.key == ("joint", "insurer", "car", "large")
    assert change.new == pytest.approx(math.exp(0.4))


def test_a_network_on_top_of_tables_is_shown_along_each_feature() -> None:
    """The tables as they are, and the network's own factor: 1 in the middle, and what the model multiplies elsewhere."""
    tables = {"age": np.array([0.1, 0.0, -0.1]), "fuel": np.array([0.0, 0.2])}
    flat = np.random.default_rng(2).normal(0, 0.5, weight_count(NETWORK))
    model = CannModel(NETWORK, -2.0, tables, flat)
    shown = factors(specification_json(NETWORK), model.to_arrays())
    own = {(row.feature, row.point): row.factor for row in shown if row.tower == "network"}
    assert [row.factor for row in shown if row.feature == "fuel" and row.tower == "insurer"][1] == pytest.approx(
        1.2214, abs=1e-4
    )
    assert own["age", "25 to 60"] == own["fuel", "petrol"] == pytest.approx(1)
    young, middle = (float(model.factor({"age": [value], "fuel": ["petrol"]})[0]) for value in (7.5, 42.5))
    assert own["age", "< 25"] == pytest.approx(young / middle)
    assert len({round(value, 6) for value in own.values()}) == 4


def test_kinds_without_tables_and_negative_limits_are_refused() -> None:
    """Never a guess."""
    with pytest.raises(CurvesRefused):
        factors({"kind": "mystery/1"}, {})
    with pytest.raises(CurvesRefused):
        diff((), (), least=-1.0)
