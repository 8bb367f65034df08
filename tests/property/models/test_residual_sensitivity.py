"""Whatever a person's row and the coordinator's weights are, one step of a residual moves by at most the planned clip."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_contracts.specification import Cuts, Levels, PairsSpecification, Residual
from convoy_models.fixedpoint import LOCAL_BITS, decode, encode
from convoy_models.neural import shapes
from convoy_models.neural.cann import Residuals
from convoy_models.plan import plan
from convoy_models.risk.tables import LEVEL, TableRows

SPEC = PairsSpecification(
    kind="risk-pairs/1",
    features=(
        Cuts(kind="cuts", name="age", cuts=("25", "40", "60")),
        Levels(kind="levels", name="fuel", levels=("petrol", "electric")),
    ),
    claims="claims",
    exposure="years",
    claimCap=3,
    priorRate="0.15",
    epsilonMicro=4_000_000,
    deltaNano=1_000,
    residual=Residual(hidden=3, steps=2, rateMicro=1_000_000, batch=50, clip="0.7", noiseMilli=9_000, costMicro=25_000),
)
STEP = next(q for q in plan(SPEC, {"insurer": ["a", "b", "c"]}).queries if q.purpose == "residual")
OTHERS = 40
_rng = np.random.default_rng(6)
PEOPLE = {
    "age": _rng.uniform(18, 80, OTHERS), "fuel": _rng.choice(["petrol", "electric"], OTHERS),
    "claims": _rng.poisson(0.2, OTHERS), "years": _rng.uniform(0.2, 1, OTHERS),
}  # fmt: skip

extreme = st.floats(-1e12, 1e12, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    age=extreme,
    fuel=st.sampled_from(["petrol", "electric"]),
    claims=st.integers(0, 10**6),
    years=st.floats(1e-6, 10),
    tables=st.floats(-50, 50),
    scale=st.floats(0, 50),
    seed=st.integers(0, 1000),
)
def test_a_person_moves_an_encoded_step_by_at_most_the_planned_clip(
    age: float, fuel: str, claims: int, years: float, tables: float, scale: float, seed: int
) -> None:
    """Rows at any bound, weights up to +-50 everywhere: the sensitivity that sigma rests on, after rounding to the ring's grid."""
    one = {"age": [age], "fuel": [fuel], "claims": [claims], "years": [years]}
    joined = {name: np.concatenate([values, one[name]]) for name, values in PEOPLE.items()}
    weights = {"age": [tables] * 4, "fuel": [-tables] * 2, LEVEL: [tables / 2]}
    network = np.clip(np.random.default_rng(seed).normal(size=shapes.weight_count(SPEC)) * scale, -50, 50)
    sums = []
    for columns in (PEOPLE, joined):
        own = Residuals.build(SPEC, columns, TableRows.build(SPEC, columns))
        sums.append(decode(encode(own.local_sum(STEP, weights, network), LOCAL_BITS), LOCAL_BITS))
    assert np.isfinite(sums[0]).all()
    assert np.linalg.norm(sums[1] - sums[0]) <= STEP.clip
