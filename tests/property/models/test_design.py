"""Bounds that privacy rests on hold for any data, any weights and any specification."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_contracts.specification import Knots, Levels, RiskSpecification, Tower
from convoy_models.accounting import mu_of
from convoy_models.plan import floor_cap, plan
from convoy_models.risk.towers import Design

numbers = st.floats(-1e12, 1e12, allow_nan=False)
weights = st.floats(-50, 50, allow_nan=False)


@st.composite
def towers(draw: st.DrawFn, role: str) -> Tower:
    """Draw a tower of one to four features with any groups."""
    features: list[Knots | Levels] = []
    for index in range(draw(st.integers(1, 4))):
        name = f"{role}{index}"
        if draw(st.booleans()):
            start = draw(st.integers(0, 50))
            steps = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
            points = np.cumsum([start, *steps])
            scale = draw(st.sampled_from(["linear", "log1p"]))
            knots = tuple(str(point) for point in points)
            features.append(Knots(kind="knots", name=name, knots=knots, scale=scale))
        else:
            levels = tuple(f"l{n}" for n in range(draw(st.integers(2, 5))))
            features.append(Levels(kind="levels", name=name, levels=levels, other="l0"))
    names = [feature.name for feature in features]
    cut = draw(st.integers(0, len(names)))
    groups = (tuple(names[:cut]), tuple(names[cut:])) if 0 < cut < len(names) else None
    cap = draw(st.integers(10, 5000)) / 1000
    return Tower(role=role, features=tuple(features), groups=groups, cap=f"{cap:g}")


@st.composite
def persons(draw: st.DrawFn, tower: Tower, size: int) -> dict[str, list[object]]:
    """Draw any rows that a node would accept."""
    columns: dict[str, list[object]] = {}
    for feature in tower.features:
        values = numbers if isinstance(feature, Knots) else st.sampled_from(["l0", "l1", "odd"])
        columns[feature.name] = draw(st.lists(values, min_size=size, max_size=size))
    return columns


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nobody_moves_a_planned_sum_by_more_than_its_clip(data: st.DataObject) -> None:
    """For each query: norm of the row slice times cut factors, labels included, is within clip."""
    both = (data.draw(towers("insurer")), data.draw(towers("oem")))
    spec = RiskSpecification(
        kind="risk-towers/1", towers=both, claims="c", exposure="e",
        claimCap=data.draw(st.integers(1, 4)), priorRate="0.08", priorScale="0.2", smoothness="0.8",
        sweeps=2, soloSweeps=1, labelShareMilli=data.draw(st.integers(1, 999)),
        epsilonMicro=data.draw(st.integers(10_000, 8_000_000)), deltaNano=1000,
    )  # fmt: skip
    made = plan(spec, {"oem": ["o"], "insurer": ["a", "b", "c"]})
    assert made.charge <= mu_of(spec.epsilonMicro / 1e6, 1e-6) ** 2
    designs, factor = {}, {}
    for tower in both:
        designs[tower.role] = Design.build(tower, data.draw(persons(tower, 3)))
        asked = {f.name: data.draw(st.lists(weights, min_size=f.width, max_size=f.width)) for f in tower.features}
        years = np.array([0.1, 1.0, 10.0]) if tower.role == "insurer" else None
        factor[tower.role] = designs[tower.role].factor(asked, years)
        assert factor[tower.role].max() <= floor_cap(tower)
        assert factor[tower.role].min() >= 0
    for query in made.queries:
        rows = designs[query.module].dense()[:, slice(*query.columns)]
        if query.purpose == "labels":
            size = np.full(3, float(spec.claimCap))
        else:
            own = factor["insurer"]
            size = own if query.cohort == "solo" else own * factor["oem"]
        norms = np.sqrt((rows**2).sum(axis=1)) * size
        assert norms.max() <= query.clip
        assert query.mu2 >= (query.clip / query.sigma) ** 2


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_block_is_a_share_of_one_on_the_grid(data: st.DataObject) -> None:
    """Rows of a block are non-negative, sum to 1, have norm <= 1 and are multiples of 2^-13."""
    tower = data.draw(towers("oem"))
    design = Design.build(tower, data.draw(persons(tower, 4)))
    dense = design.dense()
    for columns in design.slices().values():
        block = dense[:, columns]
        assert block.min() >= 0
        assert np.all(block.sum(axis=1) == 1.0)
        assert (block**2).sum(axis=1).max() <= 1.0
    assert np.all(dense * 2**13 == np.rint(dense * 2**13))
    values = np.array(data.draw(st.lists(st.floats(0, 5), min_size=4, max_size=4)))
    assert np.allclose(design.sums(values), dense.T @ values)
    assert math.isfinite(float(design.sums(values).sum()))
