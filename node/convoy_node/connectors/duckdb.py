"""Read Parquet and CSV files through DuckDB, in process.

    describe(source) -> {column: DuckDB type}       nothing but the header and statistics is read
    read(source, columns) -> pa.Table               only these columns, in this order
    read_text(source) -> pa.Table                   CSV cells as they are written, empty = null

Guarantees: no network, no extension is fetched, a file is only read. Errors never hold a cell's
value or the folder; DuckDB's own message stays in ``__cause__``, for the node's log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb  # the library: imports are absolute
import pyarrow as pa

from convoy_node.errors import DatasetRefused, Fault

PARQUET = (".parquet", ".pq")
CSV = (".csv",)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "2",
}


def describe(source: Path, *, party: str = "") -> dict[str, str]:
    """Return the columns of a file and their DuckDB types, in file order.

    Raises:
        DatasetRefused: the file is missing, of an unknown kind, or cannot be read.
    """
    with _opened(source, party) as rows:
        return dict(zip(rows.columns, map(str, rows.types), strict=True))


def read(source: Path, columns: Sequence[str], *, party: str = "") -> pa.Table:
    """Return these columns of a file, in this order.

    Raises:
        DatasetRefused: the file is missing, of an unknown kind, or cannot be read; a column is not
            there.
    """
    with _opened(source, party) as rows:
        return rows.select(*map(duckdb.ColumnExpression, columns)).to_arrow_table()


def read_text(source: Path, *, party: str = "") -> pa.Table:
    """Return a whole file; the cells of a CSV file are not interpreted.

    Raises:
        DatasetRefused: the file is missing, of an unknown kind, or cannot be read.
    """
    with _opened(source, party, is_text=True) as rows:
        return rows.to_arrow_table()


@contextmanager
def _opened(source: Path, party: str, *, is_text: bool = False) -> Iterator[duckdb.DuckDBPyRelation]:
    if source.suffix not in PARQUET + CSV:
        raise _refused(f"{source.name} is neither Parquet nor CSV.", "Name a .parquet or .csv file.", party)
    if not source.is_file():
        raise _refused(f"{source.name} is not there.", "Name a file that this node can read.", party)
    db = duckdb.connect(":memory:", config=_CONFIG)
    try:
        if source.suffix in PARQUET:
            yield db.read_parquet(str(source))
        else:
            yield db.read_csv(str(source), header=True, all_varchar=is_text)
    except duckdb.Error as error:
        raise _refused(f"{source.name} cannot be read.", "See the node's log; write the file again.", party) from error
    finally:
        db.close()


def _refused(cause: str, fix: str, party: str) -> DatasetRefused:
    return DatasetRefused([Fault("", cause, fix)], party=party)
