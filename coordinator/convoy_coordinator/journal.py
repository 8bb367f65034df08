"""Write to the log before anything is done.

``Journal.record`` returns once the entry is durable. Services hold ``Journal.order`` from the
check of a request to the end of its effect, so that nothing comes between what was checked, what
was logged and what was done.

``require`` holds an effect back until its entry has come far enough: no run is authorised under a contract, a change of it
or a key that a quorum of witnesses has not cosigned; a run counts as authorised, and a release can be downloaded, only once
the quorum has cosigned the entry that says so.

If the process dies after ``record`` and before the effect, the log tells of an intention without
an effect; the request was never acknowledged and can be repeated. The other order, an effect that
the log does not know, cannot happen.
LIMIT: ``order`` is a lock of this process; two coordinators on one database are kept apart by the
log's single writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from convoy_audit.entry import encode, parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import Event
from convoy_coordinator.errors import Problem
from convoy_coordinator.log.levels import Level

CHUNK: Final = 1000
Clock = Callable[[], datetime]
"""Returns the present instant, aware and in UTC."""
Author = Callable[[datetime], Event]
"""Writes an event about the present instant."""


def now_utc() -> datetime:
    """Return the present instant by the machine's clock."""
    return datetime.now(UTC)


class Log(Protocol):
    """What is needed of the log's single writer (``convoy_coordinator.log``)."""

    def append_many(self, entries: Sequence[bytes]) -> list[int]:
        """Append entries; return their indexes once they are durable."""

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries [start, end)."""

    def size(self) -> int:
        """Return the number of durable entries."""

    def level_of(self, index: int) -> Level:
        """Return how far an entry has come."""


class Journal:
    """The pen of every service.

    Args:
        log: the single writer.
        clock: the present instant.
    """

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.RLock()

    @contextmanager
    def order(self) -> Iterator[None]:
        """Let nobody else check, log and act until the block ends."""
        with self._lock:
            yield

    def record(self, author: Author) -> int:
        """Write one event; return its index once it is durable.

        Raises:
            Problem: LOG_REFUSED if the facts do not fit the event; LOG_UNAVAILABLE if the log
                cannot be written.
        """
        try:
            raw = encode(author(self._clock()))
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
        return self.append([raw])[0]

    def append(self, entries: Sequence[bytes]) -> list[int]:
        """Write entries that others made, in order; return their indexes once all are durable.

        Raises:
            Problem: LOG_REFUSED or LOG_UNAVAILABLE; nothing is written then.
        """
        try:
            return self._log.append_many(entries)
        except AuditError as error:
            raise Problem("LOG_REFUSED", error.cause, party=error.party) from None
        except SQLAlchemyError:
            raise Problem("LOG_UNAVAILABLE", "the log could not be written") from None

    def level(self, index: int) -> Level:
        """Return how far an entry has come.

        Raises:
            Problem: LOG_UNAVAILABLE.
        """
        try:
            return self._log.level_of(index)
        except SQLAlchemyError:
            raise Problem("LOG_UNAVAILABLE", "the log could not be read") from None

    def require(self, index: int, level: Level, what: str) -> None:
        """Hold an effect back that its entry does not bear yet.

        Raises:
            Problem: LOG_NOT_WITNESSED; the caller does nothing then, and may ask again.
        """
        reached = self.level(index)
        if reached < level:
            raise Problem("LOG_NOT_WITNESSED", f"{what}: entry {index} is {reached.word}, not {level.word}")

    def find(self, start: int, is_wanted: Callable[[Event], bool]) -> tuple[int, Event] | None:
        """Return the first event of the coordinator from index ``start`` on that is wanted.

        Raises:
            Problem: LOG_UNAVAILABLE.
        """
        size = self._log.size()
        while start < size:
            end = min(start + CHUNK, size)
            try:
                found = self._log.entries(start, end)
            except SQLAlchemyError:
                raise Problem("LOG_UNAVAILABLE", "the log could not be read") from None
            for offset, raw in enumerate(found):
                content = parse_entry(raw)
                if isinstance(content, Event) and is_wanted(content):
                    return start + offset, content
            start = end
        return None
