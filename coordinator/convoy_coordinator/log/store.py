"""Rows of the log: read and insert; no update, no delete.

Every function takes an open session; whoever opened it decides about the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from convoy_audit.merkle import HASH_BYTES
from convoy_coordinator.log.tables import LogCheckpoint, LogCosignature, LogEntry, LogFrontier

WRITER_LOCK = 0x436F6E766F79  # "Convoy": the advisory lock of the one writer on PostgreSQL
BATCH = 10_000


def take_writer_lock(session: Session, deadline_s: float = 10.0) -> None:
    """Keep every other writer away until the transaction ends.

    SQLite's ``BEGIN IMMEDIATE`` has done that already. On PostgreSQL no lock is waited for longer than ``deadline_s``, so
    that a hanging database refuses instead of blocking the writer for good.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text(f"SET LOCAL lock_timeout = {max(1, round(deadline_s * 1000))}"))
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})


def head(session: Session) -> tuple[int, bytes]:
    """Return the stored size and frontier; (0, b"") of a new log."""
    found = session.execute(
        select(LogFrontier.size, LogFrontier.frontier).order_by(LogFrontier.size.desc()).limit(1)
    ).first()
    return (found.size, found.frontier) if found else (0, b"")


def head_and_last(connection: Connection) -> tuple[int, bytes, int]:
    """Return the stored size and frontier, and the index of the last entry; (0, b"", -1) of a new log."""
    found = connection.exec_driver_sql(_HEAD).first()
    if found is not None:
        return (found[0], bytes(found[1]), -1 if found[2] is None else found[2])
    last = connection.exec_driver_sql("SELECT max(idx) FROM log_entry").scalar()
    return (0, b"", -1 if last is None else last)


_HEAD = (
    "SELECT log_frontier.size, log_frontier.frontier, (SELECT max(idx) FROM log_entry) "
    "FROM log_frontier ORDER BY size DESC LIMIT 1"
)


def append_in_one(
    connection: Connection,
    deadline_s: float,
    known: tuple[int, bytes],
    leaves: Sequence[bytes],
    bodies: Sequence[bytes],
    frontier: Sequence[bytes],
) -> bool:
    """On PostgreSQL: take the writer's lock, check the head, insert entries and frontier, in two round trips.

    Args:
        connection: in a transaction of its own; under READ COMMITTED the second statement sees what was committed before the lock.
        deadline_s: how long to wait for the lock.
        known: size and frontier that must be the stored ones; nothing is inserted else.
        leaves: of the entries.
        bodies: the entries.
        frontier: after them.

    Returns:
        Whether the head was the known one.
    """
    size, after = known[0], known[0] + len(leaves)
    connection.exec_driver_sql(
        "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)",
        (str(max(1, round(deadline_s * 1000))), WRITER_LOCK),
    )
    done = connection.exec_driver_sql(
        _APPEND,
        {
            "size": size,
            "known": known[1],
            "last": size - 1,
            "idx": list(range(size, after)),
            "leaf": list(leaves),
            "body": list(bodies),
            "after": after,
            "frontier": b"".join(frontier),
        },
    )
    return done.rowcount == 1


_APPEND = """
WITH head AS (SELECT size, frontier FROM log_frontier ORDER BY size DESC LIMIT 1),
fits AS (
  SELECT 1 WHERE coalesce((SELECT size FROM head), 0) = %(size)s
    AND coalesce((SELECT frontier FROM head), ''::bytea) = %(known)b::bytea
    AND coalesce((SELECT max(idx) FROM log_entry), -1) = %(last)s
),
added AS (
  INSERT INTO log_entry (idx, leaf, body)
  SELECT e.idx, e.leaf, e.body
  FROM fits, unnest(%(idx)b::bigint[], %(leaf)b::bytea[], %(body)b::bytea[]) AS e (idx, leaf, body)
)
INSERT INTO log_frontier (size, frontier) SELECT %(after)s, %(frontier)b::bytea FROM fits
"""


