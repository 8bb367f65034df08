"""Open the database: SQLite in the home folder, or PostgreSQL by URL.

SQLite runs with WAL, ``synchronous=FULL`` and foreign keys: ``NORMAL`` would lose acknowledged
log entries at a power cut. Every transaction begins IMMEDIATE when it is opened for writing by
``writing``, so that two writers queue instead of failing in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session, sessionmaker

from convoy_coordinator.errors import SetupError

SessionFactory = sessionmaker[Session]

_SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout=10000",
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
)


def open_engine(url: str) -> Engine:
    """Create the engine for a database URL.

    Raises:
        SetupError: the URL is not one of SQLite or PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The URL may hold a password, so neither it nor the parser's text is repeated.
        raise SetupError("DATABASE_URL_INVALID", "the database URL cannot be read", fix=_URL_FIX) from None
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed)
        event.listen(engine, "connect", _configure_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        return create_engine(parsed, pool_pre_ping=True, pool_size=10, max_overflow=20)
    raise SetupError(
        "DATABASE_URL_INVALID",
        f"{parsed.get_backend_name()!r} is not a supported database",
        fix=_URL_FIX,
    )


def session_factory(engine: Engine) -> SessionFactory:
    """Return the factory that every store and service is given."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def writing(factory: SessionFactory) -> Iterator[Session]:
    """Open one transaction for writing; commit at the end, roll back on any exception."""
    with factory() as session, session.begin():
        if session.get_bind().dialect.name == "sqlite":
            session.execute(text("BEGIN IMMEDIATE"))
        yield session


def _configure_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in _SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


_URL_FIX = "Use sqlite:///FILE or postgresql://USER@HOST/NAME, in database_url_file or CONVOY_COORDINATOR_DATABASE_URL."
