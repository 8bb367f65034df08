"""What was ever recorded about consents, in the register's file: records are added and never edited.

    start_change(db, at, channel) -> seq        one per write of the register; ``change`` is the register's own time line
    add_records(db, seq, rows)                  one record per row, with its commitment
    history(db, contract, person)               the records of one person, oldest first
    leaves(db, series, seq)                     (pseudonym, commitment) of everybody as of a change, sorted

A record holds no id of a person: it is found by the pseudonym, an HMAC under the contract's key. Erasing the key (or the rows)
leaves commitments in old epochs that nobody can open again.
Each change has a random ``token``, so that a register restored from a copy cannot pass for the one it was (``office``).
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from convoy_audit.consent import commitment, pseudonym
from convoy_contracts.consent import Terms, state_of
from convoy_contracts.instants import instant, timestamp
from convoy_node.consent_table import UNKNOWN_AGE, ConsentRow

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY, contract TEXT NOT NULL UNIQUE, key BLOB NOT NULL, changed INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS change (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, token BLOB NOT NULL, at TEXT NOT NULL, at_us INTEGER NOT NULL,
    channel TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS wording (
    number INTEGER PRIMARY KEY, notice TEXT NOT NULL, purpose TEXT NOT NULL, recipients TEXT NOT NULL,
    UNIQUE (notice, purpose, recipients)) STRICT;
CREATE TABLE IF NOT EXISTS record (
    series INTEGER NOT NULL, pseudonym BLOB NOT NULL, seq INTEGER NOT NULL, record BLOB NOT NULL, commitment BLOB NOT NULL,
    wording INTEGER NOT NULL, given TEXT, until TEXT, withdrawn TEXT, separate INTEGER NOT NULL, age INTEGER NOT NULL,
    guardian INTEGER NOT NULL, refused INTEGER NOT NULL, evidence TEXT,
    PRIMARY KEY (series, pseudonym, seq)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch (
    series INTEGER NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, size INTEGER NOT NULL, statement BLOB NOT NULL,
    PRIMARY KEY (series, number)) STRICT;
CREATE TABLE IF NOT EXISTS receipt (record BLOB PRIMARY KEY, raw TEXT NOT NULL) STRICT;
"""
_RECORD: Final = "record, seq, commitment, notice, purpose, recipients, given, until, withdrawn, separate, age, guardian, refused, evidence"


@dataclass(frozen=True, slots=True)
class Series:
    """The consents of one contract: all versions together. ``key`` makes its pseudonyms; ``changed``: its last change."""

    number: int
    contract: str
    key: bytes
    changed: int

    def pseudonym(self, person: str) -> bytes:
        """Return what stands for a person in the epochs of this series."""
        return pseudonym(self.key, person)

    def salt(self, record: bytes) -> bytes:
        """Return the salt of a record's commitment; only the holder of the key can."""
        return pseudonym(self.key, "salt:" + record.hex())


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the history; ``at`` and ``channel`` are those of its change."""

    id: bytes
    seq: int
    commitment: bytes
    terms: Terms
    evidence: str | None
    at: str
    channel: str


def start_change(db: sqlite3.Connection, at: datetime, channel: str) -> int:
    """Begin a change and return its number; call it inside the transaction that writes."""
    text = timestamp(at)
    made = db.execute(
        "INSERT INTO change (token, at, at_us, channel) VALUES (?, ?, ?, ?)",
        (secrets.token_bytes(8), text, instant(text), channel),
    )
    return int(made.lastrowid or 0)


def last_change(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Return number and token of the last change; (0, b"") of an empty register."""
    row = db.execute("SELECT seq, token FROM change ORDER BY seq DESC LIMIT 1").fetchone()
    return (int(row[0]), bytes(row[1])) if row else (0, b"")


def has_change(db: sqlite3.Connection, seq: int, token: bytes) -> bool:
    """Whether this register went through that very change."""
    return db.execute("SELECT 1 FROM change WHERE seq = ? AND token = ?", (seq, token)).fetchone() is not None


def find_series(db: sqlite3.Connection, contract: str) -> Series | None:
    """Return the series of a contract, if anything was ever recorded under it."""
    row = db.execute("SELECT number, contract, key, changed FROM series WHERE contract = ?", (contract,)).fetchone()
    return Series(row[0], row[1], bytes(row[2]), row[3]) if row else None


def all_series(db: sqlite3.Connection) -> list[Series]:
    """Return every series."""
    rows = db.execute("SELECT number, contract, key, changed FROM series ORDER BY number").fetchall()
    return [Series(row[0], row[1], bytes(row[2]), row[3]) for row in rows]


