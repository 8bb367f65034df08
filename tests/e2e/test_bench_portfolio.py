"""A portfolio that is described by a file trains through the real federation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_module import bench_module

from convoy_models.plan import plan
from convoy_models.simulate import PlainCohort, fit_plain
from convoy_models.testing import NoNoise

DESCRIPTION = """
name: three small insurers
path: rows.parquet
claims: claims
exposure: years
split: {column: learn, learn: [true]}
insurers: {column: town}
towers:
  insurer: {cap: "0.5", features: [{name: age, knots: [18, 30, 60, 90]}]}
  oem: {cap: "2", features: [{name: km, knots: [0, 10, 40], scale: log1p}, {name: fuel, levels: [petrol, electric]}]}
settings:
  {claimCap: 1, priorRate: "0.1", priorScale: "0.2", smoothness: "0.8", sweeps: 3, labelShareMilli: 600, deltaNano: 1000,
   cohortFloor: 1000}
"""


def _rows(path: Path, size: int = 6_000) -> None:
    rng = np.random.default_rng(3)
    age, km = rng.uniform(18, 90, size), rng.gamma(2, 6, size)
    years = rng.uniform(0.2, 1, size)
    claims = rng.poisson(years * 0.1 * np.exp(0.03 * (km - 12) - 0.01 * (age - 45)))
    table: dict[str, Any] = {
        "age": age,
        "km": km,
        "fuel": rng.choice(["petrol", "electric"], size),
        "claims": claims,
        "years": years,
        "town": rng.choice(["a", "b", "c"], size),
        "learn": rng.random(size) < 0.9,
    }
    pq.write_table(pa.table(table), path)


def test_without_noise_the_federated_benchmark_is_the_plaintext_computation(tmp_path: Path) -> None:
    """Coordinator, log, contract, five nodes and masks change nothing: coefficients within 1e-3 relative."""
    _rows(tmp_path / "rows.parquet")
    (tmp_path / "it.yaml").write_text(DESCRIPTION, encoding="utf-8")
    portfolio = bench_module("portfolio").read_portfolio(tmp_path / "it.yaml", tmp_path, 4.0)
    spec = portfolio.specification
    with bench_module("federated").federation(portfolio, spec, tmp_path) as federation:
        joint = federation.train(lambda _: NoNoise()).to_arrays()
    roles = {"insurer": list(portfolio.insurers), "oem": ["oem"]}
    cohort = PlainCohort.build(spec, portfolio.rows(portfolio.learn))
    plain = fit_plain(spec, plan(spec, roles), {"joint": cohort}, believed="planned").to_arrays()
    assert set(joint) == set(plain)
    for name, values in plain.items():
        np.testing.assert_allclose(np.exp(joint[name]), np.exp(values), rtol=1e-3, err_msg=name)
