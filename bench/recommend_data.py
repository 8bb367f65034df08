"""A data set of offers or events, described by YAML, read and checked; every fault is told at once.

``read_table`` gives columns as lists with None for what is missing; ``read_description`` checks the
YAML; ``parties_of`` and ``folds_of`` cut persons (never rows) into partners and test folds.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
LARGEST_BLOCK = 1 << 28
"""Bytes of a CSV file from which types are inferred: the whole of any ordinary file."""
KINDS = ("labelled", "events", "ratings")
REQUIRED = {"name", "kind", "path", "user"}
OPTIONAL = {
    "item", "label", "positive", "time", "order", "parties", "features", "crosses", "ignore", "settings", "holdout",
    "references", "items", "context", "top", "task", "persons", "unit",
}  # fmt: skip


class DescriptionRefused(Exception):
    """The description or its data cannot be used; ``faults`` names everything that must be corrected."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
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
    """Of parties and persons: told with those that features, labels and hold-out add."""

    @property
    def rows(self) -> int:
        """Rows that are used."""
        return int(self.user.size)


def read(path: Path, data: Path | None = None) -> Described:
    """Read a description and the file it names.

    Args:
        path: the YAML file.
        data: folder of the data file; by default the YAML's own folder, then $CONVOY_SHARED/data, then ../shared/data.

    Raises:
        DescriptionRefused: every fault at once.
    """
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DescriptionRefused([f"{path.name}: {error}"]) from error
    if not isinstance(text, dict):
        raise DescriptionRefused([f"{path.name}: a mapping is due; see bench/data/coupon.yaml"])
    faults = [f"member {name!r} is missing" for name in sorted(REQUIRED - set(text))]
    faults += [f"member {name!r} is unknown" for name in sorted(map(str, set(text) - REQUIRED - OPTIONAL))]
    kind = text.get("kind")
    if kind is not None and kind not in KINDS:
        faults.append(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if kind == "labelled" and "label" not in text:
        faults.append("kind labelled needs member 'label'")
    if kind in ("events", "ratings") and "item" not in text:
        faults.append(f"kind {kind} needs member 'item'")
    if kind == "ratings" and not {"label", "positive"} <= set(text):
        faults.append("kind ratings needs members 'label' and 'positive' (a rating counts from there on)")
    if "path" not in text:
        raise DescriptionRefused(faults)
    columns = read_table(locate(str(text["path"]), path.parent, data), faults)
    named = [text[name] for name in ("user", "item", "label", "time", "order") if text.get(name) is not None]
    for row in text.get("features") or []:
        pick = row.get("pick") if isinstance(row, dict) else None
        if isinstance(pick, dict) and isinstance(pick.get("columns"), dict):
            named += [pick.get("by"), *pick["columns"].values()]
    for member in ("parties", "holdout"):
        if isinstance(text.get(member), dict) and "column" in text[member]:
            named.append(text[member]["column"])
    if isinstance(text.get("features"), list):
        text["features"] = [{"name": row} if isinstance(row, str) else row for row in text["features"]]
        named += [
            row["name"] for row in text["features"] if isinstance(row, dict) and "name" in row and "pick" not in row
        ]
    lost = dict.fromkeys(str(name) for name in named if name not in columns) if columns else {}
    faults += [f"column {name!r} is not in the file (it has {_few(columns)})" for name in lost]
    if faults:
        raise DescriptionRefused(faults)
    return _described(text, columns)


def _described(text: dict[str, Any], columns: dict[str, Column]) -> Described:
    notes: list[str] = []
    users = columns[text["user"]]
    keep = [value is not None for value in users]
    for name in ("item", "label"):
        if text.get(name) is not None:
            keep = [ok and value is not None for ok, value in zip(keep, columns[text[name]], strict=True)]
    left = sum(keep)
    if left < len(keep):
        notes.append(f"{len(keep) - left} of {len(keep)} rows have no user, item or label and are left out")
    if not left:
        raise DescriptionRefused(["no row has a user, an item and a label"])
    columns = {n: [v for v, ok in zip(values, keep, strict=True) if ok] for n, values in columns.items()}
    user = np.array([as_text(value) for value in columns[text["user"]]])
    party, names, faults = parties_of(text.get("parties"), columns, user)
    if np.unique(user).size < 10:
        faults.append(
            f"{np.unique(user).size} persons; at least 10 are needed to learn and to test: give more rows, or check 'user'"
        )
    if len(names) == 1:
        notes.append("one partner only: 'alone' and 'pooled' are the same, and nothing is shared by joining")
    return Described(text, columns, user, party, names, notes, faults)


def locate(name: str, beside: Path, data: Path | None) -> Path:
    """Return where the data file is, or where it was looked for last."""
    folders = [data] if data is not None else [beside, Path(os.environ.get("CONVOY_SHARED", "../shared")) / "data"]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    return folders[-1] / name


def read_table(path: Path, faults: list[str]) -> dict[str, Column]:
    """Return columns as Python values; adds to ``faults`` instead of raising."""
    try:
        table = (
            pyarrow.parquet.read_table(path)
            if path.suffix.lower() in (".parquet", ".pq")
            else pa.csv.read_csv(
                path,
                read_options=pa.csv.ReadOptions(block_size=min(LARGEST_BLOCK, path.stat().st_size + 1)),
                parse_options=pa.csv.ParseOptions(delimiter=_delimiter(path)),
            )
        )
    except (OSError, pa.ArrowException) as error:
        faults.append(f"{path}: {str(error).splitlines()[0]}")
        return {}
    names = table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    faults.extend(f"column {name!r} is in the file twice" for name in twice)
    columns = {name: table.column(place).to_pylist() for place, name in enumerate(names)}
    return {name: [None if _is_nothing(value) else value for value in values] for name, values in columns.items()}


def _delimiter(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        head = file.readline()
    return max((",", ";", "\t", "|"), key=head.count)


def _is_nothing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def as_text(value: Any) -> str:
    """Return a value as the text of a level: 3 and 3.0 are '3', True is 'true'."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def parties_of(
    text: Any, columns: Mapping[str, Column], user: Texts
) -> tuple[npt.NDArray[np.int64], tuple[str, ...], list[str]]:
    """Return each row's partner, their names, and faults. A person belongs to one partner: that of most of their rows."""
    text = {"number": 1} if text is None else text
    if not isinstance(text, dict) or not ({"number"} == set(text) or {"column"} == set(text)):
        return np.zeros(user.size, np.int64), (), ["parties: {number: K} or {column: NAME} is due"]
    if "number" in text:
        number = text["number"]
        if type(number) is not int or not 1 <= number <= 1000:
            return np.zeros(user.size, np.int64), (), [f"parties: number is {number!r}; 1 to 1000"]
        place = {name: _hash("party", name) % number for name in np.unique(user).tolist()}
        return np.array([place[u] for u in user.tolist()]), tuple(f"partner-{k + 1}" for k in range(number)), []
    held = np.array([MISSING if v is None else as_text(v) for v in columns[text["column"]]])
    names = tuple(np.unique(held).tolist())
    if len(names) > 1000:
        return np.zeros(user.size, np.int64), (), [f"parties: column {text['column']!r} names {len(names)} partners"]
    out = np.zeros(user.size, np.int64)
    people, code = np.unique(user, return_inverse=True)
    _, mine = np.unique(held, return_inverse=True)
    count = np.zeros((people.size, len(names)), np.int64)
    np.add.at(count, (code, mine), 1)
    out[:] = count.argmax(axis=1)[code]
    return out, names, []


def folds_of(user: Texts, folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return each row's fold, (N,); a person is in one fold. Depends on the person's id and the seed only."""
    people, code = np.unique(user, return_inverse=True)
    order = np.argsort([_hash(f"fold-{seed}", name) for name in people.tolist()], kind="stable")
    fold = np.empty(people.size, np.int64)
    fold[order] = np.arange(people.size) % folds
    return fold[code]


def _hash(purpose: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}/{name}".encode()).digest()[:6], "big")


def numbers(values: Column) -> npt.NDArray[np.float64] | None:
    """Return a column as floats with NaN where missing, or None where it holds texts."""
    out = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            out[row] = float(value)
        except (TypeError, ValueError):
            return None
    out[~np.isfinite(out)] = np.nan
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


def _few(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")