def insert_run(
    connection: Connection, start: int, leaves: Sequence[bytes], bodies: Sequence[bytes], frontier: Sequence[bytes]
) -> None:
    """On SQLite: insert entries from index ``start`` on, and the frontier after them."""
    end = start + len(leaves)
    connection.exec_driver_sql(
        "INSERT INTO log_entry (idx, leaf, body) VALUES (?, ?, ?)",
        list(zip(range(start, end), leaves, bodies, strict=True)),
    )
    connection.exec_driver_sql("INSERT INTO log_frontier (size, frontier) VALUES (?, ?)", (end, b"".join(frontier)))


def batches(session: Session, start: int = 0) -> Iterator[Sequence[tuple[int, bytes, bytes]]]:
    """Yield (index, leaf, body) in order, a batch at a time; straight from the driver, because a start reads all of them."""
    dialect = session.get_bind().dialect
    mark = "%s" if dialect.name == "postgresql" else "?"
    statement = f"SELECT idx, leaf, body FROM log_entry WHERE idx >= {mark} ORDER BY idx LIMIT {BATCH}"  # noqa: S608
    cursor = session.connection().connection.cursor()
    try:
        while True:
            cursor.execute(statement, (start,))
            rows: Sequence[tuple[int, bytes, bytes]] = cursor.fetchall()
            yield rows
            if len(rows) < BATCH:
                return
            start = rows[-1][0] + 1
    except dialect.loaded_dbapi.Error as error:
        raise OperationalError(statement, {}, error) from error
    finally:
        cursor.close()


def entries(session: Session, start: int, end: int) -> list[bytes]:
    """Return the bodies of the entries [start, end)."""
    found = session.scalars(
        select(LogEntry.body).where(LogEntry.idx >= start, LogEntry.idx < end).order_by(LogEntry.idx)
    )
    return list(found)


def latest_checkpoint(session: Session) -> LogCheckpoint | None:
    """Return the checkpoint of the largest size."""
    return session.scalars(select(LogCheckpoint).order_by(LogCheckpoint.size.desc()).limit(1)).first()


def last_checkpoints(session: Session, count: int) -> list[LogCheckpoint]:
    """Return the last checkpoints, descending."""
    return list(session.scalars(select(LogCheckpoint).order_by(LogCheckpoint.size.desc()).limit(count)))


def checkpoint_roots(session: Session, count: int) -> list[tuple[int, bytes]]:
    """Return size and root of the last checkpoints, descending; their notes are not read."""
    rows = session.execute(
        select(LogCheckpoint.size, LogCheckpoint.root).order_by(LogCheckpoint.size.desc()).limit(count)
    )
    return [(size, bytes(root)) for size, root in rows]


def checkpoint_of(session: Session, size: int) -> LogCheckpoint | None:
    """Return the checkpoint of one size."""
    return session.get(LogCheckpoint, size)


def checkpoint_sizes(session: Session) -> list[int]:
    """Return the size of every checkpoint, ascending."""
    return list(session.scalars(select(LogCheckpoint.size).order_by(LogCheckpoint.size)))


def all_checkpoints(session: Session) -> list[LogCheckpoint]:
    """Return every checkpoint, ascending."""
    return list(session.scalars(select(LogCheckpoint).order_by(LogCheckpoint.size)))


def cosignatures(session: Session, size: int) -> list[LogCosignature]:
    """Return the cosignatures of one checkpoint, by party and key."""
    return list(
        session.scalars(
            select(LogCosignature)
            .where(LogCosignature.size == size)
            .order_by(LogCosignature.party, LogCosignature.name, LogCosignature.key_id)
        )
    )


def witness_size(session: Session, party: str) -> int:
    """Return the largest size that a party has cosigned, 0 if none."""
    found = session.scalar(select(func.max(LogCosignature.size)).where(LogCosignature.party == party))
    return found or 0


def split_frontier(data: bytes) -> list[bytes]:
    """Return the hashes of a stored frontier."""
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]
