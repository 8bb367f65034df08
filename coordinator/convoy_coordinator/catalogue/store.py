"""Keep catalogue entries and tier grants as they were signed: every version, none changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class CatalogueRow(Base):
    """One version of an asset's entry."""

    __tablename__ = "catalogue_entry"

    asset: Mapped[str] = mapped_column(String(200), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(80))
    entry: Mapped[dict[str, Any]] = mapped_column(JSON)
    proofs: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    recorded_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


class TierRow(Base):
    """One grant of a tier."""

    __tablename__ = "tier_grant"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    party: Mapped[str] = mapped_column(String(200))
    tier: Mapped[str] = mapped_column(String(4))
    grant: Mapped[dict[str, Any]] = mapped_column(JSON)
    proofs: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    granted_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Catalogued:
    """A version of an entry with its proofs."""

    asset: str
    version: int
    digest: str
    entry: Mapping[str, Any]
    proofs: Sequence[Mapping[str, Any]]
    recorded_at: datetime
    log_index: int


@dataclass(frozen=True, slots=True)
class Granted:
    """A tier that a party was granted."""

    digest: str
    party: str
    tier: str
    grant: Mapping[str, Any]
    proofs: Sequence[Mapping[str, Any]]
    granted_at: datetime
    log_index: int


def insert_entry(session: Session, found: Catalogued) -> None:
    """Add a version."""
    session.add(CatalogueRow(**{name: getattr(found, name) for name in Catalogued.__dataclass_fields__}))


def versions(session: Session, asset: str) -> tuple[Catalogued, ...]:
    """Return every version of an asset's entry, oldest first."""
    rows = session.scalars(select(CatalogueRow).where(CatalogueRow.asset == asset).order_by(CatalogueRow.version))
    return tuple(_entry(row) for row in rows)


def latest(session: Session) -> tuple[Catalogued, ...]:
    """Return the newest entry of every asset, by asset."""
    rows = session.scalars(select(CatalogueRow).order_by(CatalogueRow.asset, CatalogueRow.version))
    return tuple({row.asset: _entry(row) for row in rows}.values())


def insert_grant(session: Session, found: Granted) -> None:
    """Add a grant."""
    session.add(TierRow(**{name: getattr(found, name) for name in Granted.__dataclass_fields__}))


def grants(session: Session, party: str | None = None) -> tuple[Granted, ...]:
    """Return the grants, oldest first."""
    query = select(TierRow).order_by(TierRow.log_index)
    rows = session.scalars(query if party is None else query.where(TierRow.party == party))
    return tuple(Granted(**{name: getattr(row, name) for name in Granted.__dataclass_fields__}) for row in rows)


def _entry(row: CatalogueRow) -> Catalogued:
    return Catalogued(**{name: getattr(row, name) for name in Catalogued.__dataclass_fields__})
