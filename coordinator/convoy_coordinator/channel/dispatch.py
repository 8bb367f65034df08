"""Have the runtime take up what is queued: one queued run, one Flower run.

The ServerApp claims the oldest queued run itself, so a start too many finds nothing to do and ends, and one that got lost is
made up for. While a claimed run has not ended nothing is started: the worker takes one at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from convoy_coordinator.enrolment.gate import Gate
from convoy_coordinator.errors import CoordinatorError
from convoy_coordinator.runs.store import Run

LOOK_S: Final = 0.5
AGAIN_S: Final = 60.0
"""How long a run that was started may stay unclaimed before it is started once more: the worker may have died."""
_log = logging.getLogger(__name__)


def next_queued(runs: Sequence[Run]) -> str | None:
    """Return the run that the runtime should take up now; None while it has one, or where none waits."""
    open_runs = [run for run in runs if not run.state.is_final]
    if any(run.claimed_at is not None for run in open_runs):
        return None
    return min(open_runs, key=lambda run: run.number).uid if open_runs else None


class Dispatcher:
    """A thread that starts queued runs.

    Args:
        gate: the runtime's door.
        runs: returns the latest runs.
    """

    def __init__(self, gate: Gate, runs: Callable[[], Sequence[Run]]) -> None:
        self._gate = gate
        self._runs = runs
        self._started: tuple[str, float] = ("", 0.0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def look(self) -> str | None:
        """Start what should be started now; return its uid.

        Raises:
            CoordinatorError: the runtime or the database does not answer.
        """
        uid = next_queued(self._runs())
        known, at = self._started
        if uid is None or (uid == known and time.monotonic() - at < AGAIN_S) or self._gate.endpoint() is None:
            return None
        self._gate.begin(uid)
        self._started = (uid, time.monotonic())
        return uid

    def _run(self) -> None:
        told = ""
        while not self._stopped.wait(LOOK_S):
            try:
                self.look()
                told = ""
            except (CoordinatorError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("a queued run could not be started: %s", told)
