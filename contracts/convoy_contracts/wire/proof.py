"""What a joining node signs, and the fingerprint that two people compare.

The proof binds the ticket, every public key and the request for a certificate to the identity key: nobody can enrol
another's card, or have a certificate made for another's TLS key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from convoy_contracts.canonical import canonical_bytes

_DOMAIN: Final = b"convoy.partner.v1.Enrol\x00"
_ROTATION: Final = b"convoy.partner.v1.Rotate\x00"
_AUTHORITY: Final = b"convoy.partner.v1.Authority\x00"
_SUPERNODE: Final = b"convoy.partner.v1.RotateSuperNode\x00"


def enrolment_proof(ticket: str, card: bytes, csr: bytes) -> bytes:
    """Return the bytes that the identity key signs; the parts are hashed so that none can run into the next."""
    return _DOMAIN + b"".join(hashlib.sha256(part).digest() for part in (ticket.encode(), card, csr))


def rotation_proof(party: str, old_kid: str, new_kid: str, new_key: bytes) -> bytes:
    """Return the bytes that a party's new identity key signs: it agrees to follow the old one."""
    parts = (party.encode(), old_kid.encode(), new_kid.encode(), new_key)
    return _ROTATION + b"".join(hashlib.sha256(part).digest() for part in parts)


def supernode_proof(party: str, key: bytes) -> bytes:
    """Return the bytes that a new SuperNode key (PEM) and the identity key sign: the one is there, the other wants it."""
    return _SUPERNODE + b"".join(hashlib.sha256(part).digest() for part in (party.encode(), key))


def authority_proof(old: bytes, new: bytes, begins: str, ends: str) -> bytes:
    """Return the bytes that a coordinator's authority signs so that another may follow it; certificates in DER, instants RFC 3339."""
    parts = (old, new, begins.encode(), ends.encode())
    return _AUTHORITY + b"".join(hashlib.sha256(part).digest() for part in parts)


def card_fingerprint(card: Mapping[str, Any]) -> str:
    """Return eight groups of four hex digits over a card's id, role and keys, to compare by telephone."""
    keys = [card[name] for name in ("id", "role", "identityKey", "maskKey", "witnessKey", "supernodeKey")]
    text = hashlib.sha256(canonical_bytes(keys)).hexdigest()[:32]
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))
