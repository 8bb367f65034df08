"""Invitations, enrolment requests, certificates, former identity keys, and parties that are shut out or left.

Revision: 0070, after 0010.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from convoy_coordinator.db.instant import Instant

revision = "0070"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "certificate",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("not_before", Instant(), nullable=False),
        sa.Column("not_after", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.Column("revoked_reason", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_certificate")),
    )
    op.create_index(op.f("ix_certificate_party"), "certificate", ["party"], unique=False)
    op.create_table(
        "enrolment_request",
        sa.Column("invitation", sa.String(length=40), nullable=False),
        sa.Column("fingerprint", sa.String(length=40), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("requested_at", Instant(), nullable=False),
        sa.Column("decided_at", Instant(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("invitation", name=op.f("pk_enrolment_request")),
    )
    op.create_index(op.f("ix_enrolment_request_fingerprint"), "enrolment_request", ["fingerprint"], unique=False)
    op.create_table(
        "invitation",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("secret_digest", sa.String(length=64), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("issued_at", Instant(), nullable=False),
        sa.Column("until", Instant(), nullable=False),
        sa.Column("withdrawn_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
    )
    op.create_table(
        "party_key",
        sa.Column("kid", sa.String(length=240), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("not_before", Instant(), nullable=False),
        sa.Column("not_after", Instant(), nullable=False),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.Column("revoked_reason", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_party_key")),
    )
    op.create_index(op.f("ix_party_key_party"), "party_key", ["party"], unique=False)
    op.create_table(
        "party_standing",
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("since", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("party", name=op.f("pk_party_standing")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("party_standing")
    op.drop_index(op.f("ix_party_key_party"), table_name="party_key")
    op.drop_table("party_key")
    op.drop_table("invitation")
    op.drop_index(op.f("ix_enrolment_request_fingerprint"), table_name="enrolment_request")
    op.drop_table("enrolment_request")
    op.drop_index(op.f("ix_certificate_party"), table_name="certificate")
    op.drop_table("certificate")
