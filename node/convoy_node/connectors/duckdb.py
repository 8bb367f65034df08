"""Read Parquet, CSV and Excel files through DuckDB, in process.

    FileSource(path, mapping)                       the Source of a file
    describe(source) -> {column: DuckDB type}       nothing but the header and statistics is read
    read(source, columns) -> pa.Table               only these columns, in this order
    read_text(source) -> pa.Table                   CSV cells as they are written, empty = null

Guarantees: no network, no extension is fetched, a file is only read. Errors never hold a cell's
value or the folder; DuckDB's own message stays in ``__cause__``, for the node's log.

LIMIT: an Excel sheet (the first one) is read whole into memory; the format has at most 1,048,576 rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb  # the library: imports are absolute
import pyarrow as pa

from convoy_node.connectors.source import BATCH_ROWS, Mapping, refused

PARQUET = (".parquet", ".pq")
CSV = (".csv",)
EXCEL = (".xlsx", ".xlsb", ".xls", ".ods")
CSV_TYPES = ["BIGINT", "DOUBLE", "VARCHAR"]
"""What a CSV cell may be taken for; left to itself, DuckDB reads yes and no as truth values, which no contract's level is."""
ROWS = "rows"
"""The name under which a mapping finds the rows of the file."""
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "2",
    "memory_limit": "1GB",
    "preserve_insertion_order": "false",
}
_SCAN: dict[str, str | bool | int | float | list[str]] = {**_CONFIG, "threads": "1", "memory_limit": "256MB"}
"""For rows as they are: nothing is grouped or joined, and what DuckDB does not hold is left for ten million persons."""


class FileSource:
    """The rows of a file, as they are or through a mapping."""

    def __init__(
        self, path: Path, mapping: Mapping | None = None, *, person: str = "person_id", party: str = ""
    ) -> None:
        self._path, self._mapping, self._person, self._party = path, mapping, person, party

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    def describe(self) -> dict[str, str]:
        """Return the columns and their DuckDB types."""
        with _opened(self._path, self._party) as rows:
            relation = rows if self._mapping is None else _mapped(rows, self._mapping.sql(self._person))
            return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def stream(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield these columns as Arrow batches."""
        with _opened(self._path, self._party, is_plain=self._mapping is None) as rows:
            if self._mapping is None:
                relation = rows.select(*map(duckdb.ColumnExpression, columns))
            else:
                relation = _mapped(rows, self._mapping.sql(self._person, columns))
            yield from relation.to_arrow_reader(batch_rows)


def describe(source: Path, *, party: str = "") -> dict[str, str]:
    """Return the columns of a file and their DuckDB types, in file order.

    Raises:
        DatasetRefused: the file is missing, of an unknown kind, or cannot be read.
    """
    return FileSource(source, party=party).describe()


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
def _opened(
    source: Path, party: str, *, is_text: bool = False, is_plain: bool = False
) -> Iterator[duckdb.DuckDBPyRelation]:
    if source.suffix not in PARQUET + CSV + EXCEL:
        raise refused(
            f"{source.name} is none of Parquet, CSV and Excel.", "Name a .parquet, .csv or .xlsx file.", party
        )
    if not source.is_file():
        raise refused(f"{source.name} is not there.", "Name a file that this node can read.", party)
    db = duckdb.connect(":memory:", config=_SCAN if is_plain else _CONFIG)
    try:
        if source.suffix in PARQUET:
            yield db.read_parquet(str(source))
        elif source.suffix in CSV:
            types = {} if is_text else {"auto_type_candidates": CSV_TYPES}
            yield db.read_csv(str(source), header=True, all_varchar=is_text, **types)
        else:
            yield db.from_arrow(_sheet(source, party, is_text=is_text))
    except duckdb.Error as error:
        raise refused(f"{source.name} cannot be read.", "See the node's log; write the file again.", party) from error
    finally:
        db.close()


def _mapped(rows: duckdb.DuckDBPyRelation, sql: str) -> duckdb.DuckDBPyRelation:
    return rows.query(ROWS, sql)


def _sheet(source: Path, party: str, *, is_text: bool) -> pa.Table:
    """Return the first sheet; its first row names the columns."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        sheet = CalamineWorkbook.from_path(source).get_sheet_by_index(0).to_python(skip_empty_area=True)
    except (CalamineError, OSError) as error:
        raise refused(f"{source.name} cannot be read.", "Save it again as .xlsx, or export CSV.", party) from error
    if not sheet:
        raise refused(f"{source.name} has no cells in its first sheet.", "Put the rows into the first sheet.", party)
    names = [str(cell).strip() for cell in sheet[0]]
    if "" in names or len(set(names)) != len(names):
        raise refused(
            f"{source.name} has columns without a name, or two of one name.", "Name each column once, in row 1.", party
        )
    columns = {}
    for place, name in enumerate(names):
        cells = [None if row[place] == "" else row[place] for row in sheet[1:]]
        if is_text:
            cells = [None if cell is None else _written(cell) for cell in cells]
        try:
            columns[name] = pa.array(cells)
        except pa.ArrowException:
            columns[name] = pa.array([None if cell is None else _written(cell) for cell in cells], pa.string())
    return pa.table(columns)


def _written(cell: object) -> str:
    """Return a cell as Excel shows it: whole numbers without a fraction."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
