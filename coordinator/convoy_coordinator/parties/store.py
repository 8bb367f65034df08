"""Keep the enrolled parties, their former identity keys, and who was shut out or left: values in, values out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class PartyRow(Base):
    """One enrolled party, with the public halves of its keys."""

    __tablename__ = "party"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(40))
    region: Mapped[str] = mapped_column(String(40))
    identity_kid: Mapped[str] = mapped_column(String(240), unique=True)
    identity_key: Mapped[str] = mapped_column(String(64))
    key_not_before: Mapped[datetime] = mapped_column(Instant)
    key_not_after: Mapped[datetime] = mapped_column(Instant)
    mask_key: Mapped[str] = mapped_column(String(64))
    witness_key: Mapped[str] = mapped_column(Text)
    supernode_key: Mapped[str | None] = mapped_column(Text)
    enrolled_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


class PartyKeyRow(Base):
    """An identity key that another has followed; kept, because what it signed stays signed."""

    __tablename__ = "party_key"

    kid: Mapped[str] = mapped_column(String(240), primary_key=True)
    party: Mapped[str] = mapped_column(String(200), index=True)
    key: Mapped[str] = mapped_column(String(64))
    not_before: Mapped[datetime] = mapped_column(Instant)
    not_after: Mapped[datetime] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_reason: Mapped[str | None] = mapped_column(String(40))


class PartyStandingRow(Base):
    """A party that was shut out or has left; a party without a row is active."""

    __tablename__ = "party_standing"

    party: Mapped[str] = mapped_column(String(200), primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(String(40))
    since: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class FormerKey:
    """An identity key that was followed by another; after ``revoked_at`` nothing it signs counts."""

    kid: str
    party: str
    key: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None
    revoked_reason: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a party stands: ``active``, ``revoked`` or ``left``; reason and instant where it is not active."""

    party: str
    state: str = "active"
    reason: str = ""
    since: datetime | None = None
    log_index: int = 0

    @property
    def is_active(self) -> bool:
        """Whether the party may take part."""
        return self.state == "active"


@dataclass(frozen=True, slots=True)
class Party:
    """An enrolled party.

    ``identity_key`` (Ed25519) and ``mask_key`` (X25519) are 32 bytes in base64url without
    padding, ``witness_key`` is a C2SP verifier key, ``supernode_key`` a PEM public key or
    ``None``.
    """

    id: str
    name: str
    role: str
    region: str
    identity_kid: str
    identity_key: str
    key_not_before: datetime
    key_not_after: datetime
    mask_key: str
    witness_key: str
    supernode_key: str | None
    enrolled_at: datetime
    log_index: int
    """Index of the last entry about its keys: its enrolment, a rotation, its recovery."""

    @property
    def short_name(self) -> str:
        """The part of the id that people say."""
        return short_name(self.id)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits of the identity key's SHA-256, to compare by telephone."""
        digits = hashlib.sha256(self.identity_key.encode()).hexdigest()[:16]
        return " ".join(digits[i : i + 4] for i in range(0, 16, 4))

    def same_details(self, other: Party) -> bool:
        """Tell whether an enrolment says nothing new; times and log position are not details."""
        mine = (
            self.id,
            self.name,
            self.role,
            self.region,
            self.identity_kid,
            self.identity_key,
            self.mask_key,
        )
        theirs = (
            other.id,
            other.name,
            other.role,
            other.region,
            other.identity_kid,
            other.identity_key,
            other.mask_key,
        )
        return mine == theirs and (self.witness_key, self.supernode_key) == (
            other.witness_key,
            other.supernode_key,
        )


def short_name(party_id: str) -> str:
    """Return the part of a party's id that people say: ``did:web:oem.example`` -> ``oem``."""
    return party_id.removeprefix("did:web:").removesuffix(".example")


_COLUMNS = tuple(Party.__dataclass_fields__)


def insert_party(session: Session, party: Party) -> None:
    """Add a party; the caller has checked that its id is free."""
    session.add(PartyRow(**{name: getattr(party, name) for name in _COLUMNS}))


def find_party(session: Session, party_id: str) -> Party | None:
    """Return a party by its id."""
    row = session.get(PartyRow, party_id)
    return None if row is None else _value(row)


def find_by_kid(session: Session, kid: str) -> Party | None:
    """Return the party that enrolled this identity key id."""
    row = session.scalar(select(PartyRow).where(PartyRow.identity_kid == kid))
    return None if row is None else _value(row)


def all_parties(session: Session) -> tuple[Party, ...]:
    """Return every party, in the order of enrolment."""
    rows = session.scalars(select(PartyRow).order_by(PartyRow.enrolled_at, PartyRow.log_index, PartyRow.id))
    return tuple(_value(row) for row in rows)


def update_party(session: Session, party: Party) -> None:
    """Replace the keys of a party that is there."""
    row = session.get_one(PartyRow, party.id)
    for name in _COLUMNS:
        setattr(row, name, getattr(party, name))


def insert_former_key(session: Session, key: FormerKey) -> None:
    """Keep a key that another follows."""
    session.add(PartyKeyRow(**{name: getattr(key, name) for name in FormerKey.__dataclass_fields__}))


def former_keys(session: Session) -> tuple[FormerKey, ...]:
    """Return every key that was followed by another, oldest first."""
    rows = session.scalars(select(PartyKeyRow).order_by(PartyKeyRow.not_before, PartyKeyRow.kid))
    return tuple(
        FormerKey(row.kid, row.party, row.key, row.not_before, row.not_after, row.revoked_at, row.revoked_reason)
        for row in rows
    )


def put_standing(session: Session, standing: Standing) -> None:
    """Say how a party stands from now on; ``active`` removes the row."""
    row = session.get(PartyStandingRow, standing.party)
    if standing.is_active:
        if row is not None:
            session.delete(row)
        return
    if row is None:
        row = PartyStandingRow(party=standing.party)
        session.add(row)
    row.state, row.reason, row.log_index = standing.state, standing.reason, standing.log_index
    if standing.since is not None:
        row.since = standing.since


def standings(session: Session) -> dict[str, Standing]:
    """Return the parties that are not active."""
    rows = session.scalars(select(PartyStandingRow))
    return {row.party: Standing(row.party, row.state, row.reason, row.since, row.log_index) for row in rows}


def _value(row: PartyRow) -> Party:
    return Party(**{name: getattr(row, name) for name in _COLUMNS})
