"""A released model as people read it, and what changed between two versions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from convoy_contracts.build import specification_json
from convoy_demo.specifications import risk_specification
from convoy_models.curves import Change, CurvesRefused, diff, factors, show, show_diff
from convoy_models.risk.model import CohortModel, RiskModel

SPEC = risk_specification()


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


def test_kinds_without_tables_and_negative_limits_are_refused() -> None:
    """Never a guess."""
    with pytest.raises(CurvesRefused):
        factors({"kind": "mystery/1"}, {})
    with pytest.raises(CurvesRefused):
        diff((), (), least=-1.0)
