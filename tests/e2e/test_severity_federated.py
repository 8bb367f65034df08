"""A severity model is trained by carmaker, three insurers and trustee through the real apps, equal to the pooled fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench_module import bench_module
from typer.testing import CliRunner

from convoy_coordinator.keys import read_keys
from convoy_models.accounting import epsilon_of
from convoy_models.plan import plan
from convoy_models.risk.severity import SeverityModel, fit_severity_plain
from convoy_models.testing import NoNoise
from convoy_node.cli import app
from convoy_node.ledger_view import LedgerView


def test_the_federated_severity_is_the_pooled_one_and_costs_what_the_contract_says(tmp_path: Path) -> None:
    """Without noise: the pooled fit to one part in a thousand. With noise: a bundle with golden amounts, epsilon 4 spent."""
    bench = bench_module("severity")
    book = bench.generated_book(4_000, 11)
    spec = book.specification.model_copy(update={"cohortFloor": 500, "sweeps": 3, "soloSweeps": 3})
    with bench_module("federated").federation(book, spec, tmp_path) as federation:
        exact = federation.train(lambda _: NoNoise())
        noisy = federation.train()
    assert isinstance(exact, SeverityModel)
    assert isinstance(noisy, SeverityModel)
    member = book.learn & book.linked
    parts = {"joint": book.rows(member), "solo": book.rows(book.learn & ~book.linked)}
    made = plan(spec, {"insurer": list(book.insurers), "oem": ["oem"]})
    plain = fit_severity_plain(spec, made, parts, believed="planned")
    people = book.rows(~book.learn & book.linked)
    np.testing.assert_allclose(exact.mean("joint", people), plain.mean("joint", people), rtol=2e-3)
    assert not np.allclose(noisy.mean("joint", people), exact.mean("joint", people), rtol=1e-3)
    for short in ("insurer-1", "oem"):
        with LedgerView(tmp_path / "nodes" / short / "ledger.db") as ledger:
            spent = ledger.mu2(f"urn:convoy:asset:{short}:bench:1")
        assert 3.9 < epsilon_of(spent / 2, 1e-6) <= 4.0 + 1e-6  # two runs
    first, release = sorted((tmp_path / "coordinator" / "releases").iterdir())
    key = read_keys(tmp_path / "coordinator" / "keys").release_public.hex()
    asked = ["release", "diff", str(first), str(release), "--home", str(tmp_path / "nodes" / "insurer-1"), "--key", key]
    told = CliRunner().invoke(app, asked)
    assert told.exit_code == 0, told.output
    assert "joint / " in told.output
    assert "No membership attack was run" in (release / "card.md").read_text(encoding="utf-8")
    vectors = json.loads((release / "golden.json").read_text(encoding="utf-8"))["vectors"]
    assert all(100 < amount < 100_000 for amount in vectors[0]["outputs"])
    assert "mean amount of a claim" in (release / "card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("column", ["claim_amount"])
def test_an_insurer_with_a_bad_amount_refuses_before_anything_is_spent(tmp_path: Path, column: str) -> None:
    """A negative amount in one book: the run is refused with the column's name, and no ledger holds a charge."""
    book = bench_module("severity").generated_book(1_500, 12)
    values = np.array(book.columns[column])
    values[np.flatnonzero(book.learn)[:3]] = -5.0
    book.columns[column] = values
    spec = book.specification.model_copy(update={"cohortFloor": 100, "sweeps": 1, "soloSweeps": 1})
    federated = bench_module("federated")
    with federated.federation(book, spec, tmp_path) as federation, pytest.raises(federated.RunEnded, match=column):
        federation.train()
    for short in ("insurer-1", "insurer-2", "insurer-3", "oem"):
        with LedgerView(tmp_path / "nodes" / short / "ledger.db") as ledger:
            assert ledger.spent_mu2(f"urn:convoy:asset:{short}:bench:1") == 0
