"""Parties, contracts, runs, releases, ledgers and the log.

Revision: 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from convoy_coordinator.db.instant import Instant

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def number() -> sa.types.TypeEngine[int]:
    """Return the type of counts and indexes; SQLite has one integer type."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "contract",
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("offered_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_contract")),
        sa.UniqueConstraint("uid", "version", name=op.f("uq_contract_uid_version")),
    )
    op.create_table(
        "contract_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contract_event")),
        sa.UniqueConstraint("uid", "seq", name=op.f("uq_contract_event_uid_seq")),
    )
    op.create_table(
        "ledger",
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("asset", sa.String(length=200), nullable=False),
        sa.Column("contract", sa.String(length=80), nullable=False),
        sa.Column("run", sa.String(length=200), nullable=False),
        sa.Column("total_micro", sa.BigInteger(), nullable=False),
        sa.Column("cap_micro", sa.BigInteger(), nullable=True),
        sa.Column("stated_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("party", "asset", "contract", name=op.f("pk_ledger")),
    )
    op.create_table(
        "ledger_position",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_position")),
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("size", number(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoint")),
    )
    op.create_table(
        "log_entry",
        sa.Column("idx", number(), autoincrement=False, nullable=False),
        sa.Column("leaf", sa.LargeBinary(length=32), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("idx", name=op.f("pk_log_entry")),
    )
    op.create_table(
        "log_frontier",
        sa.Column("size", number(), autoincrement=False, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_frontier")),
    )
    op.create_table(
        "party",
        sa.Column("id", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("region", sa.String(length=40), nullable=False),
        sa.Column("identity_kid", sa.String(length=240), nullable=False),
        sa.Column("identity_key", sa.String(length=64), nullable=False),
        sa.Column("key_not_before", Instant(), nullable=False),
        sa.Column("key_not_after", Instant(), nullable=False),
        sa.Column("mask_key", sa.String(length=64), nullable=False),
        sa.Column("witness_key", sa.Text(), nullable=False),
        sa.Column("supernode_key", sa.Text(), nullable=True),
        sa.Column("enrolled_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_party")),
        sa.UniqueConstraint("identity_kid", name=op.f("uq_party_identity_kid")),
    )
    op.create_table(
        "contract_signature",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=False),
        sa.Column("kid", sa.String(length=240), nullable=False),
        sa.Column("sig_t", sa.String(length=40), nullable=False),
        sa.Column("entry", sa.JSON(), nullable=False),
        sa.Column("received_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["contract.digest"], name=op.f("fk_contract_signature_digest_contract")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contract_signature")),
        sa.UniqueConstraint(
            "digest", "party", "kid", "sig_t", name=op.f("uq_contract_signature_digest_party_kid_sig_t")
        ),
    )
    op.create_table(
        "log_cosignature",
        sa.Column("size", number(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("party", sa.String(length=255), nullable=False),
        sa.Column("time_s", number(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["size"], ["log_checkpoint.size"], name=op.f("fk_log_cosignature_size_log_checkpoint")),
        sa.PrimaryKeyConstraint("size", "name", "key_id", name=op.f("pk_log_cosignature")),
    )
    op.create_index(op.f("ix_log_cosignature_party"), "log_cosignature", ["party"], unique=False)
    op.create_table(
        "run",
        sa.Column("uid", sa.String(length=80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("contract_digest", sa.String(length=80), nullable=False),
        sa.Column("contract_uid", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("algorithm", sa.String(length=200), nullable=False),
        sa.Column("requester", sa.String(length=200), nullable=False),
        sa.Column("purpose", sa.String(length=200), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("requested_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.Column("claimed_at", Instant(), nullable=True),
        sa.Column("alive_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(length=80), nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("party", sa.String(length=200), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("fix", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["contract_digest"], ["contract.digest"], name=op.f("fk_run_contract_digest_contract")),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_run")),
        sa.UniqueConstraint("contract_uid", "round", name=op.f("uq_run_contract_uid_round")),
        sa.UniqueConstraint("number", name=op.f("uq_run_number")),
    )
    op.create_index(op.f("ix_run_state"), "run", ["state"], unique=False)
    op.create_table(
        "release",
        sa.Column("run", sa.String(length=80), nullable=False),
        sa.Column("manifest_digest", sa.String(length=80), nullable=False),
        sa.Column("files", sa.JSON(), nullable=False),
        sa.Column("summary", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("published_at", Instant(), nullable=False),
        sa.Column("log_index", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["run.uid"], name=op.f("fk_release_run_run")),
        sa.PrimaryKeyConstraint("run", name=op.f("pk_release")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("release")
    op.drop_index(op.f("ix_run_state"), table_name="run")
    op.drop_table("run")
    op.drop_index(op.f("ix_log_cosignature_party"), table_name="log_cosignature")
    op.drop_table("log_cosignature")
    op.drop_table("contract_signature")
    op.drop_table("party")
    op.drop_table("log_frontier")
    op.drop_table("log_entry")
    op.drop_table("log_checkpoint")
    op.drop_table("ledger_position")
    op.drop_table("ledger")
    op.drop_table("contract_event")
    op.drop_table("contract")
