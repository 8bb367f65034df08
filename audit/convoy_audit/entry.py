"""Entries: from an event or statement to the exact bytes of a leaf, and back.

    encode(event) -> bytes               canonical JSON, at most 16,384 bytes
    parse_entry(raw: bytes) -> Event | Statement
    Entry(raw).content / .leaf           parsed once, with the bytes as they stand in the log
    commit(key: bytes, value: bytes) -> "sha256:…";  new_commitment_key() -> bytes; check_commitment

Whoever appends calls ``parse_entry`` first; whoever verifies hashes the raw bytes and never
re-encodes. A *commitment* is HMAC-SHA-256 under a random key of its own: it can be opened later by
showing key and value, and it is forgotten by erasing the key. Values of low entropy (a plate, a
telephone number) must never be hashed without such a key. Formats of version 1 never change.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from convoy_audit.canonical import canonical_bytes, is_digest, parse_canonical
from convoy_audit.errors import EvidenceError, FormatError
from convoy_audit.events import Event, from_json, to_json
from convoy_audit.merkle import leaf_hash
from convoy_audit.statement import STATEMENT_TYPE, Statement, statement_from_json

MAX_ENTRY_BYTES: Final = 16_384
HARD_LIMIT_BYTES: Final = 65_535
COMMITMENT_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log: its exact bytes and what they say."""

    raw: bytes
    content: Event | Statement = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "content", parse_entry(self.raw))

    @property
    def leaf(self) -> bytes:
        """The leaf hash."""
        return leaf_hash(self.raw)

    @property
    def event(self) -> Event:
        """The event, also if it stands in a statement."""
        return self.content.event if isinstance(self.content, Statement) else self.content


def encode(event: Event) -> bytes:
    """Return the bytes to append for an event.

    Raises:
        FormatError: more than 16,384 bytes.
    """
    raw = canonical_bytes(to_json(event))
    if len(raw) > MAX_ENTRY_BYTES:
        raise FormatError(f"an entry of {len(raw)} bytes; the limit is {MAX_ENTRY_BYTES}")
    return raw


def parse_entry(raw: bytes) -> Event | Statement:
    """Read an entry; a statement's signature is not verified here (``open_statement`` does that).

    Raises:
        FormatError: empty, over the hard limit, not canonical, or not in the catalogue.
    """
    check_length(raw)
    value = parse_canonical(raw)
    if value.get("type") == STATEMENT_TYPE:
        return statement_from_json(value, raw)
    return from_json(value)


def check_length(raw: bytes) -> None:
    """Refuse what no entry can be.

    Raises:
        FormatError: not 1 to 65,535 bytes.
    """
    if not isinstance(raw, bytes):
        raise FormatError(f"an entry is bytes, not {type(raw).__name__}")
    if not 1 <= len(raw) <= HARD_LIMIT_BYTES:
        raise FormatError(f"an entry of {len(raw)} bytes; 1 to {HARD_LIMIT_BYTES} are possible")


def new_commitment_key() -> bytes:
    """Return a fresh key for one commitment; keep it outside the log."""
    return secrets.token_bytes(COMMITMENT_KEY_BYTES)


def commit(key: bytes, value: bytes) -> str:
    """Commit to a value that must stay forgettable.

    Raises:
        FormatError: the key is not 32 bytes.
    """
    if len(key) != COMMITMENT_KEY_BYTES:
        raise FormatError(f"a commitment key has {COMMITMENT_KEY_BYTES} bytes")
    return "sha256:" + hmac.new(key, value, hashlib.sha256).hexdigest()


def check_commitment(commitment: str, key: bytes, value: bytes) -> None:
    """Check an opened commitment.

    Raises:
        EvidenceError: key and value do not open it.
        FormatError: key or commitment are malformed.
    """
    if not is_digest(commitment):
        raise FormatError("not a commitment")
    if not hmac.compare_digest(commit(key, value), commitment):
        raise EvidenceError("key and value do not open this commitment")
