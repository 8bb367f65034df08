"""Write down who was refused: every time in the process's own log, and counted in the audit log.

An attacker must not be able to fill the audit log: the first refusal of a kind is an entry at once; its repeats within a
minute are counted and written as one entry afterwards. Of strangers, who have not even shaken hands, repeats are counted for an
hour: whatever they do, it makes at most two entries an hour and kind.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from convoy_audit.events import AccessRefused
from convoy_coordinator.errors import Problem
from convoy_coordinator.journal import Journal

WINDOW_S: Final = 60.0
STRANGERS_WINDOW_S: Final = 3600.0
STRANGERS: Final = ("HANDSHAKE_", "REQUEST_TURNED_AWAY")
"""How the codes of refusals begin that need no certificate and no ticket."""
MAX_KINDS: Final = 1000
_log = logging.getLogger(__name__)


class Refusals:
    """Counts refusals by (party, code).

    Args:
        journal: the log.
        clock_s: seconds that only go forward.
    """

    def __init__(self, journal: Journal, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._clock_s = clock_s
        self._guard = threading.Lock()
        self._seen: dict[tuple[str | None, str], tuple[float, int]] = {}
        self._totals: Counter[str] = Counter()

    @property
    def totals(self) -> dict[str, int]:
        """How many there were since the start, by code; for ``/metrics``."""
        with self._guard:
            return dict(self._totals)

    def note(self, code: str, party: str | None, where: str, count: int = 1) -> None:
        """Note refusals of one kind; ``where`` is the method or listener, for the operator's log."""
        _log.warning("refused %s party=%s at %s%s", code, party or "unknown", where, f", {count} times" * (count > 1))
        with self._guard:
            self._totals[code] += count
            due = self._due(code, party, count)
        for known, kind, count in due:
            self._write(known, kind, count)

    def flush(self) -> None:
        """Write what was counted and not written; at the end of the process."""
        with self._guard:
            due = [(party, code, count) for (party, code), (_, count) in self._seen.items() if count]
            self._seen.clear()
        for party, code, count in due:
            self._write(party, code, count)

    def _due(self, code: str, party: str | None, more: int) -> list[tuple[str | None, str, int]]:
        now = self._clock_s()
        due: list[tuple[str | None, str, int]] = []
        for (known, kind), (since, count) in list(self._seen.items()):
            if now - since >= (STRANGERS_WINDOW_S if kind.startswith(STRANGERS) else WINDOW_S):
                del self._seen[known, kind]
                if count:
                    due.append((known, kind, count))
        if (party, code) in self._seen:
            since, count = self._seen[party, code]
            self._seen[party, code] = (since, count + more)
        elif len(self._seen) < MAX_KINDS:
            due.append((party, code, more))
            self._seen[party, code] = (now, 0)
        else:
            self._seen[party, code] = (now, more)
        return due

    def _write(self, party: str | None, code: str, count: int) -> None:
        try:
            self._journal.record(lambda at: AccessRefused(at=at, party=party, code=code, count=count))
        except Problem as problem:  # a party id that is no token, or the log is down; the refusal itself stands
            _log.error("a refusal could not be logged: %s", problem.code)
