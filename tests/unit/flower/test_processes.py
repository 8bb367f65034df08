"""Whatever happens to the one who started them, no process stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convoy_coordinator.federation.flower.errors import ProcessEnded
from convoy_coordinator.federation.flower.processes import Supervisor

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
child.wait()
"""
POLITE = """
import sys
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs that a supervisor can start as modules."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    (tmp_path / "polite.py").write_text(POLITE)
    (tmp_path / "broken.py").write_text("raise SystemExit('no key in the folder')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_leaving_the_block_by_an_exception_stops_everything(tmp_path: Path) -> None:
    """As with Ctrl-C: what was started is gone when the exception arrives outside."""
    pids = []

    def start_and_interrupt() -> None:
        with Supervisor(tmp_path / "log") as supervisor:
            process = supervisor.start("polite", "polite", [])
            supervisor.wait("polite", lambda: "up" in process.last_words(), 20)
            pids.append(process.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_and_interrupt()
    assert is_gone(pids[0], 0.1)


def test_a_process_that_ignores_the_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    """The whole session goes, not only the process that was started."""
    with Supervisor(tmp_path / "log", patience_s=0.2) as supervisor:
        process = supervisor.start("stubborn", "stubborn", [])
        supervisor.wait("stubborn", lambda: "child" in process.last_words(), 20)
        child = int(process.last_words().split()[1])
        assert is_alive(child)
        assert supervisor.memory_kib()["stubborn"] > 1_000
    assert is_gone(process.pid, 0.1)
    assert is_gone(child)


def test_a_process_that_ends_too_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    """The error says which one, with which code, and what it said last."""
    with Supervisor(tmp_path / "log") as supervisor:
        supervisor.start("broken", "broken", [])
        with pytest.raises(ProcessEnded, match="broken ended with code 1: no key in the folder"):
            supervisor.wait("broken", lambda: False, 20)


def test_a_process_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    """Waiting has an end."""
    with Supervisor(tmp_path / "log") as supervisor:
        supervisor.start("polite", "polite", [])
        with pytest.raises(ProcessEnded, match="polite was not ready after 0 s"):
            supervisor.wait("polite", lambda: False, 0.1)


def test_processes_end_by_themselves_when_their_starter_is_killed(tmp_path: Path) -> None:
    """A kill -9 of the starter closes the line, and that is the signal to stop."""
    starter = f"""
from pathlib import Path
from convoy_coordinator.federation.flower.processes import Supervisor
import time
supervisor = Supervisor(Path({str(tmp_path / "log")!r}))
print(supervisor.start("polite", "polite", []).pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert is_gone(child)
