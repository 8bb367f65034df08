"""A party's rows, one per person, checked against what the contract expects before a run.

    expected_columns(specification, role) -> (Column, ...)
    PersonTable.load(source, columns, person_column=..., persons=...) -> PersonTable
    PersonTable.columns(local_ids) -> {name: array in this order}

Guarantees: every fault of every column is told at once (``DatasetRefused``), by name and number of
rows and never by value; only the columns that are expected are read, and only the rows of the
persons named, so that rows of persons who do not count are neither judged nor kept.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from convoy_contracts.specification import Knots, RecommendSpecification, RiskSpecification
from convoy_node.connectors import duckdb
from convoy_node.errors import DatasetRefused, Fault

Kind = Literal["numeric", "integer", "text", "list", "claims", "exposure"]

HISTORY: Final = "items"
"""The charging operator's column: a list of item ids per person; in CSV, separated by ``;``."""
MAX_EXPOSURE_YEARS: Final = 10.0
_WHOLE: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
                 "UINTEGER", "UBIGINT", "UHUGEINT")  # fmt: skip
_NUMBERS: Final = (*_WHOLE, "FLOAT", "DOUBLE", "DECIMAL")
_TEXTS: Final = ("VARCHAR", "ENUM", "BOOLEAN", *_WHOLE)
_KINDS: Final[Mapping[str, Kind]] = {kind: kind for kind in get_args(Kind)}
_TYPES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "numeric": _NUMBERS,
    "integer": _NUMBERS,
    "claims": _NUMBERS,
    "exposure": _NUMBERS,
    "text": _TEXTS,
    "list": ("VARCHAR[]", "VARCHAR"),
}
_WANTED: Final[Mapping[Kind, str]] = {
    "numeric": "numbers",
    "integer": "whole numbers",
    "claims": "whole numbers",
    "exposure": "numbers of years",
    "text": "text",
    "list": "lists of text",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that the contract expects.

    ``kind``: *claims* is a whole number >= 0, *exposure* years in (0, 10]. ``levels``: the values
    that a text may have; empty means any.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()


class PersonTable:
    """Checked rows by person; made by ``PersonTable.load`` only."""

    def __init__(self, ids: Sequence[str], data: Mapping[str, npt.NDArray[Any]], party: str) -> None:
        self._place = {person: row for row, person in enumerate(ids)}
        self._data = data
        self._party = party

    def __len__(self) -> int:
        return len(self._place)

    @classmethod
    def load(
        cls,
        source: Path,
        columns: Sequence[Column] | Mapping[str, str],
        party: str = "",
        *,
        person_column: str = "person_id",
        persons: Collection[str] | None = None,
    ) -> Self:
        """Read and check the rows of these persons.

        Args:
            source: Parquet or CSV.
            columns: what the contract expects; names with their kind will do.
            party: whose data they are, for messages.
            person_column: the party's own id of a person.
            persons: whose rows to read; None for all.

        Raises:
            DatasetRefused: every fault of the data at once.
        """
        if isinstance(columns, Mapping):
            columns = [Column(name, _KINDS[kind]) for name, kind in columns.items()]
        present = duckdb.describe(source, party=party)
        faults: list[Fault] = []
        usable: list[Column] = []
        for column in columns:
            fault = _shape_fault(column, present)
            if fault is None:
                usable.append(column)
            else:
                faults.append(fault)
        id_fault = _shape_fault(Column(person_column, "text"), present)
        if id_fault is not None:
            raise DatasetRefused([id_fault, *faults], party=party)

        table = duckdb.read(source, [person_column, *(column.name for column in usable)], party=party)
        ids = table.column(0).combine_chunks().cast(pa.string())
        if persons is not None:
            wanted = pc.is_in(ids, value_set=pa.array(sorted(persons), pa.string()))
            table, ids = table.filter(wanted), ids.filter(wanted)
        faults += _id_faults(person_column, ids, is_chosen=persons is not None)
        data: dict[str, npt.NDArray[Any]] = {}
        for number, column in enumerate(usable, start=1):
            values, found = _checked(column, table.column(number).combine_chunks())
            faults += [Fault(column.name, cause, fix) for cause, fix in found]
            data[column.name] = values
        if faults:
            raise DatasetRefused(faults, party=party)
        return cls(ids.to_pylist(), data, party)

    def __contains__(self, local_id: object) -> bool:
        return local_id in self._place

    def columns(self, local_ids: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return every column for these persons, in this order; (N,) arrays.

        Raises:
            DatasetRefused: persons without a row.
        """
        lost = sum(person not in self._place for person in local_ids)
        if lost:
            raise DatasetRefused(
                [Fault("", f"{lost} of {len(local_ids)} persons have no row.", "Leave them out first.")],
                party=self._party,
            )
        rows = np.fromiter((self._place[person] for person in local_ids), np.int64, len(local_ids))
        return {name: values[rows] for name, values in self._data.items()}


def expected_columns(specification: RiskSpecification | RecommendSpecification, role: str) -> tuple[Column, ...]:
    """Return what a party of this role must have for a specification; () if it holds no data."""
    if isinstance(specification, RecommendSpecification):
        if role == "charging":
            return (Column(HISTORY, "list", specification.items),)
        return tuple(Column(f.name, "numeric") for f in specification.profile) if role == "oem" else ()
    features = [feature for tower in specification.towers if tower.role == role for feature in tower.features]
    columns = [
        Column(f.name, "numeric")
        if isinstance(f, Knots)
        else Column(f.name, "text", () if f.other is not None else f.levels)
        for f in features
    ]
    if role == "insurer":
        columns += [Column(specification.claims, "claims"), Column(specification.exposure, "exposure")]
    return tuple(columns)


def _shape_fault(column: Column, present: Mapping[str, str]) -> Fault | None:
    """Judge a column by name and type alone."""
    kind = present.get(column.name)
    if kind is None:
        lowered = {name.lower(): name for name in present}
        near = difflib.get_close_matches(column.name.lower(), lowered, n=3, cutoff=0.6)
        hint = " or ".join(lowered[name] for name in near)
        return Fault(
            column.name,
            "is missing.",
            f"Rename the column, if it is {hint}, or add it." if near else "Add the column.",
        )
    if kind in _TYPES[column.kind] or kind.split("(")[0] in _TYPES[column.kind]:
        return None
    return Fault(column.name, f"holds {kind}, not {_WANTED[column.kind]}.", "Write the column with this type.")


def _id_faults(name: str, ids: pa.Array, *, is_chosen: bool) -> list[Fault]:
    faults = []
    if len(ids) == 0:
        whose = "of persons who count" if is_chosen else "at all"
        faults.append(Fault("", f"there are no rows {whose}.", "Check the file and the consent register."))
    if ids.null_count:
        faults.append(Fault(name, f"{ids.null_count} rows have no id.", "Give each row its person."))
    twice = len(ids) - ids.null_count - pc.count_distinct(ids, mode="only_valid").as_py()
    if twice:
        faults.append(Fault(name, f"{twice} rows repeat a person.", "Add up to one row for each person."))
    return faults


def _checked(column: Column, cells: pa.Array) -> tuple[npt.NDArray[Any], list[tuple[str, str]]]:
    """Return the values and what is wrong with them, as (cause, fix)."""
    nothing = cells.null_count
    found = [(f"{nothing} rows are empty.", "Fill in or leave out these persons.")] if nothing else []
    if column.kind == "list":
        return _histories(column, cells, found)
    if column.kind == "text":
        return _texts(column, cells, found)
    filled = cells.drop_null()
    values = np.asarray(filled.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    finite = np.isfinite(values)

    def count(bad: npt.NDArray[np.bool_], what: str, fix: str) -> None:
        rows = int(np.count_nonzero(bad))
        if rows:
            found.append((f"{rows} rows are {what}.", fix))

    count(np.isnan(values), "NaN", "Write a number, or leave out these persons.")
    count(np.isinf(values), "infinite", "Write a finite number.")
    if column.kind in ("integer", "claims"):
        count(finite & (values != np.rint(values)), "fractions", "Write whole numbers.")
    if column.kind in ("claims", "exposure"):
        count(finite & (values < 0), "negative", "Check how the column is computed.")
    if column.kind == "exposure":
        count(values == 0, "zero", "Leave out persons without exposure.")
        count(finite & (values > MAX_EXPOSURE_YEARS), "above 10 years", "The unit is years.")
    if not found and column.kind in ("integer", "claims"):
        return values.astype(np.int64), found
    return values, found


def _texts(
    column: Column, cells: pa.Array, found: list[tuple[str, str]]
) -> tuple[npt.NDArray[Any], list[tuple[str, str]]]:
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    texts = cells.cast(pa.string())
    if column.levels:
        known = pc.is_in(texts, value_set=pa.array(column.levels, pa.string()))
        strange = len(texts) - texts.null_count - (pc.sum(known).as_py() or 0)
        if strange:
            found.append(
                (
                    f"{strange} rows have a value that is none of the contract's {len(column.levels)}.",
                    "Map these values at the source.",
                )
            )
    return texts.to_numpy(zero_copy_only=False), found


def _histories(
    column: Column, cells: pa.Array, found: list[tuple[str, str]]
) -> tuple[npt.NDArray[Any], list[tuple[str, str]]]:
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        # An empty CSV cell is a person who used nothing.
        histories = [[item for item in (cell or "").split(";") if item] for cell in cells.to_pylist()]
        found = []
    else:
        histories = [cell or [] for cell in cells.to_pylist()]
    levels = frozenset(column.levels)
    if levels:
        strange = sum(any(item not in levels for item in history) for history in histories)
        if strange:
            found.append(
                (
                    f"{strange} rows name an item that the contract does not list.",
                    "Map items at the source; leave others out.",
                )
            )
    out = np.empty(len(histories), dtype=object)
    out[:] = histories
    return out, found
