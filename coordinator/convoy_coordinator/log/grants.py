"""Two database roles on PostgreSQL: one that owns the tables, one that the service runs as.

    statements(role) -> list[str]      the SQL that makes the role's rights; idempotent
    grant(engine, role)                runs it; the engine must belong to the owner (the role that migrates)
    excess(engine) -> list[str]        what the connected role may do to the log beyond SELECT and INSERT; empty is right

On the log's tables the service may SELECT and INSERT, nothing else, and it may not create, drop or alter. On the others it may
also UPDATE and DELETE. This keeps faults and stolen sessions from rewriting the log; it is no proof: whoever owns the database
can do anything, and what shows that are the witnesses. Triggers would be no more than this, so there are none.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from convoy_coordinator.db.tables import TABLES
from convoy_coordinator.errors import SetupError

LOG_TABLES: Final = ("log_checkpoint", "log_cosignature", "log_entry", "log_frontier")
FORBIDDEN: Final = ("UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_ROLE: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def statements(role: str) -> list[str]:
    """Return the SQL that gives a role what the service needs, and takes everything else.

    Raises:
        SetupError: not a plain role name.
    """
    if _ROLE.fullmatch(role) is None:
        raise SetupError("ROLE_INVALID", f"{role[:63]!r} is not a plain role name", fix="Use a-z, 0-9 and _.")
    others = ", ".join(sorted(TABLES - set(LOG_TABLES)))
    log = ", ".join(LOG_TABLES)
    return [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"REVOKE CREATE ON SCHEMA public FROM {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT INSERT ON {log} TO {role}",
        f"GRANT INSERT, UPDATE, DELETE ON {others} TO {role}",
        f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ]


def grant(engine: Engine, role: str) -> list[str]:
    """Make a role's rights; return the SQL that was run.

    Raises:
        SetupError: not PostgreSQL, no such role, or not the owner.
    """
    if engine.dialect.name != "postgresql":
        raise SetupError(
            "NOT_POSTGRESQL", "only PostgreSQL has roles", fix="With SQLite, protect the file by its owner."
        )
    wanted = statements(role)
    try:
        with engine.begin() as connection:
            for statement in wanted:
                connection.execute(text(statement))
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise SetupError(
            "GRANT_FAILED", f"the rights could not be set: {cause}", fix="Create the role first; connect as the owner."
        ) from None
    return wanted


def has_roles(engine: Engine) -> bool:
    """Tell whether the database knows roles; without them whoever can write its file can write the log."""
    return engine.dialect.name == "postgresql"


def excess(engine: Engine) -> list[str]:
    """Return the rights on the log's tables that the connected role should not have."""
    if not has_roles(engine):
        return []
    with engine.connect() as connection:
        return [
            f"{right} on {table}"
            for table in LOG_TABLES
            for right in FORBIDDEN
            if connection.execute(
                text("SELECT has_table_privilege(current_user, :table, :right)"), {"table": table, "right": right}
            ).scalar()
        ]
