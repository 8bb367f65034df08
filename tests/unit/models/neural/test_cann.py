"""The residual: planned and paid as sampled steps, equal to a pooled SGD without noise, a bundle without torch."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from convoy_contracts.specification import Cuts, Levels, PairsSpecification, Residual
from convoy_models.accounting import epsilon_of, mu_of
from convoy_models.features import ColumnRefused
from convoy_models.mechanisms import SampledGaussian, envelope, left_of, mixed_epsilon
from convoy_models.neural import shapes
from convoy_models.neural.cann import ResidualNet, Residuals, capped_losses, fit_cann_plain
from convoy_models.neural.path import MOMENTUM
from convoy_models.neural.planned import cost_micro, priced
from convoy_models.plan import PlanRefused, plan
from convoy_models.risk.cann import NETWORK, CannFit, CannModel, tables_model
from convoy_models.risk.fit import Ask, FitRefused, drive
from convoy_models.risk.model import ModelMalformed
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import LEVEL, TableRows, capped_mean
from convoy_models.simulate import fit_pairs_plain
from convoy_node.admission import charges

RESIDUAL = Residual(hidden=4, steps=6, rateMicro=1_000_000, batch=3000, noiseMilli=20_000, costMicro=20_000, seed=3)
SPEC = PairsSpecification(
    kind="risk-pairs/1",
    features=(
        Cuts(kind="cuts", name="age", cuts=("25", "40", "60")),
        Cuts(kind="cuts", name="km", cuts=("10",)),
        Levels(kind="levels", name="fuel", levels=("petrol", "electric")),
    ),
    pairs=(("age", "fuel"),),
    claims="claims",
    exposure="years",
    claimCap=2,
    priorRate="0.15",
    passes=2,
    epsilonMicro=4_000_000,
    deltaNano=1_000,
    residual=RESIDUAL,
)
SAMPLED = {"rateMicro": 100_000, "steps": 40, "noiseMilli": 1922, "costMicro": 175_859}
"""What ``priced(..., 0.3)`` found at epsilon 4."""
ROLES = {"insurer": ["a", "b", "c"]}


def _people(size: int, seed: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    age, km = rng.uniform(18, 80, size), rng.gamma(2, 6, size)
    fuel = rng.choice(["petrol", "electric"], size)
    years = rng.uniform(0.3, 1, size)
    rate = 0.2 * np.exp(0.03 * (km - 12) * (age < 40) - 0.2 * (fuel == "electric"))
    return {"age": age, "km": km, "fuel": fuel, "claims": rng.poisson(rate * years), "years": years}


def _fit(spec: PairsSpecification, parts: list[dict[str, np.ndarray]]) -> CannModel:
    """Fit on exact sums over several nodes."""
    made = plan(spec, ROLES)
    rows = [TableRows.build(spec, columns) for columns in parts]
    nodes = [Residuals.build(spec, columns, own) for columns, own in zip(parts, rows, strict=True)]

    def total(ask: Ask) -> Any:
        query = made[ask.query]
        if query.purpose == "residual":
            return sum(n.local_sum(query, ask.weights["insurer"], ask.weights[NETWORK]["weights"]) for n in nodes)
        return sum(r.local_sum(query, ask.weights.get("insurer")) for r in rows)

    return drive(CannFit(spec, made).steps(), lambda asks: {ask.query: total(ask) for ask in asks})


def _pooled(spec: PairsSpecification, base: PairsModel, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Fit the residual on pooled rows with torch.optim.SGD; every person's gradient clipped by autograd, one by one."""
    residual = spec.residual
    assert residual is not None
    net = ResidualNet(shapes.input_width(spec), residual.hidden).double()
    start = shapes.split(spec, shapes.first_weights(spec))
    net.load_state_dict({name: torch.from_numpy(start[name].copy()) for name in shapes.NAMES})
    x = torch.from_numpy(shapes.inputs(spec, columns))
    rows = TableRows.build(spec, columns)
    offset = torch.from_numpy(rows.score({**base.tables, LEVEL: np.array([base.level])}).copy())
    years, claims = torch.from_numpy(columns["years"]), torch.from_numpy(np.minimum(columns["claims"], 2).astype(float))
    optimiser = torch.optim.SGD(net.parameters(), lr=float(residual.learningRate), momentum=MOMENTUM)
    path = []
    for _ in range(residual.steps):
        total = [torch.zeros_like(p) for p in net.parameters()]
        for i in range(len(x)):
            one = slice(i, i + 1)
            loss = capped_losses(offset[one] + net(x[one]), years[one], claims[one], spec.claimCap).sum()
            grads = torch.autograd.grad(loss, list(net.parameters()))
            norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
            for sum_, g in zip(total, grads, strict=True):
                sum_ += g * min(1.0, float(residual.clip) / norm)
        for p, sum_ in zip(net.parameters(), total, strict=True):
            p.grad = sum_ / (residual.batch * float(spec.priorRate))
        optimiser.step()
        path.append(np.concatenate([p.detach().numpy().ravel() for p in net.parameters()]))
    return np.mean(path[residual.steps // 2 :], axis=0)


def test_without_noise_three_nodes_fit_what_pooled_sgd_fits() -> None:
    """Sums over three nodes and clipping by Opacus against one loop over pooled persons, to six decimals."""
    people = _people(300)
    parts = [{name: values[n::3] for name, values in people.items()} for n in range(3)]
    model = _fit(SPEC, parts)
    pooled = _pooled(SPEC, model.base, people)
    assert np.abs(pooled[-4:]).max() > 0.01  # it has left its start
    np.testing.assert_allclose(model.network, pooled, atol=5e-6)


def test_the_plan_charges_sampled_steps_together_within_epsilon() -> None:
    """A tenth of the persons a step: ledger entries of tables and steps cost at most epsilon 4, PLD says the same."""
    spec = SPEC.model_copy(update={"residual": RESIDUAL.model_copy(update=SAMPLED)})
    made = plan(spec, ROLES)
    steps = [query for query in made.queries if query.purpose == "residual"]
    assert len(steps) == 40
    assert {step.rate for step in steps} == {0.1}
    assert {step.lead for step in steps} == {"all/residual"}
    assert len(steps[0].columns) == 2
    assert steps[0].size == shapes.weight_count(spec) == 4 * (2 + 2 + 2)
    entries = charges(made.queries, 1e-6)
    cost = math.fsum(entry.mu2 for entry in entries if entry.lead is None)
    tail = math.fsum(entry.tail for entry in entries)
    assert tail == pytest.approx(2e-8)
    assert 3.7 < epsilon_of(cost, left_of(1e-6, tail)) <= 4.0
    share = math.fsum(step.mu2 for step in steps) / made.charge
    assert 0.25 < share < 0.27
    residual = SampledGaussian(steps[0].clip, steps[0].sigma, 0.1, 40)
    assert mixed_epsilon([residual], 1e-6) <= epsilon_of(envelope([residual], tail).mu2, left_of(1e-6, tail))


def test_a_cost_that_is_stated_too_low_makes_no_plan() -> None:
    """Nor does a residual that leaves nothing for the tables."""
    needed = cost_micro(SPEC)
    cheap = SPEC.model_copy(update={"residual": RESIDUAL.model_copy(update={"costMicro": needed - 1})})
    with pytest.raises(PlanRefused, match=str(needed)):
        plan(cheap, ROLES)
    everything = math.ceil(mu_of(4.0, 1e-6) ** 2 * 1e6)
    with pytest.raises(PlanRefused, match="nothing"):
        plan(SPEC.model_copy(update={"residual": RESIDUAL.model_copy(update={"costMicro": everything})}), ROLES)


def test_an_author_finds_noise_and_cost_for_a_share_of_epsilon() -> None:
    """Within two per cent of the share, and the plan accepts it."""
    spec = priced(SPEC, 0.25)
    assert spec.residual is not None
    limit = mu_of(4.0, 1e-6) ** 2
    assert 0.245 * limit < spec.residual.costMicro / 1e6 <= 0.25 * limit
    assert plan(spec, ROLES).charge <= limit


def test_a_specification_without_a_residual_keeps_its_plan_and_its_bytes() -> None:
    """The new member changes nothing for contracts that are signed."""
    without = SPEC.model_copy(update={"residual": None})
    assert "residual" not in without.model_dump(mode="json", exclude_none=True)
    assert not [query for query in plan(without, ROLES).queries if query.purpose == "residual"]


def test_samples_differ_in_every_step_and_nothing_but_the_sum_is_kept() -> None:
    """The same step asked twice by a test gives two samples; their mean over draws is the full sum times the rate."""
    spec = SPEC.model_copy(update={"residual": RESIDUAL.model_copy(update={"rateMicro": 300_000, "steps": 6})})
    people = _people(400)
    own = Residuals.build(spec, people, TableRows.build(spec, people))
    made = next(q for q in plan(SPEC, ROLES).queries if q.purpose == "residual")
    tables = {key: [0.0] * size for key, size in (("age", 4), ("km", 2), ("fuel", 2), ("age*fuel", 8), (LEVEL, 1))}
    start = shapes.first_weights(spec)
    draws = np.array([own.local_sum(made, tables, start) for _ in range(60)])
    assert not np.array_equal(draws[0], draws[1])
    whole = Residuals.build(SPEC, people, own.tables).local_sum(made, tables, start)
    error = draws.std(axis=0, ddof=1) / math.sqrt(60) + 1e-9
    assert np.abs((draws.mean(axis=0) - 0.3 * whole) / error).max() < 6


def test_a_model_survives_its_arrays_and_predicts_as_torch_does() -> None:
    """Arrays by name, flat ones too; the numpy prediction is the network's."""
    model = _fit(SPEC, [_people(500)])
    arrays = model.to_arrays()
    assert {name for name in arrays if name.startswith("residual/")} == {f"residual/{name}" for name in shapes.NAMES}
    again = tables_model(SPEC, {name: np.ravel(values) for name, values in arrays.items()})
    fresh = _people(50, seed=9)
    np.testing.assert_array_equal(again.rate(fresh), model.rate(fresh))
    net = ResidualNet(shapes.input_width(SPEC), 4).double()
    net.load_state_dict({name: torch.from_numpy(arrays[f"residual/{name}"].copy()) for name in shapes.NAMES})
    with torch.no_grad():
        factor = torch.exp(net(torch.from_numpy(shapes.inputs(SPEC, fresh)))).numpy()
    np.testing.assert_allclose(model.factor(fresh), factor, rtol=1e-12)
    assert factor.std() > 1e-4
    for broken in (
        {**arrays, "residual/hidden.bias": np.array([np.nan] * 4)},
        {**arrays, "residual/hidden.bias": np.zeros(5)},
        {name: values for name, values in arrays.items() if name != "residual/output.weight"},
    ):
        with pytest.raises(ModelMalformed):
            tables_model(SPEC, broken)


def test_a_release_is_scored_without_torch() -> None:
    """Reading and predicting imports neither torch nor opacus."""
    code = (
        "import sys, convoy_models.risk.cann, convoy_models.neural.shapes, convoy_node.rounds;"
        "assert not {'torch', 'opacus'} & set(sys.modules), 'imported'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("cap", [1, 2, 4])
def test_the_loss_is_lowest_where_capped_claims_and_capped_means_agree(cap: int) -> None:
    """Its slope at the true rate averages to zero over Poisson claims, capped as the contract says."""
    rng = np.random.default_rng(8)
    years = rng.uniform(0.5, 1, 40_000)
    claims = np.minimum(rng.poisson(0.4 * years), cap).astype(float)
    score = torch.full((40_000,), math.log(0.4), dtype=torch.float64, requires_grad=True)
    losses = capped_losses(score, torch.from_numpy(years), torch.from_numpy(claims), cap)
    assert losses.shape == (40_000,)
    slope = torch.autograd.grad(losses.sum(), score)[0].numpy()
    assert abs(slope.mean()) < 5 * slope.std() / 200
    expected = capped_mean(0.4 * years, cap)
    np.testing.assert_allclose(losses.detach().numpy(), expected - claims * np.log(expected), rtol=1e-9)


def test_inputs_are_public_places_between_minus_one_and_one() -> None:
    """Linear between cuts, one cell beyond them, levels one column each; bad columns are refused."""
    x = shapes.inputs(SPEC, {"age": [10.0, 25.0, 32.5, 500.0], "km": [1, 99, 1, 1], "fuel": ["petrol"] * 4})
    assert x.shape == (4, 4)
    np.testing.assert_allclose(x[:, 0], [-1, -0.5, -0.25, 1], atol=1e-12)
    assert x[:, 1].tolist() == [-1, 1, -1, -1]
    assert x[0, 2:].tolist() == [1, 0]
    with pytest.raises(ColumnRefused, match="km"):
        shapes.inputs(SPEC, {"age": [30.0], "fuel": ["petrol"]})
    for bad in (np.zeros(3), "no", [float("inf")] * shapes.weight_count(SPEC), [99.0] * shapes.weight_count(SPEC)):
        with pytest.raises(shapes.ResidualRefused):
            shapes.checked(SPEC, bad)


def test_a_residual_is_never_left_out_in_silence() -> None:
    """The plaintext fit of tables alone refuses a specification with a residual."""
    with pytest.raises(FitRefused, match="residual"):
        fit_pairs_plain(SPEC, plan(SPEC, ROLES), TableRows.build(SPEC, _people(50)))


def test_plaintext_fit_with_seeded_coins_repeats_and_noise_changes_it() -> None:
    """What bench/cann.py measures: planned noise on tables and steps."""
    people = _people(2_000)
    made = plan(SPEC, ROLES)
    exact = fit_cann_plain(SPEC, made, people, believed="planned")
    np.testing.assert_array_equal(exact.network, _fit(SPEC, [people]).network)
    noisy = fit_cann_plain(SPEC, made, people, np.random.default_rng(1))
    assert not np.allclose(noisy.network, exact.network, atol=1e-3)
    assert np.isfinite(noisy.rate(people)).all()
