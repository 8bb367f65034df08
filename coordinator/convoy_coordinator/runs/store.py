"""Keep runs: one row each, from the queue to how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Integer,
    String,
    Text,
    UniqueConstraint,
    func,
    select,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant
from convoy_coordinator.runs.states import Ending, RunState


class RunRow(Base):
    """One run; ``number`` orders the queue, ``round`` counts the runs of a contract uid."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("contract_uid", "round"), UniqueConstraint("number"))

    uid: Mapped[str] = mapped_column(String(80), primary_key=True)
    number: Mapped[int] = mapped_column(Integer)
    contract_digest: Mapped[str] = mapped_column(ForeignKey("contract.digest"))
    contract_uid: Mapped[str] = mapped_column(Text)
    round: Mapped[int] = mapped_column(Integer)
    algorithm: Mapped[str] = mapped_column(String(200))
    requester: Mapped[str] = mapped_column(String(200))
    purpose: Mapped[str] = mapped_column(String(200))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(20), index=True)
    requested_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)
    claimed_at: Mapped[datetime | None] = mapped_column(Instant)
    alive_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    progress: Mapped[dict[str, Any]] = mapped_column(JSON)
    reason: Mapped[str | None] = mapped_column(String(80))
    reasons: Mapped[list[str]] = mapped_column(JSON)
    party: Mapped[str | None] = mapped_column(String(200))
    cause: Mapped[str | None] = mapped_column(Text)
    fix: Mapped[str | None] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands now.

    ``request`` holds what the requester asked beyond the four named members; ``progress`` the
    last report of the ServerApp. ``reason``, ``party``, ``cause`` and ``fix`` say why a run ended
    otherwise than finished.
    """

    uid: str
    number: int
    contract_digest: str
    contract_uid: str
    round: int
    algorithm: str
    requester: str
    purpose: str
    request: dict[str, Any]
    state: RunState
    requested_at: datetime
    log_index: int
    claimed_at: datetime | None
    alive_at: datetime | None
    ended_at: datetime | None
    progress: dict[str, Any]
    reason: str | None
    reasons: list[str]
    party: str | None
    cause: str | None
    fix: str | None


def insert_run(session: Session, run: Run) -> None:
    """Add a run."""
    values = {name: getattr(run, name) for name in _COLUMNS}
    session.add(RunRow(**values | {"state": run.state.value}))


def find_run(session: Session, uid: str) -> Run | None:
    """Return a run by its uid."""
    row = session.get(RunRow, uid)
    return None if row is None else _value(row)


def latest_runs(session: Session, limit: int) -> tuple[Run, ...]:
    """Return the last runs, newest first."""
    rows = session.scalars(select(RunRow).order_by(RunRow.number.desc()).limit(limit))
    return tuple(_value(row) for row in rows)


def next_number(session: Session) -> int:
    """Return the number of the run to be added."""
    return (session.scalar(select(func.max(RunRow.number))) or 0) + 1


def next_round(session: Session, contract_uid: str) -> int:
    """Return the round of the run to be added to a contract, over all its versions."""
    return (session.scalar(select(func.max(RunRow.round)).where(RunRow.contract_uid == contract_uid)) or 0) + 1


def oldest_unclaimed(session: Session) -> Run | None:
    """Return the run at the head of the queue."""
    row = session.scalar(
        select(RunRow)
        .where(RunRow.state == RunState.QUEUED.value, RunRow.claimed_at.is_(None))
        .order_by(RunRow.number)
        .limit(1)
    )
    return None if row is None else _value(row)


def claimed_and_silent(session: Session, before: datetime) -> tuple[Run, ...]:
    """Return the claimed runs that have not ended and were silent since ``before``."""
    rows = session.scalars(
        select(RunRow)
        .where(RunRow.claimed_at.is_not(None), RunRow.ended_at.is_(None), RunRow.alive_at < before)
        .order_by(RunRow.number)
    )
    return tuple(_value(row) for row in rows)


def mark_claimed(session: Session, uid: str, at: datetime) -> bool:
    """Claim a queued run; ``False`` if somebody else was first."""
    found = session.execute(
        update(RunRow)
        .where(RunRow.uid == uid, RunRow.claimed_at.is_(None), RunRow.state == RunState.QUEUED.value)
        .values(claimed_at=at, alive_at=at)
        .returning(RunRow.uid)
    )
    return found.first() is not None


def release_claim(session: Session, uid: str) -> None:
    """Put a claimed run that was never authorised back in the queue."""
    session.execute(update(RunRow).where(RunRow.uid == uid).values(claimed_at=None, alive_at=None))


def set_progress(session: Session, uid: str, progress: dict[str, Any], at: datetime) -> None:
    """Keep the last report of a run."""
    session.execute(update(RunRow).where(RunRow.uid == uid).values(progress=progress, alive_at=at))


def set_state(
    session: Session,
    uid: str,
    before: RunState,
    after: RunState,
    ending: Ending | None,
    at: datetime,
) -> bool:
    """Move a run from ``before`` to ``after``; ``False`` if it is not in ``before`` any more."""
    values: dict[str, Any] = {"state": after.value, "alive_at": at}
    if after.is_final:
        values["ended_at"] = at
    if ending is not None:
        values |= {
            "reason": ending.reason,
            "reasons": list(ending.reasons),
            "party": ending.party,
            "cause": ending.cause,
            "fix": ending.fix,
        }
    found = session.execute(
        update(RunRow).where(RunRow.uid == uid, RunRow.state == before.value).values(values).returning(RunRow.uid)
    )
    return found.first() is not None


_COLUMNS = tuple(Run.__dataclass_fields__)


def _value(row: RunRow) -> Run:
    values = {name: getattr(row, name) for name in _COLUMNS}
    return Run(**values | {"state": RunState(row.state)})
