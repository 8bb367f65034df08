"""Offer contracts, take signatures, and say how each contract stands.

A document is kept exactly as it was received. A signature is verified against the enrolled key
before it is kept; a contract's state is never stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from convoy_audit.events import (
    ContractActivated,
    ContractOffered,
    ContractSigned,
    SignatureRefused,
)
from convoy_contracts import lifecycle
from convoy_contracts.errors import EventRefused
from convoy_contracts.lifecycle import may_sign
from convoy_coordinator.contracts import reading, store
from convoy_coordinator.contracts.standing import Agreed, Standing, micros, standing
from convoy_coordinator.contracts.store import StoredContract
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.log.levels import Level
from convoy_coordinator.parties.service import PartyService


@dataclass(frozen=True, slots=True)
class ContractView:
    """A contract with everything that is known about it at one instant."""

    contract: StoredContract
    agreed: Agreed
    signatures: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]
    standing: Standing
    rests_on: int
    """Index of the last entry that the standing rests on."""
    level: Level
    """How far that entry has come; no run is authorised under the contract before it is witnessed."""

    def as_lifecycle(self) -> lifecycle.Standing:
        """Return the standing as the life cycle's table has it."""
        stopped = {*self.standing.suspended, *(("*",) if self.standing.is_suspended_as_a_whole else ())}
        return lifecycle.Standing(self.standing.state, self.standing.signed, self.standing.unsigned, frozenset(stopped))


