"""A model of tables is trained by insurers only, through contract, coordinator, log, ledgers, masks and noise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench_module import bench_module

from convoy_models.evaluation import poisson_deviance
from convoy_models.home_attack import HELD_BACK_MILLI
from convoy_models.plan import plan
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.simulate import fit_pairs_plain
from convoy_models.testing import NoNoise
from convoy_node.held_back import hold_back
from convoy_node.identity import Identity
from convoy_node.ledger_view import LedgerView
from convoy_node.settings import Settings
from convoy_node.worth import kept

UID = "urn:convoy:contract:bench-risk"
DESCRIPTION = """
name: four insurers without a carmaker
path: rows.parquet
claims: claims
exposure: years
split: {column: learn, learn: [true]}
insurers: {column: town}
features:
  - {name: age, cuts: [25, 30, 40, 50, 65], coarse: [30, 50]}
  - {name: km, cuts: [5, 10, 20, 30]}
  - {name: fuel, levels: [petrol, electric, other], other: other}
boosting: {pairs: [[age, fuel], [km, fuel]], priorRate: "0.1", cohortFloor: 10000, passes: 2}
"""


def _held_back(home: Path) -> set[int]:
    """Return the rows of the portfolio that a node holds back, by its own secret."""
    seed = Identity.load(home / "keys", Settings.load(home).party).identity_seed
    persons = pq.read_table(home / "data" / "data.parquet")["person_id"].to_pylist()
    return {int(person[1:]) for person in hold_back(seed, UID, HELD_BACK_MILLI)(persons)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with rows in which age matters for petrol only."""
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(4)
    size = 18_000
    age, km = rng.uniform(18, 90, size), rng.gamma(2, 8, size)
    fuel = rng.choice(["petrol", "electric", "hydrogen"], size, p=[0.6, 0.35, 0.05])
    years = rng.uniform(0.3, 1, size)
    risk = 0.25 * np.exp(0.02 * (km - 16) + np.where(fuel == "petrol", 0.9 * (age < 30), -0.5 * (age < 30)))
    table: dict[str, Any] = {
        "age": age, "km": km, "fuel": fuel, "claims": rng.poisson(years * risk), "years": years,
        "town": rng.choice(["a", "b", "c", "d"], size), "learn": rng.random(size) < 0.8,
    }  # fmt: skip
    pq.write_table(pa.table(table), folder / "rows.parquet")
    (folder / "it.yaml").write_text(DESCRIPTION, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Iterator[tuple[Any, Any, PairsModel, PairsModel]]:
    """Yield portfolio, federation, the model without noise and the model with the contract's noise."""
    portfolio = bench_module("portfolio").read_portfolio(place / "it.yaml", place, 4.0)
    with bench_module("federated").federation(portfolio, portfolio.pairs, place) as federation:
        exact = federation.train(lambda _: NoNoise())
        noisy = federation.train()
        yield portfolio, federation, exact, noisy


def test_without_noise_the_federated_tables_are_the_pooled_ones(
    trained: tuple[Any, Any, PairsModel, PairsModel],
) -> None:
    """Coordinator, log, contract, five nodes and masks change no price by more than one part in ten thousand.

    Pooled is everybody but those whom each insurer holds back, by its own secret, for its attack on the candidate.
    """
    portfolio, federation, exact, _ = trained
    spec = portfolio.pairs
    back = {row for short in federation.parties[:-1] for row in _held_back(federation.folder / "nodes" / short)}
    assert 0.01 < len(back) / portfolio.learn.sum() < 0.03
    rows = TableRows.build(
        spec, portfolio.rows(portfolio.learn & ~np.isin(np.arange(portfolio.learn.size), list(back)))
    )
    plain = fit_pairs_plain(spec, plan(spec, {"insurer": list(portfolio.insurers)}), rows, believed="planned")
    for key, values in plain.tables.items():
        np.testing.assert_allclose(np.exp(exact.tables[key]), np.exp(values), rtol=1e-4, err_msg=key)
    assert exact.level == pytest.approx(plain.level, abs=1e-4)


def test_with_noise_a_pair_says_what_no_single_feature_can(trained: tuple[Any, Any, PairsModel, PairsModel]) -> None:
    """Better than one rate on unseen rows, and young drivers of petrol cars stand out in the table of the pair."""
    portfolio, _, exact, noisy = trained
    test = ~portfolio.learn
    claims, years = portfolio.claims[test], portfolio.years[test]
    expected = noisy.rate(portfolio.rows(test)) * years
    rate = portfolio.claims[portfolio.learn].sum() / portfolio.years[portfolio.learn].sum()
    assert poisson_deviance(claims, expected) < poisson_deviance(claims, rate * years)
    assert not np.allclose(noisy.tables["age"], exact.tables["age"])
    factors = {(row.feature, row.point): row.factor for row in noisy.table()}
    assert factors["age*fuel", "< 30 & petrol"] > factors["age*fuel", "< 30 & electric"]


def test_every_insurer_paid_for_every_sum(trained: tuple[Any, Any, PairsModel, PairsModel]) -> None:
    """Two runs: the ledger of each insurer holds twice the plan's cost, the auditor's nothing."""
    portfolio, federation, _, _ = trained
    cost = plan(portfolio.pairs, {"insurer": list(federation.parties)[:4]}).charge
    for short in federation.parties[:-1]:
        with LedgerView(federation.folder / "nodes" / short / "ledger.db") as ledger:
            assert ledger.mu2(f"urn:convoy:asset:{short}:bench:1") == pytest.approx(2 * cost, rel=1e-6)


def test_the_release_is_tables_that_a_person_reads(trained: tuple[Any, Any, PairsModel, PairsModel]) -> None:
    """Card, golden vectors and arrays of the bundle; the card names features and pairs."""
    portfolio, federation, _, noisy = trained
    releases = sorted((federation.folder / "coordinator" / "releases").iterdir())
    assert len(releases) == 2
    golden = [json.loads((place / "golden.json").read_text(encoding="utf-8")) for place in releases]
    columns = golden[0]["vectors"][0]["columns"] if "vectors" in golden[0] else golden[0][0]["columns"]
    assert set(columns) == {feature.name for feature in portfolio.pairs.features}
    card = "".join(path.read_text(encoding="utf-8") for path in releases[0].rglob("card*.md"))
    assert "age × fuel" in card
    assert "membership inference: no alarm at / parties asked | 4 / 4" in card
    assert "No membership attack was run" not in card
    for short in federation.parties[:-1]:
        (first, second) = kept(federation.folder / "nodes" / short)
        assert first["said"] == second["said"] == {"veto": False, "attack": "passed"}
        (attack,) = second["membership"]
        assert attack["cohort"] == "all"
        assert attack["proven"] < attack["allowed"]
    assert noisy.table()[0].cohort == "all"


def test_the_benchmark_trains_through_the_real_apps_when_asked(place: Path, tmp_path: Path) -> None:
    """One line more, judged on the same test rows, close to the simulated line."""
    out = tmp_path / "out.json"
    arguments = [
        "--dataset",
        str(place / "it.yaml"),
        "--seeds",
        "1",
        "--no-rivals",
        "--federated",
        "1",
        "--json",
        str(out),
    ]
    assert bench_module("risk").main(arguments) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    rows = {row["model"]: row for row in document["rows"]}
    real, simulated = rows["tables at epsilon 4, through the real apps"], rows["tables at epsilon 4"]
    assert document["federatedRuns"] == 1
    assert real["deviance_x100"] == pytest.approx(simulated["deviance_x100"], rel=0.02)
