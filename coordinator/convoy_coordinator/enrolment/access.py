"""Certificates and who they let in: issue, recognise, renew, revoke, let go.

``caller`` is asked at every call of the channel and once a second on every open stream, so a revocation takes effect
everywhere within a second, whoever made it. ``watch`` tells open streams and the federation's runtime at once.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from convoy_audit.errors import AuditError
from convoy_audit.events import CertificateIssued, DutiesEnded, KeyRotated, WitnessRotated
from convoy_audit.keys import verify_ed25519
from convoy_contracts.wire.proof import rotation_proof, supernode_proof
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.enrolment import store
from convoy_coordinator.enrolment.authorities import Authorities
from convoy_coordinator.enrolment.ca import Issued
from convoy_coordinator.enrolment.store import Certificate
from convoy_coordinator.errors import Problem
from convoy_coordinator.intake import Intake
from convoy_coordinator.journal import Clock, Journal
from convoy_coordinator.parties import keys
from convoy_coordinator.parties.service import REVOCATION_REASONS, PartyService
from convoy_coordinator.parties.store import Party, Standing
from convoy_coordinator.parties.witnesses import WitnessKeys

OVERLAP: Final = timedelta(days=7)
"""How long a former identity key still counts for statements and signatures after a rotation."""
Watcher = Callable[[str], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a call."""

    party: Party
    certificate: Certificate


