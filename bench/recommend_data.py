"""A data set of offers or events, described by YAML, read and checked; every fault is told at once.

``read`` checks the shape of every member, reads the file and cuts persons (never rows) into partners; ``folds_of`` cuts them
into test folds. Behind ``read`` no member has a wrong shape: what is malformed is told, named in ``Described.malformed`` and
left out, so that the checks of data go on and their faults join the same list.

Longer than 500 lines: one reader of every kind of description, whose faults must end in one list.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import yaml

from convoy_contracts.specification import Knots, Levels

Texts = npt.NDArray[np.str_]
Column = list[Any]
MISSING, OTHER = "(missing)", "(other)"
MAX_LEVELS = 60
FEW_PERSONS = 10
"""A partner with fewer is named in a note."""
LARGEST_BLOCK = 1 << 28
"""Bytes of a CSV file from which types are inferred: the whole of any ordinary file."""
LARGEST = 1e300
"""Of numbers in a description; YAML's whole numbers know no end."""
TINY = 1e-9
"""The least rate and clip: what is not above 0 is refused."""
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
COMMON = {
    "name", "kind", "path", "user", "item", "time", "order", "parties", "persons", "settings", "references", "task", "unit",
}  # fmt: skip
OFFERS, EVENTS = {"label", "positive", "features", "crosses", "ignore", "holdout"}, {"items", "context", "top"}
MEMBERS = {"labelled": COMMON | OFFERS, "events": COMMON | EVENTS, "ratings": COMMON | EVENTS | {"label", "positive"}}
REQUIRED = {
    "labelled": ("name", "path", "user", "label"),
    "events": ("name", "path", "user", "item"),
    "ratings": ("name", "path", "user", "item", "label", "positive"),
}
SIGNALS = ("share_of", "mean_of", "hours_between", "count")


class DescriptionRefused(Exception):
    """The description or its data cannot be used; ``faults`` names everything that must be corrected."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        super().__init__(f"{len(self.faults)} fault(s):\n" + "\n".join(f"  - {fault}" for fault in self.faults))


@dataclass(slots=True)
class Described:
    """A checked description with its table. ``notes``: what the result must be read with."""

    text: dict[str, Any]
    columns: dict[str, Column]
    user: Texts
    party: npt.NDArray[np.int64]
    parties: tuple[str, ...]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Of shapes, parties and persons: told with those that features, labels and hold-out add."""
    malformed: frozenset[str] = frozenset()
    """Members that are left out of ``text``, wholly or in part: what follows from their absence is no fault."""

    @property
    def rows(self) -> int:
        """Rows that are used."""
        return int(self.user.size)


def read(path: Path, data: Path | None = None) -> Described:
    """Read a description and the file it names.

    Args:
        path: the YAML file.
        data: folder of the data file; by default the YAML's own folder, then $CONVOY_SHARED/data, then ``shared/data``
            beside the repository.

    Raises:
        DescriptionRefused: every fault at once. Faults after which the data can still be judged are in ``Described.faults``.
    """
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DescriptionRefused([f"{path.name}: {error}; give a YAML file in UTF-8"]) from error
    if not isinstance(text, dict):
        raise DescriptionRefused([f"{path.name}: a mapping is due; see bench/data/coupon.yaml"])
    faults: list[str] = []
    text, malformed = well_formed(text, faults)
    columns = read_table(text["path"], path.parent, data, faults) if "path" in text else None
    lost = dict.fromkeys(name for name in _named(text) if name not in columns) if columns is not None else {}
    faults += [f"column {name!r} is not in the file (it has {_few(columns or ())})" for name in lost]
    needed = REQUIRED.get(text.get("kind", ""), ("kind",))
    if columns is None or lost or set(needed) - set(text) - {"positive"}:
        raise DescriptionRefused(faults)
    return _described(text, columns, faults, malformed)


def _named(text: Mapping[str, Any]) -> list[str]:
    """Return every column that members and features name; contexts look theirs up when they are computed."""
    named: list[str] = [text[name] for name in ("user", "item", "label", "time", "order") if name in text]
    named += text.get("ignore", [])
    named += [text[name]["column"] for name in ("parties", "holdout") if "column" in text.get(name, {})]
    for row in text.get("features", []) if text.get("features") != "auto" else []:
        named += [row["pick"]["by"], *row["pick"]["columns"].values()] if "pick" in row else [row["name"]]
    return named


