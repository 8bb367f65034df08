"""The states of a run and every move between them, as a table.

    queued -> authorised -> running -> finished
       \\__________\\___________\\____-> failed | refused | cancelled

*refused* means that a gate said no (a contract, a budget, a consent); *failed* that something
broke; *cancelled* that a person stopped it. The names are in the database, the API and the log
and may never change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class RunState(Enum):
    """Where a run stands."""

    QUEUED = "queued"
    AUTHORISED = "authorised"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether a run stays in this state for ever."""
        return not MOVES[self]

    @property
    def needs_reason(self) -> bool:
        """Whether a run in this state owes an explanation."""
        return self in {RunState.FAILED, RunState.REFUSED, RunState.CANCELLED}


_STOPPED: Final = frozenset({RunState.FAILED, RunState.REFUSED, RunState.CANCELLED})

MOVES: Final[Mapping[RunState, frozenset[RunState]]] = {
    RunState.QUEUED: _STOPPED | {RunState.AUTHORISED},
    RunState.AUTHORISED: _STOPPED | {RunState.RUNNING},
    RunState.RUNNING: _STOPPED | {RunState.FINISHED},
    RunState.FINISHED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.REFUSED: frozenset(),
    RunState.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a run did not finish.

    ``reasons`` are stable codes, the first the one that people are told; ``party`` whom it
    concerns; ``cause`` what happened; ``fix`` what to do.
    """

    reasons: tuple[str, ...]
    party: str | None
    cause: str | None
    fix: str | None

    @property
    def reason(self) -> str:
        """The code that people are told."""
        return self.reasons[0]
