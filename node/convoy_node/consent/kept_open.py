"""The consent office and the duties of one folder, kept open between the requests of the local API.

    Kept(home, clock).opened() -> (ConsentOffice, DutyDesk)      one request at a time, from any thread
                     .close()

Opening and closing four databases costs more than a withdrawal: whoever closes a SQLite file last moves its write-ahead log and syncs.
What was put in their place meanwhile is seen: settings, keys and databases are opened anew when one of the files is another
than before, so nothing is ever written to a register that a restore has replaced. After a failure everything is opened anew as well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from convoy_node import setup
from convoy_node.consent.office import MEMORY, ConsentOffice
from convoy_node.duties import FILE, DutyDesk

_REPLACED: Final = (setup.REGISTER, MEMORY, FILE)
"""Files of which another inode is another file; their content changes by itself."""
_CHANGED: Final = ("node.toml", "keys")
"""Files and folders that are read once, when the office opens."""
Mark = tuple[int, ...]


class Kept:
    """The office and the duties of one folder.

    Args:
        home: the node's folder.
        clock: returns the present instant, aware.
    """

    def __init__(self, home: Path, clock: Callable[[], datetime]) -> None:
        self._home, self._clock = home, clock
        # SQLite works one request at a time anyway; the lock keeps a change and its mark together.
        self._guard = threading.Lock()
        self._files = ExitStack()
        self._known: tuple[Mark, ConsentOffice, DutyDesk] | None = None

    @contextmanager
    def opened(self) -> Iterator[tuple[ConsentOffice, DutyDesk]]:
        """Hand out office and duties; others wait until the block ends.

        Raises:
            NodeError: settings, keys or files that cannot be used.
        """
        with self._guard:
            try:
                known = self._known
                if known is None or known[0] != self._mark():
                    known = self._reopen()
                yield known[1], known[2]
            except BaseException:
                self._close()
                raise

    def close(self) -> None:
        """Close the files."""
        with self._guard:
            self._close()

    def _reopen(self) -> tuple[Mark, ConsentOffice, DutyDesk]:
        self._close()
        office = self._files.enter_context(ConsentOffice.open(self._home, self._clock))
        duties = self._files.enter_context(DutyDesk.open(self._home, office))
        self._known = self._mark(), office, duties
        return self._known

    def _close(self) -> None:
        self._known = None
        self._files.close()

    def _mark(self) -> Mark:
        found = [(self._home / name) for name in (*_REPLACED, *_CHANGED)]
        stats = [path.stat() if path.exists() else None for path in found]
        inodes = [stat.st_ino if stat else 0 for stat in stats]
        return (*inodes, *(stat.st_mtime_ns if stat else 0 for stat in stats[len(_REPLACED) :]))
