"""Work that is done again and again beside the log, in a thread of its own.

Repeating(name, every_s, turn)    .start()   .stop()
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeating:
    """The thread of one such work.

    Args:
        name: of the thread.
        every_s: seconds before each turn, before the first as well.
        turn: does the work; what it raises ends the thread, so it logs its own failures.
    """

    def __init__(self, name: str, every_s: float, turn: Callable[[], None]) -> None:
        self._name = name
        self._every_s = every_s
        self._turn = turn
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._turn()
