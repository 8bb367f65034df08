"""Where a contract stands at an instant, as a table: computed from its document, signatures, events and the clock, never stored.

    state(terms, signatures, events, now) -> Standing       the same answer for any past instant
    judge(event, versions, head, now)                       raises ``EventRefused`` with a stable reason for a wrong order

``TABLE`` is the whole machine: who may do what, in which states. What ends a contract stands before what pauses it.
Any party stops its own data at once; nobody but that party starts it again. Loosening needs everybody.
What may never change: the names of the states and of the refusals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from convoy_contracts.document import Contract
from convoy_contracts.errors import EventRefused
from convoy_contracts.events import ALL, ContractEvent
from convoy_contracts.instants import MICROSECONDS, instant

DRIFT = 300 * MICROSECONDS
"""How far an event may lie in the past when it arrives: nobody rewrites what a past instant answered."""


class State(StrEnum):
    """Where a version of a contract stands; names are those of the API and the page."""

    DRAFT = "draft"
    OFFERED = "offered"
    PARTLY_SIGNED = "partly-signed"
    SIGNED = "signed"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    TERMINATED = "terminated"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    LAPSED = "lapsed"


OPEN = frozenset({State.OFFERED, State.PARTLY_SIGNED})
AGREED = frozenset({State.SIGNED, State.ACTIVE, State.SUSPENDED})
FINAL = frozenset(set(State) - OPEN - AGREED - {State.DRAFT})
DPV: Mapping[State, str] = {
    State.DRAFT: "dpv:ContractDrafted",
    State.OFFERED: "dpv:ContractOffered",
    State.PARTLY_SIGNED: "dpv:ContractPartiallySigned",
    State.SIGNED: "dpv:ContractFullySigned",
    State.ACTIVE: "dpv:ContractActive",
    State.SUSPENDED: "dpv:ContractTemporarilySuspended",
    State.SUPERSEDED: "dpv:ContractAmended",
    State.EXPIRED: "dpv:ContractExpired",
    State.TERMINATED: "dpv:ContractTerminated",
    State.REFUSED: "dpv:ContractRefused",
    State.WITHDRAWN: "dpv:ContractWithdrawn",
    State.LAPSED: "dpv:ContractOfferLapsed",
}
"""The word of DPV 2.3 for each state; refused, withdrawn and lapsed have none of their own there."""


class Who(StrEnum):
    """Who may act."""

    ANY = "any party"
    AUTHOR = "the author"
    SELF = "the party that is named"
    EVERYBODY = "all parties together"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the machine: an act, for which target, who may do it, in which states of the version, and what follows."""

    act: str
    target: str
    who: frozenset[Who]
    states: frozenset[State]
    to: State


