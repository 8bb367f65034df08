"""Follow the coordinator to another certificate authority, where the pinned one has signed for it and the log shows it.

    follow(home, settings, evidence, own, now) -> bool      keep an announcement that holds; True where it is new

Steps of ``follow``: 1. the entry is in the pinned log, under a checkpoint that this node's own witness has cosigned, with the quorum
of the contract with the most witnesses where one was signed; 2. it announces a follower of the pinned authority; 3. the pinned
authority's key has signed old, new and both instants; 4. the new one is an authority on P-256. Anything else changes nothing, and a
coordinator that shows another authority is refused as before. What is kept, and when it counts: ``channel_roots``.
LIMIT: where a note has no room for this node's own cosignature (more than 49 witnesses), the announcement waits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from convoy_audit.errors import AuditError
from convoy_audit.events import AuthorityAnnounced
from convoy_audit.evidence import Evidence, verify_evidence
from convoy_audit.note import Verifier
from convoy_audit.policy import make_policy
from convoy_contracts.instants import timestamp
from convoy_contracts.wire.proof import authority_proof
from convoy_node.channel import CoordinatorUntrusted
from convoy_node.channel_roots import CA, keep, read
from convoy_node.errors import NodeError
from convoy_node.settings import Settings
from convoy_node.witness_home import contracts_policy

NOT_YET: Final = frozenset({"OWN_WITNESS_MISSING", "QUORUM_MISSING"})


class NotYet(NodeError):
    """The announcement is not cosigned yet by all whose word it needs; it is asked for again."""


def follow(home: Path, settings: Settings, raw: bytes, own: Sequence[Verifier], now: datetime) -> bool:
    """Keep an announcement; the same one again changes nothing.

    Args:
        raw: JSON of its evidence, as the coordinator says.
        own: this node's witness keys.

    Raises:
        NotYet: it is not witnessed yet.
        CoordinatorUntrusted: it does not hold; nothing has changed.
    """
    if raw == b"{}":
        raise NotYet("no checkpoint covers the announcement of an authority yet.", party=settings.party)
    policy = contracts_policy(home, settings) or make_policy(settings.log_keys, {})
    pinned = x509.load_pem_x509_certificate(read(home / CA))
    try:
        event = verify_evidence(Evidence.from_json(json.loads(raw)), policy, require=own).event
        if not isinstance(event, AuthorityAnnounced):
            raise _untrusted("the entry announces no authority", settings)
        following = x509.load_der_x509_certificate(event.certificate)
        if _digest(pinned) == _digest(following):
            return False
        if event.old != _digest(pinned):
            raise _untrusted("it follows another authority than the pinned one", settings)
        _check_signed(pinned, following, event)
    except (AuditError, ValueError, InvalidSignature) as error:
        if isinstance(error, AuditError) and error.code in NOT_YET:
            raise NotYet("the announcement of an authority is not witnessed yet.", party=settings.party) from error
        raise _untrusted(f"its announcement does not hold ({type(error).__name__})", settings) from error
    if now > event.ends or not following.not_valid_before_utc <= now <= following.not_valid_after_utc:
        raise _untrusted("its time is over, or has not come", settings)
    return keep(home, following.public_bytes(Encoding.PEM), event.begins, event.ends)


def _check_signed(pinned: x509.Certificate, following: x509.Certificate, event: AuthorityAnnounced) -> None:
    key, new = pinned.public_key(), following.public_key()
    limits = following.extensions.get_extension_for_class(x509.BasicConstraints).value
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(new, EllipticCurvePublicKey):
        raise ValueError("no elliptic-curve key")
    if not limits.ca or not isinstance(new.curve, SECP256R1) or event.begins >= event.ends:
        raise ValueError("no authority on P-256, or one of no time")
    message = authority_proof(
        pinned.public_bytes(Encoding.DER), event.certificate, timestamp(event.begins), timestamp(event.ends)
    )
    key.verify(event.proof, message, ECDSA(hashes.SHA256()))


def _digest(certificate: x509.Certificate) -> str:
    return f"sha256:{hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()}"


def _untrusted(cause: str, settings: Settings) -> CoordinatorUntrusted:
    return CoordinatorUntrusted(
        f"the coordinator names another certificate authority, but {cause}.", party=settings.party
    )
