"""Where a node's rows come from. One module per kind of source; all stream Arrow batches.

    open_source(place, ...) -> Source      a file (Parquet, CSV, Excel), a database URL, or an engine through Ibis

Libraries of a source are imported when it is opened.
"""

from __future__ import annotations

from pathlib import Path

from convoy_node.connectors.source import BATCH_ROWS, Mapping, Source

__all__ = ["BATCH_ROWS", "IBIS", "Mapping", "Source", "open_source"]

IBIS = "ibis+"
"""Put before an URL, it has Ibis speak to the engine."""


def open_source(
    place: str | Path,
    *,
    table: str = "",
    mapping: Path | None = None,
    person: str = "person_id",
    party: str = "",
) -> Source:
    """Return the source at a place; nothing is opened yet.

    Args:
        place: a file, a SQLAlchemy URL, or an Ibis URL with ``ibis+`` before it.
        table: table or view of a database, where no mapping names it.
        mapping: file of the mapping from the partner's columns to the fields.
        person: column of the party's own id of a person.
        party: whose data they are, for messages.

    Raises:
        DatasetRefused: the mapping has faults.
    """
    mapped = None if mapping is None else Mapping.read(mapping, party=party)
    if isinstance(place, str) and "://" in place:
        if place.startswith(IBIS):
            from convoy_node.connectors.ibis import WarehouseSource

            return WarehouseSource(place.removeprefix(IBIS), table, mapped, person=person, party=party)
        from convoy_node.connectors.sqlalchemy import DatabaseSource

        return DatabaseSource(place, table, mapped, person=person, party=party)
    from convoy_node.connectors.duckdb import FileSource

    return FileSource(Path(place), mapped, person=person, party=party)
