"""The duties of this node's party: a due list with evidence; what is overdue becomes an event and reaches the decision.

    DutyDesk.open(home, office)     .due_list(now)  .raise_duty(...)  .fulfil(id, evidence)  .on_withdrawal(person, receipt)
                                    .on_termination(uid, at)
                                    .state_overdue(now)     signs one statement for each duty that has become overdue
                                    .world(contract, now)   ``duties`` of the decision's world (FORMAT.md §2)

Times and what blocks runs are the catalogue's, or stricter where the signed contract says so (``convoy_contracts.duties``).
``duties.db`` keeps them. Whom a deletion is about stays in it; the log gets a random id, the kind, the due date and the digest
of the evidence. Working days follow the Chinese calendar with its shifted weekends (library ``holidays``).
LIMIT: for a year whose shifts the State Council has not published yet, the library knows the holidays only; due dates may then
be some days early, never late, because an unknown shifted holiday counts as a working day.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

from convoy_audit.canonical import digest, is_digest
from convoy_audit.events import DutyStated
from convoy_audit.statement import sign_statement
from convoy_contracts.duties import Duty, agreed, at_end, blocks, due_at, standing
from convoy_contracts.instants import timestamp
from convoy_node.consent.office import ConsentOffice
from convoy_node.durable import open_durable
from convoy_node.errors import NodeError

FILE: Final = "duties.db"
ABOUT_A_PERSON: Final = frozenset({"explain", "delete"})
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS duty (
  id TEXT PRIMARY KEY, kind TEXT NOT NULL, contract TEXT NOT NULL, subject TEXT NOT NULL, due TEXT NOT NULL,
  blocking INTEGER NOT NULL, fulfilled TEXT, evidence TEXT, overdue_stated INTEGER NOT NULL DEFAULT 0,
  trigger TEXT NOT NULL, UNIQUE (kind, contract, trigger)) STRICT;
"""