def well_formed(text: Mapping[Any, Any], faults: list[str]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the members whose shape is right, and the names of those that are not; adds a fault for each of these.

    A member without value counts as absent. Of ``features`` and ``context`` the rows that are right are kept, each a mapping.
    """
    kind = text.get("kind")
    allowed = MEMBERS.get(kind, set()) if isinstance(kind, str) else set()
    every = set().union(*MEMBERS.values())
    if kind is not None and not allowed:
        faults.append(f"kind {kind!r} is none of {', '.join(MEMBERS)}")
    for name in text:
        if name not in every:
            faults.append(f"member {name!r} is unknown; allowed: {', '.join(sorted(allowed or every))}")
        elif name not in (allowed or every):
            faults.append(f"member {name!r} is not for kind {kind}; allowed: {', '.join(sorted(allowed))}")
    needed = REQUIRED[str(kind)] if allowed else ("kind", "name", "path", "user")
    faults += [f"member {name!r} is missing" for name in needed if text.get(name) is None]
    clean: dict[str, Any] = {"kind": kind} if allowed else {}
    malformed = set()
    for name, value in text.items():
        if name not in SHAPES or name not in (allowed or every) or value is None:
            continue
        problems = [f"{name}: {problem}" for problem in SHAPES[name](value)]
        if name == "positive" and kind == "ratings" and not problems:
            problems = [f"positive: {problem}" for problem in _number()(value)]
        faults += problems
        if problems:
            malformed.add(name)
        if name in ROWS and isinstance(value, list):
            clean[name] = [{"name": row} if isinstance(row, str) else row for row in value if not [*ROWS[name](row)]]
        elif not problems:
            clean[name] = value
    return clean, frozenset(malformed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _is_value(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str | bool | date)


def _number(
    least: float = -math.inf, most: float = math.inf, *, is_whole: bool = False
) -> Callable[[Any], Iterator[str]]:
    def check(value: Any) -> Iterator[str]:
        low = "above 0" if least == TINY else f"from {least:g}" if math.isfinite(least) else "that is finite"
        high = f" to {most:,.0f}" if math.isfinite(most) else " on" if math.isfinite(least) else ""
        if isinstance(value, str) and _reads_as_number(value):
            yield f"{value!r} is a text to YAML; write {np.format_float_positional(float(value), trim='-')}"
        elif not _is_number(value) or not least <= value <= most or (is_whole and not isinstance(value, int)):
            yield f"{value!r} is not a {'whole ' if is_whole else ''}number {low}{high}"

    return check


def _reads_as_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _text(value: Any) -> Iterator[str]:
    if not _is_number(value) and not isinstance(value, str):
        yield f"{value!r} is no text; put it in quotes"


def _column(value: Any) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield f"{value!r} is no column; give one name as a text, in quotes where YAML reads a number or a truth"


def _file(value: Any) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield f"{value!r} is no file; give its name, as in offers.parquet"


def _values(value: Any) -> Iterator[str]:
    if not isinstance(value, list) or not value or not all(map(_is_value, value)):
        yield f"{value!r} is no list of texts or numbers; give [one, or, more]"


def _closed(value: Mapping[Any, Any], allowed: Collection[str]) -> Iterator[str]:
    for name in value:
        if name not in allowed:
            yield f"member {name!r} is unknown; allowed: {', '.join(sorted(allowed))}"


def _parties(value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or len({"number", "column"} & set(value)) != 1:
        yield f"{{number: K}} or {{column: NAME}} is due, not {value!r}"
        return
    yield from _closed(value, ("number", "column"))
    if "column" in value:
        yield from _column(value["column"])
    elif type(value["number"]) is not int or not 1 <= value["number"] <= 1000:
        yield f"number is {value['number']!r}; 1 to 1000"


def _knots(value: Any) -> Iterator[str]:
    if not isinstance(value, list) or not 2 <= len(value) <= 64 or not all(map(_is_number, value)):
        yield f"knots {value!r} are not 2 to 64 numbers"
    elif any(left >= right for left, right in pairwise(value)):
        yield f"knots {value!r} are not strictly increasing"


def _feature(row: Any) -> Iterator[str]:
    if isinstance(row, str) and row.strip():
        return
    if not isinstance(row, dict) or [*_column(row.get("name"))]:
        yield f"{row!r} is no feature; give a column's name, or {{name, levels | knots, pick}}"
        return
    problems = [*_closed(row, ("name", "levels", "knots", "pick"))]
    if "levels" in row and "knots" in row:
        problems.append("it has levels and knots; give one of them")
    problems += _values(row["levels"]) if "levels" in row else ()
    problems += _knots(row["knots"]) if "knots" in row else ()
    pick = row.get("pick", {"by": "", "columns": {}})
    named = pick.get("columns") if isinstance(pick, dict) and set(pick) == {"by", "columns"} else None
    if not isinstance(named, dict) or ("pick" in row and any([*_column(n)] for n in (pick["by"], *named.values()))):
        problems.append("pick needs 'by' (a column) and 'columns' (value: column)")
    yield from (f"{row['name']!r}: {problem}" for problem in problems)


def _features(value: Any) -> Iterator[str]:
    if value == "auto":
        return
    if not isinstance(value, list) or not value:
        yield f"'auto' or a list of {{name, knots | levels, pick}} is due, not {value!r}"
        return
    yield from (problem for row in value for problem in _feature(row))
    names = [row.get("name") if isinstance(row, dict) else row for row in value]
    yield from dict.fromkeys(f"{name!r} is there twice; name it once" for name in names if names.count(name) > 1)


def _context(row: Any) -> Iterator[str]:
    if not isinstance(row, dict) or [*_column(row.get("name"))] or len(row["name"]) > 128:
        yield f"{row!r} is no context; give {{name, {' | '.join(SIGNALS)}, knots}}, the name with 1 to 128 characters"
        return
    problems = [*_closed(row, ("name", "knots", *SIGNALS))]
    kinds = [kind for kind in SIGNALS if kind in row]
    if len(kinds) != 1 or "knots" not in row:
        problems.append(f"exactly one of {', '.join(SIGNALS)}, and knots are due")
    problems += _knots(row["knots"]) if "knots" in row else ()
    for kind in kinds:
        what = row[kind]
        if kind == "count" and what is not True:
            problems.append(f"count is {what!r}; write count: true")
        elif kind == "mean_of":
            problems += [f"mean_of: {problem}" for problem in _column(what)]
        elif kind == "share_of" and (not isinstance(what, dict) or set(what) != {"column", "values"}):
            problems.append(f"share_of is {what!r}; write share_of: {{column: NAME, values: [one, or, more]}}")
        elif kind == "share_of":
            problems += [f"share_of: {problem}" for problem in (*_column(what["column"]), *_values(what["values"]))]
        elif kind == "hours_between" and (
            not isinstance(what, list) or len(what) != 2 or not all(_is_number(h) and 0 <= h <= 24 for h in what)
        ):
            problems.append(f"hours_between is {what!r}; write two hours from 0 to 24, as in [20, 7]")
    yield from (f"{row['name']!r}: {problem}" for problem in problems)


def _contexts(value: Any) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"a list of {{name, {' | '.join(SIGNALS)}, knots}} is due, not {value!r}"
        return
    yield from (problem for row in value for problem in _context(row))


def _crosses(value: Any) -> Iterator[str]:
    pairs = value if isinstance(value, list) else [None]
    if not all(isinstance(p, list) and len(p) in (1, 2) and all(isinstance(n, str) for n in p) for p in pairs):
        yield f"a list of lists of one or two feature names is due, not {value!r}"


def _holdout(value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or len({"folds", "column"} & set(value)) != 1:
        yield f"{{folds: K}} or {{column: NAME, learn: [values]}} is due, not {value!r}"
        return
    yield from _closed(value, ("folds",) if "folds" in value else ("column", "learn"))
    if "folds" in value:
        yield from (f"folds must be 2 or more: {problem}" for problem in _number(2, is_whole=True)(value["folds"]))
    else:
        yield from _column(value["column"])
        yield from (f"learn: {problem}" for problem in _values(value.get("learn")))


def _settings(value: Any) -> Iterator[str]:
    ranges = {"steps": (1, 10_000), "rate": (TINY, 1e6), "clip": (TINY, 1e6), "ridge": (0, 1e6)}
    if not isinstance(value, dict):
        yield f"a mapping of {', '.join(ranges)} is due, not {value!r}"
        return
    yield from _closed(value, ranges)
    for name in [name for name in ranges if name in value]:
        yield from (f"{name}: {p}" for p in _number(*ranges[name], is_whole=name == "steps")(value[name]))


def _references(value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or not all(_is_number(v) or isinstance(v, str) for v in value.values()):
        yield f"a mapping of names to numbers or texts is due, not {value!r}"


def _one_or_more(value: Any) -> Iterator[str]:
    yield from _values(value if isinstance(value, list) else [value])


def _ignore(value: Any) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"a list of columns is due, not {value!r}"
        return
    yield from (problem for name in value for problem in _column(name))


def _items(value: Any) -> Iterator[str]:
    yield from _values(value) if value != "auto" else ()


def _top(value: Any) -> Iterator[str]:
    lengths = value if isinstance(value, list) and value else [value]
    yield from (problem for length in lengths for problem in _number(1, is_whole=True)(length))


SHAPES: dict[str, Callable[[Any], Iterator[str]]] = {
    "name": _text, "unit": _text, "task": _text, "path": _file, "user": _column, "item": _column, "label": _column,
    "time": _column, "order": _column, "parties": _parties, "features": _features, "crosses": _crosses,
    "ignore": _ignore, "holdout": _holdout, "positive": _one_or_more,
    "items": _items, "context": _contexts, "top": _top,
    "persons": _number(1, is_whole=True), "settings": _settings, "references": _references,
}  # fmt: skip
"""What is wrong with a member's value, by member: nothing where the shape is right."""
ROWS = {"features": _feature, "context": _context}


def _described(
    text: dict[str, Any], columns: dict[str, Column], faults: list[str], malformed: frozenset[str]
) -> Described:
    notes: list[str] = []
    users = columns[text["user"]]
    keep = [value is not None for value in users]
    for name in ("item", "label"):
        if name in text:
            keep = [ok and value is not None for ok, value in zip(keep, columns[text[name]], strict=True)]
    left = sum(keep)
    if left < len(keep):
        notes.append(f"{len(keep) - left} of {len(keep)} rows have no user, item or label and are left out")
    if not left:
        raise DescriptionRefused([*faults, "no row has a user, an item and a label; check the columns that these name"])
    columns = {n: [v for v, ok in zip(values, keep, strict=True) if ok] for n, values in columns.items()}
    user = np.array([as_text(value) for value in columns[text["user"]]])
    party, names, more = parties_of(text.get("parties", {"number": 1}), columns, user, notes)
    faults += more
    if np.unique(user).size < 10:
        faults.append(
            f"{np.unique(user).size} persons; at least 10 are needed to learn and to test: give more rows, or check 'user'"
        )
    return Described(text, columns, user, party, names, notes, faults, malformed)


def locate(name: str, beside: Path, data: Path | None, faults: list[str]) -> Path | None:
    """Return where the data file is, or None with a fault that names every place."""
    root = Path(__file__).resolve().parent.parent
    shared = [Path(os.environ["CONVOY_SHARED"])] if "CONVOY_SHARED" in os.environ else []
    folders = [beside, *(place / "data" for place in (*shared, root.parent / "shared"))] if data is None else [data]
    tried = list(dict.fromkeys(folder.absolute() / name for folder in folders))
    found = next((place for place in tried if place.is_file()), None)
    if found is None:
        faults.append(f"path: no file {' or '.join(map(str, tried))}; give its folder with --data")
    return found


def read_table(name: str, beside: Path, data: Path | None, faults: list[str]) -> dict[str, Column] | None:
    """Return columns as Python values with None for what is missing, or None; adds to ``faults`` instead of raising."""
    path = locate(name, beside, data, faults)
    if path is None:
        return None
    try:
        if path.suffix.lower() in COMPRESSED:
            faults.append(f"{path}: it is compressed; unpack it and name the unpacked file with 'path'")
            return None
        is_parquet = path.suffix.lower() in (".parquet", ".pq")
        table = pyarrow.parquet.read_table(path) if is_parquet else _read_csv(path, faults)
    except (OSError, pa.ArrowException) as error:
        cause = str(error).splitlines()[0]
        faults.append(f"{path}: {cause}; give a Parquet file (.parquet), or a CSV file with a header line")
        return None
    if table is None:
        return None
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    faults.extend(f"column {name!r} is in the file twice; rename one of them" for name in twice)
    columns = {}
    for place, column in enumerate(names):
        values = _plain(table.column(place))
        if values is None:
            faults.append(f"{path}: column {column!r} holds bytes that are no text; save the file as UTF-8")
        columns[column] = [None if _is_nothing(v) else v for v in (values or [])]
    return None if any(len(values) != table.num_rows for values in columns.values()) else columns


def _read_csv(path: Path, faults: list[str]) -> pa.Table | None:
    with path.open("rb") as file:
        head = file.readline()
    if head.startswith(b"\x1f\x8b"):
        faults.append(f"{path}: it is compressed (gzip); unpack it and name the unpacked file with 'path'")
        return None
    try:
        header = head.decode("utf-8")
    except UnicodeDecodeError:
        faults.append(f"{path}: it is not UTF-8; save the file as UTF-8")
        return None

    def table(types: dict[str, pa.DataType]) -> pa.Table:
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=min(LARGEST_BLOCK, path.stat().st_size + 1)),
            parse_options=pa.csv.ParseOptions(delimiter=max((",", ";", "\t", "|"), key=header.count)),
            convert_options=pa.csv.ConvertOptions(column_types=types),
        )

    found = table({})
    # Arrow turns instants with an offset into UTC, and the hour on the clock of the place would be lost: they stay texts.
    zoned = [column.name for column in found.schema if pa.types.is_timestamp(column.type) and column.type.tz]
    return table(dict.fromkeys(zoned, pa.string())) if zoned else found


