"""Statements: what a party itself did, signed, numbered and chained by that party.

    sign_statement(event, *, number, previous, seed, at=None) -> bytes      the bytes of a log entry
    open_statement(raw: bytes, key: bytes) -> Statement                     raises StatementError
    Statement: .party, .number, .previous, .at, .key_id, .event, .raw, .digest
    Chain(party): .accept(statement)                         raises on gap, fork, repeat
    next_link(raw | None) -> (number, previous) of the statement after this one

``event`` is a ``StatedEvent`` whose party signs; ``seed`` is the 32-byte private half of the
party's enrolled Ed25519 identity key, ``key`` its public half. A statement is itself an entry of
the log, so the coordinator cannot forge one, and the party cannot deny one. Because of the numbers
and the chain it cannot leave one out unseen either, as soon as a later one is logged; LIMIT: the
*last* statements of a party can be withheld until the party asks for its receipts. Signature:
Ed25519 over DSSE's PAE (SPEC.md §3). The format never changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from convoy_audit.canonical import Json, b64u, canonical_bytes, digest, is_version, parse_canonical, unb64u
from convoy_audit.errors import AuditError, FormatError, SignatureError, StatementError
from convoy_audit.events import VERSION, Event, StatedEvent, from_json, to_json
from convoy_audit.keys import (
    SignatureType,
    key_id_of,
    public_of_seed,
    sign_raw,
    verify_ed25519,
)
from convoy_audit.shapes import COUNT, DIGEST, INSTANT, TOKEN, whole_milliseconds

STATEMENT_TYPE: Final = "party:statement:filed"
PAYLOAD_TYPE: Final = b"application/vnd.convoy.statement.v1+json"
MAX_STATEMENT_BYTES: Final = 16_384
_TAIL: Final = b'"type":"%s","v":%d}' % (STATEMENT_TYPE.encode(), VERSION)
"""How the canonical bytes of every statement end; ``signature`` stands right before."""
_SIGNED_END: Final = re.compile(b'"signature":"([A-Za-z0-9_-]{86})",' + re.escape(_TAIL) + b"\\Z")
_MEMBERS: Final = {"v", "type", "at", "party", "number", "keyId", "event", "signature"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement as it stands in the log; verified only if ``open_statement`` returned it."""

    party: str
    number: int
    previous: str | None
    at: datetime
    key_id: str
    event: StatedEvent
    signature: bytes = field(repr=False)
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """What the party's next statement names as ``previous``."""
        return digest(self.raw)


def sign_statement(
    event: StatedEvent,
    *,
    number: int,
    previous: str | None,
    seed: bytes,
    at: datetime | None = None,
) -> bytes:
    """State an event.

    Args:
        event: what happened; its party is the signer.
        number: 1 for a party's first statement, then one more each time.
        previous: digest of the statement before, None for the first.
        seed: private seed of the party's Ed25519 identity key.
        at: the party's clock; the event's own instant if not given.

    Raises:
        StatementError: number and previous do not fit together, or the entry would be too long.
    """
    _check_link(number, previous)
    public = public_of_seed(SignatureType.ED25519, seed)
    value: dict[str, Json] = {
        "v": VERSION,
        "type": STATEMENT_TYPE,
        "at": INSTANT.write(whole_milliseconds(at or event.at)),
        "party": event.party,
        "number": number,
        "keyId": key_id_of(public),
        "event": to_json(event),
    }
    if previous is not None:
        value["previous"] = previous
    signature = sign_raw(SignatureType.ED25519, seed, _signed_bytes(value))
    raw = canonical_bytes(value | {"signature": b64u(signature)})
    if len(raw) > MAX_STATEMENT_BYTES:
        raise StatementError(f"a statement of {len(raw)} bytes", party=event.party)
    return raw


def open_statement(raw: bytes, key: bytes) -> Statement:
    """Verify a party's statement.

    Args:
        raw: the entry.
        key: the party's enrolled Ed25519 public key, 32 bytes.

    Raises:
        StatementError: not a statement, of another key, or the signature does not hold.
    """
    try:
        value = parse_canonical(raw)
        statement = statement_from_json(value, raw)
    except FormatError as error:
        raise StatementError(f"not a statement: {error.cause}") from None
    verify_statement(statement, key)
    return statement


