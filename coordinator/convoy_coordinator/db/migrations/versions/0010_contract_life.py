"""Contract life: proposals that wait for signatures, the asset catalogue, and partners' tiers.

Revision: 0010, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from convoy_coordinator.db.instant import Instant

revision = "0010"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "signed_proposal",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("proofs", sa.JSON(), nullable=False),
        sa.Column("proposed_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signed_proposal")),
    )
    op.create_table(
        "catalogue_entry",
        sa.Column("asset", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("proofs", sa.JSON(), nullable=False),
        sa.Column("recorded_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("asset", "version", name=op.f("pk_catalogue_entry")),
    )
    op.create_table(
        "tier_grant",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("tier", sa.String(length=4), nullable=False),
        sa.Column("grant", sa.JSON(), nullable=False),
        sa.Column("proofs", sa.JSON(), nullable=False),
        sa.Column("granted_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_tier_grant")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("tier_grant")
    op.drop_table("catalogue_entry")
    op.drop_table("signed_proposal")