class DutyDesk:
    """The duties of one node.

    Args:
        path: of ``duties.db``; made where absent.
        office: whose party, contracts, clock and statements.
    """

    def __init__(self, path: Path, office: ConsentOffice) -> None:
        self._office = office
        self._guard = threading.RLock()
        self._noted: tuple[date, tuple[str, ...]] | None = None
        with _failing():
            self._db = open_durable(path, _SCHEMA)

    @classmethod
    def open(cls, home: Path, office: ConsentOffice) -> Self:
        """Open the duties of a node's folder."""
        return cls(home / FILE, office)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def due_list(self, now: datetime | None = None) -> list[Duty]:
        """Return every duty, the next due first; takes note of what contracts and calendar have brought about."""
        self._note_standing(now or self._office.now())
        with self._guard, _failing():
            rows = self._db.execute(
                "SELECT id, kind, contract, due, blocking, fulfilled NOT NULL FROM duty ORDER BY due, id"
            ).fetchall()
        duties = [
            Duty(row[0], row[1], self._office.party, row[2], datetime.fromisoformat(row[3]), bool(row[4]), bool(row[5]))
            for row in rows
        ]
        return sorted(duties, key=lambda duty: (duty.due, duty.id))

    def raise_duty(
        self, kind: str, contract: str, since: datetime, *, subject: str = "", trigger: str = "", state: bool = True
    ) -> Duty:
        """Raise a duty that something triggered; the same trigger raises it once.

        Args:
            kind: explain, delete, notify or delete-at-end.
            contract: uid or short name.
            since: aware; when it was triggered.
            subject: whom it is about; stays in this node.
            trigger: what triggered it, for telling repetitions; random if not given.
            state: whether the log is told.

        Raises:
            ContractsError: no such kind.
        """
        uid = self._office.uid(contract)
        own = agreed(self._office.contract(uid), self._office.party, kind)
        due = due_at(kind, since, is_working_day, own)
        duty = Duty(f"{kind}:{secrets.token_hex(8)}", kind, self._office.party, uid, due, blocks(kind, own))
        if not self._keep(duty, subject, trigger or secrets.token_hex(8)):
            known = self._known(kind, uid, trigger)
            return known or duty
        if state and not self._office.memory.is_restored:
            self._state(duty, "raised", self._office.now(), None)
        return duty

    def check_request(self, kind: str, contract: str, since: datetime, subject: str) -> None:
        """Check a duty that somebody raises by hand: every fault at once.

        Raises:
            NodeError: INPUT_INVALID; the contract is unknown here, the person is missing, or it is triggered in the future.
        """
        faults = []
        if not self._office.knows(self._office.uid(contract)):
            faults.append("--contract: neither signed by this node nor named under [contracts] of node.toml")
        if kind in ABOUT_A_PERSON and not subject.strip():
            faults.append(f"--person: missing; {kind} is about somebody")
        if since > self._office.now():
            faults.append("--since: in the future; a duty begins when it was triggered")
        if faults:
            raise NodeError(
                "the duty cannot be raised; nothing was written.",
                party=self._office.party,
                code="INPUT_INVALID",
                fix="Correct the listed options; convoy-node status lists the contracts.",
                fix_zh="请更正列出的选项；convoy-node status 会列出合约。",
                reasons=faults,
            )

    def on_withdrawal(self, person: str, receipt: dict[str, Any]) -> Duty:
        """Raise the deletion that a withdrawal asks for; once for each withdrawal."""
        at = datetime.fromisoformat(str(receipt["at"]))
        return self.raise_duty("delete", str(receipt["contract"]), at, subject=person, trigger=str(receipt["record"]))

    def on_termination(self, uid: str, at: datetime) -> Duty | None:
        """Raise the deletion that a contract's end before its term asks for, once; None where this party owes none.

        Args:
            uid: of a contract; of one that this node has not signed nothing follows.
            at: aware; when it was terminated.
        """
        contract = self._office.contract(uid)
        duty = at_end(contract, self._office.party, at, is_working_day) if contract is not None else None
        if duty is not None and self._keep(duty, "", duty.id) and not self._office.memory.is_restored:
            self._state(duty, "raised", self._office.now(), None)
        return duty

    def fulfil(self, duty_id: str, evidence: bytes | str) -> Duty:
        """Record that a duty was done, with the digest of the evidence, and tell the log.

        Args:
            duty_id: as ``due_list`` gives it.
            evidence: the evidence's bytes, or its digest.

        Raises:
            NodeError: no such duty, or it was fulfilled before.
        """
        shown = evidence if isinstance(evidence, str) and is_digest(evidence) else digest(_bytes(evidence))
        now = self._office.now()
        duty = next((one for one in self.due_list(now) if one.id == duty_id), None)
        if duty is None or duty.is_fulfilled:
            raise NodeError(
                "there is no such open duty.",
                party=self._office.party,
                code="DUTY_UNKNOWN",
                fix="convoy-node duties lists the open ones.",
            )
        with self._guard, _failing():
            self._db.execute(
                "UPDATE duty SET fulfilled = ?, evidence = ? WHERE id = ?", (timestamp(now), shown, duty_id)
            )
        self._state(duty, "fulfilled", now, shown)
        return replace(duty, is_fulfilled=True)

    def subject(self, duty_id: str) -> str:
        """Return whom a duty is about; for this node's own people only."""
        with self._guard, _failing():
            row = self._db.execute("SELECT subject FROM duty WHERE id = ?", (duty_id,)).fetchone()
        return str(row[0]) if row else ""

    def state_overdue(self, now: datetime | None = None) -> list[Duty]:
        """Sign one statement for each duty that has become overdue; return them. None after a restore, until caught up."""
        if self._office.memory.is_restored:
            return []
        now = now or self._office.now()
        overdue = [duty for duty in self.due_list(now) if duty.is_overdue(now)]
        fresh = []
        for duty in overdue:
            with self._guard, _failing():
                # If we die behind this line, the log learns of it from the next run's denial, if it blocks.
                changed = self._db.execute(
                    "UPDATE duty SET overdue_stated = 1 WHERE id = ? AND NOT overdue_stated", (duty.id,)
                ).rowcount
            if changed:
                self._state(duty, "overdue", now, None)
                fresh.append(duty)
        return fresh

    def world(self, contract: str, now: datetime) -> list[dict[str, Any]]:
        """Return the duties under a contract as a decision's world has them."""
        return [duty.world() for duty in self.due_list(now) if duty.contract == contract]

    def _note_standing(self, now: datetime) -> None:
        signed = self._office.signed()
        noted = (now.date(), tuple(contract.digest for contract in signed))
        if noted == self._noted:
            return
        self._noted = noted
        for contract in signed:
            for duty in standing(contract, self._office.party, self._office.role, now, is_working_day):
                self._keep(duty, "", duty.id)

    def _keep(self, duty: Duty, subject: str, trigger: str) -> bool:
        with self._guard, _failing():
            made = self._db.execute(
                "INSERT OR IGNORE INTO duty (id, kind, contract, subject, due, blocking, trigger) VALUES (?,?,?,?,?,?,?)",
                (duty.id, duty.kind, duty.contract, subject, timestamp(duty.due), duty.is_blocking, trigger),
            )
        return made.rowcount == 1

    def _known(self, kind: str, contract: str, trigger: str) -> Duty | None:
        with self._guard, _failing():
            row = self._db.execute(
                "SELECT id FROM duty WHERE kind = ? AND contract = ? AND trigger = ?", (kind, contract, trigger)
            ).fetchone()
        return next((duty for duty in self.due_list() if row and duty.id == row[0]), None)

    def _state(self, duty: Duty, step: Any, now: datetime, evidence: str | None) -> None:
        event = DutyStated(
            at=now,
            party=self._office.party,
            duty=duty.id,
            kind=duty.kind,
            contract=duty.contract or None,
            due=duty.due,
            step=step,
            evidence=evidence,
        )
        seed = self._office.identity_seed
        self._office.memory.state(lambda n, previous: sign_statement(event, number=n, previous=previous, seed=seed))


def is_working_day(day: date) -> bool:
    """Whether a day is a working day in China: shifted weekends count, holidays do not."""
    return bool(_calendar(day.year).is_working_day(day))


@lru_cache(maxsize=8)
def _calendar(year: int) -> Any:
    import holidays

    return holidays.country_holidays("CN", years=[year])


def _bytes(evidence: bytes | str) -> bytes:
    return evidence if isinstance(evidence, bytes) else evidence.encode()


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise NodeError(
            "the node's duties cannot be read or written.",
            code="DUTIES_FAILED",
            fix="See the node's log and the disk; restore duties.db from a copy.",
        ) from error
