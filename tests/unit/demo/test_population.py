"""The generated world: its truth, its determinism, and what each party is handed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from convoy_demo.party_data import CONSENT_SCHEMA, ConsentTerms, write_party_data
from convoy_demo.population import (
    INSURER_COLUMNS,
    ITEMS,
    OEM_COLUMNS,
    Histories,
    Population,
    generate,
    histories,
)
from convoy_demo.specifications import risk_specification
from convoy_demo.worth import alone_worth, columns_of, joint_worth
from convoy_models.plan import plan
from convoy_models.simulate import PlainCohort, fit_plain

TERMS = ConsentTerms("notice-1", "riskModelling", ("did:web:insurer-a.example",), "2026-01-01T00:00:00Z")


@cache
def people() -> Population:
    """Return 100,000 drivers."""
    return generate(100_000, 1)


def test_shares_and_frequency_are_those_of_the_documented_truth() -> None:
    """41 % with OEM data and consent, 8 % charging, insurers 60/30/10, about 9 claims in 100
    years."""
    everyone = people()
    assert abs(everyone.has_oem.mean() - 0.41) < 0.01
    assert abs(everyone.has_charging.mean() - 0.08) < 0.01
    assert np.allclose(np.bincount(everyone.insurer) / everyone.size, [0.6, 0.3, 0.1], atol=0.01)
    assert 0.085 < everyone.claims.sum() / everyone.exposure_years.sum() < 0.1
    assert not np.any(everyone.has_charging & ~everyone.has_oem)
    assert not np.any(everyone.has_oem & ~everyone.owns_brand)


def test_safer_drivers_consent_more() -> None:
    """Among owners of the brand."""
    everyone = people()
    owners = everyone.owns_brand
    agreed, refused = owners & everyone.has_oem, owners & ~everyone.has_oem
    assert everyone.rate[agreed].mean() < everyone.rate[refused].mean()


def test_the_same_seed_gives_the_same_people_and_another_seed_others() -> None:
    """Bit for bit."""
    first, again, other = generate(500, 7), generate(500, 7), generate(500, 8)
    assert np.array_equal(first.claims, again.claims)
    assert all(np.array_equal(first.columns[n], again.columns[n]) for n in first.columns)
    assert not np.array_equal(first.rate, other.rate)


def test_a_held_out_item_is_not_in_the_history() -> None:
    """Leave-one-out; two or more further items each."""
    known: Histories = histories(people(), 1)
    assert not known.used[np.arange(known.held_out.size), known.held_out].any()
    assert known.used.sum(axis=1).min() >= 2
    assert np.array_equal(known.drivers, np.flatnonzero(people().charges))


def test_a_party_is_handed_its_own_columns_and_ids_only(tmp_path: Path) -> None:
    """No shared id, no shared order; link ids are common to exactly the two of a pair."""
    everyone = generate(4_000, 3)
    known = histories(everyone, 3)
    files = write_party_data(tmp_path, everyone, known, risk=TERMS, recommendation=TERMS, seed=3)
    data = {name: pq.read_table(f.data) for name, f in files.items()}
    consents = {name: pq.read_table(f.consents) for name, f in files.items()}
    assert data["oem"].column_names == ["person_id", *OEM_COLUMNS]
    expected = ["person_id", *INSURER_COLUMNS, "claim_count", "exposure_years"]
    assert data["insurer-b"].column_names == expected
    assert data["charging"].column_names == ["person_id", "items"]
    assert set(data["charging"]["items"].combine_chunks().flatten().to_pylist()) <= set(ITEMS)
    ids = {name: set(table["person_id"].to_pylist()) for name, table in data.items()}
    assert not ids["oem"] & (ids["insurer-a"] | ids["insurer-b"] | ids["charging"])

    links: dict[tuple[str, str], set[bytes]] = {}
    for name, table in consents.items():
        assert table.schema == CONSENT_SCHEMA
        assert set(table["local_id"].to_pylist()) <= ids[name]
        for row in table.to_pylist():
            if row["link_id"] is not None:
                links.setdefault((name, row["counterpart"]), set()).add(row["link_id"])
                assert len(row["link_id"]) == 16
    for (name, peer), mine in links.items():
        assert mine == links[peer.removeprefix("did:web:").removesuffix(".example"), f"did:web:{name}.example"]
    total = sum(len(mine) for (name, _), mine in links.items() if name == "oem")
    assert total == everyone.has_oem.sum() + everyone.has_charging.sum()


def test_the_same_seed_writes_the_same_links(tmp_path: Path) -> None:
    """A demo can be repeated."""
    everyone = generate(300, 3)
    known = histories(everyone, 3)
    for name in ("one", "two"):
        write_party_data(tmp_path / name, everyone, known, risk=TERMS, recommendation=TERMS, seed=3)
    for party in ("oem", "insurer-a", "charging"):
        one, two = (pq.read_table(tmp_path / n / party / "consents.parquet") for n in ("one", "two"))
        assert one.equals(two)


def test_joining_is_worth_more_than_twice_the_best_alone() -> None:
    """100,000 drivers, epsilon 4, collusion-robust noise, 300,000 fresh drivers."""
    spec, training, holdout = risk_specification(), people(), generate(300_000, 501)
    cohorts = {
        name: PlainCohort.build(spec, columns_of(training, rows, spec))
        for name, rows in (("joint", training.has_oem), ("solo", ~training.has_oem))
    }
    made = plan(spec, {"oem": ["o"], "insurer": ["a", "b", "c"]})
    joint = joint_worth(fit_plain(spec, made, cohorts, np.random.default_rng(1)), training, holdout)
    best = max(alone.d2 for alone in alone_worth(spec, training, holdout).values())
    assert joint.d2 >= 2 * best
    assert joint.d2 >= 4.6
    assert joint.gini >= 0.278
    assert joint.auc10 >= 0.9
