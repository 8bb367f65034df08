"""Propose how a partner's columns become the fields that a contract expects; a person confirms.

profile(source) -> tuple[Profile, ...]                 types and numbers of rows; no value of a text is kept
propose(present, wanted) -> tuple[Proposal, ...]       the best column for each field, and how sure that is
mapping_text(...) -> str                               the TOML file, doubtful lines marked
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow.compute as pc

from convoy_node.columns import Column
from convoy_node.connectors import Source
from convoy_node.connectors.source import duckdb_type, quoted
from convoy_node.data_names import ALIASES

SURE: Final = 0.9
"""From this likeness on a proposal is not marked."""
LEAST: Final = 0.55
"""Below this likeness no column is proposed."""
_AGGREGATES: Final = {"claims": "sum", "exposure": "sum", "list": "list", "text": "min"}
"""How several rows of a person become one, by kind; numbers are averaged."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A column in numbers: ``low`` and ``high`` are None for anything but numbers."""

    name: str
    kind: str
    rows: int
    empty: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """The column proposed for a field; ``column`` is None where nothing is like it. ``likeness`` is in [0, 1]."""

    field: str
    column: str | None
    likeness: float

    @property
    def is_sure(self) -> bool:
        """Whether the names leave no doubt."""
        return self.likeness >= SURE


def profile(source: Source) -> tuple[Profile, ...]:
    """Return every column of a source in numbers, from one pass over it.

    Raises:
        DatasetRefused: the source cannot be read.
    """
    names = list(source.describe())
    rows = dict.fromkeys(names, 0)
    empty = dict.fromkeys(names, 0)
    kinds: dict[str, str] = {}
    bounds: dict[str, tuple[float, float]] = {}
    for batch in source.stream(names):
        for name in names:
            cells = batch.column(name)
            rows[name] += len(cells)
            empty[name] += cells.null_count
            kinds[name] = duckdb_type(cells.type)
            if kinds[name] in ("BIGINT", "DOUBLE", "DECIMAL") and cells.null_count < len(cells):
                found = pc.min_max(cells).as_py()
                low, high = float(found["min"]), float(found["max"])
                before = bounds.get(name, (low, high))
                bounds[name] = (min(low, before[0]), max(high, before[1]))
    return tuple(
        Profile(name, kinds.get(name, ""), rows[name], empty[name], *bounds.get(name, (None, None))) for name in names
    )


def propose(present: Sequence[str], wanted: Sequence[str]) -> tuple[Proposal, ...]:
    """Return the best column for each field; a column serves one field at most.

    Args:
        present: the partner's columns.
        wanted: field names, ``person_id`` included where a person column is due.
    """
    scored = sorted(
        ((_likeness(field, column), field, column) for field in wanted for column in present),
        key=lambda row: (-row[0], row[1], row[2]),
    )
    taken: dict[str, tuple[str, float]] = {}
    used: set[str] = set()
    for likeness, field, column in scored:
        if likeness >= LEAST and field not in taken and column not in used:
            taken[field] = (column, likeness)
            used.add(column)
    return tuple(Proposal(field, *taken[field]) if field in taken else Proposal(field, None, 0.0) for field in wanted)


def mapping_text(
    table: str, person: Proposal, proposals: Sequence[Proposal], columns: Mapping[str, Column], *, grouped: bool
) -> str:
    """Return a mapping file; lines that a person must look at end in a comment.

    Args:
        table: table or view; ``rows`` for a file.
        person: for the party's own id.
        proposals: for the fields.
        columns: what the contract expects, by name.
        grouped: whether the table has several rows for a person.
    """
    lines = [
        "# How this party's columns become the contract's fields. Each line is an SQL expression of your own engine.",
        "# Look at the lines marked '?', then: convoy-node data check",
        f"table = {_toml(table)}",
        f"person = {_toml(quoted(person.column) if person.column else '?')}{_remark(person)}",
        f"grouped = {str(grouped).lower()}",
        "",
        "[fields]",
    ]
    for proposal in proposals:
        kind = columns[proposal.field].kind
        if proposal.column is None:
            lines.append(f"{proposal.field} = {_toml('?')}  # ? no column is like it; it holds {kind} values")
            continue
        expression = quoted(proposal.column)
        if grouped:
            expression = f"{_AGGREGATES.get(kind, 'avg')}({expression})"
        lines.append(f"{proposal.field} = {_toml(expression)}{_remark(proposal)}")
    return "\n".join(lines) + "\n"


def _likeness(field: str, column: str) -> float:
    plain = _plain(column)
    names = [_plain(name) for name in (field, *ALIASES.get(field, ()))]
    if plain == names[0]:
        return 1.0
    if plain in names:
        return 0.95
    last = _plain(re.split(r"[./]", column)[-1])
    if last in names:
        return 0.92
    best = max(difflib.SequenceMatcher(None, name, plain).ratio() for name in names)
    if any(len(name) > 3 and (name in plain or plain in name) for name in names if plain):
        best = max(best, 0.75)
    return min(best, 0.89)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _remark(proposal: Proposal) -> str:
    return "" if proposal.is_sure else f"  # ? likeness {proposal.likeness:.2f}"


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML basic string
