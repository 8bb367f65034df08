"""Invite organisations, take their requests, and decide on them.

The life of a request, and what is true if the process dies after each step: 1. ``invite``: the log tells of a ticket,
nobody can use it unless the row follows. 2. ``request``: the log tells of a request; the node sends it again. 3.
``approve``: decision, enrolment and certificate are three entries, each written before its effect; the same approval
again goes on where it stopped and enrols nobody twice. No private key is ever sent: a node sends public keys, signed
with its identity key, and a certificate request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from convoy_audit.errors import AuditError
from convoy_audit.events import EnrolmentDecided, EnrolmentRequested, InvitationIssued
from convoy_audit.keys import verify_ed25519
from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.instants import timestamp
from convoy_contracts.wire.proof import card_fingerprint, enrolment_proof
from convoy_contracts.wire.ticket import Ticket, keys_digest, secret_digest
from convoy_coordinator.body import strict_json
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.enrolment import store
from convoy_coordinator.enrolment.access import AccessService
from convoy_coordinator.enrolment.authorities import Authorities
from convoy_coordinator.enrolment.ca import check_csr
from convoy_coordinator.enrolment.store import Invitation, Request
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Clock, Journal
from convoy_coordinator.parties.keys import read_key
from convoy_coordinator.parties.routes import NewParty
from convoy_coordinator.parties.service import PartyService

ROLES: Final = ("oem", "insurer", "charging", "trustee", "auditor")
TICKET_LIFE: Final = timedelta(hours=48)
MAX_LIFE: Final = timedelta(days=14)
MAX_CARD_BYTES: Final = 32_768
_PARTY: Final = re.compile(r"did:web:[a-z0-9]([a-z0-9.:-]{0,190}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request stands; ``certificate`` (PEM) is there once it is approved."""

    state: str
    fingerprint: str
    certificate: str | None