def verify_statement(statement: Statement, key: bytes) -> None:
    """Verify the signature of a statement that was parsed from an entry.

    Raises:
        StatementError: of another key, or the signature does not hold.
    """
    if statement.key_id != key_id_of(key):
        raise StatementError(
            f"signed with key {statement.key_id[:16]}, enrolled is {key_id_of(key)}",
            party=statement.party,
        )
    tail = b'"signature":"%s",%s' % (b64u(statement.signature).encode(), _TAIL)
    if not statement.raw.endswith(tail):
        raise StatementError("these are not the canonical bytes of a statement", party=statement.party)
    try:
        verify_ed25519(key, _pae(statement.raw[: -len(tail)] + _TAIL), statement.signature)
    except SignatureError as error:
        raise StatementError(error.cause, party=statement.party) from None


def key_that_signed(raw: bytes, keys: Mapping[str, bytes]) -> bytes:
    """Return the key, of those by id, under which the signature at the end of an entry holds; empty says nothing.

    Nothing else is read: that the entry is a statement at all is for ``statement_from_json`` to say.
    """
    end = _SIGNED_END.search(raw)
    at = raw.rfind(b'"keyId":"') + 9
    key = keys.get(raw[at : at + 16].decode("latin-1"), b"")
    if end is None or not key:
        return b""
    try:
        verify_ed25519(key, _pae(raw[: end.start()] + _TAIL), unb64u(end[1].decode("ascii")))
    except AuditError:
        return b""
    return key


def statement_from_json(value: Mapping[str, Json], raw: bytes) -> Statement:
    """Build a statement from the parsed entry; the signature is not verified.

    Raises:
        FormatError: members that are missing, unknown or do not fit.
    """
    names = set(value) - {"previous"}
    if names != _MEMBERS or not is_version(value["v"], VERSION) or value["type"] != STATEMENT_TYPE:
        raise FormatError("a statement with missing or unknown members, or of another version")
    previous = value.get("previous")
    try:
        event: Event = from_json(value["event"])
        statement = Statement(
            party=TOKEN.read(value["party"]),
            number=COUNT.read(value["number"]),
            previous=None if previous is None else DIGEST.read(previous),
            at=INSTANT.read(value["at"]),
            key_id=TOKEN.read(value["keyId"]),
            event=_stated(event),
            signature=_read_signature(value["signature"]),
            raw=raw,
        )
        if statement.event.party != statement.party:
            raise FormatError("a statement about another party's act")
        _check_link(statement.number, statement.previous)
    except AuditError as error:
        raise FormatError(f"statement: {error.cause}") from None
    return statement


def next_link(raw: bytes | None) -> tuple[int, str | None]:
    """Return number and previous for the statement after ``raw`` (None: for the first)."""
    if raw is None:
        return 1, None
    return statement_from_json(parse_canonical(raw), raw).number + 1, digest(raw)


@dataclass(slots=True)
class Chain:
    """The statements of one party in log order; counts them and refuses what does not follow."""

    party: str
    number: int = 0
    head: str | None = None

    def accept(self, statement: Statement) -> None:
        """Take the next statement.

        Raises:
            StatementError: a number left out, used again, or a wrong ``previous``.
        """
        if statement.party != self.party:
            raise StatementError("a statement of another party", party=statement.party)
        expected = self.number + 1
        if statement.number != expected:
            what = "is missing" if statement.number > expected else "comes again or too late"
            at = expected if statement.number > expected else statement.number
            raise StatementError(
                f"statement {at} {what}; number {statement.number} follows {self.number}",
                code="STATEMENT_CHAIN_BROKEN",
                party=self.party,
            )
        if statement.previous != self.head:
            raise StatementError(
                f"statement {statement.number} does not follow statement {self.number}",
                code="STATEMENT_CHAIN_BROKEN",
                party=self.party,
            )
        self.number, self.head = statement.number, statement.digest


def _signed_bytes(value: Mapping[str, Json]) -> bytes:
    return _pae(canonical_bytes(dict(value)))


def _pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(payload), payload)


def _check_link(number: int, previous: str | None) -> None:
    COUNT.read(number)
    if number < 1 or (number == 1) != (previous is None):
        raise StatementError(
            "numbers start at 1; only the first statement has no previous one",
            code="STATEMENT_CHAIN_BROKEN",
        )


def _stated(event: Event) -> StatedEvent:
    if not isinstance(event, StatedEvent):
        raise FormatError(f"{event.TYPE} is not an act of a party")
    return event


def _read_signature(value: Json) -> bytes:
    if not isinstance(value, str):
        raise FormatError("a signature that is not text")
    return unb64u(value)
