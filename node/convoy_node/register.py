"""The consent register: who agreed to what, kept only at the node that knows the person.

    Register(path)        SQLite; made where absent, because an empty register permits nothing

Promises. A withdrawal is on disk when ``withdraw`` has returned and is never undone, except by a
consent given later than it. Each change of a consent adds a record to the history (``consent.history``)
in the same transaction. A refusal is kept, and within the contract's time no consent that the person
was asked for again is taken. ``subjects`` holds no identifier of a person. ``cohort`` applies the
counting rule of FORMAT.md §6 word for word; a test holds it against ``convoy_contracts``.

Does not: decide. Whether a cohort is large enough is a gate of the contract.
LENGTH: over 500 lines, because all SQL on who agrees now stands together; that of the history is in ``consent.history``.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, Final, Self

from convoy_contracts.consent import REASK_DAYS
from convoy_contracts.decide.gates import ADULT_CONSENT_AGE, is_a
from convoy_contracts.instants import instant, timestamp
from convoy_contracts.vocabulary import PURPOSES
from convoy_node.consent import history
from convoy_node.consent.against import Check
from convoy_node.consent_table import UNKNOWN_AGE, ConsentRow, TableReader
from convoy_node.durable import transaction
from convoy_node.errors import ConsentRefused, DatasetRefused, NodeError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS consent (
    contract TEXT NOT NULL, local_id TEXT NOT NULL,
    link_id BLOB CHECK (link_id IS NULL OR length(link_id) = 16), counterpart TEXT NOT NULL,
    given TEXT, given_us INTEGER, until TEXT, until_us INTEGER,
    withdrawn TEXT, withdrawn_us INTEGER,
    notice TEXT NOT NULL, purpose TEXT NOT NULL, recipients TEXT NOT NULL,
    separate INTEGER NOT NULL, age INTEGER NOT NULL, guardian INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    PRIMARY KEY (contract, local_id), UNIQUE (contract, link_id)
) STRICT;
"""
_INSERT: Final = "INSERT INTO consent VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
"""The columns of the table are the members of ``ConsentRow`` in their order."""
_COLUMNS: Final = ", ".join(field.name for field in fields(ConsentRow))
BATCH_ROWS: Final = 20_000
_DAY_US: Final = 86_400_000_000
# A withdrawal that is not older than the consent now told outlives the import.
_KEEP_WITHDRAWALS: Final = """
UPDATE incoming SET withdrawn = kept.withdrawn, withdrawn_us = kept.withdrawn_us
FROM consent AS kept WHERE incoming.contract = kept.contract AND incoming.local_id = kept.local_id
    AND kept.withdrawn_us NOT NULL
    AND (incoming.given_us IS NULL OR incoming.given_us <= kept.withdrawn_us)
    AND (incoming.withdrawn_us IS NULL OR incoming.withdrawn_us > kept.withdrawn_us)
"""
# What says nothing new makes no new record.
_DROP_KNOWN: Final = f"""
DELETE FROM incoming WHERE EXISTS (
    SELECT 1 FROM consent WHERE consent.contract = incoming.contract AND consent.local_id = incoming.local_id
        AND ({", ".join(f"consent.{f.name}" for f in fields(ConsentRow))})
         IS ({", ".join(f"incoming.{f.name}" for f in fields(ConsentRow))}))
"""  # noqa: S608
_ASKED_AGAIN: Final = """
SELECT incoming.contract, incoming.local_id, incoming.given_us FROM incoming JOIN consent USING (contract, local_id)
WHERE consent.refused AND incoming.given_us NOT NULL
"""
_REPEATED: Final = """
SELECT (SELECT COUNT(*) FROM incoming) - (SELECT COUNT(*) FROM (SELECT DISTINCT contract, local_id FROM incoming)),
    (SELECT COUNT(*) FROM incoming WHERE link_id NOT NULL)
    - (SELECT COUNT(*) FROM (SELECT DISTINCT contract, link_id FROM incoming WHERE link_id NOT NULL))
"""
_SUBJECTS: Final = """
SELECT COUNT(*) AS n, given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
FROM consent WHERE contract = ?
GROUP BY given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
ORDER BY given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
"""
# Equal to the above for every decision at one instant, whatever the number of persons: all consents that have begun count as
# the same, and so on; of the withdrawals in a group the latest stands (the row of MAX, SQLite's rule for bare columns).
_SUBJECTS_AT: Final = """
SELECT COUNT(*) AS n, given, until, withdrawn, notice, purpose, recipients, separate, age, guardian, MAX(withdrawn_us)
FROM consent WHERE contract = :contract AND local_id >= ''
GROUP BY given_us <= :now, until_us > :now, withdrawn_us <= :now, notice, purpose, recipients, separate,
    CASE WHEN age < 0 THEN 0 WHEN age < :adult THEN 1 ELSE 2 END, guardian
ORDER BY 2, 3, 4, 5, 6, 7, 8, 9, 10
"""
_NEXT_INSTANTS: Final = """
SELECT MIN(CASE WHEN given_us > :now THEN given_us END), MIN(CASE WHEN until_us > :now THEN until_us END),
    MIN(CASE WHEN withdrawn_us > :now THEN withdrawn_us END)
FROM consent WHERE contract = :contract AND local_id >= ''
"""
# The terms (notice, purpose, recipients) were judged before; FORMAT.md §6, "Counting persons". The bound on local_id has SQLite
# read by the primary key: imports store in its order, so that a million rows are read from the disk one after the other.
_COUNTED: Final = """
SELECT local_id, link_id, counterpart FROM consent
WHERE contract = :contract AND local_id >= ''
    AND (notice, purpose, recipients) IN (
        SELECT notice, purpose, recipients FROM wording WHERE number IN (SELECT value FROM json_each(:wordings)))
    AND NOT refused AND given_us <= :now AND (withdrawn_us IS NULL OR withdrawn_us > :now)
    AND (until_us > :now OR (until_us IS NULL AND NOT :sensitive))
    AND (separate OR NOT :sensitive) AND (age >= :adult OR (guardian AND age >= 0))
"""
_IN_ORDER: Final = attrgetter(*(field.name for field in fields(ConsentRow)))


