"""One log on SQLite and one on a real PostgreSQL server, with witnesses that have real keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
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

ORIGIN = "example.com/log"
PARTIES = ("auditor", "charging", "insurer", "oem")
SIGNERS = [Signer.generate(ORIGIN, kind) for kind in HYBRID_LOG]
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this machine's newest version, on a socket, gone at the end."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no PostgreSQL binaries: apt-get install postgresql")
    binaries, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="convoy-log-pg-"))
    user = "postgres" if os.getuid() == 0 else ""  # the server refuses to run as root
    before = ["runuser", "-u", user, "--"] if user else []
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(tool: str, *arguments: str) -> None:
        command = [*before, str(binaries / tool), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120)

    run("initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-locale", "-U", "convoy")
    try:
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -h ''", "start")
        yield f"postgresql+psycopg://convoy@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


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
