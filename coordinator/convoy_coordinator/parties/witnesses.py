"""The keys of the parties' witnesses: follow a change that both pairs have signed, and know the former ones.

From the entry ``coordinator:witness:followed`` on the log's quorum counts the new pair. What a former pair signs is still taken
and kept, because contracts in force pin it: nodes judge a run by the keys of its contract. After a compromise, and when a party
comes back after a revocation, former pairs are taken no more.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import BigInteger, Boolean, String, Text, select, update
from sqlalchemy.orm import Mapped, mapped_column

from convoy_audit.errors import AuditError
from convoy_audit.events import Event, WitnessFollowed, WitnessRotated
from convoy_audit.witness_change import check_change
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Problem
from convoy_coordinator.journal import Journal
from convoy_coordinator.parties import keys, store
from convoy_coordinator.parties.service import PartyService


class FormerWitnessRow(Base):
    """Keys of a witness that others have followed; kept, because what they cosigned stays cosigned."""

    __tablename__ = "former_witness"

    party: Mapped[str] = mapped_column(String(200), primary_key=True)
    log_index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    keys: Mapped[str] = mapped_column(Text)
    is_taken: Mapped[bool] = mapped_column(Boolean)


class WitnessKeys:
    """Which keys the parties' witnesses have.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        parties: who is enrolled.
    """

    def __init__(self, sessions: SessionFactory, journal: Journal, parties: PartyService) -> None:
        self._sessions = sessions
        self._journal = journal
        self._parties = parties

    def check(self, change: WitnessRotated) -> None:
        """Judge a change before it is logged.

        Raises:
            Problem: ROTATION_REFUSED.
        """
        party = self._parties.get(change.party)
        known = tuple(party.witness_key.splitlines())
        if known not in (change.old_keys, change.new_keys):
            raise Problem("ROTATION_REFUSED", "the old keys are not those of this party's witness", party=party.id)
        try:
            keys.check_witness_key("\n".join(change.new_keys))
            check_change(change)
        except (AuditError, keys.KeyFault) as error:
            cause = error.cause if isinstance(error, AuditError) else f"the new key {error}"
            raise Problem("ROTATION_REFUSED", cause[:200], party=party.id) from None

    def follow(self, change: WitnessRotated, statement: str, stated_at: int) -> int:
        """Count the new keys from now on; again changes nothing.

        Args:
            change: the party's own, which was checked.
            statement: its digest; it is in the log.
            stated_at: index of that statement; what follows from it stands behind it.

        Returns:
            The index from which on the log counts them.
        """

        def is_it(event: Event) -> bool:
            return isinstance(event, WitnessFollowed) and event.statement == statement

        with self._journal.order():
            party, new = self._parties.get(change.party), "\n".join(change.new_keys)
            said = self._journal.find(stated_at, is_it)
            if said is not None and party.witness_key == new:
                return said[0]
            index = (
                said[0]  # a call that died before the database followed
                if said is not None
                else self._journal.record(
                    lambda at: WitnessFollowed(at=at, party=party.id, witness_keys=change.new_keys, statement=statement)
                )
            )
            # If we die here: the log tells of keys that it does not count yet; the node asks again, and the entry is found.
            former = FormerWitnessRow(
                party=party.id, log_index=index, keys=party.witness_key, is_taken=change.reason == "planned"
            )
            with writing(self._sessions) as session:
                session.add(former)
                store.update_party(session, replace(party, witness_key=new, log_index=index))
        return index

    def renewed(self, party_id: str, witness_key: str) -> None:
        """Say that a party comes back after a revocation with these keys; no former ones are taken any more."""
        now, since = tuple(witness_key.splitlines()), self._parties.standing(party_id).log_index or 0
        if self._journal.find(
            since, lambda e: isinstance(e, WitnessFollowed) and (e.party, e.witness_keys) == (party_id, now)
        ):
            return  # an approval that died before the database followed
        self._journal.record(lambda at: WitnessFollowed(at=at, party=party_id, witness_keys=now))
        with writing(self._sessions) as session:
            session.execute(update(FormerWitnessRow).where(FormerWitnessRow.party == party_id).values(is_taken=False))


def former_witness_keys(sessions: SessionFactory) -> dict[str, list[str]]:
    """Return the former keys of active parties' witnesses whose cosignatures are still taken, by a name for each pair."""
    with sessions() as session:
        shut = store.standings(session)
        rows = session.scalars(
            select(FormerWitnessRow)
            .where(FormerWitnessRow.is_taken)
            .order_by(FormerWitnessRow.party, FormerWitnessRow.log_index)
        )
        return {f"former/{r.party}/{r.log_index}": r.keys.splitlines() for r in rows if r.party not in shut}
