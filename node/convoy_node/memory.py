"""What the node must never forget about requests: nonces, rounds, authorisations, its own statements. One SQLite file.

Order: everything here is durable before the act that it allows. If the process dies after an authorisation is written and
before data is read, the round number is used up and nothing has happened.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convoy_audit.statement import next_link

_SCHEMA = """
CREATE TABLE IF NOT EXISTS nonce (nonce TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS authorised (
  contract TEXT NOT NULL, round INTEGER NOT NULL, at TEXT NOT NULL, scope TEXT NOT NULL, PRIMARY KEY (contract, round));
CREATE TABLE IF NOT EXISTS statement (number INTEGER PRIMARY KEY, raw BLOB NOT NULL);
"""


class Memory:
    """The node's memory of requests; safe for the threads of one process."""

    def __init__(self, path: Path) -> None:
        self._guard = threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def world(self, contract_uid: str) -> dict[str, Any]:
        """Return ``lastRound``, ``seenNonces`` and ``authorised`` of a contract for the world (FORMAT.md §2)."""
        with self._guard:
            rounds = self._db.execute(
                "SELECT round, at, scope FROM authorised WHERE contract = ?", (contract_uid,)
            ).fetchall()
            nonces = [row[0] for row in self._db.execute("SELECT nonce FROM nonce")]
        return {
            "lastRound": max((row[0] for row in rounds), default=0),
            "seenNonces": nonces,
            "authorised": {str(number): {"at": at, "scope": scope} for number, at, scope in rounds},
        }

    def remember_nonce(self, nonce: str) -> None:
        """Remember a nonce for good; a refused request's too."""
        with self._guard:
            self._db.execute("INSERT OR IGNORE INTO nonce VALUES (?)", (nonce,))

    def remember_authorisation(self, contract_uid: str, number: int, at: str, scope: str) -> None:
        """Remember that this node authorised a round."""
        with self._guard:
            self._db.execute("INSERT INTO authorised VALUES (?, ?, ?, ?)", (contract_uid, number, at, scope))

    def state(self, make: Callable[[int, str | None], bytes]) -> bytes:
        """Add the node's next statement: ``make(number, previous digest)`` returns its signed bytes.

        The statement is durable before it is returned, so no number is ever given twice.
        """
        with self._guard:
            row = self._db.execute("SELECT raw FROM statement ORDER BY number DESC LIMIT 1").fetchone()
            number, previous = next_link(bytes(row[0]) if row else None)
            raw = make(number, previous)
            self._db.execute("INSERT INTO statement VALUES (?, ?)", (number, raw))
            return raw

    def statements(self) -> list[bytes]:
        """Return every statement of this node, in order."""
        with self._guard:
            return [bytes(row[0]) for row in self._db.execute("SELECT raw FROM statement ORDER BY number")]