class AccessService:
    """The list of certificates.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        parties: who is enrolled, and how they stand.
        witnesses: which keys their witnesses have.
        intake: takes statements.
        authorities: returns the CA, and the one that was announced.
        clock: the present instant.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        parties: PartyService,
        witnesses: WitnessKeys,
        intake: Intake,
        authorities: Callable[[], Authorities],
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._parties = parties
        self._witnesses = witnesses
        self._intake = intake
        self._authorities = authorities
        self._clock = clock
        self._watchers: list[Watcher] = []

    def watch(self, watcher: Watcher) -> None:
        """Have ``watcher(party)`` called after every change of a party's access."""
        self._watchers.append(watcher)

    def changed(self, party: str) -> None:
        """Tell the watchers that a party's access has changed."""
        for watcher in self._watchers:
            watcher(party)

    def renewed(self, party: str, witness_key: str) -> None:
        """Say with which witness keys a party comes back that was shut out."""
        self._witnesses.renewed(party, witness_key)

    def issue(self, party: str, csr: bytes) -> Issued:
        """Make and keep a certificate for a party's node.

        Raises:
            Problem: CSR_REFUSED.
        """
        now = self._clock()
        made = self._authorities().issuing(now).issue(csr, party, now)
        self._journal.record(
            lambda at: CertificateIssued(
                at=at, party=party, serial=made.serial, certificate=made.digest, until=made.not_after
            )
        )
        # If we die here: the log knows a certificate that nobody has and that lets nobody in.
        row = Certificate(made.digest, made.serial, party, made.not_before, made.not_after)
        with writing(self._sessions) as session:
            store.put_certificate(session, row)
        return made

    def certificates(self, party: str) -> tuple[Certificate, ...]:
        """Return every certificate of a party."""
        with self._sessions() as session:
            return store.certificates_of(session, party)

    def caller(self, pem: bytes, *, may_have_left: bool = False) -> Caller:
        """Return whom a certificate lets in now.

        Args:
            may_have_left: let a party in that has left, so that it can hear again that it has.

        Raises:
            Problem: CERTIFICATE_UNKNOWN, CERTIFICATE_EXPIRED, CERTIFICATE_REVOKED or PARTY_REVOKED.
        """
        digest = _digest_of(pem)
        with self._sessions() as session:
            known = store.find_certificate(session, digest)
        if known is None:
            raise Problem("CERTIFICATE_UNKNOWN", "the certificate was not issued here")
        standing = self._parties.standing(known.party)
        has_left = standing.state == "left" and may_have_left
        if standing.state == "revoked" or (standing.state == "left" and not has_left):
            raise Problem("PARTY_REVOKED", f"{known.party}: {standing.state} ({standing.reason})", party=known.party)
        if known.revoked_at is not None and not has_left:
            raise Problem("CERTIFICATE_REVOKED", f"revoked ({known.revoked_reason})", party=known.party)
        if self._clock() >= known.not_after:
            raise Problem("CERTIFICATE_EXPIRED", f"ended at {known.not_after:%Y-%m-%dT%H:%MZ}", party=known.party)
        return Caller(self._parties.get(known.party), known)

    def revoke(self, party: str, reason: str) -> Standing:
        """Shut a party out, everywhere, at once; again changes nothing.

        Raises:
            Problem: PARTY_UNKNOWN, or INVITATION_REFUSED for a reason that is none.
        """
        if reason not in REVOCATION_REASONS:
            raise Problem("INPUT_INVALID", f"the reason must be one of {', '.join(REVOCATION_REASONS)}", party=party)
        with self._journal.order():
            live = [c for c in self.certificates(party) if c.revoked_at is None]
            standing = self._parties.revoke(party, reason, len(live))
            # From here on nobody of that party gets in: ``caller`` asks the standing first.
            self._mark(live, reason)
        self.changed(party)
        return standing

    def revoke_certificate(self, serial: str, party: str, reason: str) -> Certificate:
        """Shut out one certificate, of a lost key whose party goes on with another one.

        Raises:
            Problem: CERTIFICATE_UNKNOWN.
        """
        found = [c for c in self.certificates(party) if c.serial == serial.lower()]
        if not found:
            raise Problem("CERTIFICATE_UNKNOWN", f"no certificate {serial[:40]} of {party}", party=party)
        self._mark(found, reason)
        self.changed(party)
        return found[0]

    def renew(self, caller: Caller, csr: bytes) -> Issued:
        """Make the certificate of a new TLS key; the caller's own stays good until it ends."""
        with self._journal.order():
            return self.issue(caller.party.id, csr)

    def rotate(self, caller: Caller, statement: bytes) -> tuple[int, str]:
        """Follow a party to a new identity key, or to new keys of its witness.

        Args:
            statement: ``node:key:rotated``, signed by the old key, with the new key's own signature inside; or
                ``node:witness:rotated``, with the signatures of all old and new witness keys inside.

        Returns:
            The index of the statement, and until when the old identity key still counts (ISO 8601). For a witness: from where
            on the log counts the new keys, and nothing.

        Raises:
            Problem: ROTATION_REFUSED, or why the log does not take the statement.
        """
        event = self._intake.read(statement, caller.party.id)
        if isinstance(event, WitnessRotated):
            return self._rotate_witness(event, statement), ""
        if not isinstance(event, KeyRotated):
            raise Problem("ROTATION_REFUSED", "the statement is no change of keys", party=caller.party.id)
        party = self._parties.get(caller.party.id)
        again = party.identity_kid == event.new_key_id
        wanted = _next_kid(party.identity_kid)
        if not again and (event.old_key_id, event.new_key_id) != (party.identity_kid, wanted):
            raise Problem("ROTATION_REFUSED", f"{wanted} follows {party.identity_kid}", party=party.id)
        message = rotation_proof(party.id, event.old_key_id, event.new_key_id, event.identity_key)
        if not _has_signed(event.identity_key, message, event.proof):
            raise Problem("ROTATION_REFUSED", "the new key has not signed", party=party.id)
        with self._journal.order():
            (index,) = self._intake.take([statement], party.id)
            digest = f"sha256:{hashlib.sha256(statement).hexdigest()}"
            _, until = self._parties.rotate(party.id, event.new_key_id, event.identity_key, OVERLAP, digest, index)
        self.changed(party.id)
        return index, until.isoformat()

    def _rotate_witness(self, change: WitnessRotated, statement: bytes) -> int:
        self._witnesses.check(change)
        with self._journal.order():
            (index,) = self._intake.take([statement], change.party)
            # If we die here: the party's word is in the log, and the log goes on to count the old keys; the node asks again.
            counted_from = self._witnesses.follow(change, f"sha256:{hashlib.sha256(statement).hexdigest()}", index)
        self.changed(change.party)
        return counted_from

    def rotate_supernode(self, caller: Caller, key: bytes, proof: bytes, identity_proof: bytes) -> int:
        """Let another SuperNode key follow: the runtime's door takes it, and the old one no more.

        Args:
            key: PEM.
            proof: by that key; ``identity_proof`` by the identity key, so that a stolen certificate alone changes nothing.

        Returns:
            The index in the log.

        Raises:
            Problem: ROTATION_REFUSED, KEY_REJECTED.
        """
        party, message = caller.party.id, supernode_proof(caller.party.id, key)
        if not any(_has_signed(own, message, identity_proof) for own in self._parties.signing_keys(party)):
            raise Problem("ROTATION_REFUSED", "the identity key has not signed", party=party)
        try:
            text = keys.check_supernode_key(key.decode("ascii"))
            keys.verify_supernode(text, message, proof)
        except (keys.KeyFault, UnicodeDecodeError) as fault:
            raise Problem("ROTATION_REFUSED", f"the SuperNode key {fault}"[:200], party=party) from None
        index = self._parties.follow_supernode(party, text)
        self.changed(party)
        return index

    def leave(self, caller: Caller, statements: Sequence[bytes]) -> tuple[int, Standing]:
        """Let a party go: its statements into the log, the last one final; then nobody of it gets in.

        Raises:
            Problem: FINAL_STATEMENT_MISSING, or why the log does not take the statements.
        """
        party = caller.party.id
        final = self._intake.read(statements[-1], party) if statements else None
        if not isinstance(final, DutiesEnded):
            raise Problem("FINAL_STATEMENT_MISSING", "the last statement is no node:duties:ended", party=party)
        with self._journal.order():
            index = self._intake.take(statements, party)[-1]
            digest = f"sha256:{hashlib.sha256(statements[-1]).hexdigest()}"
            standing = self._parties.depart(party, digest)
            self._mark([c for c in self.certificates(party) if c.revoked_at is None], "cessation")
        self.changed(party)
        return index, standing

    def _mark(self, certificates: Sequence[Certificate], reason: str) -> None:
        now = self._clock()
        with writing(self._sessions) as session:
            for certificate in certificates:
                store.put_certificate(session, replace(certificate, revoked_at=now, revoked_reason=reason))


def _has_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_ed25519(key, message, signature)
    except AuditError:
        return False
    return True


def _next_kid(kid: str) -> str:
    head, _, number = kid.rpartition("#")
    return f"{head}#{int(number) + 1}" if number.isdigit() else f"{head}#2"


def _digest_of(pem: bytes) -> str:
    try:
        return f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode('ascii'))).hexdigest()}"
    except ValueError:
        raise Problem("CERTIFICATE_UNKNOWN", "no certificate") from None
