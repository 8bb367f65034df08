"""A network on top of the tables is trained by DP-SGD through the real apps: contract, log, ledgers, masks, noise, bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bench_module import bench_module
from safetensors.numpy import load_file

from convoy_contracts.specification import PairsSpecification, Residual
from convoy_models.accounting import epsilon_of
from convoy_models.mechanisms import left_of
from convoy_models.neural.cann import Residuals
from convoy_models.plan import plan
from convoy_models.risk.cann import NETWORK, CannFit, CannModel
from convoy_models.risk.fit import Ask, drive
from convoy_models.risk.tables import TableRows
from convoy_models.testing import NoNoise
from convoy_node.ledger_view import LedgerView

DESCRIPTION = """
name: three insurers without a carmaker, and a network
path: rows.parquet
claims: claims
exposure: years
split: {column: learn, learn: [true]}
insurers: {column: town}
features:
  - {name: age, cuts: [25, 40, 60]}
  - {name: km, cuts: [8, 20]}
  - {name: fuel, levels: [petrol, electric]}
boosting: {pairs: [[age, fuel]], priorRate: "0.15", cohortFloor: 1000, passes: 2}
"""
STEPS = 5
# noiseMilli and costMicro of the sampled run: ``priced`` at a quarter of epsilon 4
EVERYBODY = Residual(hidden=4, steps=STEPS, rateMicro=1_000_000, batch=3_000, noiseMilli=9_000, costMicro=62_000)
SAMPLED = Residual(hidden=4, steps=STEPS, rateMicro=200_000, batch=600, noiseMilli=2_000, costMicro=120_000)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with 4,000 rows in which distance matters for the young only."""
    rng = np.random.default_rng(4)
    size = 4_000
    age, km = rng.uniform(18, 90, size), rng.gamma(2, 8, size)
    years = rng.uniform(0.3, 1, size)
    risk = 0.2 * np.exp(0.05 * (km - 16) * (age < 40))
    table = {
        "age": age, "km": km, "fuel": rng.choice(["petrol", "electric"], size), "claims": rng.poisson(years * risk),
        "years": years, "town": rng.choice(["a", "b", "c"], size), "learn": rng.random(size) < 0.8,
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    (tmp_path / "it.yaml").write_text(DESCRIPTION, encoding="utf-8")
    return tmp_path


def _pooled(spec: PairsSpecification, insurers: list[str], columns: dict[str, np.ndarray]) -> CannModel:
    """Return the fit on pooled plaintext sums; the round loop, contract and masks have no part in it."""
    made = plan(spec, {"insurer": insurers})
    rows = TableRows.build(spec, columns)
    own = Residuals.build(spec, columns, rows)

    def total(ask: Ask) -> np.ndarray:
        query, tables = made[ask.query], ask.weights.get("insurer")
        if query.purpose == "residual":
            return own.local_sum(query, tables, ask.weights[NETWORK]["weights"])
        return rows.local_sum(query, tables)

    return drive(CannFit(spec, made).steps(), lambda asks: {ask.query: total(ask) for ask in asks})


def test_the_federated_network_is_the_pooled_one_and_costs_what_the_contract_says(place: Path) -> None:
    """Without noise and sampling: pooled plaintext SGD. With both: released, within epsilon, tail and steps in the ledger."""
    portfolio = bench_module("portfolio").read_portfolio(place / "it.yaml", place, 4.0)
    exactly = portfolio.pairs.model_copy(update={"residual": EVERYBODY})
    federation = bench_module("federated").federation
    with federation(portfolio, exactly, place / "exact") as four:
        exact = four.train(lambda _: NoNoise())
    assert isinstance(exact, CannModel)
    pooled = _pooled(exactly, list(portfolio.insurers), portfolio.rows(portfolio.learn))
    np.testing.assert_allclose(exact.network, pooled.network, atol=2e-5)
    assert np.abs(exact.network[-4:]).max() > 1e-3  # it has left its start

    sampled = portfolio.pairs.model_copy(update={"residual": SAMPLED})
    with federation(portfolio, sampled, place / "noisy") as four:
        noisy = four.train()
    assert isinstance(noisy, CannModel)
    assert not np.allclose(noisy.network, exact.network)
    made = plan(sampled, {"insurer": list(four.parties)[:-1]})
    for short in four.parties[:-1]:
        asset = f"urn:convoy:asset:{short}:bench:1"
        with LedgerView(four.folder / "nodes" / short / "ledger.db") as ledger:
            spent = ledger.mu2(asset)
        assert 0.95 * made.charge < spent <= made.charge
        assert epsilon_of(spent, left_of(1e-6, 2e-8)) <= 4.0
    (release,) = (four.folder / "coordinator" / "releases").iterdir()
    arrays = load_file(release / "model.safetensors")
    assert arrays["residual/hidden.weight"].shape == (4, 4)
    assert "not a table" in (release / "card.md").read_text(encoding="utf-8")
