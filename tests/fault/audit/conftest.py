"""A log on disk with its tables, and entries to put in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from convoy_audit.entry import encode
from convoy_audit.events import RunFailed
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.log import LogService, tables

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from postgres_server import postgres_server

ORIGIN = "example.com/log"
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
SIGNERS = [Signer.from_seed(ORIGIN, SignatureType.ED25519, bytes(31) + b"\1")]


@pytest.fixture
def entry() -> Callable[[int], bytes]:
    """Return the maker of the n-th entry."""
    return lambda number: encode(
        RunFailed(
            at=datetime(2026, 11, 24, tzinfo=UTC),
            run=f"run-{number}",
            contract="sha256:" + "0" * 64,
            reasons=("NODE_LOST",),
        )
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A SQLite database with the tables of the log."""
    engine = open_engine(f"sqlite:///{tmp_path / 'log.db'}")
    Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
    yield engine
    engine.dispose()


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., LogService]]:
    """Start the log; every start reads the database afresh."""
    started: list[LogService] = []

    def run(**options: float) -> LogService:
        started.append(LogService(session_factory(engine), ORIGIN, SIGNERS, **options))  # type: ignore[arg-type]
        return started[-1]

    yield run
    for log in started:
        log.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server with an empty database."""
    with postgres_server() as url:
        yield url
