"""A carmaker that knows half of the persons: two cohorts, through the real federation."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from convoy_models.plan import plan
from convoy_models.simulate import fit_plain
from convoy_models.testing import NoNoise

BENCH = Path(__file__).resolve().parents[2] / "bench"
DESCRIPTION = """
name: a carmaker that knows half
path: rows.parquet
claims: claims
exposure: years
person: policy
split: {seed: 1, testShare: 0.1}
insurers: {column: town}
boosting: false
towers:
  insurer: {cap: "0.5", features: [{name: age, knots: [18, 30, 60, 90]}]}
  oem: {cap: "2", features: [{name: km, knots: [0, 10, 40], scale: log1p}, {name: fuel, levels: [petrol, electric]}]}
settings: {priorRate: "0.1", sweeps: 2, cohortFloor: 500}
"""


def test_persons_unknown_to_the_carmaker_are_a_cohort_of_their_own(tmp_path: Path) -> None:
    """Without noise both cohorts' models are the plaintext ones; persons with several rows are one person each."""
    sys.path.insert(0, str(BENCH))
    import risk
    from federated import federation
    from portfolio import read_portfolio

    rng, size = np.random.default_rng(6), 5_000
    known = rng.random(size) < 0.5
    km = rng.gamma(2, 6, size)
    years = rng.uniform(0.2, 1, size)
    table = {
        "policy": np.arange(size) * 4 // 5,
        "age": rng.uniform(18, 90, size),
        "km": pa.array(km, mask=~known),
        "fuel": pa.array(rng.choice(["petrol", "electric"], size), mask=~known),
        "claims": rng.poisson(years * 0.1 * np.exp(0.03 * (km - 12))),
        "years": years,
        "town": rng.choice(["a", "b", "c"], size),
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    (tmp_path / "it.yaml").write_text(DESCRIPTION, encoding="utf-8")
    portfolio = read_portfolio(tmp_path / "it.yaml", None, 4.0)
    spec = portfolio.towers
    assert spec.patterns == "own"
    with federation(portfolio, spec, tmp_path) as founded:
        joint = founded.train(lambda _: NoNoise()).to_arrays()
    roles = {"insurer": list(portfolio.insurers), "oem": ["oem"]}
    plain = fit_plain(spec, plan(spec, roles), risk._all_learning(portfolio, spec), believed="planned").to_arrays()
    assert {name.split("/")[0] for name in joint} == {"joint", "solo"}
    assert set(joint) == set(plain)
    for name, values in plain.items():
        np.testing.assert_allclose(np.exp(joint[name]), np.exp(values), rtol=1e-3, err_msg=name)
