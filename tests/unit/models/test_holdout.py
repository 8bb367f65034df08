"""The evaluation of a joint run: bilinear sums give the exact likelihood gain; gates say no and why."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from convoy_contracts.specification import Evaluation as Terms
from convoy_contracts.specification import RiskSpecification
from convoy_demo.specifications import risk_specification
from convoy_models.gates import (
    GateRefused,
    cohort_floor,
    cohort_gate,
    insurers_gate,
    terms_within,
    utility_gate,
)
from convoy_models.holdout import Evaluation, held_out, insurer_gain, log_factor, read_evaluation
from convoy_models.plan import floor_cap, plan

ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}
TERMS = Terms(holdoutMilli=200, shareMilli=150, audit="garage")
CAP = math.prod(floor_cap(tower) for tower in risk_specification().towers)
SPEC = risk_specification().model_copy(update={"evaluation": TERMS})


def test_the_evaluation_is_paid_for_inside_the_run() -> None:
    """Same epsilon, six more sums, training asks nothing about the hold-out."""
    made, plain = plan(SPEC, ROLES), plan(risk_specification(), ROLES)
    assert made.charge <= made.mu2_limit == plain.mu2_limit
    assert len(made.evaluation.queries) == 6
    assert [q.id for q in made.training.queries] == [q.id for q in plain.queries]
    assert sum(q.mu2 for q in made.evaluation.queries) == pytest.approx(0.15 * made.mu2_limit, rel=1e-4)


def test_both_holders_hold_out_the_same_persons_in_the_stated_share() -> None:
    """A hash of the link id, nothing else."""
    links = [number.to_bytes(16, "big") for number in range(20_000)]
    mask = held_out(links, 200)
    assert mask.mean() == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(held_out(links[::-1], 200)[::-1], mask)


def test_the_sums_give_the_likelihood_gain_exactly() -> None:
    """Without noise and with nothing cut: equal to the Poisson log likelihood of joint minus alone."""
    random = np.random.default_rng(1)
    size = 500
    a, b = random.uniform(0.07, 0.1, size), random.uniform(0.8, 1.3, size)
    alone = random.uniform(0.06, 0.1, size)
    y = (random.random(size) < a * b).astype(float)
    made = plan(SPEC, ROLES)
    sums = {
        "holdout-alone": insurer_gain("holdout-alone", a, alone, y, 0.3),
        "holdout-expected": a * b,
        "holdout-logs": y * log_factor(b),
        "holdout-squares": insurer_gain("holdout-squares", a, alone, y, 0.3),
        "holdout-observed": y,
        "holdout-levels": a * b,
    }
    opened = {q.id: np.array([sums[q.purpose].sum(), 0.0]) for q in made.evaluation.queries}
    found = read_evaluation(made, opened, "garage", ("no", "yes"), 1)
    exact = np.sum(y * np.log(a * b) - a * b) - np.sum(y * np.log(alone) - alone)
    assert found.gain == pytest.approx(exact, abs=1e-9)
    assert found.claims == y.sum()
    assert found.levels[0].ratio == pytest.approx(y.sum() / (a * b).sum())
    assert math.isnan(found.levels[1].ratio)


def test_no_person_moves_an_evaluation_sum_beyond_its_clip() -> None:
    """Extreme factors and claims are cut to the public bounds."""
    random = np.random.default_rng(2)
    own, alone = np.exp(random.normal(0, 5, 1000)), np.exp(random.normal(0, 5, 1000))
    claims = random.integers(0, 2, 1000).astype(float)
    for query in plan(SPEC, ROLES).evaluation.queries:
        if query.kind == "LOCAL":
            assert np.abs(insurer_gain(query.purpose, own, alone, claims, CAP)).max() <= query.clip
    logs = next(q for q in plan(SPEC, ROLES).evaluation.queries if q.purpose == "holdout-logs")
    assert np.abs(claims * log_factor(own)).max() <= logs.clip


def figure(gain: float, sd: float = 10.0) -> Evaluation:
    """Return an evaluation with a gain and a standard deviation of its noise."""
    return Evaluation(gain, sd, 0.0, 700.0, "garage", ())


def test_better_than_alone_passes_and_everything_else_is_explained_in_both_languages() -> None:
    """The lower end decides: a gain within its own noise is no gain."""
    assert utility_gate(figure(40)).passed
    for gain in (-5.0, 0.0, 8.0):
        verdict = utility_gate(figure(gain))
        assert (verdict.passed, verdict.code) == (False, "UTILITY_GATE")
        assert "Not released" in verdict.text.en
        assert "不予发布" in verdict.text.zh
        with pytest.raises(GateRefused, match="UTILITY_GATE"):
            verdict.check()
    assert utility_gate(figure(8.0), 0.7).passed


def test_the_floor_grows_as_epsilon_falls_and_with_the_root_of_the_terms() -> None:
    """12,000 at eps 4 with 112 terms (measured); a quarter of the terms need half the persons."""
    assert cohort_floor(0.838, 112) == 12_000
    assert cohort_floor(0.838, 28) == 6_000
    assert cohort_floor(0.237, 112) > 3 * cohort_floor(0.838, 112)
    assert cohort_gate(41_000, 0.838, 112).passed
    refused = cohort_gate(4_000, 0.838, 112)
    assert refused.code == "COHORT_TOO_SMALL"
    fewer = terms_within(0.838, 4_000)
    assert cohort_gate(4_000, 0.838, fewer).passed
    with pytest.raises(GateRefused):
        cohort_floor(0.0, 10)


def test_two_insurers_are_no_aggregation() -> None:
    """K >= 3."""
    assert not insurers_gate(2).passed
    assert insurers_gate(3).passed


def test_an_evaluation_names_a_feature_that_exists() -> None:
    """The contract is refused otherwise."""
    document = SPEC.model_dump(mode="json", exclude_none=True)
    document["evaluation"]["audit"] = "shoe_size"
    with pytest.raises(ValidationError, match="audit"):
        RiskSpecification.model_validate_json(json.dumps(document))
