"""Where each party's statements stand in the log: read from it, and kept up while it grows.

A statement can come by two ways, with an answer in a run and over the partner channel. The log shall hold it once.
LIMIT: the last ``TAIL`` statements of a party are known by their index; older repeats are refused, not recognised.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from convoy_audit.canonical import parse_canonical
from convoy_audit.errors import AuditError
from convoy_audit.statement import STATEMENT_TYPE, statement_from_json

CHUNK: Final = 1000
TAIL: Final = 4096


class ReadLog(Protocol):
    """What is needed of the log."""

    def size(self) -> int:
        """Return the number of durable entries."""

    def entries(self, start: int, end: int) -> Sequence[bytes]:
        """Return the entries from ``start`` up to, not including, ``end``."""


@dataclass(slots=True)
class _Head:
    number: int = 0
    tail: deque[tuple[int, int, bytes]] = field(default_factory=lambda: deque(maxlen=TAIL))  # number, index, SHA-256


class StatementHeads:
    """The statements of every party, in the log's order.

    Args:
        log: the log.
    """

    def __init__(self, log: ReadLog) -> None:
        self._log = log
        self._guard = threading.Lock()
        self._size = 0
        self._heads: dict[str, _Head] = {}

    def last(self, party: str) -> int:
        """Return the number of a party's last statement; 0 for none."""
        with self._guard:
            self._catch_up()
            return self._heads.get(party, _Head()).number

    def find(self, party: str, number: int) -> tuple[int, bytes] | None:
        """Return index and SHA-256 of a statement, where it is known."""
        with self._guard:
            self._catch_up()
            head = self._heads.get(party)
            found = [] if head is None else [(i, h) for n, i, h in head.tail if n == number]
            return found[-1] if found else None

    def _catch_up(self) -> None:
        size = self._log.size()
        while self._size < size:
            end = min(self._size + CHUNK, size)
            for offset, raw in enumerate(self._log.entries(self._size, end)):
                self._take(self._size + offset, raw)
            self._size = end

    def _take(self, index: int, raw: bytes) -> None:
        if STATEMENT_TYPE.encode() not in raw:
            return
        try:
            statement = statement_from_json(parse_canonical(raw), raw)
        except AuditError:
            return  # an event that mentions the type
        head = self._heads.setdefault(statement.party, _Head())
        head.number = max(head.number, statement.number)
        head.tail.append((statement.number, index, hashlib.sha256(raw).digest()))
