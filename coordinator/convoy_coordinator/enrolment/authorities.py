"""The federation's certificate authority and the one that shall follow it.

    Authorities.open(keys, tls, name, now) -> what there is     Succession.announce(lead, overlap) makes the next one

``keys/ca.p256`` and ``tls/ca.pem`` are the present one, ``keys/ca-next.p256``, ``tls/ca-next.pem`` and ``tls/ca-next.json`` the one
that was announced. Nodes pin the present one, and follow only what it has signed and a quorum of witnesses has cosigned
(``coordinator:authority:announced``). Then, with two instants:

    announced until ``begins``   the present one issues and serves; clients of both are let in
    ``begins`` until ``ends``    the next one issues; the listeners still show the present one's certificate, because nodes that
                                 were away know no other; nodes trust both, and get a certificate of the next one at once
    from ``ends`` on             the next one takes the present one's place; the old private key is destroyed

A node that was away for the whole time needs a new ticket. So it does after a theft of the key: a thief could announce as well.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.serialization import Encoding

from convoy_audit.errors import AuditError
from convoy_audit.events import AuthorityAnnounced
from convoy_audit.witness_store import write_atomically
from convoy_contracts.instants import timestamp
from convoy_contracts.wire.proof import authority_proof
from convoy_coordinator.enrolment.ca import CA_FILE, CA_FIX, Authority
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.journal import Clock, Journal
from convoy_coordinator.keys import CA_KEY
from convoy_coordinator.log import LogService

NEXT_KEY: Final = "ca-next.p256"
NEXT_FILE: Final = "ca-next.pem"
NEXT_FACTS: Final = "ca-next.json"
MAX_TIME: Final = timedelta(days=400)
_ONE: Final = threading.Lock()
"""Threads of one process do not put the next authority in its place twice; two processes share no home."""


@dataclass(frozen=True, slots=True)
class Coming:
    """The authority that was announced; ``log_index`` is where."""

    authority: Authority
    begins: datetime
    ends: datetime
    log_index: int


@dataclass(frozen=True, slots=True)
class Authorities:
    """The present authority, and the one that was announced, if any."""

    present: Authority
    coming: Coming | None = None

    @classmethod
    def open(cls, keys_folder: Path, tls_folder: Path, name: str, now: datetime) -> Self:
        """Open what there is; make the present one where there is none; put the next one in its place when its time has come.

        Raises:
            SetupError: key without certificate fits not, or a file cannot be used.
        """
        with _ONE:
            facts = _facts(tls_folder)
            if facts is not None and now >= facts[1]:
                _take_place(keys_folder, tls_folder)
                facts = None
            present = Authority.open(keys_folder, tls_folder, name, now)
        if facts is None:
            return cls(present)
        begins, ends, index = facts
        missing = [n for n in (keys_folder / NEXT_KEY, tls_folder / NEXT_FILE) if not n.exists()]
        if missing:
            raise SetupError("CA_KEY_MISSING", f"{missing[0].name} of the announced authority is not there", fix=CA_FIX)
        following = Authority.open(keys_folder, tls_folder, name, now, key=NEXT_KEY, file=NEXT_FILE)
        return cls(present, Coming(following, begins, ends, index))

    def issuing(self, now: datetime) -> Authority:
        """Return the authority whose certificates nodes get now."""
        return self.coming.authority if self.coming is not None and now >= self.coming.begins else self.present

    @property
    def serving(self) -> Authority:
        """The authority whose certificate the listeners show, and tickets name."""
        return self.present

    @property
    def roots(self) -> bytes:
        """The authorities (PEM) whose certificates let a node in."""
        return self.present.pem + (self.coming.authority.pem if self.coming is not None else b"")


class Succession:
    """Lets another authority follow the present one.

    Args:
        keys_folder, tls_folder: of the home.
        name: of the federation; stands in the certificates.
        journal: the log, written before the effect.
        log: gives the evidence of an announcement.
        clock: the present instant.
    """

    def __init__(
        self, keys_folder: Path, tls_folder: Path, name: str, journal: Journal, log: LogService, clock: Clock
    ) -> None:
        self._folders = keys_folder, tls_folder
        self._name = name
        self._journal = journal
        self._log = log
        self._clock = clock

    @property
    def authorities(self) -> Authorities:
        """What there is now."""
        return Authorities.open(*self._folders, self._name, self._clock())

    def announce(self, lead: timedelta, overlap: timedelta) -> Coming:
        """Make the next authority and announce it, signed by the present one; again, while one is announced, changes nothing.

        Args:
            lead: until the next one issues certificates.
            overlap: from then on, until the present one counts no more.

        Raises:
            Problem: INPUT_INVALID, the log's own.
        """
        if not timedelta(0) <= lead <= MAX_TIME or not timedelta(hours=1) <= overlap <= MAX_TIME:
            raise Problem(
                "INPUT_INVALID", f"lead up to {MAX_TIME.days} days, overlap from an hour to {MAX_TIME.days} days"
            )
        with self._journal.order():
            known, now = self.authorities, self._clock()
            if known.coming is not None:
                return known.coming
            begins = (now + lead).replace(microsecond=0)
            ends, old, file = begins + overlap, known.present, self._folders[1] / NEXT_FACTS
            name = f"{self._name[:22]} after {old.fingerprint[:8]}"
            following = Authority.open(*self._folders, name, now, key=NEXT_KEY, file=NEXT_FILE)
            message = authority_proof(old.der, following.der, timestamp(begins), timestamp(ends))
            proof = old.key.sign(message, ECDSA(hashes.SHA256()))
            index = self._journal.record(
                lambda at: AuthorityAnnounced(
                    at=at,
                    old=f"sha256:{old.fingerprint}",
                    certificate=following.der,
                    begins=begins,
                    ends=ends,
                    proof=proof,
                )
            )
            # If we die here: the log tells of an authority that issues nothing; announcing again says so again.
            facts = {"begins": begins.isoformat(), "ends": ends.isoformat(), "index": index}
            write_atomically(file, json.dumps(facts).encode())
        return Coming(following, begins, ends, index)

    def evidence(self) -> bytes:
        """Return the evidence (JSON) of the announcement; nothing where there is none, ``{}`` where no checkpoint covers it yet."""
        coming = self.authorities.coming
        if coming is None:
            return b""
        try:
            return json.dumps(self._log.evidence(coming.log_index).to_json()).encode()
        except (AuditError, Problem):
            return b"{}"


def _facts(tls_folder: Path) -> tuple[datetime, datetime, int] | None:
    try:
        value = json.loads((tls_folder / NEXT_FACTS).read_text(encoding="ascii"))
        return datetime.fromisoformat(value["begins"]), datetime.fromisoformat(value["ends"]), int(value["index"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SetupError(
            "CA_UNREADABLE", f"tls/{NEXT_FACTS} cannot be used", fix="Restore tls/ from a backup."
        ) from error


def _take_place(keys_folder: Path, tls_folder: Path) -> None:
    """Put the next authority in the place of the present one. Whatever step it dies at, the next call goes on."""
    key, certificate = keys_folder / NEXT_KEY, tls_folder / NEXT_FILE
    if certificate.exists():
        if key.exists():
            key.replace(keys_folder / CA_KEY)
        # If we die here: the key is new, its certificate still beside; the next call comes here again.
        _keep_former(tls_folder)
        certificate.replace(tls_folder / CA_FILE)
    (tls_folder / NEXT_FACTS).unlink(missing_ok=True)


def _keep_former(tls_folder: Path) -> None:
    """Keep the former certificate, which is public, under its fingerprint."""
    path = tls_folder / CA_FILE
    if path.exists():
        former = x509.load_pem_x509_certificate(path.read_bytes())
        name = hashlib.sha256(former.public_bytes(Encoding.DER)).hexdigest()[:16]
        write_atomically(tls_folder / f"ca-was-{name}.pem", path.read_bytes())
