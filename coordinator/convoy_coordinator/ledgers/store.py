"""Keep the last statement of each party's ledger; a reading of the log that can be made again
from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, Integer, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class LedgerRow(Base):
    """The last statement about one asset of one party under one contract (by digest)."""

    __tablename__ = "ledger"

    party: Mapped[str] = mapped_column(String(200), primary_key=True)
    asset: Mapped[str] = mapped_column(String(200), primary_key=True)
    contract: Mapped[str] = mapped_column(String(80), primary_key=True)
    run: Mapped[str] = mapped_column(String(200))
    total_micro: Mapped[int] = mapped_column(BigInteger)
    cap_micro: Mapped[int | None] = mapped_column(BigInteger)
    stated_at: Mapped[datetime] = mapped_column(Instant)
    log_index: Mapped[int] = mapped_column(BigInteger)


class LedgerRunRow(Base):
    """What one run cost of an asset, the largest that its party has stated."""

    __tablename__ = "ledger_run"

    party: Mapped[str] = mapped_column(String(200), primary_key=True)
    asset: Mapped[str] = mapped_column(String(200), primary_key=True)
    contract: Mapped[str] = mapped_column(String(80), primary_key=True)
    run: Mapped[str] = mapped_column(String(200), primary_key=True)
    epsilon_micro: Mapped[int] = mapped_column(BigInteger)


class LedgerPositionRow(Base):
    """How many entries of the log have been read; one row, with id 1."""

    __tablename__ = "ledger_position"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a party has stated about one asset under one contract, by digest.

    ``total_micro`` is micro-epsilon of the asset over all contracts so far, as the node composes them, open reservations
    included; ``cap_micro`` the cap it told; ``runs_micro`` what each run under this contract has cost.
    """

    party: str
    asset: str
    contract: str
    run: str
    total_micro: int
    cap_micro: int | None
    stated_at: datetime
    log_index: int
    runs_micro: tuple[int, ...] = ()


_COLUMNS = tuple(name for name in Ledger.__dataclass_fields__ if name != "runs_micro")


def position(session: Session) -> int:
    """Return how many entries have been read."""
    row = session.get(LedgerPositionRow, 1)
    return 0 if row is None else row.size


def advance(session: Session, ledgers: Iterable[Ledger], size: int) -> None:
    """Keep newer statements, and that the log has been read up to ``size``; the cap is kept if
    not told again. ``runs_micro`` of what is given here is of its ``run`` alone.
    """
    for ledger in ledgers:
        for spent in ledger.runs_micro:
            _charge(session, ledger, spent)
        row = session.get(LedgerRow, (ledger.party, ledger.asset, ledger.contract))
        values = {name: getattr(ledger, name) for name in _COLUMNS}
        if row is None:
            session.add(LedgerRow(**values))
            session.flush()
        elif row.log_index < ledger.log_index:
            if ledger.cap_micro is None:
                del values["cap_micro"]
            for name, value in values.items():
                setattr(row, name, value)
    place = session.get(LedgerPositionRow, 1)
    if place is None:
        session.add(LedgerPositionRow(id=1, size=size))
    else:
        place.size = size


def all_ledgers(session: Session) -> tuple[Ledger, ...]:
    """Return the last statement of every party about every asset."""
    charges: dict[tuple[str, str, str], list[int]] = {}
    for run in session.scalars(select(LedgerRunRow).order_by(LedgerRunRow.run)):
        charges.setdefault((run.party, run.asset, run.contract), []).append(run.epsilon_micro)
    rows = session.scalars(select(LedgerRow).order_by(LedgerRow.party, LedgerRow.asset, LedgerRow.log_index))
    return tuple(
        Ledger(
            **{name: getattr(row, name) for name in _COLUMNS},
            runs_micro=tuple(charges.get((row.party, row.asset, row.contract), ())),
        )
        for row in rows
    )


def _charge(session: Session, ledger: Ledger, spent: int) -> None:
    row = session.get(LedgerRunRow, (ledger.party, ledger.asset, ledger.contract, ledger.run))
    if row is None:
        members = {name: getattr(ledger, name) for name in ("party", "asset", "contract", "run")}
        session.add(LedgerRunRow(**members, epsilon_micro=spent))
        session.flush()
    else:
        row.epsilon_micro = max(row.epsilon_micro, spent)
