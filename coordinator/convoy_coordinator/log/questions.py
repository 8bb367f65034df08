"""Questions to the log while it runs: search, use by contract and quarter, a sample, statements and their receipts.

    Questions(log): .search(filter, after, limit) .use(contract, quarter) .sample(count, seed) .chains() .receipts(party, after)

Answers come from entries whose hashes the log has just compared with its tree. They are a convenience: whoever must not
believe the coordinator asks the same of a pack or a mirror (``convoy-audit``); filters and samples are the same code there.
LIMIT: a search reads the log from its beginning, about 50,000 entries a second.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from convoy_audit.checkpoint import peek
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.query import Filter, Found, sample, use_by_quarter
from convoy_audit.statement import Statement
from convoy_coordinator.errors import Problem
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.service import LogService

CHUNK: Final = 2000
MAX_FOUND: Final = 1000
MAX_RECEIPTS: Final = 100


@dataclass(slots=True)
class ChainSeen:
    """The statements of one party that are in the log: index by number, and the last of them."""

    party: str
    index_of: dict[int, int] = field(default_factory=dict)
    last_at: datetime | None = None

    @property
    def highest(self) -> int:
        """The highest number that is in the log."""
        return max(self.index_of, default=0)

    @property
    def missing(self) -> list[int]:
        """Numbers below the highest that are not in the log; each is an omission."""
        return [number for number in range(1, self.highest) if number not in self.index_of]


@dataclass(frozen=True, slots=True)
class Receipt:
    """That a statement is in the log: its index and a tlog-proof under a cosigned checkpoint."""

    number: int
    index: int
    proof: bytes


class Questions:
    """Answers about one log.

    Args:
        log: the log.
    """

    def __init__(self, log: LogService) -> None:
        self._log = log
        self._seen: dict[str, ChainSeen] = {}
        self._read = 0
        self._lock = threading.Lock()

    def entries(self, end: int | None = None) -> Iterator[bytes]:
        """Yield the entries from the first, each compared with the tree."""
        end = self._log.size() if end is None else end
        for start in range(0, end, CHUNK):
            yield from self._log.entries(start, min(start + CHUNK, end))

    def search(self, asked: Filter, after: int, limit: int) -> tuple[list[Found], int | None]:
        """Return the entries from index ``after`` on that fit, and where to go on, None at the end."""
        found: list[Found] = []
        for hit in asked.select(self.entries()):
            if hit.index < after:
                continue
            if len(found) == limit:
                return found, hit.index
            found.append(hit)
        return found, None

    def use(self, contract: str | None, quarter: str | None) -> list[dict[str, Any]]:
        """Return who used which data under which contract in which quarter."""
        rows = (use.as_json() for use in use_by_quarter(self.entries()))
        return [
            row
            for row in rows
            if (contract is None or contract in (row["contract"], row["uid"]))
            and (quarter is None or quarter == row["quarter"])
        ]

    def sample(self, count: int, seed: str) -> list[int]:
        """Return the sampled indices of the log under its last witnessed checkpoint, ascending.

        Raises:
            FormatError: more than there are.
        """
        return sample(self.sample_size(), count, seed)

    def sample_size(self) -> int:
        """Return how many entries a sample is drawn from: those under the checkpoint that is served."""
        note = self._log.latest()
        return 0 if note is None else peek(note.encode()).size

    def chains(self) -> list[ChainSeen]:
        """Return every party's statements that are in the log."""
        with self._lock:
            end = self._log.size()
            for start in range(self._read, end, CHUNK):
                stop = min(start + CHUNK, end)
                for index, raw in enumerate(self._log.entries(start, stop), start=start):
                    self._see(index, raw)
                self._read = stop
            return [self._seen[party] for party in sorted(self._seen)]

    def receipts(self, party: str, after: int, limit: int = MAX_RECEIPTS) -> list[Receipt]:
        """Return the receipts of a party's statements with numbers above ``after``.

        Only statements under a checkpoint with the quorum have one; a number that is left out here is not logged, or not
        witnessed yet.

        Raises:
            Problem: LOG_NOT_WITNESSED, no checkpoint has the quorum.
        """
        chain = {seen.party: seen for seen in self.chains()}.get(party)
        note = self._log.latest()
        self._log.level_of(0)
        size = self._log.levels.size(Level.WITNESSED)
        if note is None or not size:
            raise Problem("LOG_NOT_WITNESSED", "no checkpoint of this log has the quorum yet", party=party)
        wanted = sorted(n for n, index in (chain.index_of if chain else {}).items() if n > after and index < size)
        return [
            Receipt(number, index, self._log.evidence(index).tlog_proof.text)
            for number in wanted[:limit]
            for index in (chain.index_of[number] if chain else 0,)
        ]

    def _see(self, index: int, raw: bytes) -> None:
        try:
            content = parse_entry(raw)
        except AuditError:
            return  # entries are checked before they are taken; an old kind stands for itself
        if isinstance(content, Statement):
            seen = self._seen.setdefault(content.party, ChainSeen(content.party))
            seen.index_of.setdefault(content.number, index)
            seen.last_at = content.at
