"""The coordinator's memory through runs, in short form; ``make soak`` takes a thousand."""

from __future__ import annotations

import importlib.util
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "soak.py"


def test_a_coordinator_does_not_grow_with_the_runs_it_has_seen(tmp_path: Path) -> None:
    """Twenty runs in a process of its own: less than 200 KiB a run, of which a thousand would be seen by ``make soak``."""
    spec = importlib.util.spec_from_file_location("bench_soak", BENCH)
    assert spec is not None
    assert spec.loader is not None
    soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)
    told = soak.soak(tmp_path / "coordinator", 20)
    assert told["runs"] == 20
    assert told["logEntries"] >= 4 * 20
    assert told["growthMiB"] < 4, told
