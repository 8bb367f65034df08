"""Checkpoints: a log's signed size and root (C2SP tlog-checkpoint v1.0.0).

    Checkpoint(origin: str, size: int, root: bytes); .text -> bytes; Checkpoint.parse(text: bytes)
    open_checkpoint(note: bytes, verifiers) -> (Checkpoint, Note)   signed by at least one known key
    peek(note: bytes) -> Checkpoint                          nothing verified

Stricter than the specification: extension lines are refused, because ML-DSA-44 cosignatures do not
cover them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from convoy_audit.canonical import b64, decimal, unb64
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

    def __post_init__(self) -> None:
        length = len(self.origin.encode())
        if not 0 < length <= MAX_ORIGIN_BYTES or "\n" in self.origin:
            raise FormatError(f"an origin of {length} bytes, or with a newline")
        if not 0 <= self.size <= MAX_SIZE:
            raise FormatError("a tree size out of range")
        if len(self.root) != HASH_BYTES:
            raise FormatError(f"a root hash of {len(self.root)} bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise FormatError("an empty tree with a root that is not that of the empty tree")

    @property
    def text(self) -> bytes:
        """The note text."""
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read a note text.

        Raises:
            FormatError: not exactly origin, size and root.
        """
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raise FormatError("a checkpoint that is not UTF-8") from None
        if len(lines) != 4 or lines[3]:
            raise FormatError("a checkpoint has exactly three lines: origin, size, root")
        return cls(lines[0], decimal(lines[1], "the tree size"), unb64(lines[2]))


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
