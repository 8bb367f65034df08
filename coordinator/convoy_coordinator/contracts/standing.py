"""How a contract stands at an instant: computed from its signatures, its events and the clock,
never stored.

The coordinator's word on this narrows only: it offers no run under a contract that does not
stand. Each node decides for itself again (``convoy_contracts.decide``), with its own clock and
its own keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

ALL = "*"


class ContractState(Enum):
    """Where a contract stands; the names are those of the API and the page."""

    OFFERED = "offered"
    PARTLY_SIGNED = "partly-signed"
    SIGNED = "signed"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    TERMINATED = "terminated"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on one asset per person: micro-epsilon in all, at nano-delta."""

    total_micro: int
    delta_nano: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the standing depends on, read from the document once.

    Instants are aware UTC; intervals are half-open (FORMAT.md §1). ``term`` holds the two days for people, in the
    document's own offset.
    """

    uid: str
    version: int
    title: str
    parties: tuple[str, ...]
    algorithms: tuple[str, ...]
    budgets: Mapping[str, Budget]
    term: tuple[str, str]
    offer_until: datetime
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """The state, who has signed, who has not, and which parties are suspended for themselves."""

    state: ContractState
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    suspended: tuple[str, ...]

    @property
    def is_active(self) -> bool:
        """Whether runs may be asked for."""
        return self.state is ContractState.ACTIVE


def standing(agreed: Agreed, signers: Iterable[str], events: Sequence[Mapping[str, Any]], now: datetime) -> Standing:
    """Compute the standing at ``now``.

    Args:
        agreed: the document.
        signers: parties with a verified signature.
        events: the contract's events in ascending ``seq``, those of the future included.
        now: the instant.
    """
    have = set(signers)
    signed = tuple(p for p in agreed.parties if p in have)
    unsigned = tuple(p for p in agreed.parties if p not in have)
    happened = [e for e in events if _instant(e["at"]) <= now]
    stopped = _suspended(agreed, happened)
    state = _state(agreed, signed, unsigned, happened, stopped, now)
    return Standing(state, signed, unsigned, tuple(sorted(stopped - {ALL})))


def _state(
    agreed: Agreed,
    signed: Sequence[str],
    unsigned: Sequence[str],
    happened: Sequence[Mapping[str, Any]],
    stopped: set[str],
    now: datetime,
) -> ContractState:
    """Take the first line that holds; what ends a contract stands before what pauses it."""
    ends = {*agreed.parties, ALL}
    lines = (
        (
            any(e["type"] == "terminate" and e["by"] in ends for e in happened),
            ContractState.TERMINATED,
        ),
        (
            any(e["type"] == "supersede" and e["by"] == ALL and e.get("version") == agreed.version for e in happened),
            ContractState.SUPERSEDED,
        ),
        (bool(unsigned) and now >= agreed.offer_until, ContractState.LAPSED),
        (bool(unsigned) and bool(signed), ContractState.PARTLY_SIGNED),
        (bool(unsigned), ContractState.OFFERED),
        (now >= agreed.not_after, ContractState.EXPIRED),
        (now < agreed.not_before, ContractState.SIGNED),
        (ALL in stopped, ContractState.SUSPENDED),
    )
    return next((state for holds, state in lines if holds), ContractState.ACTIVE)


def _suspended(agreed: Agreed, happened: Sequence[Mapping[str, Any]]) -> set[str]:
    """Apply suspend and resume in order (FORMAT.md §5); what does not fit its table has no
    effect.
    """
    stopped: set[str] = set()
    for event in happened:
        kind, by, whom = event["type"], event["by"], event.get("party")
        if kind == "suspend" and whom == ALL:
            if event.get("reasonClass") in {"incident", "legal"} and by in {*agreed.parties, ALL}:
                stopped.add(ALL)
        elif kind == "suspend" and whom == by and whom in agreed.parties:
            stopped.add(whom)
        elif kind == "resume" and whom == by and whom is not None:
            stopped.discard(whom)
    return stopped


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