def _plain(column: pa.ChunkedArray) -> list[Any] | None:
    """Return a column's values, or None where it holds bytes that are no UTF-8."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            column = column.cast(kind).cast(pa.large_string())
    except pa.ArrowException:
        return None
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _is_nothing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def as_text(value: Any) -> str:
    """Return a value as the text of a level: 3 and 3.0 are '3', True is 'true'."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def unquoted(where: str, wanted: Iterable[Any], values: Column) -> list[str]:
    """Return a fault where the description has true or false and the column holds texts that are neither."""
    texts = sorted({v.strip() for v in values if isinstance(v, str)})
    lost = [as_text(value) for value in wanted if isinstance(value, bool) and as_text(value) not in texts]
    if not lost or not texts:
        return []
    told = f"{where}: YAML reads yes/no as true/false, but the column holds texts ({_few(texts)}); put them in quotes"
    return [told]


def parties_of(
    text: Mapping[str, Any], columns: Mapping[str, Column], user: Texts, notes: list[str]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...], list[str]]:
    """Return each row's partner, their names, and faults; what a reader must know about the cut is added to ``notes``.

    A person belongs to one partner: that of most of their rows that name one; persons without any are partner ``(missing)``.
    """
    people, code = np.unique(user, return_inverse=True)
    if "number" in text:
        number = int(text["number"])
        of = np.array([_hash("party", name) % number for name in people.tolist()], np.int64)
        names = tuple(f"partner-{k + 1}" for k in range(number))
    else:
        source = text["column"]
        held = np.array([MISSING if v is None else as_text(v) for v in columns[source]])
        names = tuple(np.unique(held).tolist())
        if len(names) > 1000:
            fault = f"parties: column {source!r} names {len(names)} partners; name a column of at most 1000"
            return np.zeros(user.size, np.int64), (), [fault]
        _, mine = np.unique(held, return_inverse=True)
        count = np.zeros((people.size, len(names)))
        np.add.at(count, (code, mine), [0.5 / user.size if name == MISSING else 1.0 for name in held.tolist()])
        of = count.argmax(axis=1).astype(np.int64)
        at = np.array(names)[of][code]
        nowhere, moved = held == MISSING, (held != MISSING) & (held != at)
        if nowhere.any():
            alone = nowhere & (at == MISSING)
            notes.append(
                f"{int(nowhere.sum())} of {user.size} rows have no partner in {source!r}: {int((nowhere & ~alone).sum())} count"
                f" at the partner of the person's other rows, {int(alone.sum())} of {np.unique(user[alone]).size} person(s)"
                f" without any are a partner {MISSING!r}"
            )
        if moved.any():
            notes.append(
                f"{int(moved.sum())} of {user.size} rows, of {np.unique(user[moved]).size} person(s) at several partners,"
                f" count at the partner of most of the person's rows, not at the one in {source!r}"
            )
    size = np.bincount(of, minlength=len(names))
    small = [f"{name} ({n})" for name, n in zip(names, size.tolist(), strict=True) if n < FEW_PERSONS]
    if small:
        notes.append(f"partners of fewer than {FEW_PERSONS} persons, whose own models say little: {_few(small)}")
    if len(names) == 1:
        notes.append("one partner only: 'alone' and 'pooled' are the same, and nothing is shared by joining")
    elif len(names) == 2:
        notes.append(
            "two partners: each can tell the other's noisy sums from the total; epsilon holds, and no gate asks charging operators"
            " for three (insurers it does), but agree it with three or more where such a sum is a business secret"
        )
    return of[code], names, []


