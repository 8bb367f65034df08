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
from convoy_models.accounting import mu_of
from convoy_models.gates import (
    GateRefused,
    cohort_floor,
    cohort_gate,
    each_confidence,
    floor_of,
    insurers_gate,
    terms_within,
    utility_gate,
)
from convoy_models.holdout import (
    Evaluation,
    Gain,
    InsurerRows,
    Word,
    band_of,
    compare_alone,
    held_out,
    log_factor,
    read_evaluation,
)
from convoy_models.plan import floor_cap, plan

ROLES = {"insurer": ["a", "b", "c"], "oem": ["o"]}
FOUR = {"insurer": ["a", "b", "c", "d"], "oem": ["o"]}
TERMS = Terms(holdoutMilli=200, shareMilli=150, audit="garage")
CAP = math.prod(floor_cap(tower) for tower in risk_specification().towers)
SPEC = risk_specification().model_copy(update={"evaluation": TERMS})
PRIOR = float(SPEC.priorRate)


def test_the_evaluation_is_paid_for_inside_the_run() -> None:
    """Same epsilon; training asks nothing about the hold-out; with four insurers every sum is asked without each."""
    made, plain = plan(SPEC, ROLES), plan(risk_specification(), ROLES)
    assert made.charge <= made.mu2_limit == plain.mu2_limit
    assert [q.id for q in made.training.queries] == [q.id for q in plain.queries]
    assert sum(q.mu2 for q in made.evaluation.queries) == pytest.approx(0.15 * made.mu2_limit, rel=1e-4)
    assert not [q for q in made.queries if q.purpose.startswith("holdout-less")]
    four = plan(SPEC, FOUR)
    without = [q for q in four.queries if q.purpose.startswith("holdout-less")]
    assert {len(q.matrix.parties) for q in without} == {3}
    assert four.charge <= four.mu2_limit


def test_only_the_insurer_itself_can_open_a_sum_about_its_own_customers() -> None:
    """Every sum that everybody reads is over three insurers at least."""
    for query in plan(SPEC, FOUR).evaluation.queries:
        if query.purpose.startswith("holdout-own"):
            assert query.participants == (*query.matrix.parties, "o")
            assert len(query.matrix.parties) == 1
        else:
            assert len(query.matrix.parties) >= 3


def test_both_holders_hold_out_the_same_persons_in_the_stated_share() -> None:
    """A hash of the link id, nothing else."""
    links = [number.to_bytes(16, "big") for number in range(20_000)]
    mask = held_out(links, 200)
    assert mask.mean() == pytest.approx(0.2, abs=0.01)
    assert np.array_equal(held_out(links[::-1], 200)[::-1], mask)


def likelihood(claims: np.ndarray, expected: np.ndarray) -> float:
    """Return the Poisson log likelihood at the best level, without the factorials."""
    level = claims.sum() / expected.sum()
    return float(np.sum(claims * np.log(level * expected) - level * expected))


