"""End a process cleanly: by SIGTERM, SIGINT, or with the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


class Stop(BaseException):
    """The process was asked to end. Like ``KeyboardInterrupt``, it is not an error."""


def stop_on_signals() -> None:
    """Raise ``Stop`` in the main thread at the first SIGTERM or SIGINT; ignore the rest."""

    def raise_stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        raise Stop

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, raise_stop)


def when_stdin_ends(act: Callable[[], None]) -> None:
    """Call ``act`` in a thread when standard input ends: whoever started this process is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            continue
        act()

    threading.Thread(target=wait, name="stop-with-stdin", daemon=True).start()


def terminate_self() -> None:
    """Send SIGTERM to this process; it interrupts a blocked main thread."""
    os.kill(os.getpid(), signal.SIGTERM)