def folds_of(user: Texts, folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return each row's fold, (N,); a person is in one fold. Depends on the person's id and the seed only."""
    people, code = np.unique(user, return_inverse=True)
    order = np.argsort([_hash(f"fold-{seed}", name) for name in people.tolist()], kind="stable")
    fold = np.empty(people.size, np.int64)
    fold[order] = np.arange(people.size) % folds
    return fold[code]


def _hash(purpose: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}/{name}".encode()).digest()[:6], "big")


def numbers(name: str, values: Column, faults: list[str]) -> npt.NDArray[np.float64] | None:
    """Return a column as floats with NaN where missing, or None where it holds texts; infinite values are a fault."""
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            out[row] = float(value)
        except (TypeError, ValueError):
            return None
    endless = np.isinf(out)
    if endless.any():
        faults.append(
            f"column {name!r} has {int(endless.sum())} infinite values; correct them at their source, or leave it out"
        )
    out[endless] = np.nan
    return out


def levels(name: str, wanted: Sequence[Any] | None, values: Column, notes: list[str]) -> tuple[Levels, Texts] | None:
    """Return a categorical feature with levels for what is missing or unknown; None if it is constant."""
    texts = np.array([MISSING if v is None else as_text(v) for v in values])
    if wanted is None:
        seen, count = np.unique(texts[texts != MISSING], return_counts=True)
        wanted = seen[np.argsort(-count, kind="stable")][: MAX_LEVELS - 2].tolist()
        notes.append(f"levels of {name!r} are read off the data; write them into the description for a private run")
    known = tuple(dict.fromkeys([*(as_text(level) for level in wanted), MISSING, OTHER]))
    texts = np.where(np.isin(texts, np.array(known)), texts, OTHER)
    strange = int(np.count_nonzero(texts == OTHER))
    if strange:
        notes.append(f"{strange} rows of {name!r} are none of the levels and count as {OTHER}")
    if np.unique(texts).size < 2:
        notes.append(f"column {name!r} is constant and is left out")
        return None
    return Levels(kind="levels", name=name, levels=known, other=OTHER), texts


def knots(
    name: str, wanted: Sequence[Any] | None, x: npt.NDArray[np.float64], notes: list[str]
) -> tuple[Knots, Any] | None:
    """Return a numeric feature; missing values sit at the middle knot. None if it is constant."""
    filled = x[~np.isnan(x)]
    if filled.size == 0 or filled.min() == filled.max():
        notes.append(f"column {name!r} is constant and is left out")
        return None
    if wanted is None:
        points = np.unique(np.quantile(filled, [0.02, 0.25, 0.5, 0.75, 0.98]))
        points = points if points.size > 1 else np.array([filled.min(), filled.max()])
        notes.append(f"knots of {name!r} are read off the data; write them into the description for a private run")
    else:
        points = np.array([float(point) for point in wanted])
    texts = tuple(np.format_float_positional(point, trim="-") for point in points)
    middle = float(points[points.size // 2])
    return Knots(kind="knots", name=name, knots=texts), np.where(np.isnan(x), middle, x)


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")
