"""The optimiser: asks the plan, balances margins, survives noise; secure sums give the same
model."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from convoy_contracts.specification import Knots, RiskSpecification, Tower
from convoy_demo.population import Population, generate
from convoy_demo.specifications import risk_specification
from convoy_demo.worth import columns_of
from convoy_models.evaluation import gini
from convoy_models.fixedpoint import FACTOR_BITS, LOCAL_BITS, MATRIX_BITS, decode
from convoy_models.plan import plan
from convoy_models.risk.fit import FitRefused, RiskFit
from convoy_models.risk.model import RiskModel
from convoy_models.simulate import PlainCohort, alone, fit_plain, plain_sums
from convoy_models.testing import MemoryFederation, NoNoise

ROLES = {"oem": ["oem"], "insurer": ["a", "b", "c"]}


@cache
def people(size: int = 60_000, seed: int = 11) -> Population:
    """Return a population."""
    return generate(size, seed)


@cache
def cohorts() -> dict[str, PlainCohort]:
    """Return both cohorts of the population."""
    return cohorts_of(risk_specification())


def cohorts_of(spec: RiskSpecification) -> dict[str, PlainCohort]:
    """Return both cohorts under a specification."""
    everyone = people()
    return {
        name: PlainCohort.build(spec, columns_of(everyone, rows, spec))
        for name, rows in (("joint", everyone.has_oem), ("solo", ~everyone.has_oem))
    }


@cache
def exact() -> RiskModel:
    """Return the model without noise."""
    spec = risk_specification()
    return fit_plain(spec, plan(spec, ROLES), cohorts())


def test_every_planned_query_is_asked_once_and_in_few_exchanges() -> None:
    """Five exchanges for the demo: labels go with the first model sums."""
    spec = risk_specification()
    made = plan(spec, ROLES)
    batches = RiskFit(spec, made).batches()
    assert sorted(q.id for batch in batches for q in batch) == sorted(q.id for q in made.queries)
    assert len(batches) == 5


def test_without_noise_and_caps_fitted_equals_observed_in_every_margin() -> None:
    """The method of marginal totals, up to the shrinkage of the prior."""
    spec = risk_specification()
    towers = tuple(tower.model_copy(update={"cap": "30"}) for tower in spec.towers)
    spec = spec.model_copy(update={"towers": towers, "sweeps": 9})
    model = fit_plain(spec, plan(spec, ROLES), cohorts_of(spec))
    joint = cohorts()["joint"]
    rate = model.rate("joint", columns_of(people(), people().has_oem, spec))
    for design in joint.designs.values():
        observed = design.sums(joint.labels.capped(1))
        fitted = design.sums(rate * joint.labels.exposure_years)
        assert np.all(np.abs(fitted - observed) < 2.5 * np.sqrt(np.maximum(observed, 9.0)))
        assert fitted.sum() == pytest.approx(observed.sum(), rel=2e-3)


def test_noise_of_the_plan_costs_little_at_epsilon_4() -> None:
    """Gini of fresh drivers, collusion-robust noise, 60,000 in training: within .03 of no noise."""
    spec, fresh = risk_specification(), people(100_000, 12)
    noisy = fit_plain(spec, plan(spec, ROLES), cohorts(), np.random.default_rng(5))
    columns, tested = columns_of(fresh, fresh.has_oem, spec), fresh.has_oem
    ginis = [
        gini(fresh.claims[tested], model.rate("joint", columns), fresh.exposure_years[tested])
        for model in (exact(), noisy)
    ]
    assert ginis[0] > 0.25
    assert ginis[1] > ginis[0] - 0.03


def test_the_same_sums_give_the_same_model() -> None:
    """Nothing in the optimiser is random."""
    spec = risk_specification()
    made = plan(spec, ROLES)
    models = [fit_plain(spec, made, cohorts(), np.random.default_rng(3)) for _ in range(2)]
    first, second = (model.to_arrays() for model in models)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_collinear_features_converge() -> None:
    """Two columns that say the same share the effect instead of fighting."""
    rng = np.random.default_rng(2)
    one = rng.uniform(0, 1, 30_000)
    columns = {"x": one, "y": one + rng.normal(0, 0.02, one.size), "years": np.ones(one.size)}
    columns["claims"] = rng.poisson(0.1 * np.exp(1.2 * (one - 0.5)))
    knots = [Knots(kind="knots", name=n, knots=("0", "0.25", "0.5", "0.75", "1")) for n in "xy"]
    spec = risk_specification().model_copy(
        update={
            "towers": (Tower(role="insurer", features=tuple(knots), cap="1"),),
            "claims": "claims",
            "exposure": "years",
        }
    )
    weights = alone(spec, columns).cohorts["all"].weights["insurer"]
    total = weights["x"] + weights["y"]
    assert total[-1] - total[0] == pytest.approx(1.2, abs=0.35)
    assert max(np.abs(weights["x"]).max(), np.abs(weights["y"]).max()) < 1.0


def test_a_missing_short_or_infinite_sum_is_refused() -> None:
    """The optimiser never guesses."""
    spec = risk_specification()
    made = plan(spec, ROLES)
    for change in ("drop", "short", "nan"):
        steps = RiskFit(spec, made).steps()
        asks = next(steps)
        sums = plain_sums(spec, made, cohorts(), asks)
        if change == "drop":
            del sums[asks[0].query]
        else:
            vector = sums[asks[0].query]
            sums[asks[0].query] = vector[1:] if change == "short" else vector * np.nan
        with pytest.raises(FitRefused, match=asks[0].query):
            steps.send(sums)


def small() -> RiskSpecification:
    """Return a specification with two features at each side and no solo cohort."""
    spec = risk_specification()
    towers = tuple(tower.model_copy(update={"features": tower.features[:2]}) for tower in spec.towers)
    return spec.model_copy(update={"towers": towers, "patterns": "joint-only", "sweeps": 3})


def test_secure_sums_give_the_plaintext_model() -> None:
    """The real protocol with its noise off, three insurers: coefficients agree to 1e-5."""
    spec, everyone = small(), generate(900, 4)
    made = plan(spec, ROLES)
    parts = [np.arange(900) % 3 == number for number in range(3)]
    held = {
        name: PlainCohort.build(spec, columns_of(everyone, rows, spec))
        for name, rows in zip(ROLES["insurer"], parts, strict=True)
    }
    pairs = [("oem", name) for name in held]
    federation = MemoryFederation({p: NoNoise() for p in ["oem", *held]}, pairs)
    links = {name: [i.to_bytes(8, "big") + name.encode() * 8 for i in range(300)] for name in held}
    order = federation.align({edge: links[name] for name in held for edge in (("oem", name), (name, "oem"))})
    matrices = {}
    for name, cohort in held.items():
        assert np.array_equal(order["oem", name], order[name, "oem"])
        assert np.array_equal(order[name, "oem"], np.arange(300))
        matrices["oem", name] = cohort.designs["oem"].dense()
        matrices[name, "oem"] = cohort.designs["insurer"].dense()
    federation.hold(matrices)

    steps = RiskFit(spec, made).steps()
    asks = next(steps)
    while True:
        opened = {}
        for ask in asks:
            query = made[ask.query]
            values, local = {}, {}
            caps = {"oem": 2.0} | dict.fromkeys(held, 1.0 if query.purpose == "labels" else 0.15)
            for name, cohort in held.items():
                if query.purpose == "labels":
                    values[name, "oem"] = cohort.labels.capped(1)
                else:
                    years = cohort.labels.exposure_years
                    factor = cohort.designs["insurer"].factor(ask.weights["insurer"], years)
                    values[name, "oem"] = factor
                    values["oem", name] = cohort.designs["oem"].factor(ask.weights["oem"])
                local[name] = cohort.designs["insurer"].sums(cohort.labels.capped(1))
            is_local = query.kind == "LOCAL"
            words = federation.ask(
                query,
                values=None if is_local else values,
                caps=caps,
                local=local if is_local else None,
            )
            bits = {
                "LOCAL": LOCAL_BITS,
                "DOT": MATRIX_BITS + FACTOR_BITS,
                "WEIGHTED": MATRIX_BITS + 2 * FACTOR_BITS,
            }
            total = np.sum(list(words.values()), axis=0, dtype=np.uint64)
            opened[query.id] = decode(total, bits[query.kind])
        try:
            asks = steps.send(opened)
        except StopIteration as done:
            secure: RiskModel = done.value
            break
    pooled = PlainCohort.build(spec, columns_of(everyone, np.ones(900, dtype=bool), spec))
    plain = fit_plain(spec, made, {"joint": pooled}, believed="planned").to_arrays()
    for name, array in secure.to_arrays().items():
        assert np.allclose(array, plain[name], rtol=1e-5, atol=1e-5), name
