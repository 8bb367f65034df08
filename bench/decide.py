"""How long a decision takes: four parties, phase authorise, warm and cold; and how long the command takes to start.

    python bench/decide.py [--json bench/results/decide.json] [--repeat 2000]

*Warm*: contract and signatures have been seen before, the request has not. *Cold*: nothing has been seen (the contract is
parsed, four Ed25519 signatures are checked); the modules are loaded. Goals: p50 warm <= 0.5 ms, cold <= 4 ms, start <= 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from convoy_contracts import document, signatures
from convoy_contracts.decide import decide
from convoy_contracts.testing import example_world

GOALS_MS = {"warm": 0.5, "cold": 4.0, "start": 500.0}


def forget() -> None:
    """Empty every cache of the engine."""
    document.forget()
    signatures.forget()


def measure(*, repeat: int, is_cold: bool) -> list[float]:
    """Return milliseconds per decision, a fresh request each time."""
    world = example_world()
    taken = []
    for n in range(repeat):
        world["request"]["nonce"] = f"n{n + 2}"
        if is_cold:
            forget()
        begin = time.perf_counter()
        decision = decide(world)
        taken.append((time.perf_counter() - begin) * 1e3)
        if not decision.allow:
            raise SystemExit(f"the example is refused: {decision.reasons}")
    return taken[1:]


def start_ms(repeat: int = 5) -> list[float]:
    """Return milliseconds that ``convoy-contracts --help`` takes."""
    taken = []
    for _ in range(repeat):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "convoy_contracts.cli", "--help"], check=True, capture_output=True)
        taken.append((time.perf_counter() - begin) * 1e3)
    return taken


def summary(taken: list[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    ordered = sorted(taken)
    return {"p50_ms": round(statistics.median(ordered), 3), "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3)}


def main() -> int:
    """Measure, print, write; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("bench/results/decide.json"))
    parser.add_argument("--repeat", type=int, default=2000)
    given = parser.parse_args()
    results = {
        "warm": summary(measure(repeat=given.repeat, is_cold=False)),
        "cold": summary(measure(repeat=max(50, given.repeat // 10), is_cold=True)),
        "start": summary(start_ms()),
    }
    missed = [name for name, goal in GOALS_MS.items() if results[name]["p50_ms"] > goal]
    report = {
        "command": "python bench/decide.py",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "parties": len(example_world()["keys"]),
        "goals_ms": GOALS_MS,
        "results": results,
        "missed": missed,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, figures in results.items():
        print(f"{name:5}  p50 {figures['p50_ms']:8.3f} ms   p99 {figures['p99_ms']:8.3f} ms   goal {GOALS_MS[name]} ms")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
