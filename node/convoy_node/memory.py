"""What the node must never forget about requests: nonces, rounds, authorisations, runs, its own statements. One SQLite file.

Order: everything here is durable before the act that it allows. If the process dies after an authorisation is written and
before data are read, the round number is used up and nothing has happened.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from convoy_audit.statement import next_link
from convoy_node.durable import open_durable, transaction
from convoy_node.errors import NodeError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS authorised (
  contract TEXT NOT NULL, round INTEGER NOT NULL, at TEXT NOT NULL, scope TEXT NOT NULL,
  PRIMARY KEY (contract, round)) STRICT;
CREATE TABLE IF NOT EXISTS statement (
  number INTEGER PRIMARY KEY, raw BLOB NOT NULL, reported INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS run (
  run TEXT NOT NULL, attempt INTEGER NOT NULL, contract TEXT NOT NULL, digest TEXT NOT NULL,
  asset TEXT NOT NULL, delta REAL NOT NULL, settled INTEGER REFERENCES statement (number),
  PRIMARY KEY (run, attempt)) STRICT;
"""
RESTORED: Final = "restored.json"
"""A file beside the memory: while it is there nothing is stated, because a number could be given twice (``backup.standing``)."""
Make = Callable[[int, str | None], bytes]
"""Signs a statement, given its number and the digest of the one before."""


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that this node took on; ``asset`` is empty where it holds no persons."""

    run: str
    attempt: int
    contract: str
    digest: str
    asset: str
    delta: float


class Memory:
    """The node's memory of requests; safe for the threads of one process.

    Raises:
        NodeError: the file cannot be read or written (code ``MEMORY_FAILED``); so do all methods.
    """

    def __init__(self, path: Path) -> None:
        self._guard = threading.RLock()
        self._restored = path.with_name(RESTORED)
        with _failing():
            self._db = open_durable(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def world(self, contract_uid: str) -> dict[str, Any]:
        """Return ``lastRound``, ``seenNonces`` and ``authorised`` of a contract for the world (FORMAT.md §2)."""
        rounds = self._read("SELECT round, at, scope FROM authorised WHERE contract = ?", contract_uid)
        return {
            "lastRound": max((row[0] for row in rounds), default=0),
            "seenNonces": [row[0] for row in self._read("SELECT nonce FROM nonce")],
            "authorised": {str(number): {"at": at, "scope": scope} for number, at, scope in rounds},
        }

    def remember_nonce(self, nonce: str) -> None:
        """Remember a nonce for good; a refused request's too."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO nonce VALUES (?)", (nonce,))

    def remember_authorisation(self, contract_uid: str, number: int, at: str, scope: str) -> None:
        """Remember that this node authorised a round."""
        with self._writing() as db:
            db.execute("INSERT INTO authorised VALUES (?, ?, ?, ?)", (contract_uid, number, at, scope))

    # Runs ----------------------------------------------------------------------------------------------------------------

    def remember_run(self, run: KnownRun) -> None:
        """Remember a run as open; it stays so until a statement settles it, over every restart."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (run.run, run.attempt, run.contract, run.digest, run.asset, run.delta),
            )

    def knows_run(self, run: str, attempt: int) -> bool:
        """Whether this try of a run was taken on before."""
        return bool(self._read("SELECT 1 FROM run WHERE run = ? AND attempt = ?", run, attempt))

    def open_runs(self, *, run: str | None = None, contract: str | None = None) -> list[KnownRun]:
        """Return the runs that no statement has settled."""
        rows = self._read(
            "SELECT run, attempt, contract, digest, asset, delta FROM run WHERE settled IS NULL"
            " AND (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR contract = ?2) ORDER BY rowid",
            run,
            contract,
        )
        return [KnownRun(*row) for row in rows]

    def settlement(self, run: str) -> bytes | None:
        """Return the statement that settled the last try of a run."""
        rows = self._read(
            "SELECT s.raw FROM run r JOIN statement s ON s.number = r.settled WHERE r.run = ? ORDER BY r.attempt DESC",
            run,
        )
        return bytes(rows[0][0]) if rows else None

    def charged_runs(self) -> list[tuple[str, int]]:
        """Return (run, attempt) of every run that this node's persons were charged for."""
        return [(run, attempt) for run, attempt in self._read("SELECT run, attempt FROM run WHERE asset <> ''")]

    @property
    def is_restored(self) -> bool:
        """Whether nothing may be stated, because this is an older copy."""
        return self._restored.exists()

    # Catching up ---------------------------------------------------------------------------------------------------------

    def take_back(self, statements: Sequence[tuple[int, bytes]], settled: Mapping[str, int]) -> None:
        """Take back own statements that the log has and this memory lacked.

        Args:
            statements: number and bytes, verified, following the last one that is known here.
            settled: number of the statement that settled a run, by run.
        """
        with self._writing() as db:
            db.executemany("INSERT INTO statement (number, raw, reported) VALUES (?, ?, 1)", statements)
            for run, number in settled.items():
                db.execute("UPDATE run SET settled = ? WHERE run = ? AND settled IS NULL", (number, run))

    def use_up(self, contract_uid: str, number: int, at: str, scope: str) -> None:
        """Remember a round that was authorised while this memory did not know of it: it is never authorised again."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO authorised VALUES (?, ?, ?, ?)", (contract_uid, number, at, scope))

    # Statements ----------------------------------------------------------------------------------------------------------

    def state(self, make: Make, settles: KnownRun | None = None) -> bytes:
        """Add the node's next statement: ``make(number, previous digest)`` returns its signed bytes.

        The statement is durable before it is returned, so no number is ever given twice. ``settles`` is the run that is
        settled with it, in the same step.
        """
        if self.is_restored:
            raise NodeError(
                "this node was restored from a copy; a statement could get a number that was given before.",
                code="NODE_RESTORED",
                fix="convoy-node catch-up first; it reads this node's own statements back from the log.",
                reasons=("REGISTER_STALE", "LEDGER_STALE"),
            )
        with self._writing() as db:
            row = db.execute("SELECT raw FROM statement ORDER BY number DESC LIMIT 1").fetchone()
            number, previous = next_link(bytes(row[0]) if row else None)
            raw = make(number, previous)
            db.execute("INSERT INTO statement (number, raw) VALUES (?, ?)", (number, raw))
            if settles is not None:
                db.execute(
                    "UPDATE run SET settled = ? WHERE run = ? AND attempt = ?", (number, settles.run, settles.attempt)
                )
            return raw

    def report(self) -> list[bytes]:
        """Return the statements that no answer has carried yet, in order, and mark them as carried."""
        with self._writing() as db:
            rows = db.execute("SELECT raw FROM statement WHERE NOT reported ORDER BY number").fetchall()
            db.execute("UPDATE statement SET reported = 1 WHERE NOT reported")
        return [bytes(row[0]) for row in rows]

    def unreported(self) -> list[bytes]:
        """Return the statements that no answer has carried yet, in order; ``reported_to`` marks them afterwards."""
        return [bytes(row[0]) for row in self._read("SELECT raw FROM statement WHERE NOT reported ORDER BY number")]

    def reported_to(self, number: int) -> None:
        """Mark the statements up to a number as carried: the log has them."""
        with self._writing() as db:
            db.execute("UPDATE statement SET reported = 1 WHERE number <= ? AND NOT reported", (number,))

    def last_statement(self) -> bytes | None:
        """Return the node's last statement."""
        rows = self._read("SELECT raw FROM statement ORDER BY number DESC LIMIT 1")
        return bytes(rows[0][0]) if rows else None

    def statements(self, after: int = 0) -> list[bytes]:
        """Return the statements of this node after a number, in order."""
        return [bytes(r[0]) for r in self._read("SELECT raw FROM statement WHERE number > ? ORDER BY number", after)]

    def _read(self, query: str, *values: object) -> list[Any]:
        with self._guard, _failing():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; on disk when the block has ended, gone if it raised."""
        with self._guard, _failing(), transaction(self._db) as db:
            yield db


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NodeError(
            "the node's memory of requests cannot be used; nothing was let out.",
            code="MEMORY_FAILED",
            fix="See the node's log and the disk; restore node.db from a copy, never start with an empty one.",
        ) from error
