"""An insurer's part in a run of tables: its sums, and its veto."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import PairsSpecification
from convoy_models.errors import ModelsError
from convoy_models.plan import plan
from convoy_models.risk.tables import TableRows
from convoy_models.simulate import fit_pairs_plain
from convoy_node.errors import ActionRefused
from convoy_node.rounds import make_part
from convoy_node.tables_part import TablesPart

SIZE = 6_000
SPEC = PairsSpecification.model_validate_json(
    json.dumps(
        {
            "kind": "risk-pairs/1",
            "features": [
                {"kind": "cuts", "name": "age", "cuts": ["25", "40", "60"]},
                {"kind": "levels", "name": "fuel", "levels": ["d", "p"]},
            ],
            "pairs": [["age", "fuel"]],
            "claims": "n", "exposure": "t", "priorRate": "0.1", "epsilonMicro": 4_000_000, "deltaNano": 1000,
        }
    )
)  # fmt: skip
PLAN = plan(SPEC, {"insurer": ["a", "b", "c"]})


class _Book:
    """An insurer's customers."""

    def __init__(self, size: int = SIZE) -> None:
        rng = np.random.default_rng(2)
        self.data: dict[str, Any] = {
            "age": rng.uniform(18, 80, size), "fuel": rng.choice(["d", "p"], size), "t": rng.uniform(0.3, 1, size),
        }  # fmt: skip
        self.data["n"] = rng.poisson(0.15 * self.data["t"] * np.where(self.data["age"] < 25, 2.5, 1.0))

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of some customers."""
        rows = np.array([int(name) for name in local_ids])
        return {name: values[rows] for name, values in self.data.items()}


def part(
    book: _Book, solo: Sequence[str], links: Mapping[str, Sequence[tuple[str, bytes]]] | None = None
) -> TablesPart:
    """Build the part as the node does."""
    made = make_part(SPEC, "insurer", links or {}, solo, book)
    assert isinstance(made, TablesPart)
    return made


def everyone(size: int = SIZE) -> list[str]:
    """Return all local ids."""
    return [str(k) for k in range(size)]


def test_a_customer_counts_once_whether_linked_or_not() -> None:
    """Linked to a carmaker, to two, or to nobody."""
    book = _Book(50)
    labels = PLAN.queries[0]
    links = {"oem-1": [("3", b"x" * 16), ("4", b"y" * 16)], "oem-2": [("3", b"z" * 16)]}
    apart = part(book, [k for k in everyone(50) if k not in ("3", "4")], links).local(labels, {})
    np.testing.assert_array_equal(apart, part(book, everyone(50)).local(labels, {}))


def test_only_an_insurer_has_a_part_and_only_local_sums() -> None:
    """Others are refused by name of the step."""
    book = _Book(50)
    with pytest.raises(ActionRefused, match="no part"):
        make_part(SPEC, "oem", {"a": [("1", b"x" * 16)]}, [], book)
    with pytest.raises(ActionRefused, match="nobody"):
        make_part(SPEC, "insurer", {}, [], book)
    mine, query = part(book, everyone(50)), PLAN.queries[0]
    assert mine.links == {}
    for step in (
        lambda: mine.aligned("oem", np.arange(3)),
        lambda: mine.factors(query, {}),
        lambda: mine.vectors(query),
    ):
        with pytest.raises(ActionRefused):
            step()


@pytest.mark.parametrize("weights", [None, 7, {}, {"insurer": None}, {"insurer": {"age": [0.0] * 4}}])
def test_weights_that_do_not_fit_are_refused(weights: object) -> None:
    """Before anything is summed."""
    query = next(query for query in PLAN.queries if query.purpose == "model")
    with pytest.raises(ModelsError):
        part(_Book(50), everyone(50)).local(query, weights)


def test_a_good_candidate_passes_and_a_bad_one_is_vetoed() -> None:
    """By level, by shape of the curve; arrays that are no model are refused."""
    book = _Book()
    mine = part(book, everyone())
    model = fit_pairs_plain(SPEC, PLAN, TableRows.build(SPEC, book.data))
    arrays = {name: [float(v) for v in values] for name, values in model.to_arrays().items()}
    assert mine.try_candidate(arrays) is None
    assert "level" in str(mine.try_candidate(arrays | {"all/level": [model.level + 1.5]}))
    turned = {
        name: [-8 * v for v in values] if name == "all/insurer/age" else values for name, values in arrays.items()
    }
    turned["all/level"] = [model.level - float(np.log(_ratio(book, turned)))]
    assert "worse than one rate" in str(mine.try_candidate(turned))
    for wrong in (None, {}, arrays | {"all/level": ["x"]}):
        with pytest.raises(ActionRefused):
            mine.try_candidate(wrong)
    assert part(book, everyone(20)).try_candidate(arrays | {"all/level": [9.0]}) is None, "too few claims to judge"


def _ratio(book: _Book, arrays: Mapping[str, list[float]]) -> float:
    from convoy_models.risk.pairs_model import PairsModel

    made = PairsModel.from_arrays(SPEC, {name: np.array(values) for name, values in arrays.items()})
    return float((made.rate(book.data) * book.data["t"]).sum() / book.data["n"].sum())
