"""Fixtures that every test may use."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from convoy_demo.ports import free_port

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded: spinning threads cost more than they help

import pytest

ROOT = Path(__file__).resolve().parent.parent
POSTGRES_BIN = Path("/usr/lib/postgresql/15/bin")
POSTGRES_HINT = "no PostgreSQL 15 server here: apt-get install -y postgresql-15"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party data and vectors; a test that needs it is left out, by name, where it is absent."""
    folder = Path(os.environ.get("CONVOY_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"CONVOY_SHARED: no folder {folder}; set CONVOY_SHARED to the shared data and vectors")
    return folder


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
    port = free_port()

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
