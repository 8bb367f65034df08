"""The data file of a portfolio as checked columns.

Missing values of a rating factor become a cell of their own: the level ``(missing)``, or a number
below the lowest cut; ``missing: VALUE`` in the description puts a value in their place. Claims,
exposure, split and insurer must be there for every row.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from description import EXPOSURE, MISSING, Description, DescriptionRefused, Fault

Columns = dict[str, npt.NDArray[Any]]
LARGEST_EXPOSURE = 10.0
LARGEST_CLAIMS = 1000
LARGEST_BLOCK = 1 << 28
"""Bytes of a CSV file from which types are inferred: the whole of any ordinary file."""
MOST_PARTIES = 5
PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
_COMMA_NUMBER = r"^\s*-?[0-9]+,[0-9]+\s*$"


@dataclass(frozen=True, slots=True)
class Frame:
    """Columns by name, all of one length; exposure: its column; linked: (N,) the carmaker knows the person."""

    columns: Columns
    exposure: str
    linked: npt.NDArray[np.bool_]


def read_frame(asked: Description, data: Path | None) -> Frame:
    """Read what a description needs; faults of values are collected, for the caller to stop at.

    Raises:
        DescriptionRefused: no such file, or columns that are absent; with every fault found until then.
    """
    place = _locate(asked, data)
    table = _table(place)
    wanted = _wanted(asked)
    there = {name for name in wanted if table.column_names.count(name) == 1}
    for name, role in wanted.items():
        if name not in table.column_names:
            near = ", ".join(table.column_names[:12])
            asked.fault(Fault(place.name, f"no column {name!r} ({role})", f"name one of its columns: {near} ..."))
        elif name not in there:
            asked.fault(Fault(place.name, f"column {name!r} is there twice", "rename one of them"))
    if not table.num_rows:
        asked.fault(Fault(place.name, "it has no rows", "give a file with rows"))
        asked.stop_at_faults()
    read = {name: _plain(table.column(name)) for name in wanted if name in there}
    if asked.text.get("leaveOut") is True and there == set(wanted):
        read = _usable(asked, read)
    size = len(next(iter(read.values()), []))
    holders = _holders(asked, read)
    columns: Columns = {}
    for name in (name for name in read if name not in asked.feature_names):
        columns[name] = _whole(asked, name, read[name], holders)
    if asked.claims in columns:
        columns[asked.claims] = _claims(asked, columns[asked.claims], holders)
    exposure = asked.exposure or EXPOSURE
    if asked.exposure is None:
        columns[exposure] = np.ones(size)
        asked.note("no 'exposure': every row counts as one year")
    elif exposure in columns:
        columns[exposure] = _exposure(asked, columns[exposure], holders)
    if not asked.is_well_formed or there != set(wanted):
        asked.stop_at_faults()
    linked = _linked(asked, read)
    for name in asked.feature_names:
        is_oem = name in asked.oem_names
        columns[name] = _feature(asked, name, read[name], linked if is_oem else None, None if is_oem else holders)
    return Frame(columns, exposure, linked)


def _wanted(asked: Description) -> dict[str, str]:
    """Return every column that a description names, with what it is for."""
    wanted = {}
    for name in asked.feature_names:
        wanted[name] = "rating factor of the carmaker" if name in asked.oem_names else "rating factor of the insurers"
    wanted[asked.claims] = "claim counts of the insurers"
    rules = ((asked.exposure, "exposure of the insurers"), (asked.split.get("column"), "split"),
             (asked.insurers.get("column"), "the insurer of a row"), (asked.person, "the person of a row"))  # fmt: skip
    wanted |= {str(name): role for name, role in rules if name}
    group = asked.split.get("groupBy")
    named = group if isinstance(group, list) else [group] if group and group != "features" else []
    return wanted | {str(name): "split" for name in named if str(name) not in wanted}


def _holders(asked: Description, read: Mapping[str, pa.Array]) -> npt.NDArray[np.str_] | None:
    """Return the insurer of each row as its column says, (N,), or None where rows are dealt."""
    name = str(asked.insurers.get("column"))
    if "count" in asked.insurers or name not in read:
        return None
    return np.array([_text(value) for value in read[name].to_pylist()], dtype=np.str_)


def at_parties(holders: npt.NDArray[np.str_] | None, rows: npt.NDArray[np.bool_]) -> str:
    """Return whose rows they are, as words behind a count: `` (at A: 3, B: 1)``; nothing where insurers are dealt."""
    if holders is None or not rows.any():
        return ""
    names, counts = np.unique(holders[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    told = [f"{names[k]}: {counts[k]}" for k in order[:MOST_PARTIES]]
    return f" (at {', '.join(told)}{', ...' if names.size > MOST_PARTIES else ''})"


def _usable(asked: Description, read: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return the rows whose claims, exposure, split, insurer and person can be used; how many are left out is a note."""
    size = len(next(iter(read.values())))
    keep = np.ones(size, dtype=np.bool_)
    for name in (name for name in read if name not in asked.feature_names):
        keep &= ~_missing(read[name])
        numbers = _floats(read[name])
        if numbers is not None and name == asked.claims:
            keep &= ~_no_claims(numbers)
        elif numbers is not None and name == asked.exposure:
            keep &= ~_no_exposure(numbers * asked.exposure_unit)
    if not keep.all():
        asked.note(f"leaveOut: {int((~keep).sum())} of {size} rows are left out, their claims, exposure, insurer, split or"
                   " person cannot be used")  # fmt: skip
    if not keep.any():
        asked.fault(Fault("leaveOut", "no row can be used", "correct the columns, or see the faults without leaveOut"))
        asked.stop_at_faults()
    return {name: column.filter(pa.array(keep)) for name, column in read.items()}


