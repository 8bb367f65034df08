"""Checkpoints: a log's signed size and root (C2SP tlog-checkpoint v1.0.0).

    Checkpoint(origin: str, size: int, root: bytes, extensions=()); .text -> bytes
    parse_checkpoint(text: bytes) -> Checkpoint              a note text; also Checkpoint.parse
    open_checkpoint(note: bytes, verifiers) -> (Checkpoint, Note)   signed by at least one known key
    peek(note: bytes) -> Checkpoint                          nothing verified

Extension lines are kept and mean nothing: our logs write none, no decision reads them, and ML-DSA-44
cosignatures do not cover them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from convoy_audit.canonical import b64, decimal, octets, unb64
from convoy_audit.errors import FormatError
from convoy_audit.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from convoy_audit.note import Note, Verifier, open_note, split_note

MAX_ORIGIN_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The size and root that a log states under its origin."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        length = len(octets(self.origin, "an origin"))
        if not 0 < length <= MAX_ORIGIN_BYTES or min(self.origin) < " ":
            raise FormatError(f"an origin of {length} bytes, or with a control character")
        if type(self.size) is not int or not 0 <= self.size <= MAX_SIZE:
            raise FormatError("a tree size out of range")
        if not isinstance(self.root, bytes) or len(self.root) != HASH_BYTES:
            raise FormatError(f"a root hash that is not {HASH_BYTES} bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise FormatError("an empty tree with a root that is not that of the empty tree")
        if any(not line or "\n" in line for line in self.extensions):
            raise FormatError("an extension line that is empty, or with a newline")

    @property
    def text(self) -> bytes:
        """The note text."""
        return "\n".join((self.origin, str(self.size), b64(self.root), *self.extensions, "")).encode()

    @classmethod
    def parse(cls, text: bytes | str) -> Checkpoint:
        """Read a note text.

        Raises:
            FormatError: not origin, size, root and perhaps extension lines, each with its newline.
        """
        return cls(*read_lines(text))


def parse_checkpoint(text: bytes | str) -> Checkpoint:
    """Read a note text; the same as ``Checkpoint.parse``.

    Raises:
        FormatError: not a checkpoint.
    """
    return Checkpoint.parse(text)


def read_lines(text: bytes | str) -> tuple[str, int, bytes, tuple[str, ...]]:
    """Return origin, size, root and extension lines of a note text; their values are not judged.

    Raises:
        FormatError: other lines, or lines that cannot be read.
    """
    try:
        lines = octets(text, "a checkpoint").decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise FormatError("a checkpoint that is not UTF-8") from None
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise FormatError("a checkpoint has three lines - origin, size, root - and no empty one")
    return lines[0], decimal(lines[1], "the tree size"), unb64(lines[2]), tuple(lines[3:])


def open_checkpoint(note: bytes, verifiers: Iterable[Verifier]) -> tuple[Checkpoint, Note]:
    """Open a signed checkpoint.

    Raises:
        FormatError: not a signed checkpoint.
        SignatureError: a known key's signature does not hold, or no known key has signed.
    """
    opened = open_note(note, verifiers)
    return Checkpoint.parse(opened.text), opened


def peek(note: bytes) -> Checkpoint:
    """Read a checkpoint without verifying it; never act on it.

    Raises:
        FormatError: not a signed checkpoint.
    """
    return Checkpoint.parse(split_note(note)[0])
