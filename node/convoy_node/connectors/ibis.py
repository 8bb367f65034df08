"""Let the partner's own engine compute the rows, through Ibis: PostgreSQL, Spark, Trino, ClickHouse, Snowflake and others.

The mapping's expressions are one query in the engine's dialect; only the finished row per person comes back, as Arrow batches.
An engine needs its Ibis extra, such as ``ibis-framework[trino]``; Convoy's ``warehouse`` extra brings PostgreSQL's.

LIMIT: tested here on a real PostgreSQL server; the other engines share Ibis's interface but were not at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from convoy_node.connectors.source import BATCH_ROWS, Mapping, duckdb_type, quoted, refused


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

        if self._mapping is not None:
            query = self._mapping.sql(self._person, columns)
        else:
            picked = "*" if columns is None else ", ".join(map(quoted, columns))
            query = f"SELECT {picked} FROM {self._table}"  # noqa: S608 - a name from the node's own settings
        connection = None
        try:
            connection = ibis.connect(self._url)
            yield connection.sql(query)
        except Exception as error:  # every engine has errors of its own; none may reach the wire
            raise refused(
                f"{self.name} cannot be read.",
                "Check the URL file, the account's right to read, and the mapping; the node's log has the engine's words.",
                self._party,
            ) from error
        finally:
            if connection is not None:
                connection.disconnect()
