"""Every step of an append broken twice (lost, and happened all the same), and the database tampered with."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DatabaseError, OperationalError

from convoy_audit.errors import AuditError
from convoy_audit.fsck import check_log
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import leaf_hash, root
from convoy_audit.note import Signer
from convoy_audit.testing import MemoryLog
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.log import LogService, tables
from convoy_coordinator.log.wal import BACKSTOP_PAGES

TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
Start = Callable[..., LogService]
Entry = Callable[[int], bytes]


def disk_error() -> OperationalError:
    return OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))


def fail_next_commit(engine: Engine, *, after: bool) -> Callable[[], None]:
    """Make the next commit raise, before it happens or after it has happened; return how to stop it."""

    def commit(connection: Any) -> None:
        event.remove(engine, "commit", commit)
        if after:
            connection.connection.commit()
        raise disk_error()

    event.listen(engine, "commit", commit)
    return lambda: event.contains(engine, "commit", commit) and event.remove(engine, "commit", commit)


def test_a_commit_that_fails_and_is_lost_is_refused_and_the_log_goes_on(
    engine: Engine, start: Start, entry: Entry
) -> None:
    """The index is not given out; the next entry takes it."""
    log = start()
    assert log.append(entry(0)) == 0
    fail_next_commit(engine, after=False)
    with pytest.raises(Problem) as raised:
        log.append(entry(1))
    assert raised.value.code == "LOG_UNAVAILABLE"
    assert log.append(entry(2)) == 1
    assert start().entries(0, 2) == [entry(0), entry(2)]


def test_a_commit_that_fails_but_happened_is_found_and_acknowledged(engine: Engine, start: Start, entry: Entry) -> None:
    """It is durable, so the caller hears its index; nothing is appended twice."""
    log = start()
    fail_next_commit(engine, after=True)
    assert log.append(entry(0)) == 0
    assert log.append(entry(1)) == 1
    assert start().entries(0, 2) == [entry(0), entry(1)]


@pytest.mark.parametrize("statement", ["INSERT INTO log_entry", "INSERT INTO log_frontier", "SELECT log_frontier"])
def test_a_statement_that_fails_leaves_nothing_behind(
    engine: Engine, start: Start, entry: Entry, statement: str
) -> None:
    """Reading the head, writing entries, writing the frontier."""
    log = start()
    log.append(entry(0))
    broken = [statement]

    def execute(_c: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        if broken and text.startswith(broken[0]):
            broken.clear()
            raise disk_error()

    event.listen(engine, "before_cursor_execute", execute)
    with pytest.raises(Problem):
        log.append(entry(1))
    event.remove(engine, "before_cursor_execute", execute)
    assert broken == []
    assert log.append(entry(2)) == 1
    assert start().entries(0, 2) == [entry(0), entry(2)]


def test_a_database_that_stays_away_refuses_and_comes_back(engine: Engine, start: Start, entry: Entry) -> None:
    """The outcome of a commit is unknown for a while: refused, then found out before the next append."""
    log = start()
    is_gone = [False]

    def commit(connection: Any) -> None:
        connection.connection.commit()
        is_gone[0] = True
        raise disk_error()

    def connect(_c: Any, _cursor: Any, _text: str, *_rest: Any) -> None:
        if is_gone[0]:
            raise disk_error()

    event.listen(engine, "commit", commit)
    event.listen(engine, "before_cursor_execute", connect)
    for number in (0, 1):
        with pytest.raises(Problem):
            log.append(entry(number))
    event.remove(engine, "commit", commit)
    event.remove(engine, "before_cursor_execute", connect)
    # Entry 0 was durable although its caller was refused: it stays, and nothing takes its index.
    assert log.append(entry(2)) == 1
    assert start().entries(0, 2) == [entry(0), entry(2)]


def test_a_full_disk_refuses_and_loses_nothing(engine: Engine, start: Start, entry: Entry) -> None:
    """A real one: SQLite may not grow any more."""
    first = start()
    first.append(entry(0))
    first.close()

    def limit(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=30")

    event.listen(engine, "engine_connect", limit)
    log = start()
    with pytest.raises(Problem):
        log.append_many([entry(number) for number in range(1, 2000)])
    event.remove(engine, "engine_connect", limit)
    engine.dispose()
    size = log.size()
    assert size == 1
    assert log.append(entry(9999)) == size
    assert start().size() == size + 1


def test_a_database_that_hangs_runs_into_the_deadline(
    engine: Engine, tmp_path: Path, start: Start, entry: Entry
) -> None:
    """Somebody holds the write lock; the caller is refused in time and what waited is withdrawn."""
    start().append(entry(0))
    log = start(deadline_s=0.2)
    with closing(sqlite3.connect(tmp_path / "log.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(3) as pool:
            answers = [pool.submit(log.append, entry(number)) for number in (1, 2, 3)]
            for answer in answers:
                with pytest.raises(Problem):
                    answer.result()  # while the lock is still held
        other.execute("ROLLBACK")
    log.close()  # waits for the writer
    log = start()
    # What was being written may have become durable, what still waited was withdrawn: each at most once.
    assert log.append(entry(4)) == log.size() - 1
    late = log.entries(1, log.size() - 1)
    assert len(set(late)) == len(late)
    assert set(late) <= {entry(1), entry(2), entry(3)}


def test_the_writer_leaves_the_write_ahead_log_to_its_keeper(tmp_path: Path, start: Start, entry: Entry) -> None:
    """Also on a connection that was opened before; what was written reaches the database file without a close."""
    log = start()
    log.append(entry(0))
    held = log._sequencer._held
    assert held is not None
    assert held.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == BACKSTOP_PAGES
    held.rollback()
    before = (tmp_path / "log.db").stat().st_size
    log.append_many([entry(number) for number in range(1, 2000)])
    end = time.monotonic() + 60
    while (tmp_path / "log.db").stat().st_size <= before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_second_writer_stops_the_first(start: Start, entry: Entry) -> None:
    """Two coordinators on one database: no fork, no lost entry."""
    first, second = start(), start()
    assert first.append(entry(0)) == 0
    with pytest.raises(Problem):
        second.append(entry(1))
    assert first.append(entry(2)) == 1
    assert start().entries(0, 2) == [entry(0), entry(2)]


def test_many_callers_get_each_their_own_index(start: Start, entry: Entry) -> None:
    """Group commit under contention; runs of entries stay together."""
    log = start()
    with ThreadPoolExecutor(16) as pool:
        indexes = list(pool.map(lambda n: log.append_many([entry(n), entry(-n)]), range(200)))
    assert sorted(i for pair in indexes for i in pair) == list(range(400))
    for number, (first, second) in enumerate(indexes):
        assert second == first + 1
        assert log.entries(first, second + 1) == [entry(number), entry(-number)]
    assert log.checkpoint().splitlines()[1] == "400"


def test_after_closing_nothing_is_taken(start: Start, entry: Entry) -> None:
    """What was queued before is written."""
    log = start()
    log.append(entry(0))
    log.close()
    with pytest.raises(Problem):
        log.append(entry(1))


TAMPERING = {
    "edit": "UPDATE log_entry SET body = replace(body, 'run-3', 'run-4') WHERE idx = 3",
    "edit with its leaf": None,
    "delete": "DELETE FROM log_entry WHERE idx = 3",
    "truncate": "DELETE FROM log_entry WHERE idx > 5",
    "truncate with the frontier": "DELETE FROM log_entry WHERE idx > 5; DELETE FROM log_frontier WHERE size > 6",
    "reorder": "UPDATE log_entry SET idx = -1 WHERE idx = 3; UPDATE log_entry SET idx = 3 WHERE idx = 4; "
    "UPDATE log_entry SET idx = 4 WHERE idx = -1",
    "append": "INSERT INTO log_entry SELECT 10, leaf, body FROM log_entry WHERE idx = 9",
    "frontier": "UPDATE log_frontier SET frontier = zeroblob(length(frontier)) WHERE size = 10",
    "no frontier": "DELETE FROM log_frontier",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_tampered_database_is_not_started_and_fsck_names_it(
    name: str, engine: Engine, tmp_path: Path, start: Start, entry: Entry
) -> None:
    """At rest: edit, delete, truncate, reorder, append, frontier; the checkpoint catches the careful ones."""
    log = start()
    for number in range(10):
        log.append(entry(number))
    log.checkpoint()
    log.close()
    engine.dispose()
    assert check_log(tmp_path / "log.db").faults == []
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        script = TAMPERING[name]
        if script is None:
            body = entry(3).replace(b"run-3", b"run-4")
            database.execute("UPDATE log_entry SET body = ?, leaf = ? WHERE idx = 3", (body, leaf_hash(body)))
            database.commit()
        else:
            database.executescript(script)
    with pytest.raises(SetupError) as raised:
        start()
    assert raised.value.code in ("LOG_BROKEN", "LOG_BEHIND_WITNESS")
    assert check_log(tmp_path / "log.db").faults != []


def test_a_full_rewrite_with_the_real_key_is_stopped_by_a_witness_note(
    engine: Engine, tmp_path: Path, start: Start, entry: Entry
) -> None:
    """Everything in the database replaced consistently, checkpoint too: only the witness knows better."""
    log = start()
    for number in range(5):
        log.append(entry(number))
    note = log.checkpoint().encode()
    log.close()
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.executescript("DELETE FROM log_entry; DELETE FROM log_frontier; DELETE FROM log_checkpoint")
    again = start()
    for number in range(7):
        again.append(entry(100 + number))
    again.checkpoint()
    with pytest.raises(SetupError) as raised:
        again.refuse_behind([note])
    assert raised.value.code == "LOG_BEHIND_WITNESS"
    with pytest.raises(SetupError):
        again.refuse_smaller_than({"did:web:oem.example": 8})
    again.refuse_smaller_than({"did:web:oem.example": 7})
    foreign = MemoryLog("example.com/log")
    foreign.append(entry(0))
    with pytest.raises(AuditError):
        again.refuse_behind([foreign.checkpoint()])


def test_an_entry_changed_while_the_log_runs_is_not_handed_out(tmp_path: Path, start: Start, entry: Entry) -> None:
    """Reading compares with the tree in memory; proofs stay those of what was logged."""
    log = start()
    for number in range(4):
        log.append(entry(number))
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.execute("UPDATE log_entry SET body = 'x' WHERE idx = 2")
        database.commit()
    assert log.entries(0, 2) == [entry(0), entry(1)]
    with pytest.raises(Problem):
        log.entries(0, 4)
    assert log.checkpoint().splitlines()[2]
    assert root(leaf_hash(entry(n)) for n in range(4)) == log._tree.root()


def test_an_entry_that_vanished_stops_the_next_append(tmp_path: Path, start: Start, entry: Entry) -> None:
    """The last entry, and the last frontier."""
    log = start()
    log.append_many([entry(0), entry(1)])
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.execute("DELETE FROM log_entry WHERE idx = 1")
        database.commit()
    with pytest.raises(Problem):
        log.append(entry(2))


def test_a_database_that_cannot_be_read_through_is_a_refusal(
    engine: Engine, tmp_path: Path, start: Start, entry: Entry
) -> None:
    """Pages of the entries overwritten: the start says what happened, in an error of the database layer."""
    log = start()
    log.append_many([entry(number) for number in range(400)])
    log.close()
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'log_entry'").fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with (tmp_path / "log.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises((SetupError, DatabaseError)):
        start()


def test_a_database_server_that_cuts_every_connection_loses_nothing(postgres_url: str, entry: Entry) -> None:
    """PostgreSQL ends the writer's connection between two commits: at most one append is refused, then it goes on."""
    engine = open_engine(postgres_url)
    Base.metadata.drop_all(engine, tables=TABLES)  # type: ignore[arg-type]
    Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
    signer = Signer.from_seed("example.com/log", SignatureType.ED25519, bytes(32))
    log = LogService(session_factory(engine), "example.com/log", [signer], deadline_s=20)
    kept: list[bytes] = []
    refused: list[str] = []
    for number in range(12):
        if number % 4 == 3:
            with engine.connect() as other:
                other.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                    )
                )
        try:
            log.append(entry(number))
            kept.append(entry(number))
        except Problem as problem:
            refused.append(problem.code)
    assert len(refused) <= 3
    assert set(refused) <= {"LOG_UNAVAILABLE"}
    assert log.entries(0, log.size()) == kept
    log.close()
    again = LogService(session_factory(engine), "example.com/log", [signer])
    assert again.entries(0, again.size()) == kept
    again.close()
    engine.dispose()
