"""Whole runs through six nodes: the secure result, the ledgers, the statements."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_audit.statement import Chain, open_statement
from convoy_contracts.canonical import unb64u
from convoy_contracts.specification import RiskSpecification
from convoy_demo.party_data import party_id
from convoy_demo.population import INSURERS
from convoy_demo.worth import columns_of
from convoy_models import accounting
from convoy_models.recommend.items import bounded, profile_rows, second_moments
from convoy_models.recommend.model import RecommendFit
from convoy_models.risk.model import RiskModel
from convoy_models.simulate import PlainCohort, fit_plain
from convoy_node.channel_keys import rotate_mask
from convoy_node.setup import read_card


def test_a_risk_run_without_noise_is_the_pooled_plain_fit(federation, prepared) -> None:
    """The same coefficients as from all rows in one place, to fixed-point accuracy; also where a mask key was followed by another.

    The contract in force goes on with the key that it pins: masks would not cancel otherwise.
    """
    home = federation.home("insurer-c")
    federation.kill("insurer-c")
    was = read_card(home).mask_key
    assert rotate_mask(home).mask_key == read_card(home).mask_key != was
    federation.start("insurer-c")
    spec, people = prepared.specifications["risk"], prepared.population
    assert isinstance(spec, RiskSpecification)
    run = federation.begin()
    secure = federation.fit(run)
    assert isinstance(secure, RiskModel)
    rows = {"joint": people.has_oem, "solo": ~people.has_oem}
    cohorts = {name: PlainCohort.build(spec, columns_of(people, mask, spec)) for name, mask in rows.items()}
    pooled = fit_plain(spec, run.plan, cohorts, believed="planned")
    for cohort, model in pooled.cohorts.items():
        assert secure.cohorts[cohort].level == pytest.approx(model.level, rel=1e-3)
        for role, weights in model.weights.items():
            for name, values in weights.items():
                np.testing.assert_allclose(secure.cohorts[cohort].weights[role][name], values, rtol=1e-3, atol=1e-5)


def test_a_recommendation_run_without_noise_is_the_plain_sums(federation, prepared) -> None:
    """Gram, cross and profile sums open to what the consenting customers' rows add up to."""
    spec, people, histories = (
        prepared.specifications["recommendation"],
        prepared.population,
        prepared.histories,
    )
    run = federation.begin("recommendation")
    asks = next(RecommendFit(spec, run.plan).steps())
    opened = federation.batch(run, asks)
    consented = people.has_charging[histories.drivers]
    used = bounded(histories.used[consented].astype(float), float(spec.historyNorm))
    drivers = histories.drivers[consented]
    profiles = profile_rows(spec, {name: values[drivers] for name, values in people.columns.items()})
    np.testing.assert_allclose(opened["joint/gram"], second_moments(used), atol=1e-4)
    np.testing.assert_allclose(opened["joint/profile"], second_moments(profiles), atol=1e-4)
    np.testing.assert_allclose(opened["joint/cross"], (profiles.T @ used).ravel(), atol=1e-4)


def test_two_runs_add_up_and_the_third_is_refused(noisy_federation) -> None:
    """Epsilon 4 twice is 5.9 under a cap of 6; the ledgers agree with dp-accounting."""
    for _ in range(2):
        noisy_federation.complete()
    ledger = noisy_federation.node("insurer-a").home.ledger
    events = [
        accounting.GaussianEvent(event.clip, event.sigma)
        for event in ledger.events()
        if event.cohort in ("joint", "all")
    ]
    total = ledger.totals()[0]
    assert total.epsilon == pytest.approx(accounting.independent_epsilon(events, 1e-6), abs=1e-6)
    assert 5.8 < total.epsilon <= 6.0
    refused = noisy_federation.decisions(noisy_federation.prepare())
    assert refused == {key: ["BUDGET_EXHAUSTED"] for key in map(party_id, ("oem", *INSURERS))}
    assert ledger.totals()[0].epsilon == total.epsilon


