"""The coordinator's memory through runs, in short form; ``make soak`` takes a thousand."""

from __future__ import annotations

from pathlib import Path

from bench_module import bench_module


def test_a_coordinator_does_not_grow_with_the_runs_it_has_seen(tmp_path: Path) -> None:
    """Twenty runs in a process of its own: less than 200 KiB a run, of which a thousand would be seen by ``make soak``."""
    soak = bench_module("soak")
    told = soak.soak(tmp_path / "coordinator", 20)
    assert told["runs"] == 20
    assert told["logEntries"] >= 4 * 20
    assert told["growthMiB"] < 4, told
