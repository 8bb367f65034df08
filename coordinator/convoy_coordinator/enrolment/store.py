"""Keep invitations, enrolment requests and certificates: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import LargeBinary, String, Text, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from convoy_coordinator.db import Base
from convoy_coordinator.db.instant import Instant


class InvitationRow(Base):
    """A ticket that was given out; its secret is kept as a digest only."""

    __tablename__ = "invitation"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    secret_digest: Mapped[str] = mapped_column(String(64))
    party: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(40))
    issued_at: Mapped[datetime] = mapped_column(Instant)
    until: Mapped[datetime] = mapped_column(Instant)
    withdrawn_at: Mapped[datetime | None] = mapped_column(Instant)


class RequestRow(Base):
    """The one request that a ticket was used for."""

    __tablename__ = "enrolment_request"

    invitation: Mapped[str] = mapped_column(String(40), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(40), index=True)
    party: Mapped[str] = mapped_column(String(200))
    card: Mapped[str] = mapped_column(Text)
    csr: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(String(20))
    requested_at: Mapped[datetime] = mapped_column(Instant)
    decided_at: Mapped[datetime | None] = mapped_column(Instant)
    certificate: Mapped[str | None] = mapped_column(Text)


class CertificateRow(Base):
    """A certificate of a node; revoked ones stay."""

    __tablename__ = "certificate"

    digest: Mapped[str] = mapped_column(String(80), primary_key=True)
    serial: Mapped[str] = mapped_column(String(40))
    party: Mapped[str] = mapped_column(String(200), index=True)
    not_before: Mapped[datetime] = mapped_column(Instant)
    not_after: Mapped[datetime] = mapped_column(Instant)
    revoked_at: Mapped[datetime | None] = mapped_column(Instant)
    revoked_reason: Mapped[str | None] = mapped_column(String(40))


@dataclass(frozen=True, slots=True)
class Invitation:
    """A ticket as the coordinator knows it."""

    id: str
    secret_digest: str
    party: str
    name: str
    role: str
    issued_at: datetime
    until: datetime
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A node's request: ``state`` is pending, approved or denied; ``card`` is canonical JSON."""

    invitation: str
    fingerprint: str
    party: str
    card: str
    csr: bytes
    state: str
    requested_at: datetime
    decided_at: datetime | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate as the coordinator knows it; ``digest`` is SHA-256 of its DER."""

    digest: str
    serial: str
    party: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    revoked_reason: str | None = None


def put_invitation(session: Session, invitation: Invitation) -> None:
    """Add or replace an invitation."""
    session.merge(InvitationRow(**_members(invitation)))


def find_invitation(session: Session, ticket: str) -> Invitation | None:
    """Return an invitation by its public id."""
    row = session.get(InvitationRow, ticket)
    return None if row is None else Invitation(**_columns(row, Invitation))


def invitations(session: Session) -> tuple[Invitation, ...]:
    """Return every invitation, newest first."""
    rows = session.scalars(select(InvitationRow).order_by(InvitationRow.issued_at.desc(), InvitationRow.id))
    return tuple(Invitation(**_columns(row, Invitation)) for row in rows)


def put_request(session: Session, request: Request) -> None:
    """Add or replace a request."""
    session.merge(RequestRow(**_members(request)))


def find_request(session: Session, ticket: str) -> Request | None:
    """Return the request that a ticket was used for."""
    row = session.get(RequestRow, ticket)
    return None if row is None else Request(**_columns(row, Request))


def requests(session: Session) -> tuple[Request, ...]:
    """Return every request, newest first."""
    rows = session.scalars(select(RequestRow).order_by(RequestRow.requested_at.desc(), RequestRow.invitation))
    return tuple(Request(**_columns(row, Request)) for row in rows)


def put_certificate(session: Session, certificate: Certificate) -> None:
    """Add or replace a certificate."""
    session.merge(CertificateRow(**_members(certificate)))


def find_certificate(session: Session, digest: str) -> Certificate | None:
    """Return a certificate by the digest of its DER."""
    row = session.get(CertificateRow, digest)
    return None if row is None else Certificate(**_columns(row, Certificate))


def certificates_of(session: Session, party: str) -> tuple[Certificate, ...]:
    """Return every certificate of a party, oldest first."""
    query = select(CertificateRow).where(CertificateRow.party == party)
    rows = session.scalars(query.order_by(CertificateRow.not_before, CertificateRow.digest))
    return tuple(Certificate(**_columns(row, Certificate)) for row in rows)


def _members(value: Invitation | Request | Certificate) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _columns(row: Base, kind: type[Invitation] | type[Request] | type[Certificate]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in kind.__dataclass_fields__}
