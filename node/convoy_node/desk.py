"""The influence index: which runs a person was in, and which fields runs really read. Written at each run, kept at the node.

    Influence(path)     .begin(entry, persons)     before anything leaves: everybody whom the node lets into the run
                        .align(run, attempt, persons)   those whom the other holders know too; nobody else has any influence
                        .runs_of(person)           for the rights desk: "which contracts, runs and models used my data"
                        .fields_read(asset, year)  for the report of fields that are collected and never read

A run keeps its persons as one compressed bitmap over numbers that this file gives to ids: 125 kB for a million persons.
Outcome and model come from the node's own signed statements (``memory.settlement``), not from here.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from convoy_audit.canonical import parse_canonical
from convoy_audit.events import RunSettled
from convoy_audit.statement import statement_from_json
from convoy_contracts.document import Contract
from convoy_node.durable import open_durable, transaction
from convoy_node.errors import NodeError
from convoy_node.memory import Memory

FILE: Final = "influence.db"
GAPS: Final = "gaps.json"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS person (number INTEGER PRIMARY KEY, local_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS run (
  run TEXT NOT NULL, attempt INTEGER NOT NULL, contract TEXT NOT NULL, version INTEGER NOT NULL, purpose TEXT NOT NULL,
  algorithm TEXT NOT NULL, asset TEXT NOT NULL, fields TEXT NOT NULL, at TEXT NOT NULL, stage TEXT NOT NULL,
  persons BLOB NOT NULL, PRIMARY KEY (run, attempt)) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run as the index keeps it; ``fields``: the columns that the run really reads here."""

    run: str
    attempt: int
    contract: str
    version: int
    purpose: str
    algorithm: str
    asset: str
    fields: tuple[str, ...]
    at: str
    stage: Literal["authorised", "aligned"] = "authorised"


class Influence:
    """The influence index of one node.

    Raises:
        NodeError: the file cannot be used (code ``INFLUENCE_FAILED``); so do all methods. A run then does not begin.
    """

    def __init__(self, path: Path) -> None:
        self._guard = threading.RLock()
        with _failing():
            self._db = open_durable(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def begin(self, entry: Entry, persons: Collection[str]) -> None:
        """Write a run with everybody whom it may use, durably, before anything leaves."""
        with self._writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.run, entry.attempt, entry.contract, entry.version, entry.purpose, entry.algorithm, entry.asset,
                    json.dumps(entry.fields), entry.at, entry.stage, self._bitmap(db, persons),
                ),
            )  # fmt: skip

    def align(self, run: str, attempt: int, persons: Collection[str]) -> None:
        """Narrow a run to those who are in its sums."""
        with self._writing() as db:
            db.execute(
                "UPDATE run SET stage = 'aligned', persons = ? WHERE run = ? AND attempt = ?",
                (self._bitmap(db, persons), run, attempt),
            )

    def runs_of(self, local_id: str) -> list[Entry]:
        """Return the runs that a person is in, oldest first."""
        with self._guard, _failing():
            row = self._db.execute("SELECT number FROM person WHERE local_id = ?", (local_id,)).fetchone()
            if row is None:
                return []
            number, found = int(row[0]), []
            for row in self._db.execute(
                "SELECT run, attempt, contract, version, purpose, algorithm, asset, fields, at, stage, persons FROM run"
                " ORDER BY at, run, attempt"
            ):
                bits = zlib.decompress(row[10])
                if number // 8 < len(bits) and bits[number // 8] >> (7 - number % 8) & 1:
                    run, attempt, contract, version, purpose, algorithm, asset, fields, at, stage, _ = row
                    read = tuple(json.loads(fields))
                    found.append(Entry(run, attempt, contract, version, purpose, algorithm, asset, read, at, stage))
        return found

    def fields_read(self, asset: str, year: int) -> dict[str, int]:
        """Return how many runs of a year (UTC) have read each field of an asset."""
        counts: dict[str, int] = {}
        with self._guard, _failing():
            rows = self._db.execute("SELECT fields, at FROM run WHERE asset = ?", (asset,)).fetchall()
        for fields, at in rows:
            if datetime.fromisoformat(at).astimezone(UTC).year == year:
                for name in json.loads(fields):
                    counts[name] = counts.get(name, 0) + 1
        return counts

    def _bitmap(self, db: sqlite3.Connection, persons: Collection[str]) -> bytes:
        listed = sorted(persons)
        db.executemany("INSERT OR IGNORE INTO person (local_id) VALUES (?)", ((one,) for one in listed))
        numbers = [db.execute("SELECT number FROM person WHERE local_id = ?", (one,)).fetchone()[0] for one in listed]
        bits = np.zeros(max(numbers, default=0) + 1, dtype=np.uint8)
        bits[numbers] = 1
        return zlib.compress(np.packbits(bits).tobytes())

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _failing(), transaction(self._db) as db:
            yield db


