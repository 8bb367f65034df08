"""Keys of witnesses that others have followed.

Revision: 0090, after 0080.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0090"
down_revision = "0080"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "former_witness",
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("log_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("is_taken", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("party", "log_index", name=op.f("pk_former_witness")),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("former_witness")
