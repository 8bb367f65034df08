"""A charging operator's node in a run of two towers: own sums, a veto, a word about own use, refusals by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import Knots, Levels, ListTest, Network, TowersSpecification
from convoy_models.errors import ModelsError
from convoy_models.plan import plan
from convoy_models.recommend.towers import NETWORK, TowersModel, start, weight_count
from convoy_node.columns import Column, expected_columns
from convoy_node.errors import ActionRefused
from convoy_node.rounds import make_part
from convoy_node.towers_part import TowersPart

ITEMS = tuple(f"site-{n:02d}" for n in range(12))
SPEC = TowersSpecification(
    kind="recommend-towers/1",
    items=ITEMS,
    profile=(
        Levels(kind="levels", name="plan", levels=("home", "road")),
        Knots(kind="knots", name="kwh", knots=("0", "50")),
    ),
    network=Network(units=4, space=2, steps=2, rateMicro=1_000_000, batch=400, noiseMilli=9_000, costMicro=25_000),
    test=ListTest(length=3, holdoutMilli=400),
    epsilonMicro=4_000_000,
    deltaNano=1_000,
)
IDS = [f"P{n}" for n in range(600)]
PLANNED = plan(SPEC, {"charging": ["a"]})


class _Customers:
    """600 customers who all like the first half of the items best, in turn."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return their columns."""
        size = len(local_ids)
        return {
            "plan": np.array(["home", "road"] * (size // 2)),
            "kwh": np.full(size, 20.0),
            "items": [[ITEMS[n % 4], ITEMS[(n + 1) % 4], ITEMS[4 + n % 8]] for n in range(size)],
        }


@pytest.fixture(scope="module")
def part() -> TowersPart:
    """Return the part that a run makes for such a specification."""
    made = make_part(SPEC, "charging", {}, IDS, _Customers())
    assert isinstance(made, TowersPart)
    return made


def _candidate(bias: np.ndarray) -> dict[str, list[float]]:
    """Return a candidate that gives everybody the same list, by bias, and what a popularity says."""
    popularity = np.r_[np.full(4, 100.0), np.full(8, 10.0)]
    weights = start(SPEC, popularity, 1.0) * 0
    weights[-12:] = bias
    return {name: np.ravel(v).tolist() for name, v in TowersModel(SPEC, weights, popularity).to_arrays().items()}


def test_columns_are_the_operators_own() -> None:
    """Histories and the profile; no other role holds anything, and none takes part."""
    assert expected_columns(SPEC, "charging") == (
        Column("items", "list", ITEMS), Column("plan", "text", ("home", "road")), Column("kwh", "numeric"),
    )  # fmt: skip
    for role in ("oem", "insurer"):
        assert expected_columns(SPEC, role) == ()
        with pytest.raises(ActionRefused, match="no part"):
            make_part(SPEC, role, {}, IDS, _Customers())


def test_sums_have_the_planned_sizes_and_nothing_is_aligned(part: TowersPart) -> None:
    """Every planned sum is answered; nothing that another kind of run asks is."""
    weights = {NETWORK: {"weights": start(SPEC, np.ones(12), 1.0).tolist()}, "general": {"weights": [1.0] * 12}}
    for query in PLANNED.queries:
        assert part.local(query, weights).shape == (query.size,)
    assert part.links == {}
    for refused in (part.factors, part.local):
        with pytest.raises((ModelsError, ActionRefused)):
            refused(PLANNED.queries[1], {})
    with pytest.raises(ActionRefused):
        part.vectors(PLANNED.queries[0])
    with pytest.raises(ActionRefused):
        part.aligned("b", np.arange(3))


def test_a_candidate_is_tried_on_own_customers(part: TowersPart) -> None:
    """Lists by popularity pass and are no better than alone; lists upside down are vetoed; other arrays are refused."""
    upside_down = _candidate(np.arange(12.0))
    assert part.try_candidate(_candidate(-np.arange(12.0))) is None
    assert "general list" in str(part.try_candidate(upside_down))
    assert part.word(upside_down, 3) == "worse"
    for broken in (
        None,
        {"popularity": [1.0]},
        {**upside_down, "items.bias": ["x"]},
        {**upside_down, "items.bias": [0.0]},
    ):
        with pytest.raises(ActionRefused, match="arrays"):
            part.try_candidate(broken)


def test_weights_of_another_network_are_refused(part: TowersPart) -> None:
    """One too many."""
    with pytest.raises(ModelsError, match="weights are due"):
        part.local(PLANNED.queries[1], {NETWORK: {"weights": [0.0] * (weight_count(SPEC) + 1)}})


def test_a_node_without_torch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is refused before data are used, with what to install."""
    monkeypatch.setitem(sys.modules, "convoy_models.neural.two_tower", None)
    with pytest.raises(ActionRefused) as refused:
        make_part(SPEC, "charging", {}, IDS, _Customers())
    assert refused.value.code == "NEURAL_MISSING"
