"""Start processes, know when they are ready, and stop every one of them.

Guarantees: each process runs in a session of its own with a log file of its own; leaving the
``with`` block - by return, exception or Ctrl-C - ends all of them, SIGTERM first and SIGKILL after
a while; if this process is killed they end by themselves, because their standard input ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from convoy_coordinator.federation.flower.errors import ProcessEnded

_KILL_S: Final = 5.0
_LOOK_S: Final = 0.05
_LAST_WORDS: Final = 5


@dataclass(frozen=True, slots=True)
class Process:
    """A running process, its log, and when it was started (``time.monotonic``)."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path
    started_at: float

    @property
    def pid(self) -> int:
        """Return the process id, which is also that of its session and group."""
        return self.popen.pid

    def last_words(self) -> str:
        """Return the last lines of its log, on one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " | ".join(line.strip() for line in lines[-_LAST_WORDS:] if line.strip())


class Supervisor:
    """The processes of one federation.

    Args:
        logs: folder for their logs, ``<name>.log`` each.
        patience_s: how long a process may take to end after SIGTERM.
    """

    def __init__(self, logs: Path, *, patience_s: float = 8.0) -> None:
        self._patience_s = patience_s
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def processes(self) -> Mapping[str, Process]:
        """Return the processes that were started and not stopped, by name."""
        return dict(self._processes)

    def start(
        self,
        name: str,
        module: str,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start ``python -m module arguments``; secrets belong in files, never here."""
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            )
        self._processes[name] = Process(name, popen, log, time.monotonic())
        return self._processes[name]

    def wait(self, name: str, is_ready: Callable[[], bool], timeout_s: float) -> float:
        """Wait until a process is ready; returns the seconds since its start.

        Raises:
            ProcessEnded: it, or another one, ended, or it was not ready in time.
        """
        process = self._processes[name]
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessEnded(
                    f"{name} was not ready after {timeout_s:.0f} s: {process.last_words()}",
                    party=name,
                    fix=f"Read {process.log}.",
                )
            time.sleep(_LOOK_S)
        return time.monotonic() - process.started_at

    def check(self) -> None:
        """Raise if a process ended by itself.

        Raises:
            ProcessEnded: names it, its exit code and its last words.
        """
        for name, process in self._processes.items():
            code = process.popen.poll()
            if code is not None:
                raise ProcessEnded(
                    f"{name} ended with code {code}: {process.last_words()}",
                    party=name,
                    fix=f"Read {process.log}.",
                )

    def stop(self, *names: str) -> None:
        """Stop the named processes, or all of them, with everything that they started."""
        going = [self._processes.pop(name) for name in (names or tuple(self._processes))]
        for process in going:
            _close_line(process)
            _signal_group(process, signal.SIGTERM)
        for end_s in (self._patience_s, _KILL_S):
            deadline = time.monotonic() + end_s
            while any(_group_lives(process) for process in going) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
            for process in going:
                _signal_group(process, signal.SIGKILL)
        for process in going:
            process.popen.wait()

    def kill(self, name: str) -> None:
        """Kill a process with everything that it started, as a power cut would."""
        process = self._processes.pop(name)
        _signal_group(process, signal.SIGKILL)
        process.popen.wait()
        _close_line(process)

    def memory_kib(self) -> dict[str, int]:
        """Return the resident memory of each process with its children, in KiB; Linux only."""
        return {
            name: sum(_resident_kib(pid) for pid in _session(process.pid)) for name, process in self._processes.items()
        }


def _close_line(process: Process) -> None:
    if process.popen.stdin is not None:
        with suppress(BrokenPipeError):
            process.popen.stdin.close()


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _group_lives(process: Process) -> bool:
    process.popen.poll()  # reaps it, so that a group of the dead alone is gone
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _session(leader: int) -> list[int]:
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(entry.name)) == leader:
                members.append(int(entry.name))
    return members


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields.get("VmRSS", "0 kB").split()[0])
