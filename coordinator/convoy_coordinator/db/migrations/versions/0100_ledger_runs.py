"""What each run cost, as its party stated it; the reading of the log begins again, because older rows lack it.

Revision: 0100, after 0090.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0100"
down_revision = "0090"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what was read of the log is read again."""
    op.create_table(
        "ledger_run",
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("asset", sa.String(length=200), nullable=False),
        sa.Column("contract", sa.String(length=80), nullable=False),
        sa.Column("run", sa.String(length=200), nullable=False),
        sa.Column("epsilon_micro", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("party", "asset", "contract", "run", name=op.f("pk_ledger_run")),
    )
    for table in ("ledger", "ledger_position"):
        op.execute(sa.text(f"DELETE FROM {table}"))  # noqa: S608 - two names of ours


def downgrade() -> None:
    """Drop it."""
    op.drop_table("ledger_run")
