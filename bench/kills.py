"""Kill the log's writer with SIGKILL many times, on SQLite and on PostgreSQL, and check that nothing acknowledged is lost.

    bench/kills.py [--kills 1000] [--seed 7] [--database sqlite postgresql] [--json OUT]

Each life is a process of its own that appends with four threads and signs checkpoints; it is killed at a random moment after its
first acknowledgement. Every 25 lives, and at the end, the log is started again: every acknowledged entry must be at its index, every
checkpoint that was handed out must be stored and extended, no index may have been given out twice. The short form, 100 lives on each
database, is ``tests/fault/audit/test_kills.py``. Exit code 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT / "tests/fault/audit/kill_harness.py"
sys.path.insert(0, str(ROOT / "tests/support"))


@contextlib.contextmanager
def database(kind: str) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="convoy-kills-") as folder:
            yield f"sqlite:///{folder}/log.db"
        return
    from postgres_server import postgres_server

    with postgres_server() as url:
        yield url


def main() -> None:
    """Run the harness on each database and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="lives on each database")
    parser.add_argument("--seed", type=int, default=7, help="of the moments of death")
    parser.add_argument("--database", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    given = parser.parse_args()
    figures: dict[str, object] = {}
    for kind in given.database:
        with database(kind) as url:
            command = [sys.executable, str(HARNESS), url, str(given.kills), str(given.seed)]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            raise SystemExit(f"{kind}: {done.stdout}{done.stderr}")
        figures[kind] = json.loads(done.stdout)
        print(kind, figures[kind], flush=True)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