def people(size: int = 800, seed: int = 1) -> tuple[InsurerRows, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, OEM factors, years and an own model of some held-out persons; nothing is cut."""
    random = np.random.default_rng(seed)
    years = random.uniform(0.5, 1.0, size)
    own, base = years * random.uniform(0.07, 0.1, size), years * random.uniform(0.06, 0.1, size)
    oem, alone = random.uniform(0.8, 1.3, size), years * random.uniform(0.05, 0.12, size)
    claims = (random.random(size) < own * oem).astype(float)
    return InsurerRows(own, base, PRIOR * years, claims, CAP), oem, years, alone


def opened_of(rows: InsurerRows, oem: np.ndarray, years: np.ndarray, parties: dict[str, list[str]] = ROLES) -> dict:
    """Return every sum of the evaluation without noise; everybody is of level 'no'."""
    edges = [0.06, 0.065, 0.07, 0.075, 0.08, 0.085, 0.09, 0.095, 0.1]
    bands = band_of(rows.own, years, edges)
    out = {}
    for query in plan(SPEC, parties).evaluation.queries:
        if query.purpose == "holdout-bands":
            out[query.id] = np.bincount(bands, rows.claims, 10)
            continue
        values = {
            "holdout-levels": rows.own * oem,
            "holdout-logs": rows.claims * log_factor(oem),
            "holdout-oem": rows.prior * oem,
            "holdout-band": np.where(bands == query.group, rows.own * oem, 0.0),
            "holdout-less-expected": rows.own * oem,
            "holdout-less-logs": rows.claims * log_factor(oem),
        }
        ratio = (rows.own * oem).sum() / rows.base.sum()
        values = values.get(query.purpose)
        values = rows.value(query.purpose, ratio) if values is None and "own" not in query.purpose else values
        if values is not None:
            out[query.id] = np.array([values.sum(), 0.0][: query.size])
    return out


def test_the_sums_give_the_likelihood_gains_exactly() -> None:
    """Without noise and with nothing cut: equal to Poisson log likelihoods of models at their best level."""
    rows, oem, years, _ = people()
    found = read_evaluation(plan(SPEC, ROLES), opened_of(rows, oem, years), "garage", ("no", "yes"), 1)
    y, joint = rows.claims, rows.own * oem
    assert found.together.value == pytest.approx(likelihood(y, joint) - likelihood(y, rows.base), abs=1e-9)
    assert found.insurers.value == pytest.approx(likelihood(y, rows.base) - likelihood(y, rows.prior), abs=1e-9)
    assert found.carmaker.value == pytest.approx(likelihood(y, rows.prior * oem) - likelihood(y, rows.prior), abs=1e-9)
    saturated = float(np.sum(-y))
    assert found.deviance == pytest.approx(saturated - likelihood(y, rows.prior), abs=1e-9)
    assert found.d2_joint == pytest.approx(
        100 * (1 - (saturated - likelihood(y, joint)) / (saturated - likelihood(y, rows.prior))), abs=1e-9
    )
    assert sum(found.shares.values()) == pytest.approx(found.d2_joint)
    assert found.claims == y.sum()
    assert found.levels[0].ratio == pytest.approx(y.sum() / joint.sum())
    assert math.isnan(found.levels[1].ratio)
    assert sum(band.observed for band in found.bands) == y.sum()
    assert sum(band.expected for band in found.bands) == pytest.approx(joint.sum())


def test_an_insurer_compares_with_its_own_model_exactly_at_home() -> None:
    """Its own side is exact; only the sum with the carmaker carries noise."""
    rows, oem, _, alone = people()
    y = rows.claims
    mean = float((rows.own * oem).sum() / rows.own.sum())
    value = compare_alone(rows, alone, mean, (float((y * np.log(oem)).sum()), 0.0), 1)
    assert value.gain.value == pytest.approx(likelihood(y, rows.own * oem) - likelihood(y, alone), abs=1e-9)
    null = -y.sum() - likelihood(y, rows.prior)
    assert value.d2_alone == pytest.approx(100 * (likelihood(y, alone) - likelihood(y, rows.prior)) / null, abs=1e-9)
    assert value.d2_joint == pytest.approx(value.d2_alone + 100 * value.gain.value / null, abs=1e-9)


def test_the_gain_without_one_insurer_is_asked_with_four() -> None:
    """At the joint model's level; here nobody is left out, so it is the gain itself up to the level."""
    rows, oem, years, _ = people()
    opened = opened_of(rows, oem, years, FOUR)
    found = read_evaluation(plan(SPEC, FOUR), opened, "garage", ("no", "yes"), 1, opened)
    assert set(found.without or {}) == set(FOUR["insurer"])
    for gain in (found.without or {}).values():
        assert gain.value == pytest.approx(found.together.value, abs=0.5)


def test_no_person_moves_an_evaluation_sum_beyond_its_clip() -> None:
    """Extreme factors, exposures and claims are cut to the public bounds."""
    random = np.random.default_rng(2)
    extreme = [np.exp(random.normal(0, 5, 1000)) for _ in range(3)]
    rows = InsurerRows(*extreme, random.integers(0, 2, 1000).astype(float), CAP)
    for query in plan(SPEC, FOUR).evaluation.queries:
        if query.kind == "LOCAL" and query.purpose != "holdout-bands":
            assert np.abs(rows.value(query.purpose, 1.7)).max() <= query.clip
    logs = next(q for q in plan(SPEC, ROLES).evaluation.queries if q.purpose == "holdout-logs")
    assert np.abs(rows.claims * log_factor(extreme[0])).max() <= logs.clip


def figure(gain: float, sd: float = 10.0, without: dict[str, Gain] | None = None) -> Evaluation:
    """Return an evaluation with a gain and a standard deviation of its noise."""
    other = Gain(30.0, 10.0, 10.0)
    return Evaluation(Gain(gain, sd, 0.0), other, other, 1000.0, 700.0, "garage", (), without=without)


YES: dict[str, Word] = {"a": "better", "b": "undecided", "c": "undecided"}


def test_better_than_alone_passes_and_everything_else_is_explained_in_both_languages() -> None:
    """The lower end decides: a gain within its own noise is no gain."""
    assert utility_gate(figure(40), YES).passed
    nobody: dict[str, Word] = dict.fromkeys(YES, "undecided")
    carried = figure(40, without={"a": Gain(-30.0, 10.0, 0.0), "b": Gain(30.0, 10.0, 0.0)})
    for evaluation, words in (
        *((figure(gain), YES) for gain in (-5.0, 0.0, 8.0)),
        (figure(40), nobody),
        (figure(40), YES | {"c": "worse"}),
        (carried, YES),
    ):
        verdict = utility_gate(evaluation, words)
        assert (verdict.passed, verdict.code) == (False, "UTILITY_GATE")
        assert "Not released" in verdict.text.en
        assert "不予发布" in verdict.text.zh
        with pytest.raises(GateRefused, match="UTILITY_GATE"):
            verdict.check()
    assert utility_gate(figure(8.0), YES, 0.7).passed
    assert each_confidence(0.8, 4) == pytest.approx(0.95)


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


def test_a_contract_without_a_floor_gets_the_one_of_its_epsilon_and_terms() -> None:
    """A signed number stands; otherwise epsilon and the terms decide, at nodes and coordinator alike."""
    terms = sum(f.width for tower in SPEC.towers for f in tower.features)
    free = {eps: risk_specification(eps).model_copy(update={"cohortFloor": None}) for eps in (1_000_000, 4_000_000)}
    assert floor_of(free[4_000_000]) == cohort_floor(mu_of(4.0, 1e-6), terms)
    assert floor_of(free[1_000_000]) > 3 * floor_of(free[4_000_000])
    assert floor_of(risk_specification()) == 30_000
    assert "cohortFloor" not in free[4_000_000].model_dump(mode="json", exclude_none=True)


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
