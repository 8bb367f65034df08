"""Receipts for the node's own statements: demanded for each, and their absence reported, so that omission shows.

    Receipts(home, party, policy): .demand(reader) -> (new, overdue)   .outstanding() -> list[Outstanding]   .all()

A receipt is a tlog-proof of the statement's exact bytes under a checkpoint that the quorum of the pinned policy has cosigned;
it is verified here before it is kept in ``receipts.db``, beside ``node.db``. A statement was handed over when an answer
carried it. A witnessed checkpoint that comes after that and does not cover it counts against the log; after more than
``PATIENCE`` of them the statement is *overdue*: who, which number, since when stand in ``convoy-node statements``, and the
node authorises no run until it is in the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from convoy_audit.errors import AuditError
from convoy_audit.merkle import leaf_hash
from convoy_audit.policy import Policy
from convoy_audit.proof import TlogProof, verify_proof
from convoy_node.errors import NodeError
from convoy_node.log_reader import LogReader

PATIENCE: Final = 2
"""Witnessed checkpoints that may pass over a statement before it is overdue."""
FILE: Final = "receipts.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS receipt (number INTEGER PRIMARY KEY, idx INTEGER NOT NULL, proof BLOB NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS waiting (
  number INTEGER PRIMARY KEY, since TEXT NOT NULL, passed INTEGER NOT NULL, last_size INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A statement without a receipt: its number, since when it is waited for, and how many checkpoints passed it over."""

    party: str
    number: int
    since: str | None
    passed: int

    @property
    def is_overdue(self) -> bool:
        """Whether this is an omission that people must be told of."""
        return self.passed > PATIENCE

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "party": self.party,
            "number": self.number,
            "since": self.since,
            "checkpointsPassed": self.passed,
            "overdue": self.is_overdue,
        }


class Receipts:
    """The receipts of one node; processes may share the files.

    Args:
        home: the node's folder.
        party: whose statements they are.
        policy: returns the pinned log and the witnesses of the contracts; None where no contract was signed yet.
        clock: returns the present instant, aware.
    """

    def __init__(
        self, home: Path, party: str, policy: Callable[[], Policy | None], clock: Callable[[], datetime]
    ) -> None:
        self._home = home
        self._party = party
        self._policy = policy
        self._clock = clock

    def demand(self, reader: LogReader) -> tuple[int, int]:
        """Ask for what is missing; return how many receipts are new and how many statements are overdue.

        Raises:
            LogUnreachable: no answer; nothing is counted against the log then.
            NodeError: the files cannot be used (code ``RECEIPTS_FAILED``).
        """
        policy = self._policy()
        handed = self._handed_over()
        with self._open() as db:
            kept = {int(n) for (n,) in db.execute("SELECT number FROM receipt")}
            missing = {number: raw for number, raw in handed.items() if number not in kept}
            if policy is None or not missing:
                return 0, self._count_overdue(db)
            note = reader.latest()
            try:
                size = policy.verify(note).checkpoint.size
            except AuditError:
                return 0, self._count_overdue(db)  # not witnessed: no word about omission, and no receipt either
            new = 0
            found: dict[int, dict[str, Any]] = {}
            after = min(missing) - 1
            while batch := [r for r in reader.receipts(self._party, after) if type(r.get("number")) is int]:
                found |= {int(r["number"]): r for r in batch}
                after = max(int(r["number"]) for r in batch)
            now = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
            for number, raw in sorted(missing.items()):
                if number in found and self._keep(db, policy, number, raw, found[number], now):
                    new += 1
                else:
                    self._passed_over(db, number, size, now)
            return new, self._count_overdue(db)

    def outstanding(self) -> list[Outstanding]:
        """Return every statement that has no receipt, in order; the youngest may not have been handed over yet."""
        numbers = self._handed_over(also_unreported=True)
        with self._open() as db:
            kept = {int(n) for (n,) in db.execute("SELECT number FROM receipt")}
            waiting = {int(n): (s, int(p)) for n, s, p in db.execute("SELECT number, since, passed FROM waiting")}
        return [
            Outstanding(self._party, number, *waiting.get(number, (None, 0)))
            for number in sorted(numbers)
            if number not in kept
        ]

    def overdue(self) -> list[Outstanding]:
        """Return the statements that the log has omitted."""
        return [one for one in self.outstanding() if one.is_overdue]

    def all(self) -> dict[int, int]:
        """Return the index in the log of each statement that has a receipt, by number."""
        with self._open() as db:
            return {int(n): int(i) for n, i in db.execute("SELECT number, idx FROM receipt ORDER BY number")}

    def proof(self, number: int) -> bytes | None:
        """Return the tlog-proof of a statement."""
        with self._open() as db:
            row = db.execute("SELECT proof FROM receipt WHERE number = ?", (number,)).fetchone()
        return bytes(row[0]) if row else None

    def _keep(
        self, db: sqlite3.Connection, policy: Policy, number: int, raw: bytes, receipt: Mapping[str, Any], now: str
    ) -> bool:
        text = receipt.get("proof")
        try:
            proof = TlogProof.parse(text.encode() if isinstance(text, str) else b"")
            verify_proof(proof, leaf_hash(raw), policy)
        except AuditError:
            return False  # a receipt that does not hold is none: another statement in our place, or no quorum
        db.execute("INSERT OR IGNORE INTO receipt VALUES (?, ?, ?, ?)", (number, proof.index, proof.text, now))
        db.execute("DELETE FROM waiting WHERE number = ?", (number,))
        return True

    def _passed_over(self, db: sqlite3.Connection, number: int, size: int, now: str) -> None:
        db.execute(
            "INSERT INTO waiting VALUES (?1, ?2, 0, ?3) ON CONFLICT (number) DO UPDATE SET"
            " passed = passed + (?3 > last_size), last_size = max(last_size, ?3)",
            (number, now, size),
        )

    def _count_overdue(self, db: sqlite3.Connection) -> int:
        (count,) = db.execute("SELECT count(*) FROM waiting WHERE passed > ?", (PATIENCE,)).fetchone()
        return int(count)

    def _handed_over(self, *, also_unreported: bool = False) -> dict[int, bytes]:
        """Return the statements, by number, that an answer has carried."""
        with _failing(), closing(sqlite3.connect(f"file:{self._home / 'node.db'}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT number, raw FROM statement WHERE reported OR ?", (also_unreported,)).fetchall()
        return {int(number): bytes(raw) for number, raw in rows}

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with _failing(), closing(sqlite3.connect(self._home / FILE, timeout=10)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            (self._home / FILE).chmod(0o600)
            with db:
                yield db


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NodeError(
            "the node's statements or receipts cannot be read or kept.",
            code="RECEIPTS_FAILED",
            fix="See the disk and the folder's owner; receipts.db can be fetched again, node.db cannot.",
        ) from error
