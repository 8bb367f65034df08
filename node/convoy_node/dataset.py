"""A party's rows, one per person, checked against what the contract expects before a run.

    PersonTable.load(source, columns, person_column=..., persons=...) -> PersonTable
    survey(source, columns, person_column=...) -> Survey         the whole book, nothing kept: ``convoy-node data check``
    PersonTable.columns(local_ids) -> {name: array in this order}

Guarantees: every fault of every column is told at once (``DatasetRefused``), by name and number of
rows and never by value; only the columns that are expected are read, and only the rows of the
persons named, so that rows of persons who do not count are neither judged nor kept. Rows stream in
batches (``connectors``): memory grows with the persons who count, not with the book. From
``NARROW_FROM`` persons on, numbers are kept with 7 digits (float32) and whole numbers in 32 bits;
``columns`` gives float64 and int64 all the same.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, get_args

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from convoy_node.columns import HISTORY, Column, Kind, expected_columns
from convoy_node.connectors import Source, open_source
from convoy_node.errors import DatasetRefused, Fault

__all__ = ["HISTORY", "Column", "PersonTable", "Survey", "expected_columns", "survey"]

NARROW_FROM: Final = 2_000_000
"""Persons from which on a number has 4 bytes instead of 8: ten million with 30 columns are to fit into 2 GB."""
GROWTH: Final = 1_000_000
"""Rows by which a column grows."""
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


class PersonTable:
    """Checked rows by person; made by ``PersonTable.load`` only."""

    def __init__(self, index: _Index, data: Mapping[str, npt.NDArray[Any]], party: str) -> None:
        self._index = index
        self._data = data
        self._party = party

    def __len__(self) -> int:
        return len(self._index)

    @classmethod
    def load(
        cls,
        source: Source | Path,
        columns: Sequence[Column] | Mapping[str, str],
        party: str = "",
        *,
        person_column: str = "person_id",
        persons: Collection[str] | None = None,
    ) -> Self:
        """Read and check the rows of these persons.

        Args:
            source: where the rows are; a path is a Parquet, CSV or Excel file.
            columns: what the contract expects; names with their kind will do.
            party: whose data they are, for messages.
            person_column: the party's own id of a person.
            persons: whose rows to read; None for all.

        Raises:
            DatasetRefused: every fault of the data at once.
        """
        reading = _Reading(source, columns, party, person_column, persons)
        kept = {column.name: _Kept() for column in reading.usable}
        ids: list[pa.Array] = []
        for batch in reading.batches():
            ids.append(_own(batch.column(0).cast(pa.string())))
            for column in reading.usable:
                kept[column.name].add(_values(column, batch.column(column.name)))
        reading.raise_faults()
        del reading  # and the hashes that it kept, before the index is made
        return cls(_Index(ids), {name: column.whole() for name, column in kept.items()}, party)

    def __contains__(self, local_id: object) -> bool:
        return isinstance(local_id, str) and bool(self._index.rows([local_id])[0] >= 0)

    def present(self, persons: Collection[str]) -> frozenset[str]:
        """Return those of these persons who have a row; a million at once take a second."""
        asked = list(persons)
        return frozenset(itertools.compress(asked, self._index.rows(asked) >= 0))

    def columns(self, local_ids: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Return every column for these persons, in this order; (N,) arrays.

        Raises:
            DatasetRefused: persons without a row.
        """
        rows = self._index.rows(local_ids)
        lost = int(np.count_nonzero(rows < 0))
        if lost:
            raise DatasetRefused(
                [Fault("", f"{lost} of {len(local_ids)} persons have no row.", "Leave them out first.")],
                party=self._party,
            )
        return {name: _widened(values[rows]) for name, values in self._data.items()}


