"""The main job through every room: contract, log, nodes, masked sums, release."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from convoy_contracts.document import Contract
from convoy_contracts.roles import roles_of
from convoy_demo import agreements, figures, founding
from convoy_demo.places import MEMBERS
from convoy_demo.population import generate
from convoy_demo.worth import columns_of
from convoy_models.accounting import GaussianEvent, epsilon_of, independent_epsilon
from convoy_models.plan import plan
from convoy_models.risk.model import RiskModel
from convoy_models.simulate import PlainCohort, fit_plain
from convoy_models.testing import NoNoise
from convoy_node.cli import app as node_commands
from convoy_node.errors import ConsentRefused
from convoy_node.ledger_view import LedgerView
from convoy_node.register import Register

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
sys.path.insert(0, str(SUPPORT))

import seeded_node  # noqa: E402


def released(small: Any, run: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a run's verified release."""
    digest = small.contracts[agreements.RISK]
    return dict(figures.load_release(small.places, run["uid"], agreements.RISK, digest).arrays)


def test_without_noise_the_joint_coefficients_are_those_of_a_pooled_plaintext_fit(small: Any) -> None:
    """Noise switched off by code: every coefficient within 1e-3 relative of the fit that sees all rows in one place."""
    with small.embedded(lambda _: NoNoise()) as runtime:
        run = small.train(runtime)
    assert run["state"] == "finished", run
    spec, people = small.scenario.risk, generate(small.scenario.drivers, small.scenario.seed)
    text = small.api.get(f"/v1/contracts/{small.contracts[agreements.RISK]}")["text"]
    cohorts = {
        name: PlainCohort.build(spec, columns_of(people, rows, spec))
        for name, rows in (("joint", people.has_oem), ("solo", ~people.has_oem))
    }
    pooled = fit_plain(spec, plan(spec, roles_of(Contract.parse(text))), cohorts, believed="planned").to_arrays()
    joint = released(small, run)
    assert set(joint) == set(pooled)
    for name, values in pooled.items():
        np.testing.assert_allclose(np.exp(joint[name]), np.exp(values), rtol=1e-3, err_msg=name)
    model = RiskModel.from_arrays(spec, joint)
    assert model.rate("joint", columns_of(people, people.has_oem, spec)).std() > 0


@pytest.mark.slow
def test_both_runtimes_give_the_same_coefficients_for_the_same_seeds(small: Any, tmp_path: Path) -> None:
    """The same ServerApp and ClientApps: embedded first, then real processes on the same folders."""
    with small.embedded(seeded_node.noise_of) as runtime:
        first = small.train(runtime)
    assert first["state"] == "finished", first
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(SUPPORT)
    try:
        with small.deployed("seeded_node:create") as runtime:
            second = small.train(runtime)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    assert second["state"] == "finished", second
    embedded, deployed = released(small, first), released(small, second)
    assert set(embedded) == set(deployed)
    for name, values in embedded.items():
        np.testing.assert_array_equal(values, deployed[name], err_msg=name)
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split()
    assert [pid for pid in left if int(pid) != os.getpid()] == []


def test_two_runs_add_up_and_the_third_is_refused_as_an_independent_accountant_says(small: Any) -> None:
    """Ledgers compose in mu^2, agree with dp-accounting to 1e-6, and refuse the run that would pass the cap."""
    with small.embedded() as runtime:
        assert small.train(runtime)["state"] == "finished"
        assert small.train(runtime)["state"] == "finished"
        third = small.train(runtime)
        assert (third["state"], third["reason"]) == ("refused", "BUDGET_EXHAUSTED"), third
        assert third["party"].startswith("did:web:")
        assert third["fix"]
    delta = small.scenario.risk.deltaNano / 1e9
    for member in MEMBERS:
        if member.role in ("insurer", "oem"):
            with LedgerView(small.places.node(member.short) / "ledger.db") as ledger:
                spent = ledger.spent_mu2(member.asset)
                events = [e for e in ledger.events() if e.cohort == "joint"]
            independent = independent_epsilon([GaussianEvent(e.clip, e.sigma) for e in events], delta)
            assert epsilon_of(spent, delta) == pytest.approx(independent, abs=1e-6)
            assert 5.9 < independent < 6.0


def log_size(small: Any) -> int:
    """Return the size of the latest checkpoint."""
    return int(httpx.get(f"{small.api.url}/v1/log/checkpoint").text.splitlines()[1])


def _change_column(path: Path, name: str, change: Any) -> None:
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(change(table, place), path)


def _nan(table: pa.Table, place: int) -> pa.Table:
    values = table.column(place).to_numpy().copy()
    values[:3] = np.nan
    return table.set_column(place, table.column_names[place], pa.array(values))


def _negative(table: pa.Table, place: int) -> pa.Table:
    values = table.column(place).to_numpy().copy()
    values[:2] = -1.0
    return table.set_column(place, table.column_names[place], pa.array(values))


def _text(table: pa.Table, place: int) -> pa.Table:
    return table.set_column(place, table.column_names[place], pa.array(["x"] * table.num_rows))


BAD_DATA = {
    "a missing column": ("oem", "night_share", lambda t, i: t.remove_column(i), "night_share"),
    "a mistyped column": ("insurer-b", "bonus_malus", _text, "bonus_malus"),
    "NaN": ("insurer-a", "driver_age", _nan, "driver_age"),
    "negative exposure": ("insurer-c", "exposure_years", _negative, "exposure_years"),
    "a person twice": ("insurer-a", "person_id", lambda t, i: pa.concat_tables([t, t.slice(0, 2)]), "person_id"),
    "no rows": ("insurer-b", "person_id", lambda t, i: t.slice(0, 0), ""),
}


