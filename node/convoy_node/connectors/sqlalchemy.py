"""Read rows from any database that SQLAlchemy has a dialect for; the database computes them, a server-side cursor streams them.

LIMIT: column types are told from the first rows (``SAMPLE_ROWS``) where the database does not state them through Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import sqlalchemy as sa  # the library: imports are absolute

from convoy_node.connectors.source import BATCH_ROWS, Mapping, duckdb_type, quoted, refused

SAMPLE_ROWS = 1_000
SPELLINGS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
"""Schemes people write, and the driver that Convoy installs for them."""


class DatabaseSource:
    """A table or view of a database, as it is or through a mapping."""

    def __init__(
        self, url: str, table: str, mapping: Mapping | None = None, *, person: str = "person_id", party: str = ""
    ) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{SPELLINGS.get(scheme, scheme)}://{rest}"
        self._table, self._mapping, self._person, self._party = table, mapping, person, party

    @property
    def name(self) -> str:
        """The table's name."""
        return self._table if self._mapping is None else self._mapping.table

    def describe(self) -> dict[str, str]:
        """Return the columns and their types, told from the first rows."""
        with self._opened() as connection:
            return {field.name: duckdb_type(field.type) for field in self._sample(connection, self._query(None))}

    def stream(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield these columns as Arrow batches."""
        with self._opened() as connection:
            query = self._query(columns)
            schema = self._sample(connection, query)
            result = connection.execution_options(stream_results=True, yield_per=batch_rows).execute(sa.text(query))
            for part in result.partitions(batch_rows):
                try:
                    yield _batch(part, schema)
                except (pa.ArrowException, ValueError, TypeError) as error:
                    raise refused(
                        f"{self.name} changes the type of a column between rows.",
                        "Give each column one type, with CAST in the view or the mapping.",
                        self._party,
                    ) from error

    def _query(self, columns: Sequence[str] | None) -> str:
        if self._mapping is not None:
            return self._mapping.sql(self._person, columns)
        picked = "*" if columns is None else ", ".join(map(quoted, columns))
        return f"SELECT {picked} FROM {self._table}"  # noqa: S608 - a name from the node's own settings

    def _sample(self, connection: sa.Connection, query: str) -> pa.Schema:
        result = connection.execution_options(stream_results=True).execute(sa.text(query))
        names = list(result.keys())
        rows = result.fetchmany(SAMPLE_ROWS)
        result.close()
        columns = [[_plain(row[place]) for row in rows] for place in range(len(names))]
        return pa.schema([pa.field(name, _kind(cells)) for name, cells in zip(names, columns, strict=True)])

    @contextmanager
    def _opened(self) -> Iterator[sa.Connection]:
        fix = (
            "Check the URL file, the account's right to read, and the mapping; the node's log has the database's words."
        )
        try:
            engine = sa.create_engine(self._url, poolclass=sa.NullPool)
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise refused(
                "the database URL names no dialect that is installed.",
                "Install its driver; see docs/data.md.",
                self._party,
            ) from error
        try:
            with engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise refused(f"{self.name} cannot be read.", fix, self._party) from error
        finally:
            engine.dispose()


def _plain(cell: Any) -> Any:
    return float(cell) if isinstance(cell, Decimal) else cell


def _kind(cells: Sequence[Any]) -> pa.DataType:
    try:
        kind = pa.array(cells).type
    except pa.ArrowException:
        return pa.string()
    return pa.string() if pa.types.is_null(kind) else kind


def _batch(rows: Sequence[Any], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for place, column in enumerate(schema):
        cells = [_plain(row[place]) for row in rows]
        whole = pa.types.is_integer(column.type)
        wide = whole and any(isinstance(cell, float) for cell in cells)
        arrays.append(pa.array(cells, pa.float64() if wide else column.type))
    return pa.RecordBatch.from_arrays(arrays, names=schema.names)