def _floats(column: pa.Array) -> npt.NDArray[np.float64] | None:
    """Return a column of numbers as float64 with NaN for what is missing, or None where it holds something else."""
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _no_claims(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.asarray(
        ~np.isfinite(numbers) | (numbers < 0) | (numbers > LARGEST_CLAIMS) | (numbers != np.rint(numbers))
    )


def _no_exposure(years: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    return np.asarray(~np.isfinite(years) | (years <= 0) | (years > LARGEST_EXPOSURE))


def _missing(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return the rows where a column that must be whole has nothing, (N,)."""
    empty = column.is_null()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        empty = pc.or_kleene(empty, pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True))
    return np.asarray(empty.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _whole(asked: Description, name: str, column: pa.Array, holders: npt.NDArray[np.str_] | None) -> npt.NDArray[Any]:
    """Return a column that must be there for every row; missing values are a fault and, so that checking goes on, 0 or ''."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    missing = _missing(column)
    if missing.any():
        whose = "" if name == asked.insurers.get("column") else at_parties(holders, missing)
        cause = f"it has {int(missing.sum())} missing values{whose}"
        asked.fault(Fault(f"column {name!r}", cause, "fill them, or say leaveOut: true"))
    if not column.null_count:
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if is_text:
        return np.asarray(pc.fill_null(column, "").to_numpy(zero_copy_only=False))
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        stand_in = 1 if name == asked.exposure else 0
        return np.asarray(pc.fill_null(column, stand_in).to_numpy(zero_copy_only=False))
    return np.array([_text(value) for value in column.to_pylist()], dtype=np.str_)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    made = column.combine_chunks()
    if pa.types.is_dictionary(made.type):
        made = made.dictionary_decode()
    if pa.types.is_binary(made.type) or pa.types.is_large_binary(made.type):
        with contextlib.suppress(pa.ArrowException):  # what is no text is refused with its column
            made = made.cast(pa.string())
    if pa.types.is_string(made.type) or pa.types.is_large_string(made.type):  # an empty cell of a CSV file is missing
        return pc.if_else(pc.equal(pc.utf8_trim_whitespace(made), ""), None, made)
    return made.cast(pa.float64()) if pa.types.is_decimal(made.type) else made


def _linked(asked: Description, read: Mapping[str, pa.Array]) -> npt.NDArray[np.bool_]:
    """Return whom the carmaker knows: all rows but those where every one of its columns is missing."""
    size = len(next(iter(read.values())))
    if not asked.oem_names:
        return np.ones(size, dtype=np.bool_)
    linked = np.zeros(size, dtype=np.bool_)
    for name in asked.oem_names:
        column = read[name]
        here = column.is_valid()
        if pa.types.is_floating(column.type):
            here = pc.and_(here, pc.fill_null(pc.invert(pc.is_nan(column)), False))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            here = pc.and_(here, pc.fill_null(pc.not_equal(column, ""), False))
        linked |= here.to_numpy(zero_copy_only=False)
    if not linked.any():
        asked.fault(
            Fault("towers.oem", "every one of its values is missing", "correct the columns, or leave the tower out")
        )
    elif not linked.all():
        asked.note(
            f"the carmaker knows {int(linked.sum())} of {size} persons: the rest has a model of its own, of the insurers' columns"
        )
    return linked


def _locate(asked: Description, data: Path | None) -> Path:
    path = Path(str(asked.text["path"]))
    root = Path(__file__).resolve().parent.parent
    shared = Path(os.environ.get("CONVOY_SHARED", root.parent / "shared")) / "data"
    tried = [data / path] if data is not None else [asked.file.parent / path, shared / path]
    for place in tried:
        if place.is_file():
            return place
    asked.fault(Fault("path", f"no file {' or '.join(map(str, tried))}", "correct it, or give its folder with --data"))
    asked.stop_at_faults()
    raise AssertionError("a fault stops")


def _table(place: Path) -> pa.Table:
    if place.suffix.lower() in PACKED:
        raise DescriptionRefused(f"{place.name}: it is packed. Fix: unpack it, and name the Parquet or CSV file in it.")
    try:
        if place.suffix.lower() in (".csv", ".tsv", ".txt"):
            with place.open(encoding="utf-8", errors="replace") as file:
                first = file.readline()
            mark = max((",", ";", "\t", "|"), key=first.count)
            table = pyarrow.csv.read_csv(
                place,
                read_options=pyarrow.csv.ReadOptions(block_size=min(LARGEST_BLOCK, place.stat().st_size + 1)),
                parse_options=pyarrow.csv.ParseOptions(delimiter=mark),
            )
        else:
            table = pyarrow.parquet.read_table(place)
        return table.rename_columns(list(table.column_names))
    except UnicodeDecodeError:
        raise DescriptionRefused(
            f"{place.name}: its header is not UTF-8. Fix: save the file as UTF-8 (Chinese Excel writes GBK by default)."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise DescriptionRefused(
            f"{place.name}: it cannot be read: {error}. Fix: give a Parquet file, or a CSV file with a header line."
        ) from error


def _feature(
    asked: Description,
    name: str,
    column: pa.Array,
    linked: npt.NDArray[np.bool_] | None,
    holders: npt.NDArray[np.str_] | None,
) -> npt.NDArray[Any]:
    is_number = asked.numbers_expected(name)
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        asked.fault(Fault(f"column {name!r}", "it holds bytes that are no text", "save the file as UTF-8"))
        return np.zeros(len(column))
    if pa.types.is_temporal(kind):
        asked.fault(Fault(f"column {name!r}", f"it holds {kind}", "turn dates into a number, for example an age"))
        return np.zeros(len(column))
    if is_number and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        try:
            column = pc.cast(pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), None, column), pa.float64())
        except pa.ArrowException:
            asked.fault(Fault(f"column {name!r}", "it holds texts, but the description has numbers for it",
                              "correct the column, or give 'levels' instead"))  # fmt: skip
            return np.zeros(len(column))
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if numeric and is_number is not False:
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        return _numbers(asked, name, values, linked, holders)
    if is_number:
        asked.fault(Fault(f"column {name!r}", f"it holds {kind}, not numbers", "correct the column or give 'levels'"))
        return np.zeros(len(column))
    return _names(asked, name, column)


def _numbers(
    asked: Description,
    name: str,
    values: npt.NDArray[np.float64],
    linked: npt.NDArray[np.bool_] | None,
    holders: npt.NDArray[np.str_] | None,
) -> npt.NDArray[np.float64]:
    endless = np.isinf(values)
    if endless.any():
        whose = " at the carmaker" if linked is not None else at_parties(holders, endless)
        cause = f"it has {int(endless.sum())} infinite values{whose}"
        asked.fault(Fault(f"column {name!r}", cause, "correct them at their source"))
    missing = np.isnan(values)
    asked.absent[name] = int(missing.sum())
    if not missing.any():
        return values
    stand_in = asked.stand_in(name)
    unknown = missing & ~linked if linked is not None else np.zeros(values.size, dtype=np.bool_)
    if stand_in is None and any(f["name"] == name for f in asked.tower_features):
        # A tower has no cell for a missing number; persons whom the carmaker does not know are in another cohort.
        knots = next((f.get("knots") for f in asked.tower_features if f["name"] == name), None)
        seen = values[~missing]
        middle = float(f"{np.median(seen):.4g}") if seen.size else 0.0
        stand_in, missing = (knots[len(knots) // 2] if knots else middle), missing & ~unknown
        asked.absent[name] = int(unknown.sum())
    elif stand_in is not None:
        unknown = np.zeros(values.size, dtype=np.bool_)
        asked.absent[name] = 0
    if stand_in is not None and missing.any():
        try:
            values = np.where(missing, float(str(stand_in)), values)
        except ValueError:
            asked.fault(Fault(f"feature {name!r}", f"missing: {stand_in!r} is no number", "give a number"))
        asked.note(f"column {name!r}: {stand_in} stands for {int(missing.sum())} missing values")
    if stand_in is None:
        asked.note(f"column {name!r}: {int(missing.sum())} missing values are a cell of their own")
        unknown = missing
    return np.where(unknown, -1e300, values)


def _names(asked: Description, name: str, column: pa.Array) -> npt.NDArray[Any]:
    missing = int(column.null_count)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if is_text and missing < len(column) and pc.all(pc.match_substring_regex(column, _COMMA_NUMBER)).as_py():
        fix = "save them with points, 0.5, as CSV files of numbers have them"
        asked.fault(Fault(f"column {name!r}", "its values are numbers with decimal commas", fix))
    if pa.types.is_floating(column.type):
        missing += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    asked.absent[name] = missing
    texts = np.array([_text(value) for value in column.to_pylist()], dtype=np.str_)
    stand_in = asked.stand_in(name)
    if missing:
        chosen = _text(stand_in) if stand_in is not None else MISSING
        texts = np.where(texts == MISSING, chosen, texts)
        asked.note(f"column {name!r}: {missing} missing values are the level {chosen!r}")
    return texts


def _text(value: object) -> str:
    if value is None or value != value or value == "":
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _words(values: npt.NDArray[Any]) -> str:
    return {"O": "texts", "U": "texts", "M": "dates", "b": "true and false"}.get(values.dtype.kind, str(values.dtype))


def _claims(
    asked: Description, values: npt.NDArray[Any], holders: npt.NDArray[np.str_] | None
) -> npt.NDArray[np.int64]:
    place = f"column {asked.claims!r}"
    if values.dtype.kind not in "iufb":
        asked.fault(Fault(place, f"it holds {_words(values)}, not claim counts", "give whole numbers from 0 on"))
        return np.zeros(values.size, dtype=np.int64)
    numbers = values.astype(np.float64)
    bad = _no_claims(numbers)
    if bad.any():
        cause = f"{int(bad.sum())} values are not whole numbers from 0 to {LARGEST_CLAIMS}{at_parties(holders, bad)}"
        asked.fault(
            Fault(place, cause, "give claim counts, amounts are not counts; leaveOut: true leaves such rows out")
        )
        return np.zeros(values.size, dtype=np.int64)
    if not numbers.any():
        asked.fault(Fault(place, "there is no claim in any row", "check the column; nothing can be learned"))
    return numbers.astype(np.int64)


def _exposure(
    asked: Description, values: npt.NDArray[Any], holders: npt.NDArray[np.str_] | None
) -> npt.NDArray[np.float64]:
    place = f"column {asked.exposure!r}"
    if values.dtype.kind not in "iuf":
        fix = "give years in (0, 10], with decimal points"
        asked.fault(Fault(place, f"it holds {_words(values)}, not years", fix))
        return np.ones(values.size)
    numbers = values.astype(np.float64) * asked.exposure_unit
    bad = _no_exposure(numbers)
    if bad.any():
        cause = f"{int(bad.sum())} values are outside (0, 10] years{at_parties(holders, bad)}"
        asked.fault(Fault(place, cause, "give years, or say exposureUnit: days; leaveOut: true leaves such rows out"))
    return np.where(bad, 1.0, numbers)
