"""Start, wake, watch and stop the process that runs the partner's application.

The worker's standard input is its line to us: a byte means "there is a task", the end of it means
"we are gone".
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Final

from convoy_node.flower.errors import WorkerEnded

_LOG = logging.getLogger(__name__)
_READY_S: Final = 120.0
_STOP_S: Final = 3.0
_SETTLE_S: Final = 0.3
_RESTARTS: Final = 3
_RESTARTS_WITHIN_S: Final = 60.0


class WorkerProcess:
    """The warm worker of one node.

    Args:
        arguments: of ``python -m convoy_node.flower.worker``.
        on_lost: called once if the worker keeps ending; the node should end as well.
    """

    def __init__(self, arguments: Sequence[str], on_lost: Callable[[], None]) -> None:
        self._arguments = tuple(arguments)
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._stopping = False
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: list[float] = []

    def start(self) -> None:
        """Start the worker and return when it has built its application.

        Raises:
            WorkerEnded: it ended instead, or was not ready in time.
        """
        self._launch()
        threading.Thread(target=self._watch, name="worker-watch", daemon=True).start()

    def wake(self) -> None:
        """Tell the worker that there is a task."""
        with self._lock, suppress(BrokenPipeError):  # it ended: the watch starts another
            line = self._line()
            line.write(b"\n")
            line.flush()

    def stop(self) -> None:
        """End the worker: close its line, then SIGTERM, then SIGKILL."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is None:
            return
        with suppress(BrokenPipeError):
            self._line().close()
        for signal_it in (process.terminate, process.kill):
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                signal_it()
        process.wait()

    def _line(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            raise WorkerEnded("the worker was not started.", fix="Start it first.")
        return self._process.stdin

    def _launch(self) -> None:
        reader, writer = os.pipe()
        self._starts.append(time.monotonic())
        command = [sys.executable, "-m", "convoy_node.flower.worker", *self._arguments]
        try:
            process = subprocess.Popen([*command, "--ready-fd", str(writer)], stdin=subprocess.PIPE, pass_fds=(writer,))
        finally:
            os.close(writer)
        with self._lock, os.fdopen(reader, "rb") as ready:
            self._process = process
            answered, _, _ = select.select([ready], [], [], _READY_S)
            if not answered or not ready.read(1):
                process.kill()
                process.wait()
                raise WorkerEnded(
                    f"the worker did not build its application (exit code {process.returncode}).",
                    fix="Its messages stand above this one in the node's log.",
                )

    def _watch(self) -> None:
        while self._process is not None:
            code = self._process.wait()
            time.sleep(_SETTLE_S)  # told to end together with us, it may be the first
            if self._stopping:
                return
            recent = [at for at in self._starts if at > time.monotonic() - _RESTARTS_WITHIN_S]
            _LOG.error("the worker ended with code %s", code)
            if len(recent) > _RESTARTS:
                self._on_lost()
                return
            try:
                self._launch()
            except WorkerEnded as error:
                _LOG.error("%s", error)
