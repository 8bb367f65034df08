"""Rotate a node's keys without a pause.

    renew(home) -> days          a new TLS key and certificate; the old ones stay good until they end
    rotate(home, now) -> kid     a new identity key, named by the old one in a statement that both have signed
    rotate_supernode(home) -> index    a new key of the SuperNode, asked for by the identity key
    rotate_witness(home, now) -> index    new keys of the witness, in a statement that old and new ones have signed
    rotate_mask(home) -> card    a new mask key for the contracts to come; those in force keep theirs

Rotation, and what is true if the process dies after each step: 1. the new key is on disk (nothing is known of it; the
next call finds it again); 2. the statement is in the node's memory (signed, numbered; found again); 3. the coordinator
has it in the log and believes both keys for a week (asked again, it says the same); 4. ``identity.json`` names the new
key (the next call finds that the card does not, and goes on here); 5. pin and card are written. With the SuperNode's key: it
is on disk beside the old one, the coordinator takes it, it takes its place, the card says so, and what was beside goes. With
the witness keys: the statement is in the memory, the node cosigns with both pairs, the coordinator counts the new one, the card
says so. A key that was *stolen* is not rotated: the administrator revokes the party, and it joins again with ``--recover``; but
stolen witness keys alone are, with ``compromised``, since the identity key has to sign too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from convoy_audit.canonical import parse_canonical
from convoy_audit.events import KeyRotated, WitnessRotated
from convoy_audit.note import Signer
from convoy_audit.statement import sign_statement, statement_from_json
from convoy_audit.witness_change import Reason, sign_change
from convoy_contracts.canonical import b64u
from convoy_contracts.wire import partner_pb2
from convoy_contracts.wire.proof import rotation_proof, supernode_proof
from convoy_node import setup
from convoy_node.channel import ChannelRefused, Line
from convoy_node.channel_home import (
    TLS,
    TLS_NEW,
    Connection,
    Credentials,
    certificate_request,
    matches,
    new_tls_key,
    write_private,
)
from convoy_node.identity import Card, Identity
from convoy_node.memory import Memory
from convoy_node.settings import Settings

KEYS: Final = "keys"
MEMORY: Final = "node.db"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did; ``old_until``: until then the old key still counts."""

    kid: str
    index: int
    old_until: str


def open_line(home: Path, party: str, now: datetime | None = None) -> Line:
    """Connect as this node, by the authorities that count at an instant, the present one if not given.

    Raises:
        HomeRefused, KeyRefused: it has not joined, or its credentials cannot be used.
    """
    connection, credentials = Connection.load(home), Credentials.load(home, party)
    return Line.mutual(connection.door(home, connection.channel, now), party, credentials.key, credentials.certificate)


def renew(home: Path, line: Line, party: str) -> Credentials:
    """Get a certificate for a new TLS key and use it at the next connection.

    Raises:
        NodeError: the coordinator refused or is not there; the old certificate is still in use.
    """
    path = home / TLS_NEW
    if not path.exists():
        write_private(path, new_tls_key())
    key = path.read_bytes()
    reply = line.ask(line.partner.Renew, partner_pb2.RenewRequest(csr=certificate_request(key, party)))
    if not matches(key, reply.certificate):
        raise ChannelRefused("the certificate is of another key.", party=party, code="CERTIFICATE_WRONG")
    # If we die before this: one certificate too many was made, which nobody can use.
    write_private(home / TLS, key + reply.certificate)
    path.unlink(missing_ok=True)
    return Credentials.load(home, party)


def rotate(home: Path, now: datetime) -> Rotated:
    """Let a new identity key follow.

    Raises:
        NodeError: the coordinator refused or is not there; the old key is still in use, and the call can be repeated.
    """
    settings = Settings.load(home)
    party, identity = settings.party, Identity.load(home / KEYS, settings.party)
    has_followed = setup.read_card(home).identity_kid != identity.kid  # an earlier call died before it wrote the card
    kid, key = (identity.kid, identity.identity) if has_followed else Identity.next_key(home / KEYS, party)
    public = key.public_key().public_bytes_raw()
    memory = Memory(home / MEMORY)
    try:
        statement = _stated(memory, kid)
        if statement is None:
            event = KeyRotated(
                at=now,
                party=party,
                old_key_id=identity.kid,
                new_key_id=kid,
                identity_key=public,
                proof=key.sign(rotation_proof(party, identity.kid, kid, public)),
            )
            statement = memory.state(
                lambda number, previous: sign_statement(
                    event, number=number, previous=previous, seed=identity.identity_seed
                )
            )
        with open_line(home, party) as line:
            send_statements(line, memory, before=statement)
            reply = line.ask(line.partner.Rotate, partner_pb2.RotateRequest(statement=statement))
        memory.reported_to(number_of(statement))
    finally:
        memory.close()
    new = identity if has_followed else Identity.follow(home / KEYS, party, now.replace(microsecond=0) - setup.DRIFT)
    card = new.card(name=settings.name, role=settings.role, region=settings.region)
    setup.pin(home, [card])
    setup.write_card(home, card)
    return Rotated(new.kid, reply.index, reply.old_not_after)