class ContractService:
    """The contracts of the federation.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        parties: whose keys signatures are verified with.
        clock: the present instant.
    """

    def __init__(self, sessions: SessionFactory, journal: Journal, parties: PartyService, clock: Clock) -> None:
        self._sessions = sessions
        self._journal = journal
        self._parties = parties
        self._clock = clock

    def offer(self, text: str, proof: Mapping[str, str] | None = None) -> ContractView:
        """Take a contract document; offering the same one again returns what is there.

        Args:
            text: the document, kept exactly as it came.
            proof: the author's signature over the offer; None if the operator vouches for it.

        Raises:
            Problem: DOCUMENT_MALFORMED with every fault; CONTRACT_VERSION_TAKEN if another
                document has its uid and
                version; SIGNATURE_REFUSED if the proof does not hold.
        """
        document = reading.read(text)
        if proof is not None:
            try:
                reading.check_offer(text, proof, self._parties.key_ring())
            except Problem as refusal:
                self._journal.record(
                    _refused(document.digest, document.agreed.terms.author, refusal.cause.split(":")[0])
                )
                raise
        with self._journal.order():
            with self._sessions() as session:
                same = store.find_contract(session, document.digest)
                rival = store.find_version(session, document.agreed.uid, document.agreed.version)
            if same is None and rival is not None:
                raise Problem(
                    "CONTRACT_VERSION_TAKEN",
                    f"version {rival.version} of {rival.uid} is {rival.digest}, offered was {document.digest}",
                )
            if same is None:
                index = self._journal.record(
                    lambda at: ContractOffered(
                        at=at,
                        contract=document.digest,
                        uid=document.agreed.uid,
                        version=document.agreed.version,
                        parties=document.agreed.parties,
                    )
                )
                # If we die here: the log knows an offer that nobody can sign; it can be made again.
                with writing(self._sessions) as session:
                    store.insert_contract(
                        session,
                        StoredContract(
                            digest=document.digest,
                            uid=document.agreed.uid,
                            version=document.agreed.version,
                            text=text,
                            offered_at=self._clock(),
                            log_index=index,
                        ),
                    )
        return self.view(document.digest)

    def sign(self, digest: str, entry: Mapping[str, str]) -> ContractView:
        """Take a party's signature; the same signature again changes nothing.

        Args:
            digest: of the contract.
            entry: an element of ``signatures`` (FORMAT.md §2): party, role, act, kid, sigT, jws.

        Raises:
            Problem: CONTRACT_UNKNOWN, SIGNER_NOT_A_PARTY, PARTY_UNKNOWN, EVENT_REFUSED (the offer is closed) or
                SIGNATURE_REFUSED.
        """
        with self._journal.order():
            view = self.view(digest)
            party = entry["party"]
            if party not in view.agreed.parties:
                raise Problem(
                    "SIGNER_NOT_A_PARTY",
                    f"{party[:200]} is not in {view.agreed.uid}",
                    party=party[:200],
                )
            if entry in view.signatures:
                return view
            self._parties.get(party)
            try:
                may_sign(view.agreed.terms, view.as_lifecycle(), party)
            except EventRefused as refusal:
                self._journal.record(_refused(digest, party, refusal.reason))
                cause = f"{refusal.reason}: {refusal.cause}"
                raise Problem("EVENT_REFUSED", cause, fix=refusal.fix, party=party) from None
            try:
                reading.check_signature(view.contract.text, entry, self._parties.key_ring())
            except Problem as refusal:
                self._journal.record(_refused(digest, party, refusal.cause.split(":")[0]))
                raise
            index = self._journal.record(_signed(digest, entry))
            # If we die here: the log knows a signature that counts for nothing yet; it can be
            # sent again.
            with writing(self._sessions) as session:
                store.insert_signature(session, digest, entry, self._clock(), index)
            after = self.view(digest)
            if view.standing.unsigned and not after.standing.unsigned:
                # If we die here: every signature stands in the log, only the summary of them is
                # missing.
                self._journal.record(_activated(after))
        return after

    def view(self, digest: str) -> ContractView:
        """Return a contract as it stands now.

        Raises:
            Problem: CONTRACT_UNKNOWN.
        """
        with self._sessions() as session:
            found = store.find_contract(session, digest)
            if found is None:
                raise Problem("CONTRACT_UNKNOWN", f"no contract {digest[:100]!r}")
            return self._view(session, found)

    def all(self) -> tuple[ContractView, ...]:
        """Return every contract as it stands now, in the order of the offers."""
        with self._sessions() as session:
            return tuple(self._view(session, contract) for contract in store.all_contracts(session))

    def versions_at(self, uid: str, moment: datetime, *, standing_at: int | None = None) -> tuple[ContractView, ...]:
        """Return every version of a contract as it stood at an instant: with the signatures and events known then.

        Args:
            uid: of the contract.
            moment: signatures that came later do not count.
            standing_at: judge the clock at this later instant instead (microseconds).

        Raises:
            Problem: CONTRACT_UNKNOWN.
        """
        views = []
        with self._sessions() as session:
            found = store.versions_of(session, uid)
            events = store.events_of(session, uid)
            for contract in found:
                signers = store.signers_at(session, contract.digest, moment)
                agreed = reading.read_stored(contract.text)
                known = lifecycle.state(
                    agreed.terms,
                    [lifecycle.Signed(party, 0) for party in signers],
                    events,
                    micros(moment) if standing_at is None else standing_at,
                    offered_at=micros(contract.offered_at),
                )
                stands = Standing(
                    known.state,
                    known.signed,
                    known.unsigned,
                    tuple(sorted(known.suspended - {"*"})),
                    "*" in known.suspended,
                )
                signatures = store.signatures_of(session, contract.digest)
                views.append(self._standing_so(session, contract, agreed, signatures, events, stands))
        if not views:
            raise Problem("CONTRACT_UNKNOWN", f"no contract {uid[:200]!r}")
        return tuple(views)

    def _view(self, session: Session, contract: StoredContract) -> ContractView:
        agreed = reading.read_stored(contract.text)
        signatures, events = store.signatures_of(session, contract.digest), store.events_of(session, contract.uid)
        signers = (entry["party"] for entry in signatures)
        stands = standing(agreed, signers, events, self._clock())
        return self._standing_so(session, contract, agreed, signatures, events, stands)

    def _standing_so(
        self,
        session: Session,
        contract: StoredContract,
        agreed: Agreed,
        signatures: tuple[Mapping[str, Any], ...],
        events: tuple[Mapping[str, Any], ...],
        stands: Standing,
    ) -> ContractView:
        rests_on = store.last_entry(session, contract)
        return ContractView(contract, agreed, signatures, events, stands, rests_on, self._journal.level(rests_on))


def _signed(digest: str, entry: Mapping[str, str]) -> Author:
    signature = f"sha256:{hashlib.sha256(entry['jws'].encode()).hexdigest()}"
    return lambda at: ContractSigned(
        at=at, contract=digest, party=entry["party"], key_id=entry["kid"], signature=signature
    )


def _refused(digest: str, party: str, code: str) -> Author:
    return lambda at: SignatureRefused(at=at, contract=digest, party=party, code=code)


def _activated(view: ContractView) -> Author:
    return lambda at: ContractActivated(
        at=at, contract=view.contract.digest, uid=view.contract.uid, version=view.contract.version
    )
