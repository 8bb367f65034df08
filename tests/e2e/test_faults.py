"""What must not happen, and what happens instead: a rolled-back log, a rewritten log, a killed node."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from convoy_coordinator.federation.flower.deployment import node_process
from convoy_demo import runtimes
from convoy_demo.api import Api
from convoy_demo.places import MEMBERS
from convoy_node.ledger_view import LedgerView

DATABASE = ("coordinator.db", "coordinator.db-wal", "coordinator.db-shm")


def _copy_database(small: Any, to: Path) -> None:
    to.mkdir(exist_ok=True)
    for name in DATABASE:
        if (small.places.coordinator / name).exists():
            shutil.copy(small.places.coordinator / name, to / name)


def _restore_database(small: Any, kept: Path) -> None:
    for name in DATABASE:
        (small.places.coordinator / name).unlink(missing_ok=True)
        if (kept / name).exists():
            shutil.copy(kept / name, small.places.coordinator / name)


def _spent(small: Any) -> dict[str, float]:
    spent = {}
    for member in MEMBERS:
        if member.asset:
            with LedgerView(small.places.node(member.short) / "ledger.db") as ledger:
                spent[member.short] = ledger.spent_mu2(member.asset)
    return spent


@pytest.mark.parametrize("more_entries", [0, 40], ids=["rolled back", "rolled back and grown past the witnesses"])
def test_a_log_that_forgot_is_refused_by_its_witnesses_before_any_training(
    tmp_path: Path, found_small: Any, more_entries: int
) -> None:
    """An old copy of the coordinator's database, with the real keys: no node works under it, nothing is spent."""
    with found_small(tmp_path) as small:
        _copy_database(small, tmp_path / "old")
        with small.embedded() as runtime:
            assert small.train(runtime)["state"] == "finished"
    _restore_database(small, tmp_path / "old")
    before = _spent(small)
    with runtimes.coordinator_thread(small.places.coordinator) as url:
        small.api = Api(url, small.places.coordinator / "keys")
        small.api.wait_ready(30)
        for _ in range(more_entries):
            small.queue()  # each is an entry; together they outgrow what the witnesses have seen
        with small.embedded() as runtime:
            uid = small.queue()
            first = small.api.get("/v1/runs")["runs"][-1]["uid"]
            runtime.start(first)
            run = small.ended(first)
        small.api.close()
    assert uid
    assert run["state"] in ("refused", "failed"), run
    assert run["reason"].startswith("WITNESS"), run
    assert run["party"].startswith("did:web:")
    assert _spent(small) == before


@pytest.mark.slow
def test_a_killed_node_ends_the_run_cleanly_and_the_next_run_works(small: Any) -> None:
    """SIGKILL of an insurer's SuperNode and worker in mid-run: the run names the party, ledgers settle, the next run works."""
    party = "did:web:insurer-b.example"
    with small.deployed() as runtime:
        uid = small.queue()
        runtime.start(uid)
        deadline = time.monotonic() + 120
        while small.api.get(f"/v1/runs/{uid}")["state"] not in ("running", "failed", "refused"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        supervisor, name = runtime.deployment.supervisor, node_process(party)
        _, _, module, *arguments = supervisor.processes[name].popen.args
        supervisor.kill(name)
        run = small.ended(uid, 180)
        assert run["state"] == "failed", run
        assert run["party"] == party, run
        assert run["cause"], run
        assert run["fix"], run
        supervisor.start(name, module, arguments)  # as its service manager would, under the same SuperLink
        supervisor.wait(name, lambda: runtime.deployment.control.nodes()[party].status == "online", 90)
        again = small.train(runtime)
    assert again["state"] == "finished", again
    for member in MEMBERS:
        if member.role in ("insurer", "oem"):
            with LedgerView(small.places.node(member.short) / "ledger.db") as ledger:
                used, spent = ledger.mu2(member.asset), ledger.spent_mu2(member.asset)
                assert used == spent, member.short  # nothing stays reserved
