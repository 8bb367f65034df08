"""The static form of a log: tiles of hashes and bundles of entries (C2SP tlog-tiles).

    tile_path(level, index, width=256) -> str        entries_path(index, width=256) -> str
    parse_path(path) -> (kind, Span)                 back again
    tile_spans(size) / entries_spans(size)           all that a tree of this size consists of
    encode_bundle(entries) -> bytes                  decode_bundle(data, width) -> list[bytes]
    tile_data(tree, span) -> bytes

A full tile is 256 hashes wide. Bundles are entries with a big-endian uint16 length before each.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from convoy_audit.entry import check_length
from convoy_audit.errors import FormatError
from convoy_audit.merkle import Tree

WIDTH: Final = 256
HEIGHT: Final = 8
MAX_LEVEL: Final = 63
MAX_INDEX: Final = 2**63 - 1
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|[0-9]{1,2})/(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[0-9]{1,3}))?"
)
_LENGTH: Final = struct.Struct(">H")


@dataclass(frozen=True, slots=True)
class Span:
    """A tile or bundle: its number within its level, and how many items it holds (1 to 256)."""

    level: int
    index: int
    width: int


def tile_path(level: int, index: int, width: int = WIDTH) -> str:
    """Return ``tile/<L>/<N>[.p/<W>]``.

    Raises:
        FormatError: a level, index or width out of range.
    """
    if not 0 <= level <= MAX_LEVEL:
        raise FormatError("a tile level is 0 to 63")
    return f"tile/{level}/{_number(index, width)}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """Return ``tile/entries/<N>[.p/<W>]``.

    Raises:
        FormatError: an index or width out of range.
    """
    return f"tile/entries/{_number(index, width)}"


def parse_path(path: str) -> tuple[str, Span]:
    """Read a path back; the kind is ``tile`` or ``entries`` (then the level is 0).

    Raises:
        FormatError: not a path that ``tile_path`` or ``entries_path`` writes.
    """
    match = _PATH.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        raise FormatError("not the path of a tile")
    level, number, width = match["level"], match["number"], match["width"]
    span = Span(
        0 if level == "entries" else int(level),
        int(number.replace("x", "").replace("/", "")),
        int(width or WIDTH),
    )
    again = (
        entries_path(span.index, span.width) if level == "entries" else tile_path(span.level, span.index, span.width)
    )
    if again != path:
        raise FormatError("not the path of a tile")
    return ("entries" if level == "entries" else "tile"), span


def entries_spans(size: int) -> Iterator[Span]:
    """Yield the bundles of a log of this size, in order; the last may be partial."""
    full, rest = divmod(size, WIDTH)
    for index in range(full):
        yield Span(0, index, WIDTH)
    if rest:
        yield Span(0, full, rest)


def tile_spans(size: int) -> Iterator[Span]:
    """Yield the tiles of a tree of this size, level by level; the last of each may be partial."""
    level = 0
    while size:
        for span in entries_spans(size):
            yield Span(level, span.index, span.width)
        size //= WIDTH
        level += 1


def tile_data(tree: Tree, span: Span) -> bytes:
    """Return the hashes of a tile.

    Raises:
        FormatError: the tree is too small for it.
    """
    step = 1 << (HEIGHT * span.level)
    first = span.index * WIDTH
    if not is_within(span, tree.size):
        raise FormatError(f"a tile beyond a tree of {tree.size}")
    return b"".join(tree.subtree((first + i) * step, (first + i + 1) * step) for i in range(span.width))


def is_within(span: Span, size: int) -> bool:
    """Tell whether a tree of this size has all hashes of a tile."""
    return span.index >= 0 and span.width > 0 and (span.index * WIDTH + span.width) << (HEIGHT * span.level) <= size


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return entries as one bundle.

    Raises:
        FormatError: an entry that is empty or too long, or more than 256 of them.
    """
    parts: list[bytes] = []
    for entry in entries:
        check_length(entry)
        parts += (_LENGTH.pack(len(entry)), entry)
    if len(parts) > 2 * WIDTH:  # a length and an entry each
        raise FormatError(f"a bundle of more than {WIDTH} entries")
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """Read a bundle of exactly ``width`` entries.

    Raises:
        FormatError: another number of entries, or bytes left over.
    """
    if not isinstance(data, bytes):
        raise FormatError(f"a bundle is bytes, not {type(data).__name__}")
    entries: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        if at + _LENGTH.size > end:
            raise FormatError("a bundle that ends within a length")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        entry = data[at : at + length]
        if len(entry) != length or not length:
            raise FormatError("a bundle that ends within an entry, or with an empty one")
        entries.append(entry)
        at += length
    if len(entries) != width:
        raise FormatError(f"a bundle of {len(entries)} entries, not {width}")
    return entries


def _number(index: int, width: int) -> str:
    if not 0 <= index <= MAX_INDEX or not 1 <= width <= WIDTH:
        raise FormatError("a tile index is from 0 and less than 2^63, its width 1 to 256")
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts)) + (f".p/{width}" if width < WIDTH else "")
