"""How far the register must be, kept outside of it in ``node.db``: a restored older register shows here.

    mark(seq, token)              the last change of the register that this node made
    withdrawals(contract)         every withdrawal again, so that catching up loses none
    epochs(contract)              the epochs that this node has signed, read from its own statements

The mark is written after the change it names. If the process dies between the two, the register is ahead, which is harmless.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convoy_audit.canonical import parse_canonical
from convoy_audit.events import ConsentRooted
from convoy_audit.statement import statement_from_json
from convoy_node.durable import open_durable, transaction
from convoy_node.errors import NodeError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS consent_mark (
  one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, token BLOB NOT NULL, incarnation TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS consent_withdrawal (
  contract TEXT NOT NULL, local_id TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (contract, local_id)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consent_epoch (
  contract TEXT NOT NULL, number INTEGER NOT NULL, root TEXT NOT NULL, statement INTEGER NOT NULL,
  PRIMARY KEY (contract, number)) STRICT;
CREATE TABLE IF NOT EXISTS consent_read (one INTEGER PRIMARY KEY CHECK (one = 1), statement INTEGER NOT NULL) STRICT;
"""


LOST: Final = 2**62
"""A change that no register has: its state is lost."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The register's last known change, and which life of the register this is."""

    seq: int
    token: bytes
    incarnation: str


@dataclass(frozen=True, slots=True)
class KnownEpoch:
    """An epoch that this node has signed; ``root`` as ``sha256:`` hex."""

    number: int
    root: str


class Watermark:
    """The part of ``node.db`` that speaks about the register.

    Raises:
        NodeError: the file cannot be used (code ``MEMORY_FAILED``); so do all methods.
    """

    def __init__(self, path: Path) -> None:
        self._guard = threading.RLock()
        with _failing():
            self._db = open_durable(path, _SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def mark(self) -> Mark | None:
        """Return the mark; None before the first one."""
        with self._guard, _failing():
            row = self._db.execute("SELECT seq, token, incarnation FROM consent_mark").fetchone()
        return Mark(row[0], bytes(row[1]), row[2]) if row else None

    def set_mark(self, seq: int, token: bytes, *, is_new_life: bool = False) -> Mark:
        """Move the mark; ``is_new_life`` begins another incarnation."""
        with self._writing() as db:
            known = self.mark()
            life = known.incarnation if known and not is_new_life else secrets.token_hex(8)
            db.execute("INSERT OR REPLACE INTO consent_mark VALUES (1, ?, ?, ?)", (seq, token, life))
        return Mark(seq, token, life)

    def remember_withdrawal(self, contract: str, local_id: str, at: str, change: tuple[int, bytes] | None) -> None:
        """Keep a withdrawal a second time; with a change, move the mark to it in the same step."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO consent_withdrawal VALUES (?, ?, ?)", (contract, local_id, at))
            if change is not None:
                self._move(db, *change)

    def move(self, change: tuple[int, bytes]) -> None:
        """Move the mark forward to a change."""
        with self._writing() as db:
            self._move(db, *change)

    def withdrawals(self) -> list[tuple[str, str, str]]:
        """Return (contract, local id, instant) of every withdrawal."""
        with self._guard, _failing():
            rows = self._db.execute("SELECT contract, local_id, at FROM consent_withdrawal ORDER BY at").fetchall()
        return [tuple(row) for row in rows]

    def read_statements(self) -> None:
        """Take note of the epochs among this node's own statements; the statements are the truth."""
        with self._writing() as db:
            row = db.execute("SELECT statement FROM consent_read").fetchone()
            after = int(row[0]) if row else 0
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'statement'").fetchone() is None:
                return
            last = after
            for number, raw in db.execute(
                "SELECT number, raw FROM statement WHERE number > ? ORDER BY number", (after,)
            ):
                last = int(number)
                event = statement_from_json(parse_canonical(bytes(raw)), bytes(raw)).event
                if isinstance(event, ConsentRooted):
                    db.execute(
                        "INSERT OR REPLACE INTO consent_epoch VALUES (?, ?, ?, ?)",
                        (event.contract, event.epoch, event.root, last),
                    )
            db.execute("INSERT OR REPLACE INTO consent_read VALUES (1, ?)", (last,))

    def last_epoch(self, contract: str) -> KnownEpoch | None:
        """Return the last epoch that this node has signed for a contract."""
        with self._guard, _failing():
            row = self._db.execute(
                "SELECT number, root FROM consent_epoch WHERE contract = ? ORDER BY number DESC LIMIT 1", (contract,)
            ).fetchone()
        return KnownEpoch(*row) if row else None

    def lose(self, contract: str, number: int, root: str) -> None:
        """Remember an epoch that the log holds and this memory lacked; only ``set_mark`` lets runs in again."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO consent_epoch VALUES (?, ?, ?, 0)", (contract, number, root))
        self.suspect()

    def suspect(self) -> None:
        """Have the register count as older than it must be: register and memory were put back together."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO consent_mark VALUES (1, ?, ?, ?)", (LOST, b"", secrets.token_hex(8)))

    @property
    def is_lost(self) -> bool:
        """Whether nobody here knows what the register lacks: only a table of what was said since can tell."""
        mark = self.mark()
        return mark is not None and mark.seq == LOST

    def _move(self, db: sqlite3.Connection, seq: int, token: bytes) -> None:
        db.execute(
            "INSERT INTO consent_mark VALUES (1, ?, ?, ?)"
            " ON CONFLICT (one) DO UPDATE SET seq = excluded.seq, token = excluded.token WHERE excluded.seq >= seq",
            (seq, token, secrets.token_hex(8)),
        )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _failing(), transaction(self._db) as db:
            yield db


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NodeError(
            "the node's memory cannot be used; nothing was let out.",
            code="MEMORY_FAILED",
            fix="See the node's log and the disk; restore node.db from a copy, never start with an empty one.",
        ) from error
