"""Keep schedules: one row each, with the instant at which it is due next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Boolean, String, Text, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class ScheduleRow(Base):
    """One schedule."""

    __tablename__ = "schedule"

    uid: Mapped[str] = mapped_column(String(80), primary_key=True)
    cron: Mapped[str] = mapped_column(String(120))
    zone: Mapped[str] = mapped_column(String(60))
    contract_digest: Mapped[str] = mapped_column(String(80))
    algorithm: Mapped[str] = mapped_column(String(200))
    requester: Mapped[str] = mapped_column(String(200))
    purpose: Mapped[str] = mapped_column(String(200))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    is_paused: Mapped[bool] = mapped_column(Boolean)
    next_at: Mapped[datetime] = mapped_column(Instant, index=True)
    last_run: Mapped[str | None] = mapped_column(String(80))
    last_problem: Mapped[str | None] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A standing order; ``last_run`` is the run that it queued last, ``last_problem`` why the last time queued nothing."""

    uid: str
    cron: str
    zone: str
    contract_digest: str
    algorithm: str
    requester: str
    purpose: str
    request: dict[str, Any]
    is_paused: bool
    next_at: datetime
    last_run: str | None
    last_problem: str | None


_COLUMNS = tuple(Schedule.__slots__)


def insert(session: Session, schedule: Schedule) -> None:
    """Add a schedule."""
    session.add(ScheduleRow(**{name: getattr(schedule, name) for name in _COLUMNS}))


def find(session: Session, uid: str) -> Schedule | None:
    """Return a schedule by its uid."""
    row = session.get(ScheduleRow, uid)
    return None if row is None else _value(row)


def every(session: Session) -> tuple[Schedule, ...]:
    """Return all schedules, the one due first at the front."""
    rows = session.scalars(select(ScheduleRow).order_by(ScheduleRow.next_at, ScheduleRow.uid))
    return tuple(_value(row) for row in rows)


def due(session: Session, now: datetime) -> tuple[Schedule, ...]:
    """Return the schedules that are due and not paused."""
    rows = session.scalars(
        select(ScheduleRow)
        .where(ScheduleRow.next_at <= now, ScheduleRow.is_paused.is_(False))
        .order_by(ScheduleRow.next_at, ScheduleRow.uid)
    )
    return tuple(_value(row) for row in rows)


def change(session: Session, uid: str, **values: Any) -> None:
    """Change members of a schedule."""
    session.execute(update(ScheduleRow).where(ScheduleRow.uid == uid).values(**values))


def move_on(session: Session, schedule: Schedule, next_at: datetime) -> bool:
    """Take a due schedule for this process: False where another has moved it on already."""
    done = session.execute(
        update(ScheduleRow)
        .where(ScheduleRow.uid == schedule.uid, ScheduleRow.next_at == schedule.next_at)
        .values(next_at=next_at)
    )
    return bool(getattr(done, "rowcount", 0) == 1)


def remove(session: Session, uid: str) -> None:
    """Delete a schedule; what it queued stays."""
    row = session.get(ScheduleRow, uid)
    if row is not None:
        session.delete(row)


def _value(row: ScheduleRow) -> Schedule:
    return Schedule(**{name: getattr(row, name) for name in _COLUMNS})
