"""Let the partner's own engine compute the rows, through Ibis: PostgreSQL, Spark, Trino, ClickHouse, Snowflake and others.

The mapping's expressions are one query in the engine's dialect; only the finished row per person comes back, as Arrow batches.
An engine needs its Ibis extra, such as ``ibis-framework[trino]``; Convoy's ``warehouse`` extra brings PostgreSQL's. Names are
quoted as the engine does it: in Spark ``"x"`` is a text, and `` `x` `` the name.

LIMIT: run on real PostgreSQL, Spark and DuckDB (``bench/warehouses.py``); for Trino and ClickHouse the queries are parsed in their
dialects, and no server was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from convoy_node.connectors.source import BATCH_ROWS, Mapping, duckdb_type, refused


class WarehouseSource:
    """A table of an engine that Ibis speaks to, as it is or through a mapping."""

    def __init__(
        self, url: str, table: str, mapping: Mapping | None = None, *, person: str = "person_id", party: str = ""
    ) -> None:
        self._url, self._table, self._mapping, self._person, self._party = url, table, mapping, person, party

    @property
    def name(self) -> str:
        """The table's name."""
        return self._table if self._mapping is None else self._mapping.table

    def describe(self) -> dict[str, str]:
        """Return the columns and their types, as the engine states them."""
        with self._expression(None) as rows:
            return {field.name: duckdb_type(field.type) for field in rows.schema().to_pyarrow()}

    def stream(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield these columns as Arrow batches."""
        with self._expression(columns) as rows:
            yield from rows.to_pyarrow_batches(chunk_size=batch_rows)

    @contextmanager
    def _expression(self, columns: Sequence[str] | None) -> Iterator[Any]:
        import ibis  # the library: imports are absolute

        connection = None
        try:
            connection = ibis.connect(self._url)
            yield connection.sql(query_for(connection.dialect, self._table, self._mapping, self._person, columns))
        except Exception as error:  # every engine has errors of its own; none may reach the wire
            raise refused(
                f"{self.name} cannot be read.",
                "Check the URL file, the account's right to read, and the mapping; the node's log has the engine's words.",
                self._party,
            ) from error
        finally:
            if connection is not None:
                connection.disconnect()


def query_for(dialect: Any, table: str, mapping: Mapping | None, person: str, columns: Sequence[str] | None) -> str:
    """Return the query of the rows in an engine's dialect (sqlglot's name or class)."""
    from sqlglot import exp

    def quote(name: str) -> str:
        return str(exp.to_identifier(name, quoted=True).sql(dialect=dialect))

    if mapping is not None:
        return mapping.sql(person, columns, quote)
    picked = "*" if columns is None else ", ".join(map(quote, columns))
    return f"SELECT {picked} FROM {table}"  # noqa: S608 - a name from the node's own settings
