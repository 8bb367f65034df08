"""Take the parties' events: stop, resume, end, replace a contract; refuse or withdraw an offer.

The log is written before an event has effect, and a refused attempt stands there with its reason. An event of all
parties waits, without effect, until every one of them has signed the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from convoy_audit.events import ChangeRefused, ContractChanged, OfferClosed
from convoy_contracts.amendments import Amendment, classify
from convoy_contracts.decide.world import read_keys
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError, DocumentMalformed, EventRefused
from convoy_contracts.events import WORLD_TYPES, ContractEvent, actors, event_faults, genesis, parse_event
from convoy_contracts.lifecycle import AGREED, Version, judge
from convoy_coordinator.contracts import proposals, store
from convoy_coordinator.contracts.proposals import Proposal
from convoy_coordinator.contracts.service import ContractService, ContractView
from convoy_coordinator.contracts.standing import micros
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.parties.service import PartyService

KIND = "event"


class Outcome(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    KNOWN = "known"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Chain:
    """The events of a contract, oldest first, with what waits for signatures."""

    uid: str
    head: str
    next_seq: int
    events: tuple[Mapping[str, Any], ...]
    proposals: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one event: its id, its outcome, who must still sign, and the chain after it."""

    id: str
    outcome: Outcome
    missing: tuple[str, ...]
    chain: Chain


class ChangeService:
    """The life of the contracts after they were offered.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        contracts: the documents.
        parties: whose keys proofs are verified with.
        clock: the present instant.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        contracts: ContractService,
        parties: PartyService,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._contracts = contracts
        self._parties = parties
        self._clock = clock

    def chain(self, uid: str) -> Chain:
        """Return the chain of a contract.

        Raises:
            Problem: CONTRACT_UNKNOWN.
        """
        with self._sessions() as session:
            if not store.versions_of(session, uid):
                raise Problem("CONTRACT_UNKNOWN", f"no contract {uid[:200]!r}")
            events = store.events_of(session, uid)
            waiting = proposals.waiting(session, KIND, uid)
        return Chain(uid, _head(uid, events), len(events) + 1, events, waiting)

    def at(self, uid: str, moment: datetime | None) -> tuple[datetime, tuple[ContractView, ...]]:
        """Return how every version of a contract stood, stands or will stand at an instant (now, if none is given).

        Raises:
            Problem: CONTRACT_UNKNOWN.
        """
        when = self._clock() if moment is None else moment.astimezone(UTC)
        return when, self._contracts.versions_at(uid, when)

    def amendment(self, uid: str, old: int, new: int) -> Amendment:
        """Classify what a version changes.

        Raises:
            Problem: CONTRACT_UNKNOWN or INPUT_INVALID.
        """
        texts = {view.contract.version: view.contract.text for view in self.at(uid, None)[1]}
        missing = [version for version in (old, new) if version not in texts]
        if missing:
            raise Problem("CONTRACT_UNKNOWN", f"{uid[:200]} has no version {missing[0]}")
        try:
            return classify(Contract.parse(texts[old]), Contract.parse(texts[new]))
        except ContractsError as error:
            raise Problem("INPUT_INVALID", error.cause, fix=error.fix) from None

    def post(
        self, uid: str, value: Mapping[str, Any], proofs: Sequence[Mapping[str, Any]], if_match: str | None
    ) -> Change:
        """Take an event; the same event again changes nothing.

        Args:
            uid: of the contract.
            value: the event as it was signed.
            proofs: party, kid and jws of one or more of those who act.
            if_match: the chain's head that the sender saw.

        Raises:
            Problem: EVENT_MALFORMED, CONTRACT_UNKNOWN, IF_MATCH_MISSING, CHAIN_MOVED, SIGNATURE_REFUSED or EVENT_REFUSED.
        """
        event = _parsed(uid, value)
        with self._journal.order():
            chain = self.chain(uid)
            if event.id in {_id(known) for known in chain.events}:
                return Change(event.id, Outcome.KNOWN, (), chain)
            try:
                self._check_head(chain, if_match)
                joined = self._check_proofs(event, proofs)
                needed = self._check_order(event, chain)
            except Problem as refusal:
                self._journal.record(_refused(event, refusal))
                raise
            missing = tuple(sorted(needed - {str(proof["party"]) for proof in joined}))
            if missing:
                proposal = Proposal(event.id, KIND, uid, dict(event.value), joined, self._clock())
                with writing(self._sessions) as session:
                    proposals.keep(session, proposal)
                return Change(event.id, Outcome.WAITING, missing, self.chain(uid))
            index = self._journal.record(_happened(event))
            # If we die here: the log knows an event without effect; the same event can be sent again.
            with writing(self._sessions) as session:
                store.insert_event(session, dict(event.value) | {"proof": [dict(proof) for proof in joined]}, index)
                proposals.clear(session, KIND, uid)
            return Change(event.id, Outcome.ACCEPTED, (), self.chain(uid))

    def _check_head(self, chain: Chain, if_match: str | None) -> None:
        if if_match is None:
            raise Problem("IF_MATCH_MISSING", f"the head of {chain.uid[:200]} is {chain.head}")
        if if_match.strip().removeprefix("W/").strip('"') != chain.head:
            raise Problem("CHAIN_MOVED", f"the head of {chain.uid[:200]} is {chain.head}")

    def _check_proofs(self, event: ContractEvent, proofs: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        faults = event_faults(event, proofs, read_keys({"keys": self._parties.key_ring()}))
        if faults or not proofs:
            causes = [f"{party or 'somebody'}: {code}" for party, code in sorted(faults.items())]
            raise Problem(
                "SIGNATURE_REFUSED",
                "; ".join(causes)[:2000] or "SIGNATURE_MISSING: the event has no proof",
                party=next(iter(sorted(faults)), event.by) or None,
                faults=[Fault("/proof", cause) for cause in causes[:50]],
                fix="Sign the event again with the enrolled key: convoy-contracts event.",
            )
        with self._sessions() as session:
            known = proposals.find(session, event.id)
        return proposals.joined(known.proofs if known else (), proofs)

    def _check_order(self, event: ContractEvent, chain: Chain) -> frozenset[str]:
        """Judge the event; return whose proofs it needs."""
        now = micros(self._clock())
        views = self._contracts.versions_at(event.uid, self._clock(), standing_at=max(now, event.at))
        versions = [Version(view.agreed.terms, view.as_lifecycle()) for view in views]
        try:
            judge(event, versions, head=chain.head, next_seq=chain.next_seq, now=now)
        except EventRefused as refusal:
            raise Problem(
                "EVENT_REFUSED", f"{refusal.reason}: {refusal.cause}", fix=refusal.fix or None, party=event.by[:200]
            ) from None
        about = [v for v in versions if event.version in (None, v.terms.version)]
        about = [v for v in about if v.standing.state in AGREED] or about
        return actors(event, {party for version in about for party in version.terms.parties})


def world_events(events: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the events that a decision's world may hold (FORMAT.md §5)."""
    return tuple(event for event in events if event["type"] in WORLD_TYPES)


