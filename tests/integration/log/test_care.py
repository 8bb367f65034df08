"""The log's care on both databases: roles, archive, backup, restore, recovery from a partner's copy."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from pydantic import ValidationError
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.entry import encode, parse_entry
from convoy_audit.errors import RetentionError
from convoy_audit.events import AccessRefused, RunFailed, TilesArchived
from convoy_audit.fsck import check_log
from convoy_audit.note import Signer, Verifier
from convoy_audit.retention import RetentionPlan
from convoy_audit.testing import HYBRID_WITNESS, MemoryLog, MemoryWitnessStore
from convoy_audit.tiles import encode_bundle
from convoy_audit.witness import Witness
from convoy_coordinator.app import create_app
from convoy_coordinator.backup import ABOUT, backup, check, restore
from convoy_coordinator.db.migrate import prepare
from convoy_coordinator.db.session import open_engine
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.journal import Journal
from convoy_coordinator.keys import read_keys
from convoy_coordinator.log import LogService
from convoy_coordinator.log.grants import excess, grant, statements
from convoy_coordinator.log.recovery import catch_up
from convoy_coordinator.log.retention import RetentionJob, archive, kind_of, removable
from convoy_coordinator.settings import Settings, read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock
from convoy_coordinator.wiring import log_keys, retention_plan
from convoy_node.log_reader import LogReader
from convoy_node.mirror import Mirror
from convoy_node.witness_service import WitnessService

COMMAND = Path(sys.executable).with_name("convoy-coordinator")
ORIGIN = "test.example/log"
NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
Start = Callable[[], LogService]
Entry = Callable[[int], bytes]
FreshUrl = Callable[[str], str]


@pytest.fixture
def fresh(postgres: str, tmp_path: Path) -> FreshUrl:
    """Return the maker of an empty database of a kind, by URL."""

    def make(kind: str) -> str:
        name = f"care_{os.urandom(4).hex()}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / name}.db"
        with create_engine(postgres, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return make_url(postgres).set(database=name).render_as_string(hide_password=False)

    return make


# Roles ----------------------------------------------------------------------------------------------------------------


def test_a_coordinator_works_in_full_with_select_and_insert_on_the_log(fresh: FreshUrl, tmp_path: Path) -> None:
    """The owner migrates and grants; the service's role can run everything, and can change nothing that was logged."""
    owner = fresh("postgresql")
    role = f"service_{os.urandom(4).hex()}"
    engine = open_engine(owner)
    prepare(engine)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN"))
    assert grant(engine, role) == statements(role)
    grant(engine, role)  # again changes nothing
    assert "UPDATE on log_entry" in excess(engine)
    as_role = make_url(owner).set(username=role).render_as_string()
    home, clock = tmp_path / "home", SetClock(NOW)
    (tmp_path / "url").write_text(as_role)
    create_home(home, origin=ORIGIN, database_url_file=str(tmp_path / "url"))
    with TestClient(create_app(read_settings(home), clock=clock), raise_server_exceptions=False) as client:
        federation = Federation(client, home, clock)
        run = federation.ask(federation.agree()).json()
        federation.claim()
        federation.finish(run["uid"])
        assert client.get(f"/v1/runs/{run['uid']}").json()["state"] == "finished"
    service = open_engine(as_role)
    assert excess(service) == []
    for statement in (
        "UPDATE log_entry SET body = body",
        "DELETE FROM log_entry",
        "TRUNCATE log_cosignature",
        "UPDATE log_frontier SET size = 0",
        "DELETE FROM log_checkpoint",
        "DROP TABLE log_entry",
        "ALTER TABLE log_entry ADD COLUMN x INT",
        "CREATE TABLE other (x INT)",
        "CREATE TRIGGER t BEFORE INSERT ON log_entry EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ):
        with pytest.raises(ProgrammingError), service.begin() as connection:
            connection.execute(text(statement))
    service.dispose()
    engine.dispose()


def test_roles_are_refused_where_they_cannot_be(fresh: FreshUrl) -> None:
    """SQLite has none; a name is a plain name; a role must exist."""
    sqlite = open_engine(fresh("sqlite"))
    assert excess(sqlite) == []
    postgres = open_engine(fresh("postgresql"))
    prepare(postgres)
    for engine, role, code in (
        (sqlite, "service", "NOT_POSTGRESQL"),
        (postgres, "a; DROP TABLE log_entry", "ROLE_INVALID"),
        (postgres, "no_such_role", "GRANT_FAILED"),
    ):
        with pytest.raises(SetupError) as raised:
            grant(engine, role)
        assert (raised.value.code, bool(raised.value.fix)) == (code, True)
    sqlite.dispose()
    postgres.dispose()


# Archive --------------------------------------------------------------------------------------------------------------


def cosign(log: LogService, witnesses: Mapping[str, Witness]) -> None:
    """Sign and have everybody cosign."""
    note, size = log.checkpoint(), log.size()
    lines = ""
    for witness in witnesses.values():
        old = witness.size(log.origin)
        lines += witness.add_checkpoint(note.encode(), old, log.consistency(old, size), 1_700_000_000).lines
    assert log.add_cosignatures(note + lines).has_quorum


def test_sealed_tiles_are_archived_logged_and_checked_alone(
    start: Start, entry: Entry, witnesses: Mapping[str, Witness], tmp_path: Path
) -> None:
    """Nothing before the quorum; each turn adds what is new; the log tells of it; the folder verifies by itself."""
    log, folder = start(), tmp_path / "archive"
    job = RetentionJob(log, Journal(log, lambda: NOW), folder, RetentionPlan(), lambda: NOW)
    log.append_many([entry(n) for n in range(300)])
    log.checkpoint()
    with pytest.raises(Problem, match="LOG_NOT_WITNESSED"):
        job.once()
    cosign(log, witnesses)
    facts = job.once()
    assert (facts["size"], facts["first"], facts["sealed"], facts["removable"]) == (300, 0, 256, 0)
    (told,) = map(parse_entry, log.entries(300, 301))
    assert told == TilesArchived(at=NOW, first=0, end=256, archive=facts["archive"])
    found = check_log(folder, log.policy())
    assert (found.faults, found.size) == ([], 300)
    assert found.verified_signatures == 2 + 2 * len(witnesses)
    log.append_many([entry(n) for n in range(301, 600)])
    cosign(log, witnesses)
    facts = job.once()
    assert (facts["first"], facts["sealed"], check_log(folder).size) == (256, 512, 600)
    assert job.once()["first"] == 512
    assert log.size() == 601  # nothing new was sealed, so nothing was told


def test_an_archive_that_was_changed_is_noticed_and_not_written_over(
    start: Start, entry: Entry, witnesses: Mapping[str, Witness], tmp_path: Path
) -> None:
    """The bytes stay for those who look into it."""
    log = start()
    log.append_many([entry(n) for n in range(256)])
    cosign(log, witnesses)
    archive(log, tmp_path / "a")
    bundle = tmp_path / "a/tile/entries/000"
    changed = bundle.read_bytes().replace(b"run-7", b"run-8")
    bundle.write_bytes(changed)
    with pytest.raises(Problem, match="not what was logged"):
        archive(log, tmp_path / "a")
    assert bundle.read_bytes() == changed


def test_nothing_is_removable_before_the_floor_of_the_longest_kept_entry(
    start: Start, witnesses: Mapping[str, Witness], tmp_path: Path
) -> None:
    """Mere logs go after six months, a decision among them keeps its bundle three years."""
    at = datetime(2027, 1, 1, tzinfo=UTC)
    mere = encode(AccessRefused(at=at, code="CERTIFICATE_UNKNOWN"))
    decision = encode(RunFailed(at=at, run="run-1", contract="sha256:" + "0" * 64, reasons=("NODE_LOST",)))
    assert (kind_of(mere), kind_of(decision)) == ("log", "decision")
    log = start()
    log.append_many([mere] * 256 + [decision] + [mere] * 255)
    cosign(log, witnesses)
    archived = archive(log, tmp_path / "a")
    plan = RetentionPlan()
    for days, cut in ((183, 0), (184, 256), (1095, 256), (1096, 512)):
        assert removable(log, archived, at + timedelta(days=days), plan) == cut
    assert removable(log, archived, at + timedelta(days=200), replace(plan, log_days=300)) == 0
    (tmp_path / "a/tile/entries/001").unlink()
    assert removable(log, archived, at + timedelta(days=9999), plan) == 256


def test_no_setting_goes_below_the_floors(tmp_path: Path) -> None:
    """Neither file nor environment nor argument; what is allowed reaches the plan."""
    for name, days in (("retention_logs_days", 183), ("retention_decisions_days", 1095)):
        with pytest.raises(SetupError, match="SETTINGS_INVALID"):
            read_settings(tmp_path, **{name: days})
        with pytest.raises(ValidationError):
            Settings(home=tmp_path, **{name: days})
    plan = retention_plan(read_settings(tmp_path, retention_logs_days=400))
    assert (plan.log_days, plan.decision_days) == (400, 1096)
    with pytest.raises(RetentionError):
        RetentionPlan(log_days=183)


def test_the_operator_archives_over_http_and_nobody_else(tmp_path: Path) -> None:
    """``POST /v1/log/archive``."""
    home, clock = tmp_path / "home", SetClock(NOW)
    create_home(home, origin=ORIGIN)
    with TestClient(create_app(read_settings(home), clock=clock), raise_server_exceptions=False) as client:
        federation = Federation(client, home, clock)
        federation.enrol()
        assert client.post("/v1/log/archive").status_code == 401
        refused = client.post("/v1/log/archive", headers=federation.operator)
        assert (refused.status_code, refused.json()["code"]) == (409, "LOG_NOT_WITNESSED")
        federation.witness(*federation.members)
        done = client.post("/v1/log/archive", headers=federation.operator).json()
        assert (done["sealed"], done["folder"]) == (0, str(home / "archive"))
    assert check_log(home / "archive").faults == []


# Backup and restore -----------------------------------------------------------------------------------------------------


@contextmanager
def listening(witness: Witness) -> Iterator[str]:
    """Serve a witness on a real socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(WitnessService(witness, time.time), log_level="error", lifespan="off", ws="none")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_is_rehearsed(kind: str, fresh: FreshUrl, tmp_path: Path) -> None:
    """Fresh: it starts. Older than a witness has seen: it refuses, with code and fix. With the witness's mirror: it goes on."""
    home, clock, url = tmp_path / "home", SetClock(NOW), tmp_path / "url"
    url.write_text(fresh(kind))
    create_home(home, origin=ORIGIN, database_url_file=str(url))
    settings = read_settings(home)
    pinned = [Verifier.parse(key) for key in log_keys(settings, read_keys(settings.keys_folder))]
    signers = [Signer.generate("w.example", k) for k in HYBRID_WITNESS]
    witness = Witness(signers, pinned, MemoryWitnessStore())
    with listening(witness) as address:
        vkeys = json.dumps([s.vkey for s in signers])
        (home / "witnesses.toml").write_text(f'[[witness]]\nparty = "w"\nurl = "{address}"\nkeys = {vkeys}\n')
        with TestClient(create_app(settings, clock=clock)) as client:
            federation = Federation(client, home, clock)
            digest = federation.agree()
            client.app.state.parts.publisher.once()  # type: ignore[attr-defined]
            first = backup(settings, tmp_path / "first", now=NOW)  # while it serves
            federation.ask(digest)
            client.app.state.parts.publisher.once()  # type: ignore[attr-defined]
            size = client.app.state.parts.log.size()  # type: ignore[attr-defined]
            reader = LogReader("http://testserver", client)  # type: ignore[arg-type]
            mirror = Mirror(tmp_path / "mirror", lambda note: open_checkpoint(note, pinned)[0])
            assert mirror.copy(reader, reader.newest()) == size
            second = backup(settings, tmp_path / "second", now=NOW, with_keys=True)
        assert 0 < first["size"] < second["size"] == size == witness.size(ORIGIN)
        assert not (tmp_path / "first/keys").exists()
        assert (tmp_path / "second/keys/log.ed25519").stat().st_mode & 0o777 == 0o600
        # Fresh, into a new home and an empty database; keys came with it.
        url.write_text(fresh(kind))
        restored = restore(tmp_path / "second", tmp_path / "new")
        assert restored["size"] == size
        with TestClient(create_app(read_settings(tmp_path / "new"), clock=clock)) as client:
            assert client.app.state.parts.log.size() == size  # type: ignore[attr-defined]
            assert client.get(f"/v1/contracts/{digest}").status_code == 200
        with pytest.raises(SetupError) as raised:
            restore(tmp_path / "second", tmp_path / "new")
        assert raised.value.code == "RESTORE_NOT_EMPTY"
        # Old: refused behind the witness.
        url.write_text(fresh(kind))
        with pytest.raises(SetupError) as raised:
            restore(tmp_path / "first", tmp_path / "old")
        assert raised.value.code == "KEY_MISSING"
        old = tmp_path / "old"
        old.mkdir(exist_ok=True)
        (tmp_path / "second/keys").rename(old / "keys")
        restore(tmp_path / "first", old)
        with pytest.raises(SetupError) as raised:
            create_app(read_settings(old), clock=clock)
        assert (raised.value.code, raised.value.party) == ("LOG_BEHIND_WITNESS", "w")
        assert "copy" in (raised.value.fix or "")
        # What is missing comes from a partner's copy, and only what this log has signed.
        command = [str(COMMAND), "recover", str(tmp_path / "mirror"), "--home", str(old)]
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["after"] == size
        with TestClient(create_app(read_settings(old), clock=clock)) as client:
            assert client.app.state.parts.log.size() == size  # type: ignore[attr-defined]


def test_a_backup_that_was_changed_is_refused(tmp_path: Path) -> None:
    """One byte, one file more, one file less, another version; the target is never written over."""
    home = tmp_path / "home"
    create_home(home, origin=ORIGIN)
    with TestClient(create_app(read_settings(home), clock=SetClock(NOW))) as client:
        Federation(client, home, SetClock(NOW)).enrol()
    made = backup(read_settings(home), tmp_path / "b", now=NOW)
    assert check(tmp_path / "b")["root"] == made["root"]
    with pytest.raises(SetupError, match="BACKUP_EXISTS"):
        backup(read_settings(home), tmp_path / "b", now=NOW)
    about, database = tmp_path / "b" / ABOUT, tmp_path / "b" / "database.sqlite"
    kept = {path: path.read_bytes() for path in (about, database)}

    def put_back() -> None:
        for path, content in kept.items():
            path.write_bytes(content)

    for change in (
        lambda: database.write_bytes(kept[database][:-1] + b"x"),
        lambda: (tmp_path / "b/files/more").write_text("x"),
        lambda: about.write_bytes(kept[about].replace(b'"v": 1', b'"v": 2')),
        about.unlink,
        database.unlink,
    ):
        change()
        with pytest.raises(SetupError, match="BACKUP_WRONG"):
            restore(tmp_path / "b", tmp_path / "r")
        assert not (tmp_path / "r").exists()
        put_back()
        (tmp_path / "b/files/more").unlink(missing_ok=True)
    check(tmp_path / "b")


def test_a_damaged_log_is_not_backed_up(tmp_path: Path) -> None:
    """The copy is derived again before it counts; nothing is left behind."""
    home = tmp_path / "home"
    create_home(home, origin=ORIGIN)
    with TestClient(create_app(read_settings(home), clock=SetClock(NOW))) as client:
        Federation(client, home, SetClock(NOW)).enrol()
    engine = open_engine(read_settings(home).url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE log_entry SET body = leaf WHERE idx = 1"))
    engine.dispose()
    with pytest.raises(SetupError, match="BACKUP_FAILED"):
        backup(read_settings(home), tmp_path / "b", now=NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_password_goes_to_the_tools_by_a_file_and_never_by_argument(
    tmp_path: Path, fresh: FreshUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording pg_dump in the place of the real one."""
    secret = r"pa:ss\word"
    url = make_url(fresh("postgresql")).set(password=secret)
    engine = open_engine(url.render_as_string(hide_password=False))
    prepare(engine)
    engine.dispose()
    told = tmp_path / "told"
    tool = tmp_path / "bin/pg_dump"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n{{ echo "$@"; stat -c %a "$PGPASSFILE"; cat "$PGPASSFILE"; env; }} > {told}\nexit 1\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    (tmp_path / "url").write_text(url.render_as_string(hide_password=False))
    home = tmp_path / "home"
    create_home(home, origin=ORIGIN, database_url_file=str(tmp_path / "url"))
    with pytest.raises(SetupError) as raised:
        backup(read_settings(home), tmp_path / "b", now=NOW)
    assert secret not in str(raised.value)
    arguments, mode, line, *rest = told.read_text().splitlines()
    assert secret not in arguments
    assert "dbname=" in arguments
    assert (mode, line) == ("600", r"*:*:*:*:pa\:ss\\word")
    assert not any(secret in variable for variable in rest)


def test_a_copy_is_taken_only_under_the_logs_own_signatures(
    start: Start, entry: Entry, witnesses: Mapping[str, Witness], tmp_path: Path
) -> None:
    """A forged mirror, one that begins otherwise, a shorter one: nothing is appended."""
    log = start()
    log.append_many([entry(n) for n in range(3)])
    cosign(log, witnesses)
    true = MemoryLog(log.origin, ())
    true.signers = tuple(log._signers)
    true.append(*log.entries(0, 3), entry(3), entry(4))
    stranger = MemoryLog(log.origin)
    stranger.append(*true.entries)
    half = MemoryLog(log.origin, ())
    half.signers = true.signers[:1]
    half.append(*true.entries)
    for number, (wrong, why) in enumerate(
        (
            (stranger.static(), "known key"),
            (half.static(), "all of this log's keys"),
            (true.rewritten([entry(9), *true.entries[1:]]).static(), "entry 0"),
            (true.static(true.checkpoint(2)), "there are 3 here"),
            (true.static() | {"tile/entries/000.p/5": encode_bundle([*true.entries[:4], entry(9)])}, "root"),
        )
    ):
        with pytest.raises(SetupError, match=why) as raised:
            catch_up(log, folder_of(wrong, tmp_path / str(number)))
        assert raised.value.code == "COPY_WRONG"
        assert log.size() == 3
    assert catch_up(log, folder_of(true.static(), tmp_path / "true")).as_json() == {
        "before": 3,
        "after": 5,
        "kinds": {"coordinator:run:failed": 2},
    }
    assert log.entries(0, 5) == true.entries


def folder_of(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write static files."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