class _Kept:
    """One column while it is read: one array that grows in place, since freed parts would not go back to the system."""

    def __init__(self) -> None:
        self._made: npt.NDArray[Any] | None = None
        self._rows = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take the values of a batch."""
        end = self._rows + len(values)
        made = np.empty(0, values.dtype) if self._made is None else self._made
        if end > NARROW_FROM:
            values = _narrowed(values)
            made = made if self._rows > NARROW_FROM else _narrowed(made)
        kind = np.result_type(made.dtype, values.dtype)
        made = made if made.dtype == kind else made.astype(kind)
        if len(made) < end:
            made.resize(max(end, len(made) + GROWTH), refcheck=False)
        made[self._rows : end] = values
        self._made, self._rows = made, end

    def whole(self) -> npt.NDArray[Any]:
        """Return the column."""
        if self._made is None:
            return np.empty(0)
        self._made.resize(self._rows, refcheck=False)
        return self._made


def _narrowed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype == np.float64:
        return values.astype(np.float32)
    if values.dtype == np.int64 and len(values) and np.abs(values).max() < 2**31:
        return values.astype(np.int32)
    return values


def _widened(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    wide = {np.dtype(np.float32): np.float64, np.dtype(np.int32): np.int64}.get(values.dtype)
    return values if wide is None else values.astype(wide)


class _Index:
    """In which row a person is: 16 bytes a person and its id, found by hash and then compared with the id itself.

    No two of these persons share a hash: that would have been refused as a repeated person.
    """

    def __init__(self, ids: list[pa.Array]) -> None:
        self._ids = pa.chunked_array(ids, pa.string()).combine_chunks() if ids else pa.array([], pa.string())
        hashes = _hashes(self._ids)
        self._order = np.argsort(hashes).astype(np.int32 if len(hashes) < 2**31 else np.int64)
        self._hashes = hashes[self._order]

    def __len__(self) -> int:
        return len(self._ids)

    def rows(self, local_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return each person's row, -1 where there is none."""
        asked = pa.array(local_ids, pa.string())
        if not len(self._ids) or not len(asked):
            return np.full(len(asked), -1, np.int64)
        wanted = _hashes(asked)
        near = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        rows = self._order[near].astype(np.int64)
        same = pc.equal(self._ids.take(pa.array(rows)), asked)
        return np.where(same.to_numpy(zero_copy_only=False), rows, -1)


def _own(ids: pa.Array) -> pa.Array:
    """Return a copy: a column as the source gives it keeps every column of its batch in memory."""
    return ids.take(pa.array(np.arange(len(ids))))


def _hashes(ids: pa.Array) -> npt.NDArray[np.uint64]:
    return np.asarray(pl.Series(pl.from_arrow(ids)).hash().to_numpy())


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at every row of a source found; ``faults`` is empty where all is well."""

    rows: int
    faults: tuple[Fault, ...]


def survey(
    source: Source | Path, columns: Sequence[Column], party: str = "", *, person_column: str = "person_id"
) -> Survey:
    """Check every row of a source and keep none of them.

    Raises:
        DatasetRefused: the source cannot be opened or read.
    """
    reading = _Reading(source, columns, party, person_column, None)
    for _ in reading.batches():
        pass
    return Survey(reading.rows, tuple(reading.faults()))


class _Reading:
    """One pass over a source: which columns can be used, and every fault that turns up."""

    def __init__(
        self,
        source: Source | Path,
        columns: Sequence[Column] | Mapping[str, str],
        party: str,
        person_column: str,
        persons: Collection[str] | None,
    ) -> None:
        if isinstance(columns, Mapping):
            columns = [Column(name, _KINDS[kind]) for name, kind in columns.items()]
        self._source = open_source(source, party=party, person=person_column) if isinstance(source, Path) else source
        self._party, self._person = party, person_column
        self._wanted = None if persons is None else _Chosen(persons)
        self._found: Counter[tuple[str, str]] = Counter()
        self._people = _People(person_column, is_chosen=persons is not None)
        self.rows = 0
        present = self._source.describe()
        shapes = [(column, _shape_fault(column, present)) for column in columns]
        self._shape_faults = [fault for _, fault in shapes if fault is not None]
        self.usable = [column for column, fault in shapes if fault is None]
        lost = _shape_fault(Column(person_column, "text"), present)
        if lost is not None:
            raise DatasetRefused([lost, *self._shape_faults], party=party)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the persons named, judged."""
        from convoy_node.schemas import findings, schema_of  # pandera takes a second to import

        schema = schema_of(self.usable)
        for read in self._source.stream([self._person, *(column.name for column in self.usable)]):
            batch, ids = read, read.column(0).cast(pa.string())
            if self._wanted is not None:
                chosen = self._wanted.rows(ids)
                batch, ids = batch.take(chosen), ids.take(chosen)
            if batch.num_rows == 0:
                continue
            self.rows += batch.num_rows
            self._people.see(ids)
            split = _split_histories(batch, self.usable)
            self._found += findings(schema, split)
            yield split

    def faults(self) -> list[Fault]:
        """Return everything that was found; ids first, then by column."""
        from convoy_node.schemas import FIXES

        order = {column.name: place for place, column in enumerate(self.usable)}
        kinds = {what: place for place, what in enumerate(FIXES)}
        found = sorted(self._found.items(), key=lambda item: (order[item[0][0]], kinds[item[0][1]]))
        return [
            *self._shape_faults,
            *self._people.faults(),
            *(Fault(name, f"{rows} rows {what}.", FIXES[what]) for (name, what), rows in found),
        ]

    def raise_faults(self) -> None:
        """Raise what was found, if anything was."""
        faults = self.faults()
        if faults:
            raise DatasetRefused(faults, party=self._party)


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


