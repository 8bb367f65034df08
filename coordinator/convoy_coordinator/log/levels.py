"""How far an entry has come: durable, published, witnessed. What waits for which is decided by the acts.

``DURABLE``    committed with its frontier; its index never changes (L1)
``PUBLISHED``  under a checkpoint that the log has signed and stored
``WITNESSED``  under a checkpoint that the quorum of witnesses has cosigned; reached once, it stays reached

Denials, reads and requests need ``DURABLE``. No run is authorised before the contract's signatures and events, the keys of its
parties and its own request are ``WITNESSED`` (``intake``); the authorisation itself and releases have no effect before they are.
"""

from __future__ import annotations

import threading
import time
from enum import IntEnum

from convoy_coordinator.errors import Problem


class Level(IntEnum):
    """The levels of acknowledgement, in order."""

    NONE = 0
    DURABLE = 1
    PUBLISHED = 2
    WITNESSED = 3

    @property
    def word(self) -> str:
        """The level as the API spells it."""
        return self.name.lower()


class Levels:
    """The sizes up to which each level is reached; they only grow."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sizes = {Level.DURABLE: 0, Level.PUBLISHED: 0, Level.WITNESSED: 0}

    def reached(self, level: Level, size: int) -> None:
        """Note that the first ``size`` entries have come this far."""
        with self._changed:
            if size > self._sizes[level]:
                self._sizes[level] = size
                self._changed.notify_all()

    def size(self, level: Level) -> int:
        """Return how many entries have come this far."""
        return self._sizes[level]

    def of(self, index: int) -> Level:
        """Return the highest level of an entry."""
        return max((level for level, size in self._sizes.items() if index < size), default=Level.NONE)

    def wait(self, index: int, level: Level, deadline_s: float) -> None:
        """Return once an entry has come to a level.

        Raises:
            Problem: LOG_NOT_WITNESSED after the deadline; the act must then be taken as refused.
        """
        end = time.monotonic() + deadline_s
        with self._changed:
            while index >= self._sizes[level]:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    if index < self._sizes[level]:
                        return
                    raise Problem(
                        "LOG_NOT_WITNESSED",
                        f"entry {index} is {self.of(index).word}, not {level.word}, after {deadline_s:g} s",
                    )
