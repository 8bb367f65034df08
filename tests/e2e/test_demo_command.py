"""The command of the README's demo, as a person types it.

With its 100,000 drivers, whatever else they cost: with 40,000 the utility gate refuses every second run, by the noise of its
hold-out alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_command_ends_in_its_summary_and_goes_on_in_the_same_ledgers(tmp_path: Path) -> None:
    """``convoy-demo run`` without a terminal exits 0; twice adds up; the third is refused with exit code 3; reset removes it."""
    home = tmp_path / "demo"
    command = [sys.executable, "-m", "convoy_demo.cli"]

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "run", "--home", str(home)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    first = run()
    assert first.returncode == 0, first.stdout[-2000:] + first.stderr[-2000:]
    summary = json.loads((home / "summary.json").read_text(encoding="utf-8"))
    assert {"risk", "recommendation", "epsilon", "audit", "release", "seconds"} <= set(summary)
    assert set(summary["risk"]["joint"]) == {"d2", "gini", "auc10"}
    assert set(summary["risk"]["alone"]) == {"insurer-a", "insurer-b", "insurer-c"}
    assert set(summary["recommendation"]) == {"hr10", "popularity"}
    assert summary["audit"]["verified"] is True
    assert set(summary["seconds"]) == {"start", "risk", "recommendation", "total"}
    assert Path(summary["release"], "manifest.sig").exists()
    best = max(worth["d2"] for worth in summary["risk"]["alone"].values())
    assert summary["risk"]["joint"]["d2"] > best  # more than twice as much, on average: bench/population.py
    assert summary["recommendation"]["hr10"] > summary["recommendation"]["popularity"]
    assert all(e["spent"] <= e["allowed"] for e in summary["epsilon"].values())
    second = run()
    assert second.returncode == 0, second.stdout[-2000:]
    third = run()
    assert third.returncode == 3
    assert "BUDGET_EXHAUSTED" in third.stdout
    assert subprocess.run([*command, "reset", "--home", str(home)], check=True).returncode == 0
    assert not home.exists()