def _import_a_link_id_twice(small: Any, short: str) -> None:
    """Have a party import consents of which two persons have one link_id: refused whole, and the register is as it was."""
    home = small.places.node(short)
    table = pq.read_table(home / founding.CONSENT_FILE)
    place = table.column_names.index("link_id")
    links = table.column(place).to_pylist()
    first, second = [row for row, link in enumerate(links) if link is not None][:2]
    links[second] = links[first]
    bad = home / "data" / "twice.parquet"
    pq.write_table(table.set_column(place, "link_id", pa.array(links, table.schema.field(place).type)), bad)
    with Register(home / "register.db") as register:
        before = register.subjects(agreements.UIDS[agreements.RISK])
    done = CliRunner().invoke(node_commands, ["consent", "import", str(bad), "--home", str(home)])
    assert isinstance(done.exception, ConsentRefused), done.output
    assert list(done.exception.reasons) == ["column link_id: twice under one contract (1 rows)"]
    assert (done.exception.party, bool(done.exception.fix)) == (f"did:web:{short}.example", True)
    with Register(home / "register.db") as register:
        assert register.subjects(agreements.UIDS[agreements.RISK]) == before
    bad.unlink()


def test_bad_data_at_one_party_ends_the_run_with_party_cause_and_fix_and_the_next_run_works(small: Any) -> None:
    """Every fault is told by party, column and fix; nothing is spent; with the data mended the next run works."""
    for what, (short, column, change, named) in BAD_DATA.items():
        path = small.places.node(short) / "data" / "data.parquet"
        good = path.read_bytes()
        _change_column(path, column, change)
        with small.embedded() as runtime:
            run = small.train(runtime)
        assert run["state"] == "refused", (what, run)
        assert run["party"] == f"did:web:{short}.example", (what, run)
        told = " ".join([run["cause"], run["fix"], *map(str, run["reasons"])])
        assert named in told, (what, run)
        assert run["fix"], (what, run)
        path.write_bytes(good)
    _import_a_link_id_twice(small, "insurer-b")
    for member in MEMBERS:
        with LedgerView(small.places.node(member.short) / "ledger.db") as ledger:
            assert ledger.events() == []
    with small.embedded() as runtime:
        assert small.train(runtime)["state"] == "finished"
    size = log_size(small)
    entries = [b64decode(e) for e in small.api.get(f"/v1/log/entries?start=0&end={size}")["entries"]]
    assert sum(b'"coordinator:run:refused"' in entry and b"DATASET_REFUSED" in entry for entry in entries) == len(
        BAD_DATA
    )


def test_a_withdrawn_person_is_not_in_the_next_run(small: Any) -> None:
    """A withdrawal at the OEM shrinks the joint cohort of the next run; nobody else has to know."""
    from datetime import UTC, datetime

    home = small.places.node("oem")
    uid = agreements.UIDS[agreements.RISK]
    with Register(home / "register.db") as register:
        before = sum(row["n"] for row in register.subjects(uid) if row["withdrawn"] is None)
        with sqlite3.connect(home / "register.db") as db:
            person = db.execute("SELECT local_id FROM consent WHERE contract = ? LIMIT 1", (uid,)).fetchone()[0]
        register.withdraw(person, uid, datetime.now(UTC))
        assert sum(row["n"] for row in register.subjects(uid) if row["withdrawn"] is None) == before - 1
    with small.embedded() as runtime:
        assert small.train(runtime)["state"] == "finished"


def test_a_field_outside_the_schedule_is_refused_by_every_node(small: Any) -> None:
    """The request may narrow the contract, never widen it."""
    with small.embedded() as runtime:
        run = small.train(runtime, fields={MEMBERS[0].asset: ["km_1000", "home_address"]})
    assert run["state"] == "refused", run
    assert "FIELD_NOT_IN_SCHEDULE" in run["reasons"]


def test_a_contract_that_a_node_has_not_signed_is_refused_there(small: Any) -> None:
    """A node trusts its own signature only, and the exact bytes that it signed."""
    folder = small.places.node("insurer-b") / "contracts"
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    with small.embedded() as runtime:
        run = small.train(runtime)
    assert (run["state"], run["party"]) == ("refused", "did:web:insurer-b.example"), run
    assert run["reason"] == "CONTRACT_NOT_SIGNED_HERE"
    folder.rmdir()
    kept.rename(folder)
    for path in folder.rglob("contract.json"):  # one byte changed: it is another contract
        path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with small.embedded() as runtime:
        run = small.train(runtime)
    assert (run["state"], run["party"]) == ("refused", "did:web:insurer-b.example"), run


def test_a_node_without_the_others_is_told_who_is_missing(small: Any) -> None:
    """The run needs every holder; it names the one that is not there and ends cleanly."""
    with small.embedded() as runtime:
        runtime._grid.disconnect("did:web:insurer-c.example")
        run = small.train(runtime)
        assert (run["state"], run["reason"], run["party"]) == ("failed", "QUORUM_MISSING", "did:web:insurer-c.example")
        runtime._grid.reconnect("did:web:insurer-c.example")
        assert small.train(runtime)["state"] == "finished"
