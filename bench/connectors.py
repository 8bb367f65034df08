"""Stream a large book through a node's connector and its checks: memory must not grow with the book.

    python bench/connectors.py --persons 10000000 --json bench/results/connectors.json

Both sides in one go, each in a process of its own: ``survey`` (every row judged, none kept) and ``load`` of the tenth of the persons
whose consent counts, and of all persons, against reading the whole file into one Arrow table. Peak memory is the process's own (ru_maxrss).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUMBERS = [f"x{i:02d}" for i in range(26)]
CHUNK = 500_000
SHARE = 10
"""One person in ten has consented."""


def write(path: Path, persons: int) -> None:
    """Write a book of 30 columns: id, 26 numbers, a category, claims, exposure."""
    rng = np.random.default_rng(1)
    writer = None
    for start in range(0, persons, CHUNK):
        size = min(CHUNK, persons - start)
        table = pa.table(
            {"person_id": pa.array(np.char.add("P", np.arange(start, start + size).astype(np.str_)))}
            | {name: rng.random(size) for name in NUMBERS}
            | {
                "garage": pa.array(rng.choice(["no", "yes"], size)),
                "claim_count": rng.poisson(0.1, size),
                "exposure_years": rng.uniform(0.1, 1, size),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="none")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def work(kind: str, path: Path, persons: int) -> dict[str, float]:
    """Do one side and return its figures; called in a process of its own."""
    from convoy_node.columns import Column
    from convoy_node.dataset import PersonTable, survey

    columns = [Column(name, "numeric") for name in NUMBERS]
    columns += [
        Column("garage", "text", ("no", "yes")),
        Column("claim_count", "claims"),
        Column("exposure_years", "exposure"),
    ]
    started = time.monotonic()
    if kind == "survey":
        rows = survey(path, columns).rows
    elif kind == "load":
        rows = len(PersonTable.load(path, columns, persons={f"P{i}" for i in range(0, persons, SHARE)}))
    elif kind == "load all":
        rows = len(PersonTable.load(path, columns))
    else:
        rows = pq.read_table(path).num_rows
    return {
        "rows": rows,
        "seconds": round(time.monotonic() - started, 2),
        "peakMiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--persons", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        print(json.dumps(work(given.side[0], Path(given.side[1]), given.persons)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "book.parquet"
        write(path, given.persons)
        result: dict[str, object] = {"persons": given.persons, "columns": 30, "fileMiB": path.stat().st_size >> 20}
        for kind in ("survey", "load", "load all", "whole table"):
            done = subprocess.run(
                [sys.executable, __file__, "--persons", str(given.persons), "--side", kind, str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            result[kind] = json.loads(done.stdout)
    print(json.dumps(result, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
