"""Sign a checkpoint every second under load, and have it cosigned by the witnesses that listen.

    Publisher(log, witnesses, interval_s=1.0): .start()  .stop()   .once() -> Level     one turn, also for tests

A turn: sign if there are new entries (stored before anybody sees it, L4), push to every witness at once, keep the
cosignatures. A witness that is silent or refuses delays nobody; it is asked again at the next turn. A witness that has seen
more than there is stops the log: from then on nothing is appended or signed until the operator has restored what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.exc import SQLAlchemyError

from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError
from convoy_coordinator.errors import CoordinatorError
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.outside import OutsideWitness, Refused, WitnessSilent
from convoy_coordinator.log.service import LogService

_log = logging.getLogger(__name__)


class Publisher:
    """The thread that publishes.

    Args:
        log: the log; this is no second writer, checkpoints are rows of their own.
        witnesses: those that listen.
        interval_s: the time between two checkpoints under load.
    """

    def __init__(self, log: LogService, witnesses: Sequence[OutsideWitness] = (), *, interval_s: float = 1.0) -> None:
        self._log = log
        self._witnesses = tuple(witnesses)
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._cosigned: dict[str, int] = {}

    def start(self) -> None:
        """Begin; a second call changes nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log-publisher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for witness in self._witnesses:
            witness.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                self.once()
            except (CoordinatorError, AuditError, SQLAlchemyError) as error:
                _log.error("no checkpoint: %s", error if isinstance(error, CoordinatorError) else type(error).__name__)
            self._stopped.wait(max(0.05, self._interval_s - (time.monotonic() - began)))

    def once(self) -> Level:
        """Publish what is new; return how far the last entry has come.

        Raises:
            CoordinatorError: the log cannot be signed or kept.
        """
        size = self._log.size()
        if size > self._log.levels.size(Level.PUBLISHED) or self._log.newest() is None:
            if size == 0:
                return Level.NONE
            self._log.checkpoint()
        note = self._log.newest()
        if note is None:
            return Level.NONE
        raw, signed = note.encode(), peek(note.encode()).size
        waiting = [w for w in self._witnesses if self._cosigned.get(w.party, -1) < signed]
        if waiting:
            with ThreadPoolExecutor(len(waiting)) as pool:
                lines = "".join(pool.map(lambda witness: self._push(witness, raw, signed), waiting))
            if lines:
                self._log.add_cosignatures(note + lines)
        return self._log.levels.of(signed - 1)

    def _push(self, witness: OutsideWitness, note: bytes, size: int) -> str:
        try:
            answer = witness.push(self._log, note)
            if isinstance(answer, str):
                self._log.check_cosignature(note, answer, witness.party)
                self._cosigned[witness.party] = size
                return answer
            self._refused(witness, answer)
        except WitnessSilent as error:
            _log.warning("%s", error)
        except AuditError as error:
            _log.error("%s answered what does not hold: %s", witness.party, error.cause)
        return ""

    def _refused(self, witness: OutsideWitness, refused: Refused) -> None:
        _log.error("%s did not cosign: status %d", witness.party, refused.status)
        if refused.size is not None or refused.status == 422:
            note = witness.remembered(self._log.origin)
            if note is not None:
                self._log.stop_if_behind(note, witness.party)