def touch_series(db: sqlite3.Connection, contract: str, seq: int) -> Series:
    """Return the series of a contract, made where absent, marked as changed by this change."""
    db.execute(
        "INSERT INTO series (contract, key, changed) VALUES (?, ?, ?)"
        " ON CONFLICT (contract) DO UPDATE SET changed = excluded.changed",
        (contract, secrets.token_bytes(32), seq),
    )
    found = find_series(db, contract)
    if found is None:  # written the line before
        raise sqlite3.DatabaseError("series")
    return found


def add_records(
    db: sqlite3.Connection,
    seq: int,
    rows: Iterable[ConsentRow],
    evidence: str | None = None,
    *,
    into: Literal["record", "fresh"] = "record",
) -> list[tuple[Series, bytes]]:
    """Add a record for each row; return series and id of each.

    ``into`` names a table of the same columns from which an import moves all records at once: sorted by pseudonym, the table's
    order. A million records in the order of their persons would write every page of that tree once a batch.
    """
    series: dict[str, Series] = {}
    wordings: dict[tuple[str, str, str], int] = {}
    made: list[tuple[Any, ...]] = []
    ids: list[tuple[Series, bytes]] = []
    for row in rows:
        if row.contract not in series:
            series[row.contract] = touch_series(db, row.contract, seq)
        of = series[row.contract]
        told = (row.notice, row.purpose, row.recipients)
        if told not in wordings:
            wordings[told] = _wording(db, told)
        record = secrets.token_bytes(16)
        committed = commitment(of.salt(record), state_of(record.hex(), terms_of(row)))
        ids.append((of, record))
        made.append(
            (
                of.number, of.pseudonym(row.local_id), seq, record, committed, wordings[told], row.given, row.until,
                row.withdrawn, row.separate, row.age, row.guardian, row.refused, evidence,
            )
        )  # fmt: skip
    db.executemany(f"INSERT INTO {into} VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", made)  # noqa: S608 - one of two names
    return ids


def history(db: sqlite3.Connection, series: Series, person: str) -> list[Record]:
    """Return the records of one person, oldest first."""
    rows = db.execute(
        f"SELECT {_RECORD}, at, channel FROM record JOIN wording ON wording.number = wording JOIN change USING (seq)"  # noqa: S608
        " WHERE series = ? AND pseudonym = ? ORDER BY seq",
        (series.number, series.pseudonym(person)),
    ).fetchall()
    return [_record(row) for row in rows]


def leaves(db: sqlite3.Connection, series: Series, seq: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (pseudonym, commitment) of everybody's last record as of a change, sorted by pseudonym."""
    return (
        (row[0], row[1])
        for row in db.execute(
            "SELECT pseudonym, commitment, MAX(seq) FROM record WHERE series = ? AND seq <= ? GROUP BY pseudonym"
            " ORDER BY pseudonym",
            (series.number, seq),
        )
    )


def withdrawn_since(db: sqlite3.Connection, series: Series, after: int, until: int) -> int:
    """Return how many records of a withdrawal changes after ``after`` and up to ``until`` added."""
    row = db.execute(
        "SELECT COUNT(*) FROM record WHERE series = ? AND seq > ? AND seq <= ? AND withdrawn NOT NULL",
        (series.number, after, until),
    ).fetchone()
    return int(row[0])


def terms_of(row: ConsentRow) -> Terms:
    """Return the pure value of a row."""
    return Terms(
        notice=row.notice,
        purpose=row.purpose,
        recipients=_listed(row.recipients),
        given=row.given,
        until=row.until,
        withdrawn=row.withdrawn,
        separate=bool(row.separate),
        age=None if row.age == UNKNOWN_AGE else row.age,
        guardian=bool(row.guardian),
        refused=bool(row.refused),
    )


def _record(row: Sequence[Any]) -> Record:
    terms = Terms(
        notice=row[3],
        purpose=row[4],
        recipients=_listed(row[5]),
        given=row[6],
        until=row[7],
        withdrawn=row[8],
        separate=bool(row[9]),
        age=None if row[10] == UNKNOWN_AGE else row[10],
        guardian=bool(row[11]),
        refused=bool(row[12]),
    )
    return Record(bytes(row[0]), row[1], bytes(row[2]), terms, row[13], row[14], row[15])


_LISTS: Final[dict[str, tuple[str, ...]]] = {}


def _listed(recipients: str) -> tuple[str, ...]:
    """Return a JSON list as a tuple; there are few different ones."""
    if recipients not in _LISTS:
        if len(_LISTS) > 4096:
            _LISTS.clear()
        _LISTS[recipients] = tuple(json.loads(recipients))
    return _LISTS[recipients]


def _wording(db: sqlite3.Connection, told: tuple[str, str, str]) -> int:
    db.execute("INSERT OR IGNORE INTO wording (notice, purpose, recipients) VALUES (?, ?, ?)", told)
    row = db.execute("SELECT number FROM wording WHERE notice = ? AND purpose = ? AND recipients = ?", told).fetchone()
    return int(row[0])
