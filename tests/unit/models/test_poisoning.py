"""A node that lies: within its caps it moves every sum, the model and other customers' prices by a bounded amount; beyond
them it is refused; and the evaluation says who was hurt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convoy_demo.population import Population, generate
from convoy_demo.specifications import risk_specification
from convoy_demo.worth import columns_of
from convoy_models.errors import ValueRefused
from convoy_models.gates import utility_gate
from convoy_models.holdout import Evaluation, Gain
from convoy_models.plan import PlannedQuery, Side, plan
from convoy_models.risk.fit import Ask, RiskFit
from convoy_models.risk.model import RiskModel
from convoy_models.risk.towers import Design, WeightsRefused
from convoy_models.simulate import PlainCohort, fit_plain, plain_sums
from convoy_models.testing import MemoryFederation, NoNoise

ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}
SPEC = risk_specification()
LIAR = 2  # insurer-c: a tenth of the drivers


@pytest.fixture(scope="module")
def people() -> Population:
    """30,000 drivers."""
    return generate(30_000, 7)


def cohorts(people: Population, *, lying: bool) -> dict[str, PlainCohort]:
    """Return what is summed; the liar says that every one of its customers had as many claims as the cap allows."""
    out = {}
    for name, rows in (("joint", people.has_oem), ("solo", ~people.has_oem)):
        columns: dict[str, Any] = columns_of(people, rows, SPEC)
        if lying:
            columns[SPEC.claims] = np.where(people.insurer[rows] == LIAR, 99, columns[SPEC.claims])
        out[name] = PlainCohort.build(SPEC, columns)
    return out


def test_a_lie_within_the_caps_moves_a_sum_by_at_most_clip_times_its_customers(people: Population) -> None:
    """Whatever it says about them: the L2 norm of the change is at most the number of its persons times the clip."""
    made = plan(SPEC, ROLES)
    honest, lied = (cohorts(people, lying=lying) for lying in (False, True))
    asks = next(RiskFit(SPEC, made).steps())
    labels = [Ask(ask.query, {}) for ask in asks if made[ask.query].purpose == "labels"]
    before, after = (plain_sums(SPEC, made, parts, labels) for parts in (honest, lied))
    for ask in labels:
        query = made[ask.query]
        rows = people.has_oem if query.cohort == "joint" else ~people.has_oem
        liars = int((rows & (people.insurer == LIAR)).sum())
        moved = float(np.linalg.norm(after[query.id] - before[query.id]))
        assert 0 < moved <= liars * query.clip


def test_other_insurers_prices_move_by_a_bounded_factor(people: Population) -> None:
    """A tenth of the customers claimed every year at the cap: prices rise by no more than the claims said, and their order
    stays. For most the price moves by less than e; LIMIT: for single customers by up to e^2, so the gates are needed."""
    made = plan(SPEC, ROLES)
    models: list[RiskModel] = [fit_plain(SPEC, made, cohorts(people, lying=lying)) for lying in (False, True)]
    others = people.has_oem & (people.insurer != LIAR)
    columns = columns_of(people, others, SPEC)
    before, after = (model.rate("joint", columns) for model in models)
    said = cohorts(people, lying=True)["joint"].labels.capped(1).sum()
    true = cohorts(people, lying=False)["joint"].labels.capped(1).sum()
    assert after.mean() / before.mean() <= 1.1 * said / true
    shape = np.log(after / after.mean()) - np.log(before / before.mean())
    assert np.quantile(np.abs(shape), 0.95) < 1.0
    assert np.abs(shape).max() < 3.0
    assert np.corrcoef(np.log(before), np.log(after))[0, 1] > 0.5


def test_values_beyond_a_cap_are_refused_where_they_would_leave() -> None:
    """A factor or a claim above its cap never becomes a share; neither does what is not finite."""
    ids = [n.to_bytes(16, "big") for n in range(60)]
    oem, insurer = Side("oem", ("oem",)), Side("insurer", ("a",))
    for kind, value in (("DOT", 1.01), ("WEIGHTED", 0.2001), ("WEIGHTED", np.inf), ("DOT", np.nan)):
        federation = MemoryFederation({"oem": NoNoise(), "a": NoNoise()}, [("oem", "a")])
        federation.align({("oem", "a"): ids, ("a", "oem"): ids})
        federation.hold({("oem", "a"): np.full((60, 2), 0.5)})
        query = PlannedQuery(
            id="joint/x", kind=kind, cohort="joint", module="oem", purpose="model", sweep=1, group=0, columns=(0, 2),
            shape=(2, 1), clip=1.0, sigma=1e-3, mu2=1e6, matrix=oem,
            vectors=(insurer,) if kind == "DOT" else (insurer, oem),
        )  # fmt: skip
        bad = np.full(60, 0.1)
        bad[7] = value
        values = {("a", "oem"): bad} | ({("oem", "a"): np.full(60, 0.1)} if kind == "WEIGHTED" else {})
        with pytest.raises(ValueRefused, match="cap"):
            federation.ask(query, values=values, caps={"a": 1.0 if kind == "DOT" else 0.2})


def test_weights_beyond_any_price_are_refused_by_the_node(people: Population) -> None:
    """A coordinator that asks with weights beyond e^50, or not finite, gets nothing; below that factors are cut to the cap."""
    tower = next(tower for tower in SPEC.towers if tower.role == "oem")
    design = Design.build(tower, {name: values[people.has_oem] for name, values in people.columns.items()})
    weights = {feature.name: [0.0] * feature.width for feature in tower.features}
    loud = {**weights, "km_1000": [49.0] * len(weights["km_1000"])}
    assert design.factor(loud).max() <= 2.0
    for value in (51.0, float("inf"), float("nan")):
        with pytest.raises(WeightsRefused):
            design.factor({**weights, "km_1000": [value] * len(weights["km_1000"])})


def test_a_model_that_one_book_carries_is_not_released() -> None:
    """With four insurers: good on all together, clearly worse once one is left out."""
    good, bad = Gain(60.0, 10.0, 5.0), Gain(-40.0, 10.0, 5.0)
    evaluation = Evaluation(
        good, good, good, 900.0, 400.0, "garage", (), without={"a": good, "b": good, "c": good, "d": bad}
    )
    verdict = utility_gate(evaluation, dict.fromkeys("abcd", "better"))
    assert not verdict.passed
    assert "d" in verdict.text.en
