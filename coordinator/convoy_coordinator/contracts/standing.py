"""How a contract stands at an instant: computed from its signatures, its events and the clock,
never stored (``convoy_contracts.lifecycle``).

The coordinator's word on this narrows only: it offers no run under a contract that does not
stand. Each node decides for itself again (``convoy_contracts.decide``), with its own clock and
its own keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from convoy_contracts import lifecycle
from convoy_contracts.instants import MICROSECONDS, instant
from convoy_contracts.lifecycle import DPV, Signed, State, Terms

ALL = "*"
ContractState = State


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent on one asset per person: micro-epsilon in all, at nano-delta."""

    total_micro: int
    delta_nano: int


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the standing depends on, read from the document once.

    Instants are aware UTC; intervals are half-open (FORMAT.md §1). ``term`` holds the two days for people, in the
    document's own offset. ``author`` may withdraw the offer; left empty, it is the first party.
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
    author: str = ""

    @property
    def terms(self) -> Terms:
        """What the life cycle needs of it."""
        return Terms(
            uid=self.uid,
            version=self.version,
            parties=self.parties,
            author=self.author or self.parties[0],
            offer_until=micros(self.offer_until),
            not_before=micros(self.not_before),
            not_after=micros(self.not_after),
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """The state, who has signed, who has not, and which parties are suspended for themselves."""

    state: ContractState
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    suspended: tuple[str, ...]
    is_suspended_as_a_whole: bool = False

    @property
    def is_active(self) -> bool:
        """Whether runs may be asked for."""
        return self.state is ContractState.ACTIVE

    @property
    def dpv(self) -> str:
        """The state in the words of the Data Privacy Vocabulary."""
        return DPV[self.state]


def standing(
    agreed: Agreed,
    signers: Iterable[str],
    events: Sequence[Mapping[str, Any]],
    now: datetime,
    *,
    offered_at: datetime | None = None,
) -> Standing:
    """Compute the standing at ``now``.

    Args:
        agreed: the document.
        signers: parties with a verified signature at ``now``.
        events: the contract's events, those of the future included.
        now: the instant.
        offered_at: when the document was offered; before that it is a draft.
    """
    found = lifecycle.state(
        agreed.terms,
        [Signed(party, 0) for party in signers],
        events,
        micros(now),
        offered_at=None if offered_at is None else micros(offered_at),
    )
    return Standing(
        found.state, found.signed, found.unsigned, tuple(sorted(found.suspended - {ALL})), ALL in found.suspended
    )


def micros(moment: datetime) -> int:
    """Return an aware instant on the axis of ``convoy_contracts.instants``."""
    value = instant(moment.astimezone(UTC).isoformat(timespec="microseconds"))
    return value if value is not None else round(moment.timestamp() * MICROSECONDS)