TABLE = (
    Row("sign", "version", frozenset({Who.ANY}), OPEN, State.SIGNED),
    Row("refuse", "version", frozenset({Who.ANY}), OPEN, State.REFUSED),
    Row("withdraw-offer", "version", frozenset({Who.AUTHOR}), OPEN, State.WITHDRAWN),
    Row("suspend", "party", frozenset({Who.SELF}), AGREED, State.ACTIVE),
    Row("suspend", "contract", frozenset({Who.ANY, Who.EVERYBODY}), AGREED, State.SUSPENDED),
    Row("resume", "party", frozenset({Who.SELF}), AGREED, State.ACTIVE),
    Row("resume", "contract", frozenset({Who.EVERYBODY}), AGREED, State.ACTIVE),
    Row("terminate", "contract", frozenset({Who.ANY, Who.EVERYBODY}), AGREED, State.TERMINATED),
    Row("supersede", "version", frozenset({Who.EVERYBODY}), AGREED, State.SUPERSEDED),
)
"""Every act. The clock does the rest: an offer lapses, a term begins and ends."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the standing depends on; instants in microseconds, intervals half-open."""

    uid: str
    version: int
    parties: tuple[str, ...]
    author: str
    offer_until: int
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified signature: of whom, and since when it counts."""

    party: str
    at: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The state, who has signed, who has not, and who is suspended (``*``: the whole contract)."""

    state: State
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]
    suspended: frozenset[str]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a contract with how it stands."""

    terms: Terms
    standing: Standing


def terms(contract: Contract) -> Terms:
    """Return what the standing of a contract depends on."""
    begin, end, until = (instant(t) for t in (contract.term.notBefore, contract.term.notAfter, contract.offerUntil))
    if begin is None or end is None or until is None:  # pragma: no cover - Contract.parse has looked
        raise ValueError("a parsed contract has timestamps")
    parties = tuple(party.id for party in contract.parties)
    return Terms(contract.uid, contract.version, parties, contract.author or parties[0], until, begin, end)


def state(
    terms: Terms,
    signatures: Iterable[Signed],
    events: Iterable[Mapping[str, Any]],
    now: int,
    *,
    offered_at: int | None = None,
) -> Standing:
    """Return where a version stands at ``now``.

    Args:
        terms: of the version.
        signatures: verified ones, later ones included.
        events: of the contract's uid, authenticated, later ones included; what does not fit FORMAT.md §5 has no effect.
        now: microseconds; any instant, past or future.
        offered_at: when the document was offered; None if it always was.
    """
    have = {one.party for one in signatures if one.at <= now}
    signed = tuple(party for party in terms.parties if party in have)
    unsigned = tuple(party for party in terms.parties if party not in have)
    happened = [
        event
        for event in sorted(events, key=lambda e: int(e["seq"]))
        if event["uid"] == terms.uid and (instant(event["at"]) or 0) <= now
    ]
    stopped = _stopped(terms, happened)
    is_draft = offered_at is not None and now < offered_at
    found = State.DRAFT if is_draft else _state(terms, signed, unsigned, happened, stopped, now)
    return Standing(found, signed, unsigned, stopped)


def _state(
    terms: Terms,
    signed: Sequence[str],
    unsigned: Sequence[str],
    happened: Sequence[Mapping[str, Any]],
    stopped: frozenset[str],
    now: int,
) -> State:
    """Take the first line that holds."""
    ends = {*terms.parties, ALL}
    closed = next((e["type"] for e in happened if _closes(terms, e)), None) if unsigned else None
    lines = (
        (any(e["type"] == "terminate" and e["by"] in ends for e in happened), State.TERMINATED),
        (any(_replaces(terms, e) for e in happened), State.SUPERSEDED),
        (closed == "refuse", State.REFUSED),
        (closed == "withdraw-offer", State.WITHDRAWN),
        (bool(unsigned) and now >= terms.offer_until, State.LAPSED),
        (bool(unsigned) and bool(signed), State.PARTLY_SIGNED),
        (bool(unsigned), State.OFFERED),
        (now >= terms.not_after, State.EXPIRED),
        (now < terms.not_before, State.SIGNED),
        (ALL in stopped, State.SUSPENDED),
    )
    return next((found for holds, found in lines if holds), State.ACTIVE)


def _closes(terms: Terms, event: Mapping[str, Any]) -> bool:
    if event.get("version") != terms.version:
        return False
    by_author = event["type"] == "withdraw-offer" and event["by"] == terms.author
    return by_author or (event["type"] == "refuse" and event["by"] in terms.parties)


def _replaces(terms: Terms, event: Mapping[str, Any]) -> bool:
    return (
        event["type"] == "supersede"
        and event["by"] == ALL
        and type(event.get("version")) is int
        and event["version"] == terms.version
        and event.get("inFlight") in ("finish", "abort")
    )


def _stopped(terms: Terms, happened: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Apply suspend and resume in order (FORMAT.md §5)."""
    stopped: set[str] = set()
    for event in happened:
        kind, by, whom = event["type"], event["by"], event.get("party")
        is_member = by in terms.parties
        if kind == "suspend" and whom == ALL:
            if event.get("reasonClass") in ("incident", "legal") and (is_member or by == ALL):
                stopped.add(ALL)
        elif kind == "suspend" and whom == by and is_member:
            stopped.add(by)
        elif kind == "resume" and whom == by and (is_member or by == ALL):
            stopped.discard(by)
    return frozenset(stopped)


# Acts --------------------------------------------------------------------------------------------------------------------


def may_sign(terms: Terms, standing: Standing, party: str) -> None:
    """Check that a party may sign now; who has signed an agreed contract may sign again, with a new key.

    Raises:
        EventRefused: NOT_A_PARTY or STATE_WRONG.
    """
    if party not in terms.parties:
        raise EventRefused("NOT_A_PARTY", f"{party} is no party of {terms.uid}", fix="Only its parties sign it.")
    states = next(row.states for row in TABLE if row.act == "sign")
    if standing.state not in states | AGREED:
        raise _state_wrong("sign", terms, standing, states)


