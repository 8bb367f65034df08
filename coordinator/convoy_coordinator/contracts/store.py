"""Keep contract texts exactly as received, their verified signatures, and their events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, String, Text, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class ContractRow(Base):
    """One offered document; never changed, never deleted."""

    __tablename__ = "contract"
    __table_args__ = (UniqueConstraint("uid", "version"),)

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    uid: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(BigInteger)
    text: Mapped[str] = mapped_column(Text)
    offered_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


class SignatureRow(Base):
    """One signature that was verified before it came here."""

    __tablename__ = "contract_signature"
    __table_args__ = (UniqueConstraint("digest", "party", "kid", "sig_t"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("contract.digest"))
    party: Mapped[str] = mapped_column(String(200))
    kid: Mapped[str] = mapped_column(String(240))
    sig_t: Mapped[str] = mapped_column(String(40))
    entry: Mapped[dict[str, Any]] = mapped_column(JSON)
    received_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


class ContractEventRow(Base):
    """One event of a contract (suspend, terminate, supersede …), as FORMAT.md §5 writes it."""

    __tablename__ = "contract_event"
    __table_args__ = (UniqueConstraint("uid", "seq"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    uid: Mapped[str] = mapped_column(Text)
    seq: Mapped[int] = mapped_column(BigInteger)
    event: Mapped[dict[str, Any]] = mapped_column(JSON)
    log_index: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class StoredContract:
    """An offered document with what is known about it."""

    digest: str
    uid: str
    version: int
    text: str
    offered_at: datetime
    log_index: int


def insert_contract(session: Session, contract: StoredContract) -> None:
    """Add a document; the caller has checked that digest and version are free."""
    session.add(ContractRow(**{name: getattr(contract, name) for name in _COLUMNS}))


def find_contract(session: Session, digest: str) -> StoredContract | None:
    """Return a document by its digest."""
    row = session.get(ContractRow, digest)
    return None if row is None else _value(row)


def find_version(session: Session, uid: str, version: int) -> StoredContract | None:
    """Return the document of a contract's version."""
    row = session.scalar(select(ContractRow).where(ContractRow.uid == uid, ContractRow.version == version))
    return None if row is None else _value(row)


def versions_of(session: Session, uid: str) -> tuple[StoredContract, ...]:
    """Return every version of a contract, oldest first."""
    rows = session.scalars(select(ContractRow).where(ContractRow.uid == uid).order_by(ContractRow.version))
    return tuple(_value(row) for row in rows)


def all_contracts(session: Session) -> tuple[StoredContract, ...]:
    """Return every document, in the order of the offers."""
    rows = session.scalars(select(ContractRow).order_by(ContractRow.log_index, ContractRow.digest))
    return tuple(_value(row) for row in rows)


def insert_signature(
    session: Session, digest: str, entry: Mapping[str, Any], received_at: datetime, log_index: int
) -> None:
    """Add a verified signature entry (FORMAT.md §4)."""
    session.add(
        SignatureRow(
            digest=digest,
            party=entry["party"],
            kid=entry["kid"],
            sig_t=entry["sigT"],
            entry=dict(entry),
            received_at=received_at,
            log_index=log_index,
        )
    )


def signatures_of(session: Session, digest: str) -> tuple[dict[str, Any], ...]:
    """Return the signature entries of a document, in the order of arrival."""
    rows = session.scalars(select(SignatureRow).where(SignatureRow.digest == digest).order_by(SignatureRow.id))
    return tuple(row.entry for row in rows)


def signers_at(session: Session, digest: str, moment: datetime) -> tuple[str, ...]:
    """Return who had signed a document when an instant came, by the time of arrival."""
    rows = session.scalars(select(SignatureRow).where(SignatureRow.digest == digest).order_by(SignatureRow.id))
    return tuple(row.party for row in rows if row.received_at <= moment)


def insert_event(session: Session, event: Mapping[str, Any], log_index: int) -> None:
    """Add an event with its proofs; the caller has checked its place in the chain."""
    row = ContractEventRow(uid=event["uid"], seq=event["seq"], event=dict(event), log_index=log_index)
    session.add(row)


def events_of(session: Session, uid: str) -> tuple[dict[str, Any], ...]:
    """Return the events of a contract, by ascending ``seq``."""
    rows = session.scalars(select(ContractEventRow).where(ContractEventRow.uid == uid).order_by(ContractEventRow.seq))
    return tuple(row.event for row in rows)


def last_entry(session: Session, contract: StoredContract) -> int:
    """Return the index of the last entry that a contract's standing rests on: its offer, a signature or an event."""
    signed = select(func.max(SignatureRow.log_index)).where(SignatureRow.digest == contract.digest)
    changed = select(func.max(ContractEventRow.log_index)).where(ContractEventRow.uid == contract.uid)
    return max(contract.log_index, session.scalar(signed) or 0, session.scalar(changed) or 0)


_COLUMNS = tuple(StoredContract.__dataclass_fields__)


def _value(row: ContractRow) -> StoredContract:
    return StoredContract(**{name: getattr(row, name) for name in _COLUMNS})
