"""Move SQLite's write-ahead log into the database file beside the writer, not within its commits.

By itself SQLite does that in the commit that passes a thousand pages: that one writes and syncs megabytes while every append waits.
A passive checkpoint on another connection holds up nobody. Nothing of durability changes: a commit is synced in the write-ahead log
before it is acknowledged (``synchronous=FULL``), and a process that dies leaves it for the next start. If this thread falls
behind, the writer does it itself from ``BACKSTOP_PAGES`` on, so the file stays bounded.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from convoy_coordinator.log.repeating import Repeating

BACKSTOP_PAGES: Final = 8000
EVERY_S: Final = 0.25
"""Small and often: the sync of a large one is felt by the writer's own, which waits for the same disk."""
_LEAVE_IT: Final = f"PRAGMA wal_autocheckpoint={BACKSTOP_PAGES}"
_log = logging.getLogger(__name__)


class WalKeeper:
    """The thread that keeps one database's write-ahead log short.

    Args:
        engine: of a SQLite file; connections that it opens from now on leave checkpoints to this thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_dirty = threading.Event()
        self._repeating = Repeating("log-wal", EVERY_S, self._move)
        if not event.contains(engine, "connect", _leave_it):
            event.listen(engine, "connect", _leave_it)

    def adopt(self, connection: Connection) -> None:
        """Leave checkpoints of a connection to this thread that was opened before it was there."""
        connection.exec_driver_sql(_LEAVE_IT)
        connection.rollback()  # the driver's transaction that SQLAlchemy began for it

    def note(self) -> None:
        """Say that something was committed."""
        self._repeating.start()
        self._is_dirty.set()

    def stop(self) -> None:
        """End; what is left in the write-ahead log stays there, durable."""
        self._repeating.stop()

    def _move(self) -> None:
        if not self._is_dirty.is_set():
            return
        self._is_dirty.clear()
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
        except SQLAlchemyError as error:
            _log.warning("the write-ahead log was not moved: %s", type(error).__name__)


def _leave_it(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(_LEAVE_IT)
    cursor.close()
