"""The ledger's file: made once, checked when opened, written by one process at a time.

SQLite in WAL mode with synchronous=FULL: a commit has returned only after an fsync. Triggers keep
the promises of the format even against a mistake above: what is spent stays spent, nothing is
deleted. The format may only be extended under a new version.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path
from typing import Final, Literal

from convoy_node.errors import LedgerDamaged, LedgerError

_APPLICATION: Final = 0x434C4447  # "CLDG"
_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE reservation (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL, attempt INTEGER NOT NULL,
    contract TEXT NOT NULL, asset TEXT NOT NULL, year INTEGER NOT NULL, delta REAL NOT NULL,
    contract_cap_micro INTEGER NOT NULL, asset_cap_micro INTEGER NOT NULL,
    reserved_at TEXT NOT NULL, settled_at TEXT, reason TEXT,
    UNIQUE (run, attempt)
) STRICT;
CREATE TABLE charge (
    reservation INTEGER NOT NULL REFERENCES reservation (id),
    query TEXT NOT NULL,
    cohort TEXT NOT NULL CHECK (cohort IN ('joint', 'solo', 'all')),
    units INTEGER NOT NULL CHECK (units > 0), sigma REAL NOT NULL, clip REAL NOT NULL,
    spent_at TEXT,
    rate REAL NOT NULL DEFAULT 1.0, steps INTEGER NOT NULL DEFAULT 1,
    tail INTEGER NOT NULL DEFAULT 0 CHECK (tail >= 0), lead TEXT,
    PRIMARY KEY (reservation, query)
) STRICT;
CREATE INDEX reservation_asset ON reservation (asset, contract, year);
CREATE TRIGGER spent_stays BEFORE UPDATE ON charge WHEN OLD.spent_at IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'spent stays spent'); END;
CREATE TRIGGER charge_stays BEFORE DELETE ON charge
    BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
CREATE TRIGGER reservation_stays BEFORE DELETE ON reservation
    BEGIN SELECT RAISE(ABORT, 'a ledger only grows'); END;
"""
_FROM_1: Final = """
ALTER TABLE charge ADD COLUMN rate REAL NOT NULL DEFAULT 1.0;
ALTER TABLE charge ADD COLUMN steps INTEGER NOT NULL DEFAULT 1;
ALTER TABLE charge ADD COLUMN tail INTEGER NOT NULL DEFAULT 0 CHECK (tail >= 0);
ALTER TABLE charge ADD COLUMN lead TEXT;
PRAGMA user_version = 2;
"""
"""Version 2 knows sampled mechanisms; what version 1 holds keeps its meaning."""


def create(path: Path) -> None:
    """Make an empty ledger, once in the life of a node.

    Raises:
        LedgerError: there is one already.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as error:
        raise LedgerError(
            "there is a ledger already.", fix="Keep it; it never resets.", fix_zh="请保留；账本永不重置。"
        ) from error
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; COMMIT;"
        )
    finally:
        db.close()
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def lock(path: Path, wait_s: float) -> int:
    """Take the ledger's lock file; the system lets go of it when the process dies.

    Raises:
        LedgerDamaged: there is no ledger.
        LedgerError: another process kept it for ``wait_s`` (code ``LEDGER_BUSY``).
    """
    if not path.is_file():
        raise LedgerDamaged("the ledger is missing.")
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            os.close(descriptor)
            raise LedgerError(
                "another process of this node holds the ledger.",
                code="LEDGER_BUSY",
                fix="Stop the other process; a ledger has one writer.",
            ) from error
        return descriptor


def open_file(path: Path, mode: Literal["rw", "ro"]) -> sqlite3.Connection:
    """Open an existing ledger and check that it is one; a writer brings an older one up to this version."""
    try:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        kind = (
            db.execute("PRAGMA application_id").fetchone(),
            db.execute("PRAGMA user_version").fetchone(),
        )
        sound = db.execute("PRAGMA quick_check").fetchone()
        if kind == ((_APPLICATION,), (1,)) and sound == ("ok",) and mode == "rw":
            db.executescript(f"BEGIN IMMEDIATE; {_FROM_1} COMMIT;")
            kind = ((_APPLICATION,), (_VERSION,))
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA busy_timeout = 5000")
    except sqlite3.Error as error:
        raise LedgerDamaged("the ledger is missing or cannot be read.") from error
    if kind != ((_APPLICATION,), (_VERSION,)) or sound != ("ok",):
        db.close()
        raise LedgerDamaged("the file is no ledger of this version, or is damaged.")
    return db
