"""Bring a database to the tables of this version, and tell whether it is there already.

Migrations live in the package, so an installed coordinator needs no other file. A new database is
migrated at first start; an older one only by ``convoy-coordinator migrate``, because a person
should have made a backup before.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from convoy_coordinator.db import Base
from convoy_coordinator.db.tables import TABLES
from convoy_coordinator.errors import SetupError


def migrate(engine: Engine) -> str:
    """Run every migration that the database has not seen; return the revision it is at now."""
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return head_revision()


def head_revision() -> str:
    """Return the revision of this version of the program."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise SetupError("MIGRATIONS_MISSING", "the package has no migrations", fix="Install again.")
    return head


def current_revision(engine: Engine) -> str | None:
    """Return the revision of the database, ``None`` for a new one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def prepare(engine: Engine) -> None:
    """Migrate a new database; refuse one of another version.

    Raises:
        SetupError: the database has tables of an older or newer version.
    """
    current = current_revision(engine)
    if current is None:
        migrate(engine)
    elif current != head_revision():
        raise SetupError(
            "DATABASE_VERSION",
            f"the database is at revision {current}, this program needs {head_revision()}",
            fix="Make a backup, then run 'convoy-coordinator migrate'.",
        )


def differences(engine: Engine) -> list[str]:
    """Return what the migrated database and the tables of the code do not agree on; empty is
    right.
    """
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, Base.metadata)
    return [repr(difference) for difference in found] + [
        f"table {name} is not mapped" for name in sorted(TABLES - set(Base.metadata.tables))
    ]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
