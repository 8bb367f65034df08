"""Keep what waits for more signatures: events of all parties, looser catalogue entries, higher tiers. Nothing here has effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, Text, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class ProposalRow(Base):
    """One signed value that does not have all its signatures yet."""

    __tablename__ = "signed_proposal"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(Text)
    value: Mapped[dict[str, Any]] = mapped_column(JSON)
    proofs: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    proposed_at: Mapped[datetime] = mapped_column(Instant)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was proposed, and who has signed it."""

    id: str
    kind: str
    subject: str
    value: Mapping[str, Any]
    proofs: tuple[Mapping[str, Any], ...]
    proposed_at: datetime


def find(session: Session, proposal_id: str) -> Proposal | None:
    """Return a proposal by the digest of its value."""
    row = session.get(ProposalRow, proposal_id)
    return None if row is None else _value(row)


def waiting(session: Session, kind: str, subject: str) -> tuple[Proposal, ...]:
    """Return the proposals about a subject, oldest first."""
    rows = session.scalars(
        select(ProposalRow)
        .where(ProposalRow.kind == kind, ProposalRow.subject == subject)
        .order_by(ProposalRow.proposed_at, ProposalRow.id)
    )
    return tuple(_value(row) for row in rows)


def keep(session: Session, proposal: Proposal) -> None:
    """Add a proposal, or the proofs that have come to it."""
    row = session.get(ProposalRow, proposal.id)
    if row is None:
        session.add(
            ProposalRow(
                id=proposal.id,
                kind=proposal.kind,
                subject=proposal.subject,
                value=dict(proposal.value),
                proofs=[dict(proof) for proof in proposal.proofs],
                proposed_at=proposal.proposed_at,
            )
        )
    else:
        row.proofs = [dict(proof) for proof in proposal.proofs]


def clear(session: Session, kind: str, subject: str) -> None:
    """Drop every proposal about a subject: its chain has moved on, so none of them can come to effect."""
    session.execute(delete(ProposalRow).where(ProposalRow.kind == kind, ProposalRow.subject == subject))


def joined(known: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return one proof a party, the first that came."""
    by_party: dict[str, Mapping[str, Any]] = {}
    for proof in (*known, *new):
        by_party.setdefault(str(proof["party"]), proof)
    return tuple(by_party[party] for party in sorted(by_party))


def _value(row: ProposalRow) -> Proposal:
    return Proposal(row.id, row.kind, row.subject, row.value, tuple(row.proofs), row.proposed_at)
