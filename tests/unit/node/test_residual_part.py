"""A node in a run with a residual: tables as before, steps by secret samples, refusals by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import Cuts, PairsSpecification, Residual
from convoy_models.errors import ModelsError
from convoy_models.neural import shapes
from convoy_models.neural.cann import Residuals
from convoy_models.plan import plan
from convoy_models.risk.cann import NETWORK, CannModel
from convoy_models.risk.tables import LEVEL, TableRows
from convoy_node.errors import ActionRefused
from convoy_node.residual_part import ResidualPart
from convoy_node.rounds import make_part
from convoy_node.tables_part import TablesPart

SPEC = PairsSpecification(
    kind="risk-pairs/1",
    features=(Cuts(kind="cuts", name="age", cuts=("30", "50")),),
    claims="claims",
    exposure="years",
    priorRate="0.5",
    epsilonMicro=4_000_000,
    deltaNano=1_000,
    residual=Residual(hidden=2, steps=2, rateMicro=1_000_000, batch=400, noiseMilli=9_000, costMicro=25_000),
)
IDS = [f"P{n}" for n in range(600)]
STEP = next(q for q in plan(SPEC, {"insurer": ["a", "b", "c"]}).queries if q.purpose == "residual")
TABLES = {"age": [0.0, 0.1, 0.0], LEVEL: [-0.7]}


class _Book:
    """600 customers; half of them claim."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return their columns."""
        rng = np.random.default_rng(1)
        size = len(local_ids)
        return {"age": rng.uniform(18, 80, size), "claims": rng.poisson(0.5, size), "years": np.ones(size)}


@pytest.fixture(scope="module")
def part() -> ResidualPart:
    """Return the part that a run makes for such a specification."""
    made = make_part(SPEC, "insurer", {}, IDS, _Book())
    assert isinstance(made, ResidualPart)
    return made


def test_a_step_is_the_models_sum_over_own_customers(part: ResidualPart) -> None:
    """At rate 1 the same numbers as the library; a query about tables goes the old way."""
    columns = _Book().columns(IDS)
    own = Residuals.build(SPEC, columns, TableRows.build(SPEC, columns))
    start = shapes.first_weights(SPEC)
    weights = {"insurer": TABLES, NETWORK: {"weights": start.tolist()}}
    np.testing.assert_array_equal(part.local(STEP, weights), own.local_sum(STEP, TABLES, start))
    labels = plan(SPEC, {"insurer": ["a", "b", "c"]}).queries[0]
    assert part.local(labels, {}).sum() == np.minimum(columns["claims"], 1).sum()
    assert not isinstance(
        make_part(SPEC.model_copy(update={"residual": None}), "insurer", {}, IDS, _Book()), ResidualPart
    )
    assert isinstance(part, TablesPart)


@pytest.mark.parametrize(
    "weights",
    [
        None,
        {},
        {"insurer": TABLES},
        {"insurer": TABLES, NETWORK: [1.0]},
        {"insurer": TABLES, NETWORK: {"weights": [0.0] * 3}},
        {"insurer": TABLES, NETWORK: {"weights": ["x"] * shapes.weight_count(SPEC)}},
        {"insurer": TABLES, NETWORK: {"weights": [1e9] * shapes.weight_count(SPEC)}},
        {"insurer": {"age": [0.0]}, NETWORK: {"weights": [0.0] * shapes.weight_count(SPEC)}},
    ],
)
def test_weights_that_are_not_those_of_the_specification_are_refused(part: ResidualPart, weights: object) -> None:
    """Missing, short, text, huge; nothing is summed."""
    with pytest.raises(ModelsError):
        part.local(STEP, weights)


def test_a_candidate_is_tried_on_own_customers(part: ResidualPart) -> None:
    """A fair model passes, a level three times too high is vetoed, arrays of another model are refused."""
    tables = {"age": np.zeros(3)}
    network = shapes.first_weights(SPEC)
    for level, vetoed in ((np.log(0.5), False), (np.log(1.6), True)):
        arrays = CannModel(SPEC, float(level), tables, network).to_arrays()
        flat = {name: np.ravel(values).tolist() for name, values in arrays.items()}
        assert (part.try_candidate(flat) is not None) == vetoed
    with pytest.raises(ActionRefused, match="arrays"):
        part.try_candidate({"all/level": [0.0]})


def test_a_node_without_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is refused before data are used, with what to install."""
    monkeypatch.setitem(sys.modules, "convoy_models.neural.cann", None)
    with pytest.raises(ActionRefused) as refused:
        make_part(SPEC, "insurer", {}, IDS, _Book())
    assert refused.value.code == "NEURAL_MISSING"
    assert "neural" in str(refused.value.fix)
