"""Enrol parties: check every key, write to the log, then keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from convoy_audit.events import PartyEnrolled
from convoy_contracts.instants import timestamp
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.parties import keys, store
from convoy_coordinator.parties.store import Party

KEY_LIFE: Final = timedelta(days=730)
DRIFT: Final = timedelta(seconds=300)
"""A party may have signed just before it was enrolled, by a clock that is off by the allowed
drift.
"""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a party says about itself; keys are public halves as text."""

    id: str
    name: str
    role: str
    region: str
    identity_key: str
    mask_key: str
    witness_key: str
    supernode_key: str | None
    identity_kid: str | None = None
    key_not_before: datetime | None = None
    key_not_after: datetime | None = None


class PartyService:
    """Who is enrolled.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        clock: the present instant.
    """

    def __init__(self, sessions: SessionFactory, journal: Journal, clock: Clock) -> None:
        self._sessions = sessions
        self._journal = journal
        self._clock = clock

    def enrol(self, asked: Enrolment) -> Party:
        """Enrol a party; asking again with the same details returns what is there.

        Raises:
            Problem: KEY_REJECTED with every faulty key; PARTY_KNOWN if the id or a key is taken.
        """
        party = _checked(asked, self._clock())
        with self._journal.order():
            with self._sessions() as session:
                known = store.find_party(session, party.id)
                others = [p for p in store.all_parties(session) if p.id != party.id]
            if known is not None:
                if known.same_details(party):
                    return known
                raise Problem("PARTY_KNOWN", f"{party.id} is enrolled with other details", party=party.id)
            taken = _taken(party, others)
            if taken:
                raise Problem("KEY_REJECTED", "a key belongs to another party", party=party.id, faults=taken)
            party = replace(party, log_index=self._journal.record(_enrolled(party)))
            # If we die here: the log knows the keys, the database does not; the same enrolment
            # can be sent again.
            with writing(self._sessions) as session:
                store.insert_party(session, party)
        return party

    def get(self, party_id: str) -> Party:
        """Return a party.

        Raises:
            Problem: PARTY_UNKNOWN.
        """
        with self._sessions() as session:
            party = store.find_party(session, party_id)
        if party is None:
            raise Problem("PARTY_UNKNOWN", f"{party_id[:200]!r} is not enrolled", party=party_id[:200])
        return party

    def all(self) -> tuple[Party, ...]:
        """Return every party in the order of enrolment."""
        with self._sessions() as session:
            return store.all_parties(session)

    def key_ring(self) -> dict[str, dict[str, Any]]:
        """Return the identity keys as the ``keys`` of a decision's world (FORMAT.md §2)."""
        return {party.identity_kid: _world_key(party) for party in self.all()}


def witness_keys(sessions: SessionFactory) -> dict[str, list[str]]:
    """Return the verifier keys of every party's witness, for the log."""
    with sessions() as session:
        return {party.id: party.witness_key.splitlines() for party in store.all_parties(session)}


def _checked(asked: Enrolment, now: datetime) -> Party:
    faults: list[Fault] = []

    def judged(pointer: str, text: str, read: Callable[[str], str]) -> str:
        try:
            return read(text)
        except keys.KeyFault as fault:
            faults.append(Fault(pointer, str(fault)))
            return ""

    identity = judged("/identityKey", asked.identity_key, lambda text: keys.judge(text, keys.check_identity_key))
    mask = judged("/maskKey", asked.mask_key, lambda text: keys.judge(text, keys.check_mask_key))
    witness = judged("/witnessKey", asked.witness_key, keys.check_witness_key)
    supernode = None
    if asked.supernode_key is not None:
        supernode = judged("/supernodeKey", asked.supernode_key, keys.check_supernode_key)
    kid = asked.identity_kid or f"{asked.id}#1"
    if not kid.startswith(f"{asked.id}#"):
        faults.append(Fault("/identityKid", f"must begin with {asked.id}#"))
    begin = asked.key_not_before or now.replace(microsecond=0) - DRIFT
    end = asked.key_not_after or begin + KEY_LIFE
    if end <= begin:
        faults.append(Fault("/keyNotAfter", "must be later than keyNotBefore"))
    if faults:
        raise Problem(
            "KEY_REJECTED",
            f"{len(faults)} key member(s) are refused",
            party=asked.id,
            faults=faults,
        )
    return Party(
        id=asked.id,
        name=asked.name,
        role=asked.role,
        region=asked.region,
        identity_kid=kid,
        identity_key=identity,
        key_not_before=begin,
        key_not_after=end,
        mask_key=mask,
        witness_key=witness,
        supernode_key=supernode,
        enrolled_at=now,
        log_index=0,
    )


def _enrolled(party: Party) -> Author:
    return lambda at: PartyEnrolled(
        at=at,
        party=party.id,
        role=party.role,
        region=party.region,
        identity_key=keys.read_key(party.identity_key),
        identity_key_id=party.identity_kid,
        mask_key=keys.read_key(party.mask_key),
        witness_keys=tuple(party.witness_key.splitlines()),
    )


def _taken(party: Party, others: list[Party]) -> list[Fault]:
    pairs = (
        ("/identityKey", "identity_key"),
        ("/identityKid", "identity_kid"),
        ("/maskKey", "mask_key"),
        ("/witnessKey", "witness_key"),
    )
    return [
        Fault(pointer, f"is enrolled for {other.id}")
        for pointer, name in pairs
        for other in others
        if getattr(other, name) == getattr(party, name)
    ]


def _world_key(party: Party) -> dict[str, Any]:
    return {
        "party": party.id,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": party.identity_key,
        "notBefore": timestamp(party.key_not_before),
        "notAfter": timestamp(party.key_not_after),
    }
