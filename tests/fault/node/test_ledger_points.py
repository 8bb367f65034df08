"""Random moments of death, ten thousand in `make soak`: what the ledger acknowledged before is never missing afterwards.

SQLite's write-ahead log is append-only between checkpoints, so a crash at any moment leaves the
database file and a prefix of the log, possibly with a torn last page. One life of a ledger is
recorded with the size of its log after every acknowledged step; then it is cut at 2,000 random
bytes (`CONVOY_EXAMPLES` of them) and, in a third of the cases, followed by noise, opened again as a
restarting node does, and compared with what had been acknowledged when the log was that long.
Two hundred of the points are opened by the real ``Ledger`` class; the rest read the same totals
through SQLite, which is what it does, a hundred times faster.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convoy_models import accounting
from convoy_node.ledger import Charge, Ledger
from convoy_node.ledger_view import LedgerView

POINTS = int(os.environ.get("CONVOY_EXAMPLES", "2000"))
OPENED_FOR_REAL = 200
RUNS, QUERIES = 12, 6


def clock() -> datetime:
    return datetime(2026, 11, 25, tzinfo=UTC)


@dataclass(frozen=True)
class Moment:
    """After an acknowledged step: how long the log was, and what must be there from then on."""

    log_bytes: int
    reserved: frozenset[tuple[str, int]]
    spent: frozenset[tuple[str, int, str]]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, list[Moment]]:
    """One life: runs reserved, spent in part, settled; the log is never checkpointed."""
    path = tmp_path_factory.mktemp("life") / "ledger.db"
    Ledger.create(path)
    ledger = Ledger(path, clock=clock)
    ledger._db.execute("PRAGMA wal_autocheckpoint = 0")
    base, wal = path.read_bytes(), path.with_name(path.name + "-wal")
    rng = random.Random(5)
    reserved: set[tuple[str, int]] = set()
    spent: set[tuple[str, int, str]] = set()
    moments = [Moment(wal.stat().st_size if wal.exists() else 0, frozenset(), frozenset())]

    def acknowledged() -> None:
        moments.append(Moment(wal.stat().st_size, frozenset(reserved), frozenset(spent)))

    for number in range(RUNS):
        run, attempt = f"run-{number // 2}", 1 + number % 2
        charges = [Charge(f"q{n}", "joint", 1e-4, 100.0, 1.0) for n in range(QUERIES)]
        ledger.reserve(
            run, attempt, "risk", "asset", 2026, 1e-6, charges, contract_cap_micro=10**9, asset_cap_micro=10**9
        )
        reserved.add((run, attempt))
        acknowledged()
        for charge in charges[: rng.randint(0, QUERIES)]:
            ledger.spend(run, charge.query, attempt)
            spent.add((run, attempt, charge.query))
            acknowledged()
        ledger.settle(run, "finished")
        acknowledged()
    log = wal.read_bytes()
    ledger.close()
    return base, log, moments


def test_kill_points_never_under_count(
    life: tuple[bytes, bytes, list[Moment]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every spend that was acknowledged before the cut is there, none is there twice, and totals agree."""
    base, log, moments = life
    rng = random.Random(20_261_125)
    folder = tmp_path_factory.mktemp("points")
    path = folder / "ledger.db"
    wal, shared, lock = (folder / f"ledger.db{end}" for end in ("-wal", "-shm", ".lock"))
    extra = lost = 0
    for point in range(POINTS):
        cut = rng.randint(moments[0].log_bytes, len(log))
        torn = rng.randbytes(rng.randint(1, 4096)) if point % 3 == 0 else b""
        path.write_bytes(base)
        wal.write_bytes(log[:cut] + torn)
        shared.unlink(missing_ok=True)
        told = max((m for m in moments if m.log_bytes <= cut), key=lambda m: m.log_bytes)
        if point < OPENED_FOR_REAL:
            lock.unlink(missing_ok=True)
            with Ledger(path, clock=clock) as ledger:
                found = {(e.run, e.attempt, e.query) for e in ledger.events()}
                assert ledger.spent_mu2("asset") == accounting.mu2_of_units(len(found) * 10**8)
                assert ledger.mu2("asset") == ledger.spent_mu2("asset")  # what was open is settled at start
        else:
            db = sqlite3.connect(path)
            rows = db.execute(
                "SELECT r.run, r.attempt, c.query FROM charge c JOIN reservation r ON r.id = c.reservation"
                " WHERE c.spent_at NOT NULL"
            ).fetchall()
            db.close()
            found = set(rows)
            assert len(rows) == len(found)
        lost += len(told.spent - found)
        extra = max(extra, len(found - told.spent))
    assert lost == 0
    assert extra <= 1  # at most the one in flight


def test_a_reader_beside_the_node_never_sees_less_than_was_acknowledged(
    life: tuple[bytes, bytes, list[Moment]], tmp_path: Path
) -> None:
    """The view that status and preview use, on the files of a running node, at every acknowledged moment."""
    base, log, moments = life
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "ledger.db").write_bytes(base)
        (folder / "ledger.db-wal").write_bytes(log[: moment.log_bytes])
        with LedgerView(folder / "ledger.db") as view:
            assert {(e.run, e.attempt, e.query) for e in view.events()} >= moment.spent
            assert view.mu2("asset") >= view.spent_mu2("asset")
        shutil.rmtree(folder)
