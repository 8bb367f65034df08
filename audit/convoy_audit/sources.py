"""Open what holds a log, wherever it lies: evidence pack, folder of tiles, SQLite file, PostgreSQL dump.

    open_log(path: Path) -> Log     Log: .rows() -> Iterator[Row]   .entries() -> Iterator[bytes]   .notes   .frontiers

A PostgreSQL dump is what ``pg_dump --format=plain`` writes (data as ``COPY``); only the tables of the log
are read, nothing of the dump is executed. SQLite is opened read-only. Nothing is verified here: see
``convoy_audit.fsck`` and ``convoy_audit.pack``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from convoy_audit.archive import read_files
from convoy_audit.checkpoint import peek
from convoy_audit.errors import FormatError
from convoy_audit.tiles import WIDTH, Span, decode_bundle, entries_path, entries_spans

_SQLITE: Final = b"SQLite format 3\0"
_DUMP: Final = b"--\n-- PostgreSQL database dump"
_COPY: Final = re.compile(r'COPY (?:\w+|"\w+")\.(log_entry|log_frontier|log_checkpoint) \(([^)]*)\) FROM stdin;')
_HEX: Final = "\\\\x"  # bytea, as COPY escapes it
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


Row = tuple[int, bytes | None, bytes]
"""Index, stored leaf hash (None where none is stored), entry; in order of the index."""


@dataclass(slots=True)
class Log:
    """A stored log; ``rows`` reads it anew from its start, entry by entry, and may raise ``FormatError``."""

    kind: str
    rows: Callable[[], Iterator[Row]]
    notes: list[bytes]
    frontiers: dict[int, bytes] | None = None
    files: Mapping[str, bytes] | None = field(default=None, repr=False)

    def entries(self) -> Iterator[bytes]:
        """Yield the entries."""
        for _, _, body in self.rows():
            yield body


def open_log(path: Path) -> Log:
    """Read a log.

    Raises:
        FormatError: there is none at ``path``, or it cannot be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(_SQLITE):
            return _database(path)
        if head.startswith(_DUMP):
            return _dump(path)
    files = read_files(path)
    if "checkpoint" not in files:
        raise FormatError("no log: neither SQLite file, PostgreSQL dump, nor a folder or zip with a checkpoint")
    return _tiles(files)


def _tiles(files: Mapping[str, bytes]) -> Log:
    note = files["checkpoint"]
    size = peek(note).size

    def rows() -> Iterator[Row]:
        index = 0
        for span in entries_spans(size):
            for body in _bundle(files, span):
                yield index, None, body
                index += 1

    earlier = [files[name] for name in files if name.startswith("checkpoints/")]
    return Log("tiles", rows, [*earlier, note], files=files)


def _bundle(files: Mapping[str, bytes], span: Span) -> list[bytes]:
    """Return the entries of a bundle; those of a partial one also from the full one (a log may delete the partial one then)."""
    for width in sorted({span.width, WIDTH}):
        name = entries_path(span.index, width)
        if name in files:
            return decode_bundle(files[name], width)[: span.width]
    raise FormatError(f"{entries_path(span.index, span.width)} is missing")


def _database(path: Path) -> Log:
    uri = f"{path.resolve().as_uri()}?mode=ro"

    def rows() -> Iterator[Row]:
        try:
            with closing(sqlite3.connect(uri, uri=True)) as database:
                for index, leaf, body in database.execute("SELECT idx, leaf, body FROM log_entry ORDER BY idx"):
                    if not (isinstance(index, int) and isinstance(leaf, bytes | None) and isinstance(body, bytes)):
                        raise FormatError(f"row {index!r:.40} of log_entry has other types than the log's")
                    yield index, leaf, body
        except sqlite3.Error as error:
            raise FormatError(f"this database cannot be read: {error}") from None

    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            frontiers = dict(database.execute("SELECT size, frontier FROM log_frontier"))
            notes = [str(note).encode() for (note,) in database.execute("SELECT note FROM log_checkpoint")]
    except sqlite3.Error as error:
        raise FormatError(f"this database holds no log: {error}") from None
    return Log("sqlite", rows, notes, frontiers)


def _dump(path: Path) -> Log:
    """Read the ``COPY`` blocks of the log's tables; the entries again for every ``rows``, so that they are never held at once."""
    frontiers: dict[int, bytes] = {}
    notes: list[bytes] = []
    has_entries, is_sorted, last = False, True, -1
    with _readable():
        for table, names, lines in _blocks(path):
            if table == "log_entry":
                has_entries = True
                at, *octets = map(names.index, ("idx", "leaf", "body"))
                for values in lines:
                    if not all(values[column].startswith(_HEX) for column in octets):
                        raise ValueError("not bytea in hex")
                    index = int(values[at])
                    is_sorted, last = is_sorted and index > last, index
                continue
            for values in lines:
                row = dict(zip(names, map(_unescape, values), strict=True))
                if table == "log_frontier":
                    frontiers[int(row["size"] or "")] = _bytea(row["frontier"])
                else:
                    notes.append((row["note"] or "").encode())
    if not has_entries:
        raise FormatError("this dump holds no table log_entry; make it with pg_dump --format=plain")

    def rows() -> Iterator[Row]:
        with _readable():
            found = _dumped_entries(path)
            yield from found if is_sorted else sorted(found, key=lambda row: row[0])

    return Log("postgresql", rows, notes, frontiers)


def _dumped_entries(path: Path) -> Iterator[Row]:
    for table, names, lines in _blocks(path):
        wanted = [names.index(name) for name in ("idx", "leaf", "body")] if table == "log_entry" else []
        for values in lines:
            if wanted:
                index, leaf, body = (_unescape(values[at]) for at in wanted)
                yield int(index or ""), _bytea(leaf), _bytea(body)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise FormatError("a dump that is not UTF-8") from None
    except (KeyError, ValueError):
        raise FormatError("the dump's tables have other columns than the log") from None


def _blocks(path: Path) -> Iterator[tuple[str, list[str], Iterator[list[str]]]]:
    """Yield table, columns and rows of every ``COPY`` of the log; read a block's rows before the next block."""
    with path.open(encoding="utf-8", errors="strict", newline="\n") as file:
        for line in file:
            match = _COPY.fullmatch(line.rstrip("\n"))
            if match is not None:
                names = [name.strip().strip('"') for name in match[2].split(",")]
                yield match[1], names, _rows_of(file, match[1], len(names))


def _rows_of(file: Iterator[str], table: str, width: int) -> Iterator[list[str]]:
    for line in file:
        if line == "\\.\n":
            return
        values = line.rstrip("\n").split("\t")
        if len(values) != width:
            raise FormatError(f"a row of {table} with {len(values)} columns, not {width}")
        yield values
    raise FormatError(f"the dump ends within {table}")


def _bytea(text: str | None) -> bytes:
    if text is None or not text.startswith("\\x"):
        raise ValueError("not bytea in hex")
    return bytes.fromhex(text[2:])


def _unescape(text: str) -> str | None:
    if text == "\\N":
        return None
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text)