def rotate_mask(home: Path) -> Card:
    """Let a new mask key follow in the contracts to come. Nobody else has to know before: a contract pins it.

    Raises:
        NodeError: keys or card cannot be used.
    """
    settings = Settings.load(home)
    present = Identity.load(home / KEYS, settings.party)
    known = setup.read_card(home)
    is_new = known.mask_key != b64u(present.mask_public)  # an earlier call died before it wrote the card
    new = present if is_new else Identity.follow_mask(home / KEYS, settings.party)
    card = new.card(name=settings.name, role=settings.role, region=settings.region)
    setup.write_card(home, card)
    return card


def rotate_witness(home: Path, now: datetime, reason: Reason = "planned") -> int:
    """Let new keys of the witness follow. A running node takes them up by itself; no run ends for it.

    Args:
        reason: ``planned``: contracts in force go on with the keys that they pin, and the node keeps both pairs;
            ``compromised``: the old pair is thrown away, and contracts that pin it need a new version.

    Returns:
        The index from which on the log counts the new keys.

    Raises:
        NodeError: the coordinator refused or is not there; the call can be repeated, and goes on where it was.
    """
    settings = Settings.load(home)
    party, keys = settings.party, home / KEYS
    identity, coming = Identity.load(keys, party), Identity.next_witness(keys, party)
    memory = Memory(home / MEMORY)
    try:
        statement = _stated_witness(memory, coming)
        if statement is None:
            event = sign_change(party, identity.witness, coming, now, reason)
            statement = memory.state(
                lambda number, previous: sign_statement(
                    event, number=number, previous=previous, seed=identity.identity_seed
                )
            )
        if reason == "planned":
            # From here on the node signs with both pairs: whichever the log counts, it counts this witness.
            Identity.follow_witness(keys, party, keep=True)
        with open_line(home, party) as line:
            send_statements(line, memory, before=statement)
            reply = line.ask(line.partner.Rotate, partner_pb2.RotateRequest(statement=statement))
        memory.reported_to(number_of(statement))
    finally:
        memory.close()
    # If we die before this, after a compromise: the log counts keys that do not sign yet; the next call puts them in place.
    new = Identity.follow_witness(keys, party, keep=False)
    setup.write_card(home, new.card(name=settings.name, role=settings.role, region=settings.region))
    Identity.forget_next_witness(keys)
    return int(reply.index)


def rotate_supernode(home: Path) -> int:
    """Let a new key of the SuperNode follow; a running node starts its SuperNode again with it.

    Returns:
        Where the change stands in the log.

    Raises:
        NodeError: the coordinator refused or is not there; the old key is still in use, and the call can be repeated.
    """
    settings = Settings.load(home)
    party, identity = settings.party, Identity.load(home / KEYS, settings.party)
    key = Identity.next_supernode(home / KEYS, party)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    message = supernode_proof(party, public)
    request = partner_pb2.RotateRequest(
        supernode_key=public,
        supernode_proof=key.sign(message, ECDSA(SHA256())),
        identity_proof=identity.identity.sign(message),
    )
    with open_line(home, party) as line:
        reply = line.ask(line.partner.Rotate, request)
    # If we die before this: the SuperNode is refused with its old key until the next call has put the new one in its place.
    new = Identity.follow_supernode(home / KEYS, party)
    setup.write_card(home, new.card(name=settings.name, role=settings.role, region=settings.region))
    Identity.forget_next_supernode(home / KEYS)
    return int(reply.index)


def send_statements(line: Line, memory: Memory, *, before: bytes | None = None, most: int = 100) -> int:
    """Bring the statements that the log does not have yet; return how many.

    Args:
        before: stop before this one.

    Raises:
        NodeError: refused or unreachable; they are sent again next time. After STATEMENT_GAP everything is offered
            from the number on that the log lacks.
    """
    waiting = memory.unreported()
    if before is not None:
        waiting = [raw for raw in waiting if number_of(raw) < number_of(before)]
    sent = 0
    while waiting:
        batch, waiting = waiting[:most], waiting[most:]
        line.ask(line.partner.State, partner_pb2.StateRequest(statements=batch))
        memory.reported_to(number_of(batch[-1]))
        sent += len(batch)
    return sent


def number_of(raw: bytes) -> int:
    """Return a statement's number."""
    return statement_from_json(parse_canonical(raw), raw).number


def _stated_witness(memory: Memory, coming: Sequence[Signer]) -> bytes | None:
    """Return the statement of this change, if an earlier call made it."""
    wanted = tuple(signer.vkey for signer in coming)
    for raw in reversed(memory.statements()):
        event = statement_from_json(parse_canonical(raw), raw).event
        if isinstance(event, WitnessRotated):
            return raw if event.new_keys == wanted else None
    return None


def _stated(memory: Memory, kid: str) -> bytes | None:
    """Return the statement of this rotation, if an earlier call made it."""
    for raw in reversed(memory.statements()):
        event = statement_from_json(parse_canonical(raw), raw).event
        if isinstance(event, KeyRotated):
            return raw if event.new_key_id == kid else None
    return None