def test_the_oem_asset_pays_for_both_contracts_in_one_year(noisy_federation) -> None:
    """Two risk runs and two recommendation runs would pass the OEM's cap of 9 for the year."""
    noisy_federation.complete("risk")
    noisy_federation.complete("risk")
    noisy_federation.complete("recommendation")
    epsilon = accounting.epsilon_of(noisy_federation.node("oem").home.ledger.mu2("urn:convoy:asset:oem:1"), 1e-6)
    refused = noisy_federation.decisions(noisy_federation.prepare("recommendation"))
    assert epsilon < 9.0
    assert refused in ({}, {party_id("oem"): ["BUDGET_EXHAUSTED"]})
    four = accounting.mu_of(4.0, 1e-6) ** 2
    assert bool(refused) == (accounting.epsilon_of(4 * four * (1 - 1e-6), 1e-6) > 9.0)


def test_statements_are_signed_numbered_and_chained(federation, prepared) -> None:
    """Each node's statements open with its key and leave no gap."""
    federation.complete()
    federation.complete("recommendation")
    for short, card in prepared.cards.items():
        chain = Chain(party_id(short))
        for raw in federation.statements:
            if f'"party":"{party_id(short)}"'.encode() in raw:
                statement = open_statement(raw, unb64u(card.identity_key))
                chain.accept(statement)
        assert chain.number >= 2


def test_only_bucketed_counts_leave_a_node(federation, prepared) -> None:
    """Row counts are multiples of 50."""
    answers = federation.authorise(federation.prepare())
    for answer in answers.values():
        rows = answer.data["rows"]
        counts = rows.values() if isinstance(rows, dict) else [rows]
        assert all(count % 50 == 0 for count in counts)


def test_the_run_with_noise_differs_and_its_noise_has_the_planned_size(noisy_federation, prepared) -> None:
    """The first batch's label sums carry noise of about the planned standard deviation."""
    people, spec = prepared.population, prepared.specifications["risk"]
    run = noisy_federation.begin()
    opened = noisy_federation.batch(run, noisy_federation.first_batch(run))
    cohort = PlainCohort.build(spec, columns_of(people, ~people.has_oem, spec))
    query = run.plan["solo/labels/insurer"]
    plain = cohort.designs["insurer"].sums(cohort.labels.capped(spec.claimCap), query.columns)
    scaled = (opened[query.id] - plain) / query.noise_sd
    assert 0.5 < float(np.std(scaled)) < 1.6


def test_padded_rows_give_the_same_model_and_the_oem_does_not_learn_who_insures_whom(federation, padded) -> None:
    """A contract with ``alignment: padded``, and a register at the OEM that names no insurer; nothing else changes."""
    expected = federation.complete()
    other, sent = padded(floor=150), {}
    tell = other.tell

    def noting(party, action, data):
        answer = tell(party, action, data)
        if action == "align":
            sent[party] = set(answer.blobs)
        assert answer.data.get("rows", 0) % 50 == 0
        return answer

    other.tell = noting
    run = other.begin()
    found = other.fit(run)
    oem, insurers = party_id("oem"), [party_id(short) for short in INSURERS]
    assert sent == {oem: {f"to|{name}|align" for name in insurers}, **{name: set() for name in insurers}}
    session = other.node("oem")._runs[run.uid].session
    assert len({session.rows(name) for name in insurers}) == 1
    for cohort, model in expected.cohorts.items():
        assert found.cohorts[cohort].level == pytest.approx(model.level, rel=1e-5)
        for role, weights in model.weights.items():
            for name, values in weights.items():
                np.testing.assert_allclose(found.cohorts[cohort].weights[role][name], values, rtol=1e-4, atol=1e-6)


def test_padded_rows_keep_the_floor_without_the_oem(padded) -> None:
    """Each of the K insurers wants its part to reach floor / K: nobody else can see it."""
    federation = padded(floor=1_000_000)
    run = federation.prepare()
    assert federation.decisions(run) == {}
    base = {"run": run.uid, "attempt": run.attempt}
    holders = [party_id(short) for short in ("oem", *INSURERS)]
    federation.ask("align", dict.fromkeys(holders, base))
    for party in holders:
        assert federation.tell(party, "matrix", {**base, "chunk": 0}).refused["code"] == "COHORT_TOO_SMALL"
