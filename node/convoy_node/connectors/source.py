"""What every source of rows can do, and how a partner's columns become the catalogue's.

    Source           Protocol: describe() and stream(); made by ``connectors.open_source``
    Mapping          one SQL expression for each field, optionally grouped by person: the partner's own engine computes the rows

A source yields one bounded row per person as Arrow batches, so a node's memory does not grow with its book.
Guarantees: a source only reads; its errors name the source and never a value, an address or a password.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol, Self

import pyarrow as pa

from convoy_node.errors import DatasetRefused, Fault

BATCH_ROWS: Final = 65_536
"""Rows of one batch; about 16 MB at 30 columns of 8 bytes."""
NO_FIELDS: Final = MappingProxyType[str, str]({})


class Source(Protocol):
    """Rows of one party, one per person."""

    @property
    def name(self) -> str:
        """What people call it; no address, no password."""

    def describe(self) -> dict[str, str]:
        """Return the columns and their types, in DuckDB's names; no row is kept.

        Raises:
            DatasetRefused: it cannot be opened or read.
        """

    def stream(self, columns: Sequence[str], batch_rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield these columns, in this order, ``batch_rows`` at a time.

        Raises:
            DatasetRefused: it cannot be read, or a column is not there.
        """


@dataclass(frozen=True, slots=True)
class Mapping:
    """How fields are computed from the columns of one table.

    Attributes:
        table: the table or view, such as ``crm.policies``; for a file, ``rows`` (the file itself).
        person: expression of the party's own id of a person.
        fields: expression by field name, in the dialect of the source.
        grouped: whether the table has several rows for a person; then each expression is an aggregate.
    """

    table: str
    person: str
    fields: MappingProxyType[str, str] = field(default_factory=lambda: NO_FIELDS)
    grouped: bool = False

    @classmethod
    def read(cls, path: Path, *, party: str = "") -> Self:
        """Read a mapping file, which ``convoy-node data map`` writes.

        Raises:
            DatasetRefused: it is no mapping; every fault at once.
        """
        try:
            text = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise refused(
                f"the mapping {path.name} cannot be read.", "Write it with convoy-node data map.", party
            ) from error
        faults = [
            Fault(name, "is missing or no text.", f'Write {name} = "…" in {path.name}.')
            for name in ("table", "person")
            if not isinstance(text.get(name), str) or not text[name].strip()
        ]
        fields = text.get("fields", {})
        if not isinstance(fields, dict) or not fields:
            faults.append(Fault("fields", "is missing or empty.", "Give each field an expression under [fields]."))
            fields = {}
        faults += [
            Fault(str(name), "has no expression.", f'Write {name} = "expression" under [fields].')
            for name, expression in fields.items()
            if not isinstance(expression, str) or not expression.strip()
        ]
        unknown = sorted(set(text) - {"table", "person", "fields", "grouped"})
        faults += [Fault(name, "is no member of a mapping.", f"Remove it from {path.name}.") for name in unknown]
        if not isinstance(text.get("grouped", False), bool):
            faults.append(Fault("grouped", "must be true or false.", f"Write grouped = true or false in {path.name}."))
        if faults:
            raise DatasetRefused(faults, party=party)
        return cls(
            text["table"].strip(),
            text["person"].strip(),
            MappingProxyType({name: expression.strip() for name, expression in fields.items()}),
            text.get("grouped", False),
        )

    def sql(
        self, person_column: str, columns: Sequence[str] | None = None, quote: Callable[[str], str] | None = None
    ) -> str:
        """Return the query that computes the rows.

        Args:
            person_column: name of the id column in the result.
            columns: these columns only, in this order; None for the id and all fields.
            quote: how the engine quotes a name; as standard SQL does if not given.

        Raises:
            KeyError: a column that the mapping does not name.
        """
        wanted = [person_column, *self.fields] if columns is None else columns
        made = {person_column: self.person} | dict(self.fields)
        picked = ", ".join(f"{made[name]} AS {(quote or quoted)(name)}" for name in wanted)
        group = f" GROUP BY {self.person}" if self.grouped else ""
        return f"SELECT {picked} FROM {self.table}{group}"  # noqa: S608 - the partner's own mapping, run on its own engine


def quoted(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def duckdb_type(kind: pa.DataType) -> str:
    """Return DuckDB's name of an Arrow type, as far as datasets tell types apart."""
    tests: tuple[tuple[Any, str], ...] = (
        (pa.types.is_boolean, "BOOLEAN"),
        (pa.types.is_integer, "BIGINT"),
        (pa.types.is_decimal, "DECIMAL"),
        (pa.types.is_floating, "DOUBLE"),
        (pa.types.is_timestamp, "TIMESTAMP"),
        (pa.types.is_date, "DATE"),
    )
    for is_kind, name in tests:
        if is_kind(kind):
            return name
    if pa.types.is_dictionary(kind):
        return duckdb_type(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "VARCHAR"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{duckdb_type(kind.value_type)}[]"
    return str(kind).upper()


def refused(cause: str, fix: str, party: str) -> DatasetRefused:
    """Return the refusal of a whole source."""
    return DatasetRefused([Fault("", cause, fix)], party=party)
