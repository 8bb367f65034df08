"""Migrations and the same routes on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from starlette.testclient import TestClient
from typer.testing import CliRunner

from convoy_coordinator.app import create_app
from convoy_coordinator.cli import app as cli
from convoy_coordinator.db import migrate
from convoy_coordinator.db.session import open_engine
from convoy_coordinator.errors import SetupError
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock, bundle_files


def test_migrations_and_tables_agree_on_sqlite(tmp_path: Path) -> None:
    """What the migrations make is what the code maps, log tables included."""
    engine = open_engine(f"sqlite:///{tmp_path / 'x.db'}")
    migrate.prepare(engine)
    assert migrate.differences(engine) == []


def test_migrations_and_tables_agree_on_postgresql(postgres_url: str) -> None:
    """The same on PostgreSQL, with the same constraint names."""
    engine = open_engine(read_settings(Path("unused"), database_url=postgres_url).url)
    try:
        migrate.prepare(engine)
        assert migrate.differences(engine) == []
    finally:
        engine.dispose()


def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    """WAL with synchronous=FULL: an acknowledged entry survives a power cut."""
    with open_engine(f"sqlite:///{tmp_path / 'x.db'}").connect() as connection:
        values = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_database_of_another_version_is_refused(home: Path) -> None:
    """The program neither migrates an old database by itself nor works on a newer one."""
    engine = open_engine(read_settings(home).url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(SetupError) as caught:
        create_app(read_settings(home))
    assert caught.value.code == "DATABASE_VERSION"
    assert "migrate" in (caught.value.fix or "")


@pytest.mark.parametrize("url", ["mysql://x@y/z", "nonsense", "postgresql"])
def test_other_databases_are_refused_without_repeating_the_url(url: str) -> None:
    """The URL may hold a password, so no message shows it."""
    with pytest.raises(SetupError) as caught:
        open_engine(f"{url}:secret")
    assert caught.value.code == "DATABASE_URL_INVALID"
    assert "secret" not in str(caught.value)


def test_the_whole_life_of_a_run_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    """Enrolment, contract, run, witnessing and release on a real server; then a restart."""
    url_file = tmp_path / "database.url"
    url_file.write_text(postgres_url)
    home = tmp_path / "home"
    create_home(home, name="On PostgreSQL", origin="test.example/pg", database_url_file=str(url_file))
    clock = SetClock(datetime(2027, 3, 1, 2, 0, tzinfo=UTC))
    with TestClient(create_app(read_settings(home), clock=clock)) as client:
        federation = Federation(client, home, clock)
        digest = federation.agree()
        uid = federation.ask(digest).json()["uid"]
        run = federation.claim() or {}
        federation.authorise(uid)
        federation.move(uid, "running")
        body = {"run": uid, "files": bundle_files(run, card_md=b"# card")}
        done = client.post("/internal/releases", json=body, headers=federation.internal)
        assert done.status_code == 201, done.text
        federation.move(uid, "finished").raise_for_status()
        assert federation.witness(*federation.members)["quorum"]
        assert client.get("/readyz").json()["status"] == "ok"
        page = client.get("/?lang=en")
        assert page.status_code == 200
        before = client.get("/v1/log/checkpoint").text
    with TestClient(create_app(read_settings(home), clock=clock)) as client:
        assert client.get("/v1/log/checkpoint").text == before
        assert client.get(f"/v1/runs/{uid}").json()["state"] == "finished"
        assert client.get(f"/v1/contracts/{digest}").json()["state"] == "active"
    assert not (home / "coordinator.db").exists()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_old_database_is_brought_up_to_date_by_one_command_and_loses_nothing(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """Back to the first revision's tables, with a finished run in them: refused, migrated, and everything is as it was."""
    home, clock = tmp_path / "home", SetClock(datetime(2027, 3, 1, 2, 0, tzinfo=UTC))
    more = {}
    if kind == "postgresql":
        (tmp_path / "database.url").write_text(request.getfixturevalue("postgres_url"))
        more = {"database_url_file": str(tmp_path / "database.url")}
    create_home(home, name="Old", origin="test.example/old", **more)
    with TestClient(create_app(read_settings(home), clock=clock)) as client:
        federation = Federation(client, home, clock)
        digest = federation.agree()
        uid = federation.ask(digest).json()["uid"]
        federation.claim()
        federation.finish(uid)
        assert federation.witness(*federation.members)["quorum"]
        before = client.get("/v1/log/checkpoint").text
    engine = open_engine(read_settings(home).url)
    config = migrate._config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    assert migrate.current_revision(engine) == "0001"
    with pytest.raises(SetupError) as old:
        create_app(read_settings(home))
    assert old.value.code == "DATABASE_VERSION"
    told = CliRunner().invoke(cli, ["migrate", "--home", str(home)])
    assert told.exit_code == 0, told.output
    assert migrate.differences(engine) == []
    engine.dispose()
    with TestClient(create_app(read_settings(home), clock=clock)) as client:
        assert client.get("/v1/log/checkpoint").text == before
        assert client.get(f"/v1/runs/{uid}").json()["state"] == "finished"
        assert client.get(f"/v1/contracts/{digest}").json()["state"] == "active"
        again = Federation(client, home, clock)
        assert again.ask(digest).status_code == 201