class EnrolmentService:
    """The way in.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        parties: who is enrolled.
        access: certificates.
        authorities: returns the CA, which is made at the first call, and the one that was announced.
        enrolment_at: host:port where nodes ask, None while the channel is not configured.
        origin: of the log.
        log_keys: the log's verifier keys.
        clock: the present instant.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        parties: PartyService,
        access: AccessService,
        authorities: Callable[[], Authorities],
        enrolment_at: str | None,
        origin: str,
        log_keys: tuple[str, ...],
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._parties = parties
        self._access = access
        self._authorities = authorities
        self._at = enrolment_at
        self._origin = origin
        self._log_keys = log_keys
        self._clock = clock

    def invite(
        self, name: str, role: str, party: str | None = None, life: timedelta = TICKET_LIFE
    ) -> tuple[Ticket, Invitation]:
        """Make a ticket; its secret is in the returned value and nowhere else.

        Args:
            party: id of the party; made of the name and the log's domain if not given.
            life: how long the ticket is good.

        Raises:
            Problem: INVITATION_REFUSED with every fault, CHANNEL_OFF.
        """
        if self._at is None:
            raise Problem("CHANNEL_OFF", "there is no listener that a ticket could name")
        party = party or self._party_of(name)
        faults = []
        if role not in ROLES:
            faults.append(Fault("/role", f"must be one of {', '.join(ROLES)}"))
        if not 0 < len(name.strip()) <= 200:
            faults.append(Fault("/name", "must have 1 to 200 characters"))
        if _PARTY.fullmatch(party) is None:
            faults.append(Fault("/party", "must be did:web:… in lower case; give it with --party"))
        elif self._parties.standing(party).is_active:
            faults.append(Fault("/party", f"{party} is enrolled and active; revoke it first, or take another id"))
        if not timedelta(0) < life <= MAX_LIFE:
            faults.append(Fault("/hours", f"must be more than 0 and at most {MAX_LIFE.days * 24}"))
        if faults:
            raise Problem("INVITATION_REFUSED", "; ".join(f.cause for f in faults), party=party[:200], faults=faults)
        secret, now = secrets.token_urlsafe(32), self._clock().replace(microsecond=0)
        invitation = Invitation(
            f"t-{secrets.token_hex(8)}", secret_digest(secret), party, name.strip(), role, now, now + life
        )
        authority = self._authorities().serving
        with self._journal.order():
            self._journal.record(
                lambda at: InvitationIssued(at=at, ticket=invitation.id, party=party, role=role, until=invitation.until)
            )
            with writing(self._sessions) as session:
                store.put_invitation(session, invitation)
        ticket = Ticket(
            id=invitation.id,
            secret=secret,
            at=self._at,
            ca=authority.der,
            party=party,
            name=invitation.name,
            role=role,
            origin=self._origin,
            keys=keys_digest(self._log_keys),
            until=timestamp(invitation.until),
        )
        return ticket, invitation

    def withdraw(self, ticket: str) -> Invitation:
        """Make a ticket worthless; one that was used stays used.

        Raises:
            Problem: TICKET_UNKNOWN.
        """
        with writing(self._sessions) as session:
            invitation = store.find_invitation(session, ticket)
            if invitation is None:
                raise Problem("TICKET_UNKNOWN", f"no ticket {ticket[:40]!r}")
            invitation = replace(invitation, withdrawn_at=invitation.withdrawn_at or self._clock())
            store.put_invitation(session, invitation)
        return invitation

    def invitations(self) -> tuple[Invitation, ...]:
        """Return every invitation, newest first."""
        with self._sessions() as session:
            return store.invitations(session)

    def requests(self, state: str | None = None) -> tuple[Request, ...]:
        """Return the requests of a state, or all, newest first."""
        with self._sessions() as session:
            return tuple(found for found in store.requests(session) if state in (None, found.state))

    def request(self, ticket: str, secret: str, card: bytes, csr: bytes, proof: bytes) -> Answer:
        """Take a node's request, or tell how the same one stands.

        Raises:
            Problem: TICKET_UNKNOWN, TICKET_EXPIRED, TICKET_USED, ROLE_NOT_INVITED, PROOF_REFUSED, CSR_REFUSED,
                KEY_REJECTED, REQUEST_DENIED or PARTY_REVOKED.
        """
        with self._sessions() as session:
            invitation = store.find_invitation(session, ticket)
        if invitation is None or not hmac.compare_digest(invitation.secret_digest, secret_digest(secret)):
            raise Problem("TICKET_UNKNOWN", "no such ticket", party=None if invitation is None else invitation.party)
        if len(card) > MAX_CARD_BYTES:
            raise Problem("MESSAGE_TOO_LARGE", f"a card of {len(card)} bytes", party=invitation.party)
        new = _card(card)
        if (new.id, new.role) != (invitation.party, invitation.role):
            raise Problem(
                "ROLE_NOT_INVITED",
                f"the ticket is for {invitation.party} as {invitation.role}; the node says {new.id} as {new.role}",
                party=invitation.party,
            )
        try:
            verify_ed25519(read_key(new.identityKey), enrolment_proof(ticket, card, csr), proof)
        except (AuditError, ValueError):
            raise Problem("PROOF_REFUSED", "the request is not signed by its identity key", party=new.id) from None
        check_csr(csr)
        with self._journal.order():
            with self._sessions() as session:
                known = store.find_request(session, ticket)
            if known is not None:
                return self._standing(known, card, csr)
            now = self._clock()
            if invitation.withdrawn_at is not None or now >= invitation.until:
                raise Problem(
                    "TICKET_EXPIRED", f"the ticket was good until {invitation.until:%Y-%m-%dT%H:%MZ}", party=new.id
                )
            self._parties.check(new.enrolment())
            made = Request(ticket, card_fingerprint(_json(card)), new.id, card.decode(), csr, "pending", now)
            self._journal.record(lambda at: EnrolmentRequested(at=at, ticket=ticket, party=new.id, card=_digest(card)))
            # If we die here: the log knows a request that waits for nobody; the node sends it again.
            with writing(self._sessions) as session:
                store.put_request(session, made)
        return Answer(made.state, made.fingerprint, None)

    def approve(self, fingerprint: str) -> Request:
        """Enrol the party whose node has this fingerprint; approving again changes nothing.

        Raises:
            Problem: REQUEST_UNKNOWN, REQUEST_DENIED, or what the enrolment refuses.
        """
        with self._journal.order():
            found = self._find(fingerprint)
            if found.state == "denied":
                raise Problem("REQUEST_DENIED", "the request was denied before", party=found.party)
            if found.state == "approved":
                return found
            self._decided(found, "allow")
            asked = _card(found.card.encode()).enrolment()
            # If we die in here: the decision is in the log; approving again enrols or finds the party as it is.
            if self._parties.standing(found.party).state in ("revoked", "left"):
                self._access.renewed(found.party, self._parties.check(asked).witness_key)
                self._parties.recover(asked)
            else:
                self._parties.enrol(asked)
            certificate = self._access.issue(found.party, found.csr)
            done = replace(found, state="approved", decided_at=self._clock(), certificate=certificate.pem.decode())
            with writing(self._sessions) as session:
                store.put_request(session, done)
        self._access.changed(found.party)
        return done

    def deny(self, fingerprint: str) -> Request:
        """Refuse a request for good; its ticket is used up.

        Raises:
            Problem: REQUEST_UNKNOWN; PARTY_KNOWN where it was approved: revoke the party then.
        """
        with self._journal.order():
            found = self._find(fingerprint)
            if found.state == "approved":
                raise Problem(
                    "PARTY_KNOWN",
                    "the request was approved before",
                    party=found.party,
                    fix=f"convoy-coordinator revoke {found.party}",
                )
            if found.state == "denied":
                return found
            self._decided(found, "deny")
            done = replace(found, state="denied", decided_at=self._clock())
            with writing(self._sessions) as session:
                store.put_request(session, done)
        return done

    def _standing(self, known: Request, card: bytes, csr: bytes) -> Answer:
        if known.card.encode() != card or known.csr != csr:
            raise Problem("TICKET_USED", "the ticket was used by a node with other keys", party=known.party)
        if known.state == "denied":
            raise Problem("REQUEST_DENIED", "the administrator denied the request", party=known.party)
        if known.state == "approved" and not self._parties.standing(known.party).is_active:
            raise Problem("PARTY_REVOKED", f"{known.party} takes no part any more", party=known.party)
        return Answer(known.state, known.fingerprint, known.certificate)

    def _decided(self, found: Request, outcome: Any) -> None:
        self._journal.record(
            lambda at: EnrolmentDecided(
                at=at,
                ticket=found.invitation,
                party=found.party,
                card=_digest(found.card.encode()),
                outcome=outcome,
            )
        )

    def _find(self, fingerprint: str) -> Request:
        wanted = "".join(fingerprint.lower().split())
        matching = [found for found in self.requests() if found.fingerprint.replace(" ", "") == wanted]
        if not matching or len(wanted) != 32:
            raise Problem("REQUEST_UNKNOWN", f"no request has the fingerprint {fingerprint[:60]!r}")
        return matching[0]

    def _party_of(self, name: str) -> str:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return f"did:web:{slug}.{self._origin.split('/')[0].lower()}" if slug else ""


def _card(card: bytes) -> NewParty:
    value = _json(card)
    try:
        return NewParty.model_validate(value)
    except ValueError as error:
        faults = [Fault("/" + "/".join(map(str, e["loc"])), str(e["msg"])) for e in getattr(error, "errors", list)()]
        raise Problem("INPUT_INVALID", "the card has members that do not fit", faults=faults) from None


def _json(card: bytes) -> Mapping[str, Any]:
    value = strict_json(card)
    if not isinstance(value, dict) or canonical_bytes(value) != card:
        raise Problem("INPUT_INVALID", "the card is not canonical JSON")
    return value


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