def _parsed(uid: str, value: Mapping[str, Any]) -> ContractEvent:
    try:
        event = parse_event(dict(value))
    except DocumentMalformed as error:
        faults = [Fault("/event", problem) for problem in error.problems[:50]]
        raise Problem("EVENT_MALFORMED", error.cause[:2000], faults=faults) from None
    if event.uid != uid:
        raise Problem("EVENT_MALFORMED", f"the event is about {event.uid[:200]}, the address about {uid[:200]}")
    return event


def _id(value: Mapping[str, Any]) -> str:
    return parse_event({name: member for name, member in value.items() if name != "proof"}).id


def _head(uid: str, events: Sequence[Mapping[str, Any]]) -> str:
    return _id(events[-1]) if events else genesis(uid)


def _happened(event: ContractEvent) -> Author:
    if event.type in ("refuse", "withdraw-offer"):
        return lambda at: OfferClosed(
            at=at,
            uid=event.uid,
            version=event.version or 0,
            number=event.seq,
            change="refuse" if event.type == "refuse" else "withdraw",
            by=event.by,
            event=event.id,
        )
    return lambda at: ContractChanged(
        at=at,
        uid=event.uid,
        number=event.seq,
        change=event.type,  # type: ignore[arg-type]  # parse_event knows no others
        by=event.by,
        party=event.party,
        event=event.id,
    )


def _refused(event: ContractEvent, refusal: Problem) -> Author:
    code = refusal.cause.split(":")[0] if refusal.code == "EVENT_REFUSED" else refusal.code
    return lambda at: ChangeRefused(at=at, uid=event.uid, change=event.type, by=event.by, code=code)
