"""Consent tables that live in a database: DuckDB in process, anything else through SQLAlchemy.

    with rows_of_query(url, query) as (names, batches): ...

``url``: ``duckdb:///file.duckdb`` (opened read-only), or a SQLAlchemy URL (PostgreSQL, SQLite; others with their own driver).
A password belongs in the driver's own file or environment (``PGPASSFILE``); the command takes the URL from
``CONVOY_CONSENT_URL`` too, so that it need not stand in a command line.
Rows come in batches, so memory does not grow with the table. Messages never hold a URL, a query or a cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from convoy_node.errors import ConsentRefused

BATCH_ROWS: Final = 20_000
_READS: Final = re.compile(r"\s*(select|with|from|table)\b", re.IGNORECASE)
Batches = Iterator[Mapping[str, list[Any]]]


@contextmanager
def rows_of_query(url: str, query: str, *, party: str = "") -> Iterator[tuple[list[str], Batches]]:
    """Run a query that reads; yield its column names and its rows in batches of columns.

    Raises:
        ConsentRefused: no query that reads, no such database, or the database says no.
    """
    if not _READS.match(query):
        raise _refused("the query does not begin with SELECT or WITH.", party, "Give one query that only reads.")
    if url.startswith("duckdb:///"):
        yield from _duckdb(url.removeprefix("duckdb:///"), query, party)
    else:
        yield from _sqlalchemy(url, query, party)


def _duckdb(name: str, query: str, party: str) -> Iterator[tuple[list[str], Batches]]:
    import duckdb

    if not Path(name).is_file():
        raise _refused("the DuckDB file is not there.", party, "Name a file that this node can read.")
    try:
        db = duckdb.connect(name, read_only=True, config={"autoinstall_known_extensions": "false"})
        try:
            cursor = db.execute(query)
            names = [column[0] for column in cursor.description or ()]
            yield names, _batches(names, lambda: cursor.fetchmany(BATCH_ROWS))
        finally:
            db.close()
    except duckdb.Error as error:
        raise _refused("DuckDB refuses the query.", party, "Try the query with the duckdb shell.") from error


def _sqlalchemy(url: str, query: str, party: str) -> Iterator[tuple[list[str], Batches]]:
    import sqlalchemy

    from convoy_node.connectors.sqlalchemy import SPELLINGS

    scheme, _, rest = url.partition("://")
    try:
        engine = sqlalchemy.create_engine(f"{SPELLINGS.get(scheme, scheme)}://{rest}")
        try:
            with engine.connect().execution_options(stream_results=True, max_row_buffer=BATCH_ROWS) as db:
                result = db.execute(sqlalchemy.text(query))
                names = list(result.keys())
                yield names, _batches(names, lambda: [tuple(row) for row in result.fetchmany(BATCH_ROWS)])
        finally:
            engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise _refused(
            "the database refuses the query, or its driver is not installed.",
            party,
            "Try URL and query with another client; the node's log has the kind of the fault.",
        ) from error


def _batches(names: list[str], fetch: Any) -> Batches:
    while rows := fetch():
        yield {name: [_cell(row[place]) for row in rows] for place, name in enumerate(names)}


def _cell(value: Any) -> Any:
    """Spell a database's value as the table's reader knows it."""
    return bytes(value) if isinstance(value, memoryview | bytearray) else value


def _refused(cause: str, party: str, fix: str) -> ConsentRefused:
    return ConsentRefused(cause, party=party, code="SOURCE_REFUSED", fix=fix)
