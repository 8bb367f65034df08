"""Read from the log what each party has stated about its own ledger.

The coordinator keeps no account of anybody's privacy: each node does, and states it, signed, in
the log. This is a reading of those statements, for the page; entries whose signature does not
hold count for nothing. It can be thrown away and made again from the log at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import LedgerStated, RunSettled
from convoy_audit.keys import key_id_of
from convoy_audit.statement import Statement, verify_statement
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.ledgers import store
from convoy_coordinator.ledgers.store import Ledger
from convoy_coordinator.parties.service import PartyService

CHUNK: Final = 1000


class ReadLog(Protocol):
    """What is needed of the log."""

    def size(self) -> int:
        """Return the number of durable entries."""

    def entries(self, start: int, end: int) -> Sequence[bytes]:
        """Return the entries from ``start`` up to, not including, ``end``."""


class LedgerService:
    """The parties' ledgers as they stated them.

    Args:
        sessions: the database.
        log: the log.
        parties: whose keys statements are verified with.
    """

    def __init__(self, sessions: SessionFactory, log: ReadLog, parties: PartyService) -> None:
        self._sessions = sessions
        self._log = log
        self._parties = parties
        self._lock = threading.Lock()

    def all(self) -> tuple[Ledger, ...]:
        """Return the last statement of every party about every asset and contract, the log's newest entries
        included.
        """
        with self._lock:
            self._catch_up()
        with self._sessions() as session:
            return store.all_ledgers(session)

    def _catch_up(self) -> None:
        with self._sessions() as session:
            start = store.position(session)
        size = self._log.size()
        if start == size:
            return
        keys = self._parties.statement_keys()
        while start < size:
            end = min(start + CHUNK, size)
            found: list[Ledger] = []
            for offset, raw in enumerate(self._log.entries(start, end)):
                found += _read(start + offset, raw, keys)
            with writing(self._sessions) as session:
                store.advance(session, found, end)
            start = end


def _read(index: int, raw: bytes, keys: Mapping[str, Sequence[bytes]]) -> list[Ledger]:
    try:
        content = parse_entry(raw)
        if not isinstance(content, Statement) or content.party not in keys:
            return []
        event = content.event
        if not isinstance(event, LedgerStated | RunSettled):
            return []
        signer = next((k for k in keys[content.party] if key_id_of(k) == content.key_id), keys[content.party][0])
        verify_statement(content, signer)
    except AuditError:
        return []
    is_spent = isinstance(event, RunSettled) or event.step == "spent"
    caps = (event.cap_micro or {}) if isinstance(event, LedgerStated) else {}
    return [
        Ledger(
            party=content.party,
            asset=asset,
            contract=event.contract,
            run=event.run,
            total_micro=total,
            cap_micro=caps.get(asset),
            stated_at=content.at,
            log_index=index,
            runs_micro=(event.epsilon_micro[asset],) if is_spent and asset in event.epsilon_micro else (),
        )
        for asset, total in sorted(event.total_micro.items())
    ]