def gaps(home: Path) -> list[dict[str, Any]]:
    """Return from when to when this node's index was lost by a restore (``backup.catch_up`` notes it)."""
    path = home / GAPS
    if not path.is_file():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(
            f"{GAPS} cannot be read.", code="HOME_REFUSED", fix="Restore it from a copy.", fix_zh="请从副本恢复。"
        ) from error
    return found


def answer(influence: Influence, memory: Memory, person: str, lost: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Answer "which contracts, runs and model versions used my data" from the index and this node's own statements.

    Args:
        influence: the index.
        memory: the statements.
        person: this party's own id.
        lost: times of which the index knows nothing (``gaps``); the answer names them.
    """
    runs = []
    for entry in influence.runs_of(person):
        raw = memory.settlement(entry.run)
        event = statement_from_json(parse_canonical(raw), raw).event if raw is not None else None
        settled = event if isinstance(event, RunSettled) else None
        runs.append(
            {
                "run": entry.run,
                "attempt": entry.attempt,
                "contract": entry.contract,
                "version": entry.version,
                "purpose": entry.purpose,
                "algorithm": entry.algorithm,
                "fields": list(entry.fields),
                "at": entry.at,
                "stage": entry.stage,
                "outcome": settled.outcome if settled else "open",
                "model": settled.manifest if settled else None,
            }
        )
    return {
        "contracts": sorted({f"{run['contract']} v{run['version']}" for run in runs}),
        "models": sorted({str(run["model"]) for run in runs if run["model"]}),
        "runs": runs,
        "gaps": [dict(gap) for gap in lost],
    }


def unused_fields(
    influence: Influence, asset: str, graded: Collection[str], signed: Sequence[Contract], year: int
) -> dict[str, Any]:
    """Return the yearly report of over-collection: fields that are offered and that no run of the year has read.

    Args:
        influence: the index.
        asset: this party's.
        graded: fields of the asset in node.toml.
        signed: the contracts that this node has signed; those in force in the year count.
        year: UTC.
    """
    read = influence.fields_read(asset, year)
    begin, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
    contracts: list[dict[str, Any]] = []
    for contract in signed:
        row = contract.schedule(asset)
        lasts = (datetime.fromisoformat(contract.term.notBefore), datetime.fromisoformat(contract.term.notAfter))
        if row is None or lasts[0] >= end or lasts[1] <= begin:
            continue
        scheduled = [field.name for field in row.fields]
        contracts.append(
            {
                "contract": contract.uid,
                "version": contract.version,
                "scheduled": scheduled,
                "unused": [name for name in scheduled if name not in read],
            }
        )
    named = {name for one in contracts for name in one["scheduled"]}
    return {
        "asset": asset,
        "year": year,
        "read": dict(sorted(read.items())),
        "contracts": contracts,
        "neverScheduled": sorted(set(graded) - named),
        "neverRead": sorted((set(graded) | named) - set(read)),
    }


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NodeError(
            "the influence index cannot be used; no run begins without it.",
            code="INFLUENCE_FAILED",
            fix="See the node's log and the disk; restore influence.db from a copy.",
        ) from error
