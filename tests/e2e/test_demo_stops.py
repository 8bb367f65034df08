"""Ctrl-C in the middle of the demo: everything that it started has ended, in both runtimes, and it says so."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_S = 240.0
STOPPED = 130


def about(home: Path) -> dict[int, str]:
    """Return the command lines of the processes that name a folder, by process id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(home) in words:
                found[int(entry.name)] = words
    return found


def is_training(home: Path) -> bool:
    """Tell whether the first run has been asked for; its nodes are being asked then."""
    for database in (home / "embedded" / "coordinator").glob("*.db"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as db:
            return bool(db.execute("SELECT 1 FROM run").fetchall())
    return False


def are_all_up(home: Path) -> bool:
    """Tell whether the coordinator, the SuperLink, the ServerApp worker and six SuperNodes with their workers are there."""
    words = list(about(home).values())
    return (
        sum("flower.supernode" in line for line in words) == 6 and sum("flower.worker" in line for line in words) == 6
    )


@pytest.mark.parametrize(("runtime", "is_under_way"), [("embedded", is_training), ("deployed", are_all_up)])
def test_ctrl_c_ends_everything_that_the_demo_started(
    tmp_path: Path, runtime: str, is_under_way: Callable[[Path], bool]
) -> None:
    """As a terminal sends it, to the demo's process group; exit code 130, and no process is left that names its folder."""
    home, log = tmp_path / "demo", tmp_path / "demo.log"
    words = ["run", "--runtime", runtime, "--drivers", "4000", "--home", str(home)]
    with log.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, "-m", "convoy_demo.cli", *words],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_under_way(home):
            assert demo.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert demo.pid in about(home)
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(PATIENCE_S) == STOPPED, log.read_text()
        assert "everything that was started has ended" in log.read_text()
        assert about(home) == {}
    finally:
        for pid in about(home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        demo.wait()
