"""``make compose-check``: the compose file's own commands, settings and health checks, run as local processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_topology_of_the_compose_file_runs_and_a_node_and_an_auditor_take_part() -> None:
    """PostgreSQL, coordinator, SuperLink, ServerApp worker, a node and an auditor: healthy, working, and gone when told to."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/compose_check.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAULT" not in done.stdout
    assert "everything has stopped when told to" in done.stdout
