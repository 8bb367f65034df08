"""Keep what was released: one row for each run, the files in the home folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, String, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class ReleaseRow(Base):
    """One published bundle. ``files`` maps each name to its digest and size."""

    __tablename__ = "release"

    run: Mapped[str] = mapped_column(ForeignKey("run.uid"), primary_key=True)
    manifest_digest: Mapped[str] = mapped_column(String(80))
    files: Mapped[dict[str, Any]] = mapped_column(JSON)
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    published_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Release:
    """A published bundle; ``summary`` holds figures from outside the signed files."""

    run: str
    manifest_digest: str
    files: dict[str, Any]
    summary: dict[str, Any] | None
    published_at: datetime
    log_index: int


def insert_release(session: Session, release: Release) -> None:
    """Add a release."""
    session.add(ReleaseRow(**{name: getattr(release, name) for name in _COLUMNS}))


def find_release(session: Session, run: str) -> Release | None:
    """Return the release of a run."""
    row = session.get(ReleaseRow, run)
    return None if row is None else _value(row)


def all_releases(session: Session) -> tuple[Release, ...]:
    """Return every release, newest first."""
    rows = session.scalars(select(ReleaseRow).order_by(ReleaseRow.log_index.desc(), ReleaseRow.run))
    return tuple(_value(row) for row in rows)


def set_summary(session: Session, run: str, summary: dict[str, Any]) -> None:
    """Keep the figures of a release."""
    session.execute(update(ReleaseRow).where(ReleaseRow.run == run).values(summary=summary))


_COLUMNS = tuple(Release.__dataclass_fields__)


def _value(row: ReleaseRow) -> Release:
    return Release(**{name: getattr(row, name) for name in _COLUMNS})
