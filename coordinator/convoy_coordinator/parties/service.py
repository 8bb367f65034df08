"""Enrol parties and follow their keys: check every key, write to the log, then keep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from convoy_audit.events import PartyDeparted, PartyEnrolled, PartyRevoked, PartyRotated, SupernodeRotated
from convoy_contracts.instants import timestamp
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.parties import keys, store
from convoy_coordinator.parties.store import FormerKey, Party, Standing

KEY_LIFE: Final = timedelta(days=730)
REVOCATION_REASONS: Final = ("key-compromise", "contract-ended", "cessation", "administrative")
_WORLD_REASON: Final = {"key-compromise": "keyCompromise"}
"""As contract decisions spell it (FORMAT.md §4): with a compromised key, nothing it ever signed counts."""
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

    def check(self, asked: Enrolment) -> Party:
        """Judge an enrolment without enrolling.

        Raises:
            Problem: KEY_REJECTED with every faulty key, those of another party and those that were revoked among them.
        """
        party, known = _checked(asked, self._clock()), self.all()
        taken = _taken(party, [other for other in known if other.id != party.id])
        if taken:
            raise Problem("KEY_REJECTED", "a key belongs to another party", party=party.id, faults=taken)
        old = next((one for one in known if one.id == party.id), None)
        if old is not None and not old.same_details(party) and not self.standing(party.id).is_active:
            self._refuse_old_keys(party, old)
        return party

    def _refuse_old_keys(self, new: Party, old: Party) -> None:
        """Refuse a party that comes back with an identity key of before, or with a key id that is not a later one.

        Ids may leave numbers out: a request that was denied or never sent has used one up at the node.
        """
        with self._sessions() as session:
            former = [key.key for key in store.former_keys(session) if key.party == new.id]
        faults = []
        if _number(new.identity_kid) <= _number(old.identity_kid):
            faults.append(
                Fault("/identityKid", f"must be later than {old.identity_kid}: run convoy-node join --recover")
            )
        if new.identity_key in (old.identity_key, *former):
            faults.append(Fault("/identityKey", "was this party's before: run convoy-node join --recover"))
        if faults:
            raise Problem("KEY_REJECTED", "a key that was revoked cannot come back", party=new.id, faults=faults)

    def key_ring(self) -> dict[str, dict[str, Any]]:
        """Return the identity keys, former ones included, as the ``keys`` of a decision's world (FORMAT.md §2)."""
        with self._sessions() as session:
            found, former, shut = store.all_parties(session), store.former_keys(session), store.standings(session)
        ring = {key.kid: _former_json(key) for key in former}
        for party in found:
            ring[party.identity_kid] = _world_key(party, shut.get(party.id))
        return ring

    def statement_keys(self) -> dict[str, tuple[bytes, ...]]:
        """Return every key that each party has signed statements with, the present one first."""
        with self._sessions() as session:
            found, former = store.all_parties(session), store.former_keys(session)
        return {
            party.id: tuple(
                keys.read_key(text)
                for text in (party.identity_key, *(key.key for key in reversed(former) if key.party == party.id))
            )
            for party in found
        }

    def signing_keys(self, party_id: str) -> tuple[bytes, ...]:
        """Return the keys with which a party may state something now; none for a party that is not active.

        Raises:
            Problem: PARTY_UNKNOWN.
        """
        party, now = self.get(party_id), self._clock()
        if not self.standing(party_id).is_active:
            return ()
        with self._sessions() as session:
            former = [key for key in store.former_keys(session) if key.party == party_id]
        overlapping = [key.key for key in former if key.revoked_at is None and now <= key.not_after]
        return tuple(keys.read_key(text) for text in (party.identity_key, *overlapping))

    def standing(self, party_id: str) -> Standing:
        """Return how a party stands; one that nobody knows is not active either."""
        with self._sessions() as session:
            if store.find_party(session, party_id) is None:
                return Standing(party_id, "unknown")
            return store.standings(session).get(party_id, Standing(party_id))

    def active(self) -> tuple[Party, ...]:
        """Return the parties that may take part."""
        with self._sessions() as session:
            shut = store.standings(session)
            return tuple(party for party in store.all_parties(session) if party.id not in shut)

    def rotate(
        self, party_id: str, kid: str, key: bytes, overlap: timedelta, statement: str, stated_at: int
    ) -> tuple[int, datetime]:
        """Let another identity key follow; both count until the overlap is over.

        Args:
            statement: digest of the party's own statement, which is in the log and was verified.
            stated_at: index of that statement; what follows from it stands behind it.

        Returns:
            The log index, and the instant until which the old key still counts.

        Raises:
            Problem: KEY_REJECTED or PARTY_UNKNOWN.
        """
        with self._journal.order():
            party, now = self.get(party_id), self._clock().replace(microsecond=0)
            if party.identity_kid == kid and keys.read_key(party.identity_key) == key:
                return party.log_index, now + overlap
            text = keys.judge(keys.write_key(key), keys.check_identity_key)
            until = min(party.key_not_after, now + overlap)
            said = self._journal.find(
                stated_at, lambda event: isinstance(event, PartyRotated) and event.statement == statement
            )
            if said is not None and isinstance(said[1], PartyRotated):
                index, until = said[0], said[1].old_until  # a call that died before the database followed
            else:
                index = self._journal.record(
                    lambda at: PartyRotated(
                        at=at,
                        party=party_id,
                        old_key_id=party.identity_kid,
                        new_key_id=kid,
                        identity_key=key,
                        old_until=until,
                        statement=statement,
                    )
                )
            # If we die here: the log follows the new key; the node asks again, and the entry is found above.
            old = FormerKey(party.identity_kid, party_id, party.identity_key, party.key_not_before, until, None, None)
            begin = now - DRIFT
            with writing(self._sessions) as session:
                store.insert_former_key(session, old)
                store.update_party(
                    session,
                    replace(
                        party,
                        identity_kid=kid,
                        identity_key=text,
                        key_not_before=begin,
                        key_not_after=begin + KEY_LIFE,
                        log_index=index,
                    ),
                )
        return index, until

    def follow_supernode(self, party_id: str, key: str) -> int:
        """Let a party's SuperNode have another key from now on; again changes nothing.

        Args:
            key: PEM; the party's own request was verified.

        Returns:
            The log index of the change, or that of the party where it is nothing new.

        Raises:
            Problem: KEY_REJECTED or PARTY_UNKNOWN.
        """
        with self._journal.order():
            party = self.get(party_id)
            if party.supernode_key == key:
                return party.log_index
            if any(other.supernode_key == key for other in self.all()):
                fault = Fault("/supernodeKey", "is enrolled for another party")
                raise Problem("KEY_REJECTED", "a key belongs to another party", party=party_id, faults=[fault])
            digest = f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
            index = self._journal.record(lambda at: SupernodeRotated(at=at, party=party_id, key=digest))
            # If we die here: the log tells of a key that nobody lets in yet; the node asks again.
            with writing(self._sessions) as session:
                store.update_party(session, replace(party, supernode_key=key, log_index=index))
        return index

    def recover(self, asked: Enrolment) -> Party:
        """Give a party that was shut out new keys and let it in again; its old identity key stays revoked.

        Raises:
            Problem: KEY_REJECTED, or PARTY_KNOWN where the party is active: a key is then rotated, not replaced.
        """
        new = self.check(asked)
        with self._journal.order():
            old, standing = self.get(asked.id), self.standing(asked.id)
            if old.same_details(new) and standing.is_active:
                return old
            if standing.is_active:
                raise Problem("PARTY_KNOWN", f"{new.id} is enrolled with other details", party=new.id)
            ended, key = standing.since or self._clock(), keys.read_key(new.identity_key)
            said = self._journal.find(
                standing.log_index or 0,
                lambda event: isinstance(event, PartyRotated) and (event.party, event.identity_key) == (new.id, key),
            )
            if said is not None:
                index = said[0]  # an approval that died before the database followed
            else:
                index = self._journal.record(
                    lambda at: PartyRotated(
                        at=at,
                        party=new.id,
                        old_key_id=old.identity_kid,
                        new_key_id=new.identity_kid,
                        identity_key=key,
                        old_until=ended,
                    )
                )
            # If we die here: the log knows the new key, nobody else does; the approval is repeated and finds the entry.
            former = FormerKey(
                old.identity_kid, old.id, old.identity_key, old.key_not_before, old.key_not_after, ended,
                standing.reason or "revoked",
            )  # fmt: skip
            with writing(self._sessions) as session:
                store.insert_former_key(session, former)
                store.update_party(session, replace(new, enrolled_at=old.enrolled_at, log_index=index))
                store.put_standing(session, Standing(new.id))
        return self.get(new.id)

    def revoke(self, party_id: str, reason: str, certificates: int) -> Standing:
        """Shut a party out from now on; again changes nothing.

        Raises:
            Problem: PARTY_UNKNOWN, LOG_REFUSED for a reason that is not one of ``REVOCATION_REASONS``.
        """
        return self._end(
            party_id,
            "revoked",
            reason,
            lambda at: PartyRevoked(at=at, party=party_id, reason=reason, certificates=certificates),  # type: ignore[arg-type]
        )

    def depart(self, party_id: str, statement: str) -> Standing:
        """Let a party go whose final statement, by digest, is in the log; again changes nothing.

        Raises:
            Problem: PARTY_UNKNOWN.
        """
        return self._end(
            party_id, "left", "leaving", lambda at: PartyDeparted(at=at, party=party_id, statement=statement)
        )

    def _end(self, party_id: str, state: str, reason: str, author: Author) -> Standing:
        with self._journal.order():
            self.get(party_id)
            known = self.standing(party_id)
            if not known.is_active:
                return known
            index = self._journal.record(author)
            # If we die here: the log says so, the party still gets in; the same command again ends it.
            standing = Standing(party_id, state, reason, self._clock(), index)
            with writing(self._sessions) as session:
                store.put_standing(session, standing)
        return standing


