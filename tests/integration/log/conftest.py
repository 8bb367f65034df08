"""One log on SQLite and one on a real PostgreSQL server, with witnesses that have real keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from convoy_audit.entry import encode
from convoy_audit.events import RunFailed
from convoy_audit.note import Signer
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS, MemoryWitnessStore
from convoy_audit.witness import Witness
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.log import LogService, tables

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from postgres_server import postgres_server

ORIGIN = "example.com/log"
PARTIES = ("auditor", "charging", "insurer", "oem")
SIGNERS = [Signer.generate(ORIGIN, kind) for kind in HYBRID_LOG]
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server with an empty database."""
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Empty tables of the log in each database."""
    is_sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'log.db'}" if is_sqlite else request.getfixturevalue("postgres")
    engine = open_engine(url)
    Base.metadata.drop_all(engine, tables=TABLES)  # type: ignore[arg-type]
    Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
    yield engine
    engine.dispose()


@pytest.fixture
def witnesses() -> dict[str, Witness]:
    """Four witnesses with both key types, by party."""
    logs = [signer.verifier for signer in SIGNERS]
    return {
        party: Witness([Signer.generate(party, kind) for kind in HYBRID_WITNESS], logs, MemoryWitnessStore())
        for party in PARTIES
    }


@pytest.fixture
def start(engine: Engine, witnesses: Mapping[str, Witness]) -> Iterator[Callable[[], LogService]]:
    """Start the log; each start reads the database afresh."""
    started: list[LogService] = []

    def enrolled() -> dict[str, Sequence[str]]:
        return {party: [v.vkey for v in witness.verifiers] for party, witness in witnesses.items()}

    def run() -> LogService:
        started.append(LogService(session_factory(engine), ORIGIN, SIGNERS, witnesses=enrolled))
        return started[-1]

    yield run
    for log in started:
        log.close()


@pytest.fixture
def entry() -> Callable[[int], bytes]:
    """Return the maker of the n-th entry."""
    at = datetime(2026, 11, 24, tzinfo=UTC)
    contract = "sha256:" + "0" * 64
    return lambda number: encode(RunFailed(at=at, run=f"run-{number}", contract=contract, reasons=("NODE_LOST",)))
