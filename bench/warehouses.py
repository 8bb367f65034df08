"""Let several engines compute the rows of the same trips, and compare them with PostgreSQL's through SQLAlchemy.

    python bench/warehouses.py --spark FOLDER --json bench/results/warehouses.json

PostgreSQL is started as the tests do, and read by SQLAlchemy and by Ibis; a local Spark session (Java 17) by Ibis, as a node's
``engine = "ibis"`` does; DuckDB as the node reads files. Not DuckDB by Ibis: Ibis 12.0.0 calls what DuckDB 2.0.0 has no more.
FOLDER holds pyspark (``pip install --target FOLDER --no-deps pyspark py4j``); without it Spark is left out. Not in CI: it is large.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[1]
TRIPS_A_DRIVER = 5
FIELDS = {
    "harsh_braking_100km": "100.0 * sum(brake_events) / sum(km)",
    "night_share": "sum(CASE WHEN is_night THEN km ELSE 0 END) / sum(km)",
    "trips": "count(*)",
}


def trips(drivers: int) -> pa.Table:
    """Return trips of drivers; some of a driver's are at night."""
    rng = np.random.default_rng(8)
    size = drivers * TRIPS_A_DRIVER
    return pa.table(
        {
            "driver_id": pa.array([f"P{i % drivers}" for i in range(size)]),
            "km": np.round(rng.uniform(1, 80, size), 1),
            "brake_events": rng.poisson(2.0, size),
            "is_night": rng.random(size) < 0.2,
        }
    )


def rows_of(source: Any) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return ids, ascending, and the fields of each, as the node reads them."""
    from convoy_node.dataset import PersonTable

    kinds = {"harsh_braking_100km": "numeric", "night_share": "numeric", "trips": "integer"}
    found: list[str] = []
    for batch in source.stream(["person_id"]):
        found += batch.column(0).cast(pa.string()).to_pylist()
    ids = sorted(found)
    table = PersonTable.load(source, kinds)
    return ids, np.column_stack(list(table.columns(ids).values()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; exit 1 where an engine gives other rows."""
    line = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    line.add_argument("--drivers", type=int, default=20_000)
    line.add_argument("--spark", type=Path, help="folder that holds pyspark")
    line.add_argument("--json", type=Path)
    given = line.parse_args(arguments)
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    if given.spark is not None:
        sys.path.append(str(given.spark))
        submit = "--master local[1] --driver-memory 1g --conf spark.ui.enabled=false pyspark-shell"
        os.environ.update(SPARK_LOCAL_IP="127.0.0.1", PYSPARK_PYTHON=sys.executable, PYSPARK_SUBMIT_ARGS=submit)
    from postgres_server import postgres_server

    from convoy_node.connectors.duckdb import FileSource
    from convoy_node.connectors.ibis import WarehouseSource
    from convoy_node.connectors.source import Mapping
    from convoy_node.connectors.sqlalchemy import DatabaseSource

    mapping = Mapping("trips", "driver_id", MappingProxyType(FIELDS), grouped=True)
    on_rows = Mapping("rows", "driver_id", mapping.fields, grouped=True)
    book = trips(given.drivers)
    result: dict[str, Any] = {"drivers": given.drivers, "trips": book.num_rows, "ibis": version("ibis-framework")}
    with tempfile.TemporaryDirectory() as name, postgres_server() as url:
        folder = Path(name)
        engine = sa.create_engine(url)
        book.to_pandas().to_sql("trips", engine, index=False, method="multi", chunksize=5_000)
        engine.dispose()
        pq.write_table(book, folder / "trips.parquet")
        sources = {
            "PostgreSQL by SQLAlchemy": DatabaseSource(url, "", mapping),
            "PostgreSQL by Ibis": WarehouseSource(url.replace("postgresql+psycopg", "postgresql"), "", mapping),
            "DuckDB on Parquet": FileSource(folder / "trips.parquet", on_rows),
        }
        if given.spark is not None:
            on_file = Mapping(f"parquet.`{folder / 'trips.parquet'}`", "driver_id", mapping.fields, grouped=True)
            sources["Spark by Ibis"] = WarehouseSource("pyspark://", "", on_file)
        ids, expected = rows_of(sources["PostgreSQL by SQLAlchemy"])
        is_same = len(ids) == given.drivers
        for engine_name, source in sources.items():
            begun = time.monotonic()
            found, values = rows_of(source)
            away = float(np.abs(values - expected).max()) if values.shape == expected.shape else float("inf")
            is_same &= found == ids and away < 1e-9
            result[engine_name] = {
                "rows": len(found),
                "sameIds": found == ids,
                "mostDifference": away,
                "seconds": round(time.monotonic() - begun, 2),
            }
    versions = {"duckdb": version("duckdb"), "sqlalchemy": version("sqlalchemy")}
    if given.spark is not None:
        import pyspark

        versions["pyspark"] = pyspark.__version__
    result["versions"] = versions
    print(json.dumps(result, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