@dataclass(frozen=True, slots=True)
class Cohort:
    """The persons who count for a run, by local id.

    ``solo``: persons without a link. ``links``: by counterpart, pairs of local id and link id.
    Both in a fixed order that says nothing about the table's order.
    """

    solo: tuple[str, ...]
    links: Mapping[str, tuple[tuple[str, bytes], ...]]

    @property
    def size(self) -> int:
        """Number of persons."""
        return len(self.solo) + sum(map(len, self.links.values()))

    @property
    def persons(self) -> frozenset[str]:
        """Every person who counts, by local id."""
        linked = (local_id for pairs in self.links.values() for local_id, _ in pairs)
        return frozenset(self.solo).union(linked)

    def within(self, present: Container[str]) -> Cohort:
        """Return those of the cohort who are in ``present``: who have a row of data."""
        return Cohort(
            solo=tuple(person for person in self.solo if person in present),
            links={peer: tuple(pair for pair in pairs if pair[0] in present) for peer, pairs in self.links.items()},
        )


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A withdrawal that is on disk: ``record`` is its record's id, ``at`` the instant from which it counts."""

    record: bytes
    at: str
    seq: int
    is_new: bool


class Register:
    """The consent register of one node.

    Raises:
        NodeError: the file is no register (code ``REGISTER_DAMAGED``).
    """

    def __init__(self, path: Path, *, party: str = "") -> None:
        self._party = party
        self._guard = threading.RLock()
        self._grouped: dict[str, tuple[tuple[int, int], int | None, int | None, list[Any]]] = {}
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.execute("PRAGMA cache_size = -65536")
            self._db.executescript(_SCHEMA + history.SCHEMA)
            self._adopt()
        except sqlite3.Error as error:
            self._db.close()
            raise NodeError(
                "the consent register cannot be opened.",
                party=party,
                code="REGISTER_DAMAGED",
                fix="Restore register.db, or remove it and import the consent table again.",
            ) from error
        path.chmod(0o600)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, for ``consent.history`` and ``consent.office``; hold ``writing`` to change anything."""
        return self._db

    def import_table(
        self,
        source: Path,
        contracts: Mapping[str, str] | None = None,
        *,
        now: datetime | None = None,
        reask_days: int | Mapping[str, int] = REASK_DAYS,
        check: Check | None = None,
    ) -> int:
        """Import a consent table, all or nothing; a person's row replaces the earlier one.

        Leaving a person out withdraws nothing: a consent ends by ``until`` or by a withdrawal.

        Args:
            source: Parquet or CSV, see ``consent_table``.
            contracts: contract uid by the name that the table uses.
            now: aware; the clock's instant if not given.
            reask_days: for how long a refusal silences the question, by contract uid or for all.
            check: holds the rows against the contracts; without it they are kept as they stand.

        Returns:
            The number of rows.

        Raises:
            ConsentRefused: every fault of the table at once, or a link id of another person.
        """
        from convoy_node.connectors import duckdb

        try:
            table = duckdb.read_text(source, party=self._party)
        except DatasetRefused as error:
            raise ConsentRefused(
                "the consent table cannot be read.", party=self._party, reasons=error.reasons
            ) from error
        reader = TableReader(table.column_names, contracts, party=self._party)
        batches = (
            {name: batch.column(name).to_pylist() for name in reader.names}
            for batch in table.select(list(reader.names)).to_batches(max_chunksize=BATCH_ROWS)
        )
        return self.import_batches(reader, batches, now=now or datetime.now(UTC), reask_days=reask_days, check=check)

    def import_batches(
        self,
        reader: TableReader,
        batches: Iterable[Mapping[str, list[Any]]],
        *,
        now: datetime,
        channel: str = "import",
        reask_days: int | Mapping[str, int] = REASK_DAYS,
        check: Check | None = None,
    ) -> int:
        """Import a consent table that comes in batches of columns; as ``import_table``."""
        read = 0
        with self.writing() as db:
            db.execute(f"CREATE TEMP TABLE incoming ({_COLUMNS})")
            for batch in batches:
                rows = reader.rows(batch)
                read += len(rows)
                if check is not None:
                    check.see(rows, reader)
                if not reader.has_faults:
                    db.executemany(
                        "INSERT INTO incoming VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", map(_IN_ORDER, rows)
                    )
                else:  # nothing will be kept, but every fault of the rest is told
                    db.executemany(
                        "INSERT INTO incoming (contract, local_id, link_id) VALUES (?, ?, ?)",
                        ((row.contract, row.local_id, row.link_id) for row in rows),
                    )
            persons, links = db.execute(_REPEATED).fetchone()
            reader.count("local_id", "twice under one contract", persons)
            reader.count("link_id", "twice under one contract", links)
            reader.count(
                "given", "within the time after a refusal in which nobody is asked again", self._asked_again(reask_days)
            )
            reader.raise_faults()
            db.execute(_KEEP_WITHDRAWALS)
            db.execute(_DROP_KNOWN)
            db.execute("DELETE FROM consent WHERE (contract, local_id) IN (SELECT contract, local_id FROM incoming)")
            db.execute("INSERT INTO consent SELECT * FROM incoming ORDER BY contract, local_id")
            self._add_history(db, "incoming", now, channel)
            db.execute("DROP TABLE incoming")
        if read >= BATCH_ROWS:  # or the write-ahead log keeps the size of the whole import
            with self._guard:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return read

    def record(self, row: ConsentRow, at: datetime, *, channel: str, evidence: str | None = None) -> tuple[bytes, int]:
        """Record what one person said; return the record's id and the change.

        Raises:
            ConsentRefused: a link id of another person.
        """
        with self.writing() as db:
            db.execute("DELETE FROM consent WHERE contract = ? AND local_id = ?", (row.contract, row.local_id))
            db.execute(_INSERT, _IN_ORDER(row))
            seq = history.start_change(db, at, channel)
            ((_, record),) = history.add_records(db, seq, [row], evidence)
        return record, seq

    def row(self, local_id: str, contract_uid: str) -> ConsentRow | None:
        """Return what stands for a person under a contract."""
        with self._guard:
            found = self._db.execute(
                f"SELECT {_COLUMNS} FROM consent WHERE contract = ? AND local_id = ?",  # noqa: S608
                (contract_uid, local_id),
            ).fetchone()
        return ConsentRow(*found) if found else None

    def contracts_of(self, local_id: str) -> list[str]:
        """Return under which contracts something is recorded about a person."""
        with self._guard:
            rows = self._db.execute("SELECT contract FROM series ORDER BY contract").fetchall()
        return [uid for (uid,) in rows if self.row(local_id, uid) is not None]

    def refused_at(self, local_id: str, contract_uid: str) -> int | None:
        """Return when the refusal that stands was recorded (microseconds), or None if none stands."""
        standing = self.row(local_id, contract_uid)
        if standing is None or not standing.refused:
            return None
        with self._guard:
            series = history.find_series(self._db, contract_uid)
            records = history.history(self._db, series, local_id) if series else []
        refusal = next((one for one in records[::-1] if one.terms.refused), None)
        return instant(refusal.at) if refusal else None

    def subjects(self, contract_uid: str, now: datetime | None = None) -> list[dict[str, Any]]:
        """Return the consent records of FORMAT.md §2: equal ones once, with their number ``n``.

        Args:
            contract_uid: whose consents.
            now: aware; with it, records that no decision at this instant can tell apart are one, so that their number does
                not grow with the number of persons.

        Asked before every release, so the answer is kept until this or another process changes the file, or time does.
        """
        at = None if now is None else instant(timestamp(now))
        with self._guard:
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            state = (version, self._db.total_changes)
            kept = self._grouped.get(contract_uid)
            if kept is None or kept[0] != state or not _holds_at(kept[1], kept[2], at):
                kept = self._group(contract_uid, state, at)
                self._grouped[contract_uid] = kept
            rows = kept[3]
        return [
            {
                "n": n,
                "given": given,
                "until": until,
                "withdrawn": withdrawn,
                "notice": notice,
                "purpose": purpose,
                "recipients": json.loads(recipients),
                "separate": bool(separate),
                "age": 0 if age == UNKNOWN_AGE else age,
                "guardian": bool(guardian) and age != UNKNOWN_AGE,
            }
            for n, given, until, withdrawn, notice, purpose, recipients, separate, age, guardian, *_ in rows
        ]

    def cohort(
        self,
        contract_uid: str,
        purpose: str,
        recipients: Collection[str],
        notices: Collection[str],
        now: datetime,
        sensitive: bool,
        *,
        purposes: Mapping[str, str | None] = PURPOSES,
    ) -> Cohort:
        """Return the persons who count, by the rule of FORMAT.md §6 ("Counting persons").

        Args:
            contract_uid: whose consents.
            purpose: of the request.
            recipients: of the request; all must be covered by a person's consent.
            notices: accepted by the contract.
            now: aware.
            sensitive: whether a requested field is sensitive.
            purposes: the vocabulary's tree, {child: parent or None}.
        """
        instant_us = instant(timestamp(now))
        with self._guard:
            agreed = [
                number
                for number, notice, told_purpose, told in self._db.execute(
                    "SELECT number, notice, purpose, recipients FROM wording"
                )
                if notice in notices
                and is_a(purposes, purpose, told_purpose)
                and set(json.loads(told)).issuperset(recipients)
            ]
            solo: list[str] = []
            links: dict[str, list[tuple[str, bytes]]] = {}
            asked = {
                "contract": contract_uid,
                "wordings": json.dumps(agreed),
                "now": instant_us,
                "sensitive": sensitive,
                "adult": ADULT_CONSENT_AGE,
            }
            for local_id, link_id, counterpart in self._db.execute(_COUNTED, asked):
                if link_id is None:
                    solo.append(local_id)
                else:
                    links.setdefault(counterpart, []).append((local_id, link_id))
        return Cohort(
            solo=tuple(sorted(solo)),
            links={peer: tuple(sorted(pairs, key=itemgetter(1))) for peer, pairs in sorted(links.items())},
        )

    def withdraw(self, local_id: str, contract_uid: str, at: datetime, *, channel: str = "node") -> Withdrawal:
        """Record a withdrawal, durably; an earlier one stands.

        Raises:
            ConsentRefused: no such person under this contract.
        """
        text = timestamp(at)
        us = instant(text) or 0
        with self.writing() as db:
            row = self.row(local_id, contract_uid)
            if row is None:
                raise ConsentRefused(
                    "no such person under this contract.",
                    code="PERSON_UNKNOWN",
                    party=self._party,
                    fix="Check the local id and the contract's uid.",
                )
            if row.withdrawn is not None and (row.withdrawn_us or 0) <= us:
                return self._standing(local_id, contract_uid, row.withdrawn)
            db.execute(
                "UPDATE consent SET withdrawn = ?, withdrawn_us = ? WHERE contract = ? AND local_id = ?",
                (text, us, contract_uid, local_id),
            )
            seq = history.start_change(db, at, channel)
            ((_, record),) = history.add_records(db, seq, [replace(row, withdrawn=text, withdrawn_us=us)])
        return Withdrawal(record, text, seq, is_new=True)

    def link(self, contract_uid: str, counterpart: str, links: Mapping[str, bytes], at: datetime) -> int:
        """Give link ids to persons of a contract who have none; return the change."""
        with self.writing() as db:
            db.executemany(
                "UPDATE consent SET link_id = ?, counterpart = ? WHERE contract = ? AND local_id = ? AND link_id IS NULL",
                [(link, counterpart, contract_uid, person) for person, link in sorted(links.items())],
            )
            return history.start_change(db, at, "psi")

    def withdrawn_between(self, contract_uid: str, after: datetime, until: datetime) -> list[str]:
        """Return who withdrew with ``after < withdrawn <= until``, by local id."""
        with self._guard:
            rows = self._db.execute(
                "SELECT local_id FROM consent WHERE contract = ? AND withdrawn_us > ?"
                " AND withdrawn_us <= ? ORDER BY local_id",
                (contract_uid, instant(timestamp(after)), instant(timestamp(until))),
            ).fetchall()
        return [row[0] for row in rows]

    def _standing(self, local_id: str, contract_uid: str, at: str) -> Withdrawal:
        series = history.find_series(self._db, contract_uid)
        records = history.history(self._db, series, local_id) if series else []
        found = next(one for one in records if one.terms.withdrawn == at)
        return Withdrawal(found.id, at, found.seq, is_new=False)

    def _group(
        self, contract_uid: str, state: tuple[int, int], at: int | None
    ) -> tuple[tuple[int, int], int | None, int | None, list[Any]]:
        if at is None:
            return state, None, None, self._db.execute(_SUBJECTS, (contract_uid,)).fetchall()
        asked = {"contract": contract_uid, "now": at, "adult": ADULT_CONSENT_AGE}
        rows = self._db.execute(_SUBJECTS_AT, asked).fetchall()
        instants = self._db.execute(_NEXT_INSTANTS, {"contract": contract_uid, "now": at}).fetchone()
        return state, at, min((one for one in instants if one is not None), default=None), rows

    def _asked_again(self, reask_days: int | Mapping[str, int]) -> int:
        found = 0
        for contract, local_id, given_us in self._db.execute(_ASKED_AGAIN).fetchall():
            days = reask_days if isinstance(reask_days, int) else reask_days.get(contract, REASK_DAYS)
            refused = self.refused_at(local_id, contract)
            found += refused is not None and refused <= given_us < refused + days * _DAY_US
        return found

    def _add_history(self, db: sqlite3.Connection, table: str, now: datetime, channel: str) -> None:
        """Add a record for each row of a table, in the order of the history's own tree, so that each page is written once."""
        if db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:  # noqa: S608
            return
        seq = history.start_change(db, now, channel)
        db.execute("CREATE TEMP TABLE fresh AS SELECT * FROM record LIMIT 0")
        cursor = db.execute(f"SELECT {_COLUMNS} FROM {table}")  # noqa: S608
        while batch := cursor.fetchmany(BATCH_ROWS):
            history.add_records(db, seq, (ConsentRow(*row) for row in batch), into="fresh")
        db.execute("INSERT INTO record SELECT * FROM fresh ORDER BY series, pseudonym")
        db.execute("DROP TABLE fresh")

    def _adopt(self) -> None:
        """Give a register of an earlier version its history."""
        has_history = self._db.execute("SELECT 1 FROM change LIMIT 1").fetchone() is not None
        if not has_history and self._db.execute("SELECT 1 FROM consent LIMIT 1").fetchone() is not None:
            with self.writing() as db:
                self._add_history(db, "consent", datetime.now(UTC), "adopted")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction: on disk when the block has ended, gone if it raised; within one, a part of it."""
        with self._guard:
            try:
                if self._db.in_transaction:  # this thread's own: others wait at the guard
                    yield self._db
                    return
                with transaction(self._db) as db:
                    yield db
            except sqlite3.IntegrityError as error:
                raise ConsentRefused(
                    "the register holds a link_id of the table for another person.",
                    party=self._party,
                ) from error
            except sqlite3.Error as error:
                raise NodeError(
                    "the consent register cannot be written; nothing was changed.",
                    party=self._party,
                    code="REGISTER_WRITE_FAILED",
                    fix="See the node's log: disk full, or the file was moved or closed.",
                ) from error


def _holds_at(since: int | None, until: int | None, at: int | None) -> bool:
    """Whether records grouped for ``since`` say the same at another instant; all or nothing where no instant was given."""
    if since is None or at is None:
        return since is at
    return since <= at and (until is None or at < until)
