"""What parties answer about the hold-out: the same numbers as from all rows in one place; bad public numbers are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from convoy_contracts.specification import Evaluation
from convoy_demo.population import generate
from convoy_demo.specifications import risk_specification
from convoy_models.holdout import InsurerRows, held_out, log_factor
from convoy_models.plan import plan
from convoy_node.errors import ActionRefused
from convoy_node.rounds import make_part

TERMS = Evaluation(holdoutMilli=300, shareMilli=200, audit="garage")
SPEC = risk_specification().model_copy(update={"evaluation": TERMS})
ROLES = {"insurer": ["a", "b", "c", "d"], "oem": ["o"]}
SIZE = 400
LINKS = [n.to_bytes(16, "big") for n in range(SIZE)]
IDS = [(str(n), link) for n, link in enumerate(LINKS)]
ORDER = np.arange(SIZE)


class Rows:
    """Columns of the first drivers of a generated population who have driving data."""

    def __init__(self) -> None:
        people = generate(3_000, 3)
        chosen = np.flatnonzero(people.has_oem)[:SIZE]
        self.all: dict[str, Any] = {name: values[chosen] for name, values in people.columns.items()}
        self.all |= {SPEC.claims: people.claims[chosen], SPEC.exposure: people.exposure_years[chosen]}

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of some persons."""
        rows = np.array([int(name) for name in local_ids])
        return {name: values[rows] for name, values in self.all.items()}


def weights(**more: Any) -> dict[str, Any]:
    """Return public weights that price everybody a little differently."""
    random = np.random.default_rng(4)
    towers = {t.role: {f.name: random.normal(0, 0.05, f.width).tolist() for f in t.features} for t in SPEC.towers}
    towers["insurer"]["driver_age"] = [-2.5] * 9
    base = {name: [value + 0.02 for value in values] for name, values in towers["insurer"].items()}
    bands = [0.05 + 0.01 * k for k in range(9)]
    return {**towers, "base": base, "bands": bands, "ratio": [1.02], "mean": [1.05]} | more


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """One insurer and the carmaker, aligned."""
    made = {
        "insurer": make_part(SPEC, "insurer", {"o": IDS}, (), Rows()),
        "oem": make_part(SPEC, "oem", {"a": IDS}, (), Rows()),
    }
    matrix = made["insurer"].aligned("o", ORDER)
    assert matrix is not None
    assert matrix.shape[1] == sum(f.width for f in SPEC.towers[0].features) + 1
    assert (matrix[:, -1] == 1).all()
    made["oem"].aligned("a", ORDER)
    return made


def test_every_sum_is_that_of_the_held_out_persons_only(parts: dict[str, Any]) -> None:
    """LOCAL sums, factors and logs, with and without one insurer."""
    out, asked = held_out(LINKS, 300), weights()
    for query in plan(SPEC, ROLES).evaluation.queries:
        if "a" not in query.participants:
            continue
        if query.kind == "LOCAL":
            value = parts["insurer"].local(query, asked)
            assert value.shape == (query.size,)
            assert np.isfinite(value).all()
            assert float(np.abs(value).sum()) <= out.sum() * query.clip * np.sqrt(query.size)
            continue
        for part, peer in (("insurer", "o"), ("oem", "a")):
            made, cap = parts[part].factors(query, asked)
            assert (made[peer][~out] == 0).all()
            assert np.abs(made[peer]).max() <= cap
    names = {q.purpose for q in plan(SPEC, ROLES).evaluation.queries}
    assert {"holdout-less-base", "holdout-less-logs", "holdout-band", "holdout-oem", "holdout-own-logs"} <= names


def test_bands_share_the_persons_among_them(parts: dict[str, Any]) -> None:
    """Each held-out person is in exactly one band."""
    out, asked = held_out(LINKS, 300), weights()
    bands = [q for q in plan(SPEC, ROLES).evaluation.queries if q.purpose == "holdout-band"]
    made = np.stack([parts["insurer"].factors(query, asked)[0]["o"] for query in bands])
    assert ((made > 0).sum(axis=0) == out).all()


def test_a_training_sum_leaves_the_held_out_persons_out(parts: dict[str, Any]) -> None:
    """Labels of the others only."""
    out = held_out(LINKS, 300)
    query = plan(SPEC, ROLES)["joint/labels/insurer"]
    total = parts["insurer"].local(query, {})
    claims = np.minimum(Rows().all[SPEC.claims], 1)[~out].sum()
    blocks = len(SPEC.towers[0].features)
    assert total.sum() == pytest.approx(blocks * claims, rel=1e-3)


@pytest.mark.parametrize(
    "change", [{"bands": [0.1] * 9}, {"bands": [0.1]}, {"ratio": ["1"]}, {"ratio": [float("nan")]}]
)
def test_public_numbers_that_are_none_are_refused(parts: dict[str, Any], change: dict[str, Any]) -> None:
    """Edges that do not increase, a wrong number of them, texts."""
    purpose = "holdout-bands" if "bands" in change else "holdout-less-base"
    query = next(q for q in plan(SPEC, ROLES).evaluation.queries if q.purpose == purpose and "a" in q.participants)
    with pytest.raises(ActionRefused) as refused:
        parts["insurer"].local(query, weights(**change))
    assert refused.value.code == "WEIGHTS_REFUSED"


def test_the_cut_of_logs_is_the_public_one() -> None:
    """Whatever the factor."""
    rows = InsurerRows(np.array([9.0]), np.array([0.01]), np.array([0.08]), np.array([1.0]), 0.3)
    assert rows.value("holdout-ratio") == pytest.approx([0.5])
    assert log_factor(np.array([1e9, 0.0])).tolist() == [0.5, -0.5]
