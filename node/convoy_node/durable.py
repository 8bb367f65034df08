"""SQLite files that survive a power cut: how every database of a node is opened and written.

    open_durable(path, schema) -> connection      WAL, synchronous=FULL: a commit has returned only after an fsync
    with transaction(db): …                       on disk when the block has ended, gone if it raised

The connection may be used by the threads of one process under the caller's lock; other processes wait up to five seconds for a
writer. Errors of SQLite go up as they are: each part says in its own words what they mean.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_durable(path: Path, schema: str) -> sqlite3.Connection:
    """Open a file, made where absent (mode 0600), and bring its tables about."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA busy_timeout = 5000")
        db.executescript(schema)
        path.chmod(0o600)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Open a transaction that writes."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
