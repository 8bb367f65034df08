"""The consent register: who agreed to what, kept only at the node that knows the person.

    Register(path)        SQLite; made where absent, because an empty register permits nothing

Promises. A withdrawal is on disk when ``withdraw`` has returned and is never undone, except by a
consent given later than it. ``subjects`` holds no identifier of a person. ``cohort`` applies the
counting rule of FORMAT.md §6 word for word; a test holds it against ``convoy_contracts``.

Does not: decide. Whether a cohort is large enough is a gate of the contract.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, Self

from convoy_contracts.decide.gates import ADULT_CONSENT_AGE, is_a
from convoy_contracts.instants import instant, timestamp
from convoy_contracts.vocabulary import PURPOSES
from convoy_node.consent_table import ConsentRow, read_consents
from convoy_node.errors import ConsentRefused, NodeError

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
# A withdrawal that is not older than the consent now told outlives the import.
_KEEP_WITHDRAWALS: Final = """
UPDATE consent SET withdrawn = kept.withdrawn, withdrawn_us = kept.withdrawn_us
FROM kept WHERE consent.contract = kept.contract AND consent.local_id = kept.local_id
    AND (consent.given_us IS NULL OR consent.given_us <= kept.withdrawn_us)
    AND (consent.withdrawn_us IS NULL OR consent.withdrawn_us > kept.withdrawn_us)
"""
_SUBJECTS: Final = """
SELECT COUNT(*) AS n, given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
FROM consent WHERE contract = ?
GROUP BY given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
ORDER BY given, until, withdrawn, notice, purpose, recipients, separate, age, guardian
"""
# The terms (notice, purpose, recipients) were judged before; FORMAT.md §6, "Counting persons".
_COUNTED: Final = """
SELECT local_id, link_id, counterpart FROM consent
WHERE contract = :contract
    AND notice = :notice AND purpose = :purpose AND recipients = :recipients
    AND NOT refused AND given_us <= :now AND (withdrawn_us IS NULL OR withdrawn_us > :now)
    AND (until_us > :now OR (until_us IS NULL AND NOT :sensitive))
    AND (separate OR NOT :sensitive) AND (age >= :adult OR guardian)
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


class Register:
    """The consent register of one node.

    Raises:
        NodeError: the file is no register (code ``REGISTER_DAMAGED``).
    """

    def __init__(self, path: Path, *, party: str = "") -> None:
        self._party = party
        self._guard = threading.RLock()
        self._grouped: dict[str, tuple[tuple[int, int], list[Any]]] = {}
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA busy_timeout = 5000")
            self._db.executescript(_SCHEMA)
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

    def import_table(self, source: Path, contracts: Mapping[str, str] | None = None) -> int:
        """Import a consent table, all or nothing; a person's row replaces the earlier one.

        Leaving a person out withdraws nothing: a consent ends by ``until`` or by a withdrawal.

        Args:
            source: Parquet or CSV, see ``consent_table``.
            contracts: contract uid by the name that the table uses.

        Returns:
            The number of rows.

        Raises:
            ConsentRefused: every fault of the table at once, or a link id of another person.
        """
        rows = read_consents(source, contracts, party=self._party)
        with self._writing() as db:
            db.execute(
                "CREATE TEMP TABLE kept AS SELECT contract, local_id, withdrawn, withdrawn_us"
                " FROM consent WHERE withdrawn_us NOT NULL"
            )
            db.executemany(
                "DELETE FROM consent WHERE contract = ? AND local_id = ?",
                ((row.contract, row.local_id) for row in rows),
            )
            db.executemany(_INSERT, map(_IN_ORDER, rows))
            db.execute(_KEEP_WITHDRAWALS)
            db.execute("DROP TABLE kept")
        return len(rows)

    def subjects(self, contract_uid: str) -> list[dict[str, Any]]:
        """Return the consent records of FORMAT.md §2: equal ones once, with their number ``n``.

        Asked before every release, so the answer is kept until this or another process changes the file.
        """
        with self._guard:
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            state = (version, self._db.total_changes)
            if self._grouped.get(contract_uid, ((-1, -1), []))[0] != state:
                self._grouped[contract_uid] = (state, self._db.execute(_SUBJECTS, (contract_uid,)).fetchall())
            rows = self._grouped[contract_uid][1]
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
                "age": age,
                "guardian": bool(guardian),
            }
            for n, given, until, withdrawn, notice, purpose, recipients, separate, age, guardian in rows
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
                told
                for told in self._db.execute(
                    "SELECT DISTINCT notice, purpose, recipients FROM consent WHERE contract = ?",
                    (contract_uid,),
                )
                if told[0] in notices
                and is_a(purposes, purpose, told[1])
                and set(json.loads(told[2])).issuperset(recipients)
            ]
            solo: list[str] = []
            links: dict[str, list[tuple[str, bytes]]] = {}
            for notice, told_purpose, told_recipients in agreed:
                for local_id, link_id, counterpart in self._db.execute(
                    _COUNTED,
                    {
                        "contract": contract_uid,
                        "notice": notice,
                        "purpose": told_purpose,
                        "recipients": told_recipients,
                        "now": instant_us,
                        "sensitive": sensitive,
                        "adult": ADULT_CONSENT_AGE,
                    },
                ):
                    if link_id is None:
                        solo.append(local_id)
                    else:
                        links.setdefault(counterpart, []).append((local_id, link_id))
        return Cohort(
            solo=tuple(sorted(solo)),
            links={peer: tuple(sorted(pairs, key=lambda pair: pair[1])) for peer, pairs in sorted(links.items())},
        )

    def withdraw(self, local_id: str, contract_uid: str, at: datetime) -> None:
        """Record a withdrawal, durably; an earlier one stands.

        Raises:
            ConsentRefused: no such person under this contract.
        """
        text = timestamp(at)
        with self._writing() as db:
            known = db.execute(
                "UPDATE consent SET"
                " withdrawn = CASE WHEN withdrawn_us <= :us THEN withdrawn ELSE :text END,"
                " withdrawn_us = CASE WHEN withdrawn_us <= :us THEN withdrawn_us ELSE :us END"
                " WHERE contract = :contract AND local_id = :local_id",
                {"us": instant(text), "text": text, "contract": contract_uid, "local_id": local_id},
            )
            if known.rowcount != 1:
                raise ConsentRefused(
                    "no such person under this contract.",
                    party=self._party,
                    fix="Check the local id and the contract's uid.",
                )

    def withdrawn_between(self, contract_uid: str, after: datetime, until: datetime) -> list[str]:
        """Return who withdrew with ``after < withdrawn <= until``, by local id."""
        with self._guard:
            rows = self._db.execute(
                "SELECT local_id FROM consent WHERE contract = ? AND withdrawn_us > ?"
                " AND withdrawn_us <= ? ORDER BY local_id",
                (contract_uid, instant(timestamp(after)), instant(timestamp(until))),
            ).fetchall()
        return [row[0] for row in rows]

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._guard:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
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
