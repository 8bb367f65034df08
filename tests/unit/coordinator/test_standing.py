"""How a contract stands, from signatures, events and the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from convoy_coordinator.contracts.standing import Agreed, ContractState, standing

OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"
BEGIN = datetime(2026, 12, 1, tzinfo=UTC)
END = datetime(2027, 12, 1, tzinfo=UTC)
OFFER_UNTIL = datetime(2026, 11, 30, tzinfo=UTC)
AGREED = Agreed(
    uid="urn:convoy:contract:1",
    version=1,
    title="Risk",
    parties=(OEM, INSURER),
    algorithms=("risk",),
    budgets={},
    term=("2026-12-01", "2027-12-01"),
    offer_until=OFFER_UNTIL,
    not_before=BEGIN,
    not_after=END,
)
MOMENT = timedelta(microseconds=1)


def event(kind: str, by: str, at: datetime = BEGIN, **more: Any) -> dict[str, Any]:
    """Return an event as FORMAT.md §5 writes it."""
    return {"uid": AGREED.uid, "seq": 1, "type": kind, "by": by, "at": at.isoformat(), **more}


@pytest.mark.parametrize(
    ("signers", "now", "expected"),
    [
        ((), OFFER_UNTIL - MOMENT, ContractState.OFFERED),
        ((OEM,), OFFER_UNTIL - MOMENT, ContractState.PARTLY_SIGNED),
        ((OEM,), OFFER_UNTIL, ContractState.LAPSED),
        ((OEM, INSURER), BEGIN - MOMENT, ContractState.SIGNED),
        ((OEM, INSURER), BEGIN, ContractState.ACTIVE),
        ((OEM, INSURER), END - MOMENT, ContractState.ACTIVE),
        ((OEM, INSURER), END, ContractState.EXPIRED),
        (("did:web:other.example", OEM), BEGIN, ContractState.LAPSED),
    ],
)
def test_signatures_and_clock_decide(signers: tuple[str, ...], now: datetime, expected: ContractState) -> None:
    """Intervals are half-open; only signatures of the contract's parties count."""
    assert standing(AGREED, signers, [], now).state is expected


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        (event("terminate", OEM), ContractState.TERMINATED),
        (event("terminate", "did:web:other.example"), ContractState.ACTIVE),
        (event("supersede", "*", version=1, inFlight="finish"), ContractState.SUPERSEDED),
        (event("supersede", "*", version=2, inFlight="finish"), ContractState.ACTIVE),
        (event("supersede", OEM, version=1, inFlight="finish"), ContractState.ACTIVE),
        (event("suspend", OEM, party="*", reasonClass="incident"), ContractState.SUSPENDED),
        (event("suspend", OEM, party="*", reasonClass="mood"), ContractState.ACTIVE),
        (event("suspend", OEM, party="*"), ContractState.ACTIVE),
    ],
)
def test_events_of_the_right_party_change_the_state(happened: dict[str, Any], expected: ContractState) -> None:
    """An event that does not fit the table of FORMAT.md §5 has no effect."""
    assert standing(AGREED, (OEM, INSURER), [happened], BEGIN).state is expected


def test_an_event_of_the_future_has_no_effect_yet() -> None:
    """An event has effect at its instant, not before."""
    later = event("terminate", OEM, at=BEGIN + timedelta(days=1))
    assert standing(AGREED, (OEM, INSURER), [later], BEGIN).is_active
    assert not standing(AGREED, (OEM, INSURER), [later], BEGIN + timedelta(days=1)).is_active


def test_only_the_party_itself_lifts_its_suspension() -> None:
    """A party suspends itself; the other party's resume changes nothing."""
    mine = event("suspend", OEM, party=OEM)
    other = event("resume", INSURER, party=OEM)
    own = event("resume", OEM, party=OEM)
    assert standing(AGREED, (OEM, INSURER), [mine, other], BEGIN).suspended == (OEM,)
    assert standing(AGREED, (OEM, INSURER), [mine, own], BEGIN).suspended == ()
    assert standing(AGREED, (OEM, INSURER), [mine], BEGIN).is_active
