"""Alembic's entry point: runs on the connection that ``db.migrate`` hands over, and only there."""

from __future__ import annotations

from alembic import context

from convoy_coordinator.db import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
