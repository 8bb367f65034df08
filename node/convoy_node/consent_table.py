"""Read a consent table: one row per person and contract; every fault is reported at once.

    TableReader(names, contracts)      .rows(columns) -> list[ConsentRow]     batch by batch
                                       .raise_faults()                        all that were found, counted

Columns: ``local_id, contract, given, until, notice, purpose, recipients, separate, age`` and,
where there is something to say, ``link_id, counterpart, withdrawn, guardian, refused``. Times are
timestamps with an offset (FORMAT.md §1). ``until`` is never empty: consent without an end says
``open-ended``. An empty ``age`` means unknown: the person is kept and counts nowhere. In CSV,
``recipients`` are separated by ``;``, ``link_id`` is 32 hex digits and truth is ``true`` or ``false``.

Messages count rows and name columns; they never hold a cell's value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from convoy_contracts.instants import instant, timestamp
from convoy_node.errors import ConsentRefused

OPEN_ENDED: Final = "open-ended"
UNKNOWN_AGE: Final = -1
"""Stands for an age that nobody knows; such a person counts nowhere, whatever a guardian said."""
LINK_BYTES: Final = 16
REQUIRED: Final = (
    "local_id", "contract", "given", "until", "notice", "purpose", "recipients", "separate", "age",
)  # fmt: skip
OPTIONAL: Final = ("link_id", "counterpart", "withdrawn", "guardian", "refused")
_MAX_AGE: Final = 150


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """What one person was told and said about one contract.

    ``link_id``: 16 random bytes that the counterpart was handed too; None for the solo cohort.
    ``until`` None: open-ended. ``recipients``: sorted, as canonical JSON. The ``_us`` members are
    the same instants in microseconds on one UTC axis.
    """

    contract: str
    local_id: str
    link_id: bytes | None
    counterpart: str
    given: str | None
    given_us: int | None
    until: str | None
    until_us: int | None
    withdrawn: str | None
    withdrawn_us: int | None
    notice: str
    purpose: str
    recipients: str
    separate: bool
    age: int
    guardian: bool
    refused: bool


class TableReader:
    """Turns batches of a consent table into rows; faults are counted over all batches.

    Args:
        names: the table's columns.
        contracts: contract uid by the name that the table uses; a name that is not listed is a uid.
        party: whose table it is, for messages.

    Raises:
        ConsentRefused: columns are missing.
    """

    def __init__(self, names: Collection[str], contracts: Mapping[str, str] | None = None, *, party: str = "") -> None:
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise ConsentRefused(
                "the consent table lacks columns.",
                party=party,
                reasons=[f"column {name}: missing" for name in missing],
            )
        self.names = tuple(name for name in REQUIRED + OPTIONAL if name in names)
        self._absent = tuple(name for name in REQUIRED + OPTIONAL if name not in names)
        self._contracts = contracts or {}
        self._party = party
        self._reader = _Reader()
        self._read = 0

    def rows(self, columns: Mapping[str, list[Any]]) -> list[ConsentRow]:
        """Return the rows of a batch; one with a fault has an empty value there and must not be kept."""
        length = len(columns["local_id"])
        self._read += length
        return _rows(self._reader, {**columns, **{name: [None] * length for name in self._absent}}, self._contracts)

    def count(self, column: str, what: str, rows: int) -> None:
        """Add a fault that only a look at the whole table shows."""
        self._reader.count(column, what, rows)

    @property
    def has_faults(self) -> bool:
        """Whether any fault was found so far."""
        return bool(self._reader.faults)

    def raise_faults(self) -> None:
        """Refuse a table with faults, or without rows.

        Raises:
            ConsentRefused: every fault at once, with the number of rows that have it.
        """
        faults = dict(self._reader.faults)
        if not self._read:
            faults["the table has no rows"] = 0
        if faults:
            raise ConsentRefused(
                f"the consent table has {len(faults)} {'kind' if len(faults) == 1 else 'kinds'} of faults.",
                party=self._party,
                reasons=[f"{what} ({n} rows)" if n else what for what, n in faults.items()],
            )


def _rows(reader: _Reader, columns: Mapping[str, list[Any]], contracts: Mapping[str, str]) -> list[ConsentRow]:
    text, moment = reader.text, reader.moment
    names = text("contract", columns["contract"])
    given, given_us = moment("given", columns["given"])
    open_ended = [value == OPEN_ENDED for value in columns["until"]]
    reader.count("until", "missing; write open-ended for no end", _nothing(columns["until"]))
    until, until_us = moment("until", [None if o else v for v, o in _zip(columns["until"], open_ended)])
    withdrawn, withdrawn_us = moment("withdrawn", columns["withdrawn"])
    link = reader.parsed("link_id", columns["link_id"], _link, "not 16 bytes (32 hex digits)")
    counterpart = [value or "" for value in columns["counterpart"]]
    reader.count(
        "counterpart",
        "given without a link_id, or the reverse",
        sum((one is None) == bool(other) for one, other in _zip(link, counterpart)),
    )
    refused = reader.truth("refused", columns["refused"], default=False)
    reader.count(
        "refused",
        "true beside a time of consent",
        sum(no and at is not None for no, at in _zip(refused, given)),
    )
    return [
        ConsentRow(*row)
        for row in _zip(
            [contracts.get(name, name) for name in names],
            text("local_id", columns["local_id"]),
            link,
            counterpart,
            given,
            given_us,
            until,
            until_us,
            withdrawn,
            withdrawn_us,
            text("notice", columns["notice"]),
            text("purpose", columns["purpose"]),
            reader.needed("recipients", columns["recipients"], _recipients, "empty or not a list"),
            reader.truth("separate", columns["separate"], default=None),
            [
                UNKNOWN_AGE if age is None else age
                for age in reader.parsed("age", columns["age"], _age, f"not a whole 0..{_MAX_AGE}")
            ],
            reader.truth("guardian", columns["guardian"], default=False),
            refused,
        )
    ]


class _Reader:
    """Turns columns into values and counts what cannot be turned."""

    def __init__(self) -> None:
        self.faults: dict[str, int] = {}

    def count(self, column: str, what: str, rows: int) -> None:
        if rows:
            fault = f"column {column}: {what}"
            self.faults[fault] = self.faults.get(fault, 0) + rows

    def parsed(self, column: str, cells: list[Any], parse: Callable[[Any], Any], fault: str) -> list[Any]:
        """Parse each cell that is not empty; equal cells once."""
        known: dict[Any, Any] = {}
        out: list[Any] = []
        for cell in cells:
            if cell is None or cell == "":
                out.append(None)
                continue
            key = tuple(cell) if isinstance(cell, list) else cell
            if key not in known:
                known[key] = parse(cell)
            out.append(known[key])
        self.count(column, fault, sum(v is None for v in out) - _nothing(cells))
        return out

    def needed(self, column: str, cells: list[Any], parse: Callable[[Any], Any], fault: str) -> list[Any]:
        """Parse each cell; an empty one is a fault as well."""
        out = self.parsed(column, cells, parse, fault)
        self.count(column, fault, _nothing(cells))
        return out

    def text(self, column: str, cells: list[Any]) -> list[str]:
        self.count(column, "missing", _nothing(cells))
        return ["" if cell is None else str(cell) for cell in cells]

    def moment(self, column: str, cells: list[Any]) -> tuple[list[str | None], list[int | None]]:
        written = self.parsed(column, cells, _timestamp, "no timestamp with an offset")
        known: dict[str, int | None] = {value: instant(value) for value in set(written) if value}
        return written, [None if value is None else known[value] for value in written]

    def truth(self, column: str, cells: list[Any], *, default: bool | None) -> list[Any]:
        parse, fault = _TRUTH.get, "neither true nor false"
        if default is None:
            return self.needed(column, cells, parse, fault)
        return [default if v is None else v for v in self.parsed(column, cells, parse, fault)]


_TRUTH: Final[Mapping[Any, bool]] = {True: True, False: False, "true": True, "false": False}


def _zip(*columns: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    return zip(*columns, strict=True)


def _nothing(cells: list[Any]) -> int:
    return sum(cell is None or cell == "" for cell in cells)


def _timestamp(cell: Any) -> str | None:
    if isinstance(cell, datetime):
        return timestamp(cell) if cell.tzinfo is not None else None
    return cell if instant(cell) is not None else None


def _link(cell: Any) -> bytes | None:
    if isinstance(cell, str):
        try:
            cell = bytes.fromhex(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, bytes) and len(cell) == LINK_BYTES else None


def _recipients(cell: Any) -> str | None:
    listed = cell.split(";") if isinstance(cell, str) else cell
    if not isinstance(listed, list) or not listed:
        return None
    if not all(isinstance(recipient, str) and recipient for recipient in listed):
        return None
    return json.dumps(sorted(set(listed)), ensure_ascii=False, separators=(",", ":"))


def _age(cell: Any) -> int | None:
    try:
        age = int(cell)
    except (TypeError, ValueError):
        return None
    return age if age == float(cell) and 0 <= age <= _MAX_AGE else None
