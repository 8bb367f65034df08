"""What one person can move a sum of tables by, whatever its row and the public weights are."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_contracts.specification import PairsSpecification
from convoy_models.plan import plan, table_cells
from convoy_models.risk.tables import LEVEL, TableRows, key_of, ordered_tables


@st.composite
def specifications(draw: st.DrawFn) -> PairsSpecification:
    """Draw two to four features, numbers and names, with some of their pairs and any caps."""
    count = draw(st.integers(2, 4))
    features: list[dict[str, object]] = []
    for index in range(count):
        if draw(st.booleans()):
            cuts = sorted(draw(st.sets(st.integers(-20, 20), min_size=1, max_size=6)))
            features.append({"kind": "cuts", "name": f"f{index}", "cuts": [str(cut) for cut in cuts]})
        else:
            levels = [f"l{k}" for k in range(draw(st.integers(2, 5)))]
            features.append({"kind": "levels", "name": f"f{index}", "levels": levels, "other": "l0"})
    every = [[f"f{a}", f"f{b}"] for a in range(count) for b in range(a + 1, count)]
    document = {
        "kind": "risk-pairs/1",
        "features": features,
        "pairs": draw(st.lists(st.sampled_from(every), unique_by=tuple, max_size=len(every))),
        "claims": "n", "exposure": "t", "priorRate": "0.1", "epsilonMicro": 1_000_000, "deltaNano": 1000,
        "claimCap": draw(st.integers(1, 5)), "modelCap": draw(st.sampled_from(["0.1", "0.25", "1", "3"])),
        "passes": draw(st.integers(1, 3)), "mainWeightMilli": draw(st.sampled_from([500, 1000, 2500])),
    }  # fmt: skip
    return PairsSpecification.model_validate_json(json.dumps(document))


@settings(max_examples=80, deadline=None)
@given(spec=specifications(), data=st.data())
def test_one_person_moves_a_sum_by_its_clip_at_most(spec: PairsSpecification, data: st.DataObject) -> None:
    """Any number of claims, any exposure, any values beyond the cuts, any weights up to the limit."""
    person: dict[str, np.ndarray] = {
        feature.name: np.array([data.draw(st.floats(-1e6, 1e6, allow_nan=False))])
        if feature.kind == "cuts"
        else np.array([data.draw(st.sampled_from(["l0", "l1", "strange"]))])
        for feature in spec.features
    }
    person |= {"n": np.array([data.draw(st.integers(0, 40))]), "t": np.array([data.draw(st.floats(0.01, 10))])}
    weights = {
        key_of(table): [data.draw(st.floats(-50, 50)) for _ in range(table_cells(spec, table))]
        for table in ordered_tables(spec)
    } | {LEVEL: [data.draw(st.floats(-50, 50))]}
    made = plan(spec, {"insurer": ["a", "b", "c"]})
    assert made.charge <= made.mu2_limit
    for query in made.queries:
        moved = TableRows.build(spec, person).local_sum(query, weights)
        assert np.all(moved >= 0)
        assert float(np.linalg.norm(moved)) <= query.clip
        assert math.isclose(query.mu2, (query.clip / query.sigma) ** 2, rel_tol=1e-6)


@settings(max_examples=20, deadline=None)
@given(spec=specifications(), seed=st.integers(0, 1000))
def test_the_sums_of_parts_add_up_to_the_sum_of_all(spec: PairsSpecification, seed: int) -> None:
    """However the customers are divided among insurers."""
    rng = np.random.default_rng(seed)
    size = 60
    rows: dict[str, np.ndarray] = {
        feature.name: rng.integers(-25, 25, size) if feature.kind == "cuts" else rng.choice(["l0", "l1"], size)
        for feature in spec.features
    }
    rows |= {"n": rng.poisson(0.5, size), "t": rng.uniform(0.1, 1, size)}
    weights = {key_of(table): rng.normal(0, 0.2, table_cells(spec, table)) for table in ordered_tables(spec)}
    weights[LEVEL] = np.array([-2.0])
    holder = rng.integers(0, 3, size)
    for query in plan(spec, {"insurer": ["a", "b", "c"]}).queries:
        whole = TableRows.build(spec, rows).local_sum(query, weights)
        parts = sum(
            TableRows.build(spec, {name: values[holder == k] for name, values in rows.items()}).local_sum(
                query, weights
            )
            for k in range(3)
        )
        np.testing.assert_allclose(parts, whole, atol=1e-9)
