"""Measure the demo in both runtimes: start-up, seconds per kind of query, bytes relayed, peak memory per process.

``python bench/runtimes.py --json bench/results/runtimes.json`` founds a fresh demo for each runtime in a temporary folder, runs it
as a user would (a process of its own), and watches its processes through /proc. Both runtimes in one go, on the same machine.
A LOCAL query is one exchange (``close``), a DOT query two (``share``, ``close``), a WEIGHTED query three (``open``, ``share``, ``close``);
queries of one batch share their exchanges, so the figures are per batch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POLL_S = 0.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--drivers", type=int, default=100_000)
    given = parser.parse_args(arguments)
    results = {runtime: measure(runtime, given.drivers) for runtime in ("embedded", "deployed")}
    results["machine"] = {"cores": os.cpu_count(), "drivers": given.drivers}
    slow, quick = (results[name]["risk"]["secondsPerWeightedBatch"] for name in ("deployed", "embedded"))
    results["ratio"] = {"deployedToEmbeddedWeightedBatch": round(slow / quick, 2)}
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


def measure(runtime: str, drivers: int) -> dict[str, Any]:
    """Run the demo once in a runtime and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "demo"
        command = ["run", "--home", str(home), "--runtime", runtime, "--drivers", str(drivers), "--no-wait"]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "convoy_demo.cli", *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        peaks: dict[str, int] = {}
        while process.poll() is None:
            for name, mib in descendants(process.pid):
                peaks[name] = max(peaks.get(name, 0), mib)
            time.sleep(POLL_S)
        if process.returncode != 0:
            raise SystemExit(f"the {runtime} demo ended with exit code {process.returncode}")
        wall = time.monotonic() - started
        summary = json.loads((home / "summary.json").read_text(encoding="utf-8"))
    return {
        "wallSeconds": round(wall, 1),
        "seconds": summary["seconds"],
        "risk": per_query(summary["protocol"]["risk"]),
        "recommendation": per_query(summary["protocol"]["recommendation"]),
        "peakMemoryMiB": dict(sorted(peaks.items())),
    }


def per_query(protocol: dict[str, Any]) -> dict[str, Any]:
    """Return seconds per exchange and per kind of batch, and what was relayed."""
    seconds, count = protocol["secondsByAction"], protocol["exchanges"]
    each = {action: seconds[action] / count[action] for action in seconds}
    close, share = each["close"], each.get("share", 0.0)
    figures = {
        "runSeconds": protocol["seconds"],
        "secondsPerLocalBatch": round(close, 3),
        "secondsPerDotBatch": round(share + close, 3),
        "sealedMegabytesRelayed": round(protocol["blobBytes"] / 1e6, 1),
        "messages": protocol["messages"],
        "exchanges": sum(count.values()),
        "secondsPerExchange": {action: round(value, 3) for action, value in sorted(each.items())},
    }
    if "open" in each:
        figures["secondsPerWeightedBatch"] = round(each["open"] + share + close, 3)
    return figures


def descendants(pid: int) -> list[tuple[str, int]]:
    """Return (name, peak resident MiB) of a process and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        here = queue.pop()
        queue += children.get(here, [])
        try:
            status = (Path("/proc") / str(here) / "status").read_text()
            words = (Path("/proc") / str(here) / "cmdline").read_text().split("\0")
        except OSError:
            continue
        peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
        found.append((role_of(words), int(peak) // 1024))
    return found


def role_of(words: Sequence[str]) -> str:
    """Return what a process is, from its command line."""
    home = next((Path(words[i + 1]).name for i, word in enumerate(words[:-1]) if word == "--home"), "")
    for word in words:
        if word.startswith("convoy_") and "." in word and word != "convoy_demo.cli":
            return f"{word.rsplit('.', 1)[1]} {home}".strip()
    return "coordinator" if "serve" in words else "convoy-audit" if "verify" in words else "convoy-demo"


if __name__ == "__main__":
    sys.exit(main())