def judge(event: ContractEvent, versions: Sequence[Version], *, head: str, next_seq: int, now: int) -> None:
    """Check that an event may happen: its place in the chain, its actor, and the states of the versions it is about.

    Args:
        event: parsed; its proofs are checked elsewhere.
        versions: every version of its uid, as each stands at the later of ``now`` and the event's instant.
        head: id of the last event, or ``genesis``.
        next_seq: the number that the next event has.
        now: when it arrived.

    Raises:
        EventRefused: with the first reason of: CONTRACT_UNKNOWN, VERSION_UNKNOWN, NOT_A_PARTY, ACTOR_WRONG, STATE_WRONG,
            ALREADY_SUSPENDED, NOT_SUSPENDED, SUCCESSOR_NOT_SIGNED, EVENT_BACKDATED, CHAIN_MOVED.
    """
    if not versions:
        raise EventRefused("CONTRACT_UNKNOWN", f"no contract {event.uid}", fix="Offer the contract first.")
    about = [v for v in versions if event.version in (None, v.terms.version)]
    if not about:
        raise EventRefused(
            "VERSION_UNKNOWN", f"{event.uid} has no version {event.version}", fix="Name an offered version."
        )
    _check_actor(event, about)
    _check_state(event, about, versions)
    if event.at < now - DRIFT:
        raise EventRefused(
            "EVENT_BACKDATED",
            f"{event.value['at']} is more than 300 s ago",
            fix="Date the event now or later; sign it again.",
        )
    if (event.prev, event.seq) != (head, next_seq):
        raise EventRefused(
            "CHAIN_MOVED",
            f"the chain's next event is number {next_seq} after {head}",
            fix="Read the chain, sign a new event.",
        )


def _row(event: ContractEvent) -> Row:
    named = "contract" if event.party in (None, ALL) else "party"
    target = named if event.version is None else "version"
    return next(row for row in TABLE if row.act == event.type and row.target == target)


def _check_actor(event: ContractEvent, about: Sequence[Version]) -> None:
    members = {party for version in about for party in version.terms.parties}
    if event.by != ALL and event.by not in members:
        raise EventRefused("NOT_A_PARTY", f"{event.by} is no party of {event.uid}", fix="Only its parties act on it.")
    row = _row(event)
    if row.target == "party" and event.party not in members:
        raise EventRefused("NOT_A_PARTY", f"{event.party} is no party of {event.uid}", fix="Name a party.")
    allowed = {
        Who.ANY: event.by != ALL,
        Who.AUTHOR: any(event.by == version.terms.author for version in about),
        Who.SELF: event.by == event.party,
        Who.EVERYBODY: event.by == ALL,
    }
    if not any(allowed[who] for who in row.who):
        wanted = " or ".join(sorted(row.who))
        raise EventRefused("ACTOR_WRONG", f"{event.type} of a {row.target} is for {wanted}, not {event.by}",
                           fix=f"Let {wanted} sign it.")  # fmt: skip


def _check_state(event: ContractEvent, about: Sequence[Version], versions: Sequence[Version]) -> None:
    row = _row(event)
    fitting = [version for version in about if version.standing.state in row.states]
    if not fitting:
        newest = max(about, key=lambda v: v.terms.version)
        raise _state_wrong(event.type, newest.terms, newest.standing, row.states)
    whom = event.party
    is_stopped = any(whom in version.standing.suspended for version in fitting)
    if event.type == "suspend" and is_stopped:
        raise EventRefused("ALREADY_SUSPENDED", f"{whom} is suspended already", fix="Nothing needs to be done.")
    if event.type == "resume" and not is_stopped:
        raise EventRefused("NOT_SUSPENDED", f"{whom} is not suspended", fix="Nothing needs to be done.")
    if event.type == "supersede":
        later = [v for v in versions if v.terms.version > (event.version or 0) and v.standing.state in AGREED]
        if not later:
            raise EventRefused(
                "SUCCESSOR_NOT_SIGNED", f"no later version than {event.version} is signed by all",
                fix="Offer the next version and have every party sign it first.",
            )  # fmt: skip


def _state_wrong(act: str, terms: Terms, standing: Standing, states: Iterable[State]) -> EventRefused:
    wanted = ", ".join(sorted(states))
    return EventRefused(
        "STATE_WRONG",
        f"{act} is possible while a version is {wanted}; version {terms.version} is {standing.state}",
        fix="Look at GET /v1/contracts/{uid}/state for what is possible now.",
    )
