"""The algebra of BILINEAR sums, mod 2^64, and the labels of their pads.

P holds a matrix X (rows x columns), Q holds a vector v, the trustee T knows neither. Every pad is
a stream that T shares with one of the two; T sends the one correction that makes them fit.
Matrices are stored column by column (C order of shape (columns, rows)), so a query that asks for
some columns expands only these.

1. Once per run: P -> Q: ``X + A``. 2. DOT, ``X'v``: T -> Q: ``c2 = A'b - c1``.  Q -> P: ``v +
b``.  P keeps ``c1 - A'(v + b)``, Q keeps ``(X + A)'v + c2``; they add
   up to ``X'v``.
3. WEIGHTED, ``X'(a*b)`` with a at P and b at Q: T -> Q: ``s2 = x*y - s1``.  P -> Q: ``e = a -
x``.  Q -> P: ``f = b - y``.
   ``p_P = f*x + s1 + e*f`` and ``p_Q = e*y + s2`` add up to ``a*b`` (Beaver 1991). Then DOT with
   ``v = p_Q``, and P adds ``X'p_P``, which it can compute alone.

What a party receives is uniform to it: each message carries a pad that it does not know and that
is used for nothing else. The matrix pad A is used for one matrix only, whatever is asked of it
(the fixed-operand form of the triple). Semi-honest parties; T must not collude with Q or P.
Source: private_ml.md §5.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import MessageMalformed
from convoy_models.fixedpoint import Words
from convoy_models.masks import PairKeys
from convoy_models.plan import PlannedQuery
from convoy_models.streams import label

CHUNK_ROWS: Final = 65_536
"""Rows of a masked matrix in one message."""
SALT_BYTES: Final = 16
_BLOCK_WORDS: Final = 1 << 19
"""Words of a pad that are expanded at a time: 4 MB."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one run. All pads, seals and masks are bound to it."""

    run: str
    number: int

    def aad(self, tag: str, sender: str, receiver: str) -> bytes:
        """Return the context of a sealed blob."""
        return label("blob", self.run, self.number, tag, sender, receiver)


@dataclass(frozen=True, slots=True)
class Pads:
    """The streams that one holder shares with the trustee for one pair.

    Both ends build the same object. ``salt`` is 16 fresh random bytes of the holder's session, so
    a node that restarts never expands the same pad again, whatever it is asked.

    Args:
        keys: own keys.
        other: the party at the other end of the streams.
        attempt: run and try.
        holder: the data holder, ``peer``: whom it is paired with (``peer@third`` in the rows of a triple).
        salt: of the holder's session.
    """

    keys: PairKeys
    other: str
    attempt: Attempt
    holder: str
    peer: str
    salt: bytes

    def matrix(self, rows: int, start: int, columns: int) -> Words:
        """Return columns of A, shape (columns, rows)."""
        return self._words("A", (), columns * rows, start * rows).reshape(columns, rows)

    def matrix_rows(self, rows: int, columns: int, start: int, stop: int) -> Words:
        """Return rows ``start .. stop`` of A, shape (columns, stop - start)."""
        parts = [self._words("A", (), stop - start, column * rows + start) for column in range(columns)]
        return np.stack(parts) if parts else np.empty((0, stop - start), dtype=np.uint64)

    def result(self, query: PlannedQuery) -> Words:
        """Return c1, shape of the query's result."""
        return self._words("c1", _shape_of(query), query.size).reshape(query.shape)

    def vector(self, query: PlannedQuery, rows: int) -> Words:
        """Return b, shape (result columns, rows)."""
        width = query.shape[1]
        return self._words("b", _shape_of(query), width * rows).reshape(width, rows)

    def factor(self, query: PlannedQuery, rows: int) -> Words:
        """Return x (at the matrix holder) or y (at the vector holder), shape (rows,)."""
        return self._words("factor", _shape_of(query), rows)

    def product(self, query: PlannedQuery, rows: int) -> Words:
        """Return s1, shape (rows,)."""
        return self._words("s1", _shape_of(query), rows)

    def factors(self, query: PlannedQuery, rows: int) -> Words:
        """Return x of a TRILINEAR query at its third party, shape (result columns, rows)."""
        return self._words("factors", _shape_of(query), query.shape[1] * rows).reshape(query.shape[1], rows)

    def products(self, query: PlannedQuery, rows: int) -> Words:
        """Return s1 of a TRILINEAR query at its third party, shape (result columns, rows)."""
        return self._words("s1s", _shape_of(query), query.shape[1] * rows).reshape(query.shape[1], rows)

    def _words(self, kind: str, more: tuple[str | int, ...], words: int, offset: int = 0) -> Words:
        name = label(
            kind,
            self.attempt.run,
            self.attempt.number,
            self.holder,
            self.peer,
            self.salt.hex(),
            *more,
        )
        return self.keys.stream(self.other, name, words, offset)


def _shape_of(query: PlannedQuery) -> tuple[str | int, ...]:
    """Return what binds a query's pads: the same id with other columns gives other pads."""
    return (query.id, query.kind, *query.columns, *query.shape)


def product(left: Words, right: Words) -> Words:
    """Return ``left right'`` mod 2^64: (K, rows) x (J, rows) -> (K, J)."""
    if right.shape[0] == 1:
        single: Words = np.einsum("kn,n->k", left, right[0])
        return single[:, None]
    several: Words = np.einsum("kn,jn->kj", left, right)
    return several


def pad_product(pads: Pads, query: PlannedQuery, vector: Words) -> Words:
    """Return ``A' vector`` for the query's columns, (J, rows) -> (K, J); A comes in blocks."""
    rows = vector.shape[1]
    (start, stop), step = query.columns, max(1, _BLOCK_WORDS // max(1, rows))
    out = np.empty(query.shape, dtype=np.uint64)
    for at in range(start, stop, step):
        width = min(step, stop - at)
        out[at - start : at - start + width] = product(pads.matrix(rows, at, width), vector)
    return out


def plain_product(matrix: NDArray[np.int16], query: PlannedQuery, vector: Words) -> Words:
    """Return ``X' vector`` for the query's columns of an own matrix (columns, rows)."""
    rows = vector.shape[1]
    (start, stop), step = query.columns, max(1, _BLOCK_WORDS // max(1, rows))
    out = np.empty(query.shape, dtype=np.uint64)
    for at in range(start, stop, step):
        end = min(stop, at + step)
        block = matrix[at:end].astype(np.int64).view(np.uint64)
        out[at - start : end - start] = product(block, vector)
    return out


def to_bytes(words: Words) -> bytes:
    """Return ring elements as little-endian bytes."""
    return words.astype("<u8", copy=False).tobytes()


def from_bytes(raw: bytes, words: int, sender: str) -> Words:
    """Read exactly ``words`` ring elements.

    Raises:
        MessageMalformed: another length.
    """
    if len(raw) != 8 * words:
        raise MessageMalformed(f"{len(raw)} bytes where {8 * words} belong.", party=sender)
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64, copy=False)