def witness_keys(sessions: SessionFactory) -> dict[str, list[str]]:
    """Return the verifier keys of the witnesses of every party that is active, for the log."""
    with sessions() as session:
        shut = store.standings(session)
        return {
            party.id: party.witness_key.splitlines() for party in store.all_parties(session) if party.id not in shut
        }


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


def _number(kid: str) -> int:
    """Return the number at the end of a key id; 0 where there is none."""
    end = kid.rpartition("#")[2]
    return int(end) if end.isascii() and end.isdigit() and len(end) < 10 else 0


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


def _world_key(party: Party, standing: Standing | None) -> dict[str, Any]:
    world = {
        "party": party.id,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": party.identity_key,
        "notBefore": timestamp(party.key_not_before),
        "notAfter": timestamp(party.key_not_after),
    }
    if standing is not None and standing.state == "revoked" and standing.since is not None:
        world |= {
            "revokedAt": timestamp(standing.since),
            "revokedReason": _WORLD_REASON.get(standing.reason, standing.reason),
        }
    return world


def _former_json(former: FormerKey) -> dict[str, Any]:
    world = {
        "party": former.party,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": former.key,
        "notBefore": timestamp(former.not_before),
        "notAfter": timestamp(former.not_after),
    }
    if former.revoked_at is not None:
        world |= {
            "revokedAt": timestamp(former.revoked_at),
            "revokedReason": _WORLD_REASON.get(former.revoked_reason or "", "superseded"),
        }
    return world