class _Chosen:
    """Finds the rows of the persons named: by hash first, then by the id itself, so that a collision lets nobody in."""

    def __init__(self, persons: Collection[str]) -> None:
        self._persons = frozenset(persons)
        self._hashes = np.sort(pl.Series(list(self._persons), dtype=pl.String).hash().to_numpy())

    def rows(self, ids: pa.Array) -> pa.Array:
        """Return the places in a batch, in order."""
        hashes = _hashes(ids)
        near = np.searchsorted(self._hashes, hashes)
        near[near == self._hashes.size] = 0
        likely = np.flatnonzero(self._hashes[near] == hashes) if self._hashes.size else np.empty(0, np.int64)
        names = ids.take(pa.array(likely)).to_pylist()
        kept = [place for place, name in zip(likely.tolist(), names, strict=True) if name in self._persons]
        return pa.array(kept, pa.int64())


class _People:
    """Counts rows without an id and rows that repeat one; keeps 8 bytes a person, not the id.

    Ids are told apart by a 64-bit hash: two of 10 million differ and collide with a chance of 3e-6, and then a run is refused
    without need, never let through.
    """

    def __init__(self, column: str, *, is_chosen: bool) -> None:
        self._column, self._is_chosen = column, is_chosen
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._without = 0

    def see(self, ids: pa.Array) -> None:
        """Count the ids of a batch."""
        filled = ids.drop_null()
        self._without += len(ids) - len(filled)
        self._hashes.append(_hashes(filled))

    def faults(self) -> list[Fault]:
        """Return what is wrong with them."""
        seen = np.concatenate(self._hashes) if self._hashes else np.empty(0, np.uint64)
        faults = []
        if seen.size + self._without == 0:
            whose = "of persons who count" if self._is_chosen else "at all"
            faults.append(Fault("", f"there are no rows {whose}.", "Check the file and the consent register."))
        if self._without:
            faults.append(Fault(self._column, f"{self._without} rows have no id.", "Give each row its person."))
        seen.sort()
        twice = int(np.count_nonzero(seen[1:] == seen[:-1]))
        if twice:
            faults.append(Fault(self._column, f"{twice} rows repeat a person.", "Add up to one row for each person."))
        return faults


def _split_histories(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.RecordBatch:
    """Return the batch with histories written as text (``a;b``, CSV) turned into lists; an empty cell used nothing."""
    for place, column in enumerate(columns, start=1):
        if column.kind == "list":
            cells = batch.column(place)
            if not pa.types.is_list(cells.type) and not pa.types.is_large_list(cells.type):
                texts = [[item for item in (cell or "").split(";") if item] for cell in cells.to_pylist()]
                batch = batch.set_column(place, column.name, pa.array(texts, pa.list_(pa.string())))
    return batch


def _values(column: Column, cells: pa.Array) -> npt.NDArray[Any]:
    """Return a column as the models read it; what is wrong with it was found before."""
    if column.kind == "list":
        histories = np.empty(len(cells), dtype=object)
        histories[:] = [cell or [] for cell in cells.to_pylist()]
        return histories
    if column.kind == "text":
        if pa.types.is_dictionary(cells.type):
            cells = cells.dictionary_decode()
        coded = cells.cast(pa.string()).dictionary_encode()
        levels = np.array([*coded.dictionary.to_pylist(), None], dtype=object)  # one text for all of its rows
        return np.asarray(levels[coded.indices.fill_null(len(levels) - 1).to_numpy(zero_copy_only=False)])
    values = np.asarray(cells.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    if column.kind in ("integer", "claims") and np.isfinite(values).all():
        return values.astype(np.int64)
    return values
