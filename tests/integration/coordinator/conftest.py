"""A real coordinator in a folder of its own, and a real PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from convoy_coordinator.app import create_app
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock

POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
POSTGRES_HINT = "no PostgreSQL 15 server here: apt-get install -y postgresql-15"


@pytest.fixture
def clock() -> SetClock:
    """A clock that stands at a moment in the term of the test contract."""
    return SetClock(datetime(2027, 3, 1, 2, 0, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh coordinator's home."""
    folder = tmp_path / "coordinator"
    create_home(folder, name="Test federation", origin="test.example/log")
    return folder


@pytest.fixture
def federation(home: Path, clock: SetClock) -> Iterator[Federation]:
    """A running coordinator on SQLite and three parties with real keys."""
    app = create_app(read_settings(home), clock=clock)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Federation(client, home, clock)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Start a real PostgreSQL server; yield the URL of its socket, without a database name."""
    if not (POSTGRES_BIN / "initdb").exists():
        pytest.fail(POSTGRES_HINT)
    folder = Path(tempfile.mkdtemp(prefix="convoy-pg-"))
    as_user: list[str] = []
    user = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        user = "postgres"
        as_user = ["runuser", "-u", user, "--"]
        shutil.chown(folder, user)
    data = folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(tool: str, *arguments: str) -> None:
        subprocess.run(
            [*as_user, str(POSTGRES_BIN / tool), *arguments],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=120,
        )

    try:
        run("initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-locale")
        options = f"-k {folder} -p {port} -c listen_addresses=''"
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://{user}@/{{name}}?host={folder}&port={port}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of a fresh, empty database."""
    import psycopg

    name = f"convoy_{os.urandom(4).hex()}"
    with psycopg.connect(postgres_server.format(name="postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return postgres_server.format(name=name)
