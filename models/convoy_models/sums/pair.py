"""One party's side of one pair: rows, matrices, and its share of each BILINEAR sum with one peer.

Pure state: no clock, network or file. ``session.PartySession`` drives it and guards the order of
steps; use that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import MessageMissing, ShapeMismatch, TagReused, ValueRefused
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats, Words, encode_capped
from convoy_models.masks import PairKeys
from convoy_models.plan import PlannedQuery
from convoy_models.sums.align import LINK_BYTES, bucket, common_rows, encode_links, places_of
from convoy_models.sums.bilinear import (
    CHUNK_ROWS,
    SALT_BYTES,
    Attempt,
    Pads,
    from_bytes,
    pad_product,
    plain_product,
    product,
    to_bytes,
)

Allocate = Callable[[tuple[int, int]], Words]
"""Returns an empty uint64 array of a shape: ``np.empty``, or a memory map made by the caller."""
_HEADER: Final = 3
_ENCODE_ROWS: Final = 8192


def allocate(shape: tuple[int, int]) -> Words:
    """Return an array in memory."""
    return np.empty(shape, dtype=np.uint64)


class Pair:
    """What one party knows about its pair with one peer.

    Args:
        attempt: run and try.
        keys: own keys.
        peer: the other data holder.
        trustee: who deals the corrections.
        store: where the peer's masked matrix is kept.
        chunk_rows: rows of a matrix in one message; even, and the same at both ends.
        name: of this pair where it is one of several with the peer (``triple.at``).
        lister: the party whose whole list of link ids makes the rows; None where the common ids do (``align``).
    """

    def __init__(
        self,
        attempt: Attempt,
        keys: PairKeys,
        peer: str,
        trustee: str,
        store: Allocate = allocate,
        chunk_rows: int = CHUNK_ROWS,
        name: str | None = None,
        lister: str | None = None,
    ) -> None:
        self.peer = peer
        self._lister = lister
        self._listed: bytes | None = None
        self._known: NDArray[np.int64] | None = None
        self._chunk_rows = chunk_rows
        self._party = keys.party
        self._trustee = trustee
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._pads = Pads(keys, trustee, attempt, keys.party, name or peer, self._salt)
        self._store = store
        self._ids: tuple[bytes, ...] | None = None
        self._count: int | None = None
        self._order: NDArray[np.int64] | None = None
        self._own: NDArray[np.int16] | None = None
        self._masked: Words | None = None
        self._arrived: set[int] = set()
        self._masks_sent: set[int] = set()
        self._opened: dict[str, Words] = {}
        self._vectors: dict[str, Words] = {}

    # --- rows -------------------------------------------------------------------------------

    def links(self, ids: Sequence[bytes]) -> bytes | None:
        """Remember own link ids and return the list for the peer; None where only the peer's list makes the rows."""
        self._ids = tuple(ids)
        if self._lister == self.peer:
            return None
        own = encode_links(self._ids, self._party)
        if self._lister == self._party:
            self._listed = own
        return own

    @property
    def awaits_list(self) -> bool:
        """Whether the peer sends a list of link ids."""
        return self._lister != self._party

    def align(self, blob: bytes) -> NDArray[np.int64]:
        """Return where the persons of own rows are in the ids given to ``links``, in joint order.

        Where a list makes the rows these are fewer than the rows: ``hold`` and ``encode_vector`` put zeros in the others.
        """
        if self._ids is None:
            raise MessageMissing("own link ids were not given before aligning.", party=self._party)
        if self._lister is None:
            order = common_rows(self._ids, blob, self._party, self.peer)
            self._count, self._order = len(order), order
            return order
        if self._listed is None:
            self._listed = blob
        places = places_of(self._listed, self._ids, self._party, self._lister)
        self._count, self._known = len(places), np.flatnonzero(places >= 0)
        return places[self._known]

    def order(self) -> bytes:
        """Return the link ids of the rows in joint order, padded with random ids, for a third party."""
        if self._listed is not None:
            return self._listed
        if self._ids is None or self._order is None:
            raise MessageMissing("rows are not aligned yet.", party=self.peer)
        rows = [self._ids[place] for place in self._order]
        return b"".join(rows) + secrets.token_bytes(LINK_BYTES * (self.rows - len(rows)))

    def place(self, order: bytes, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Take a triple's rows from its matrix holder; return each row's place in own ids, -1 for nobody known.

        Raises:
            LinksRefused: a list that is none, repeats an id, or names nobody known here.
        """
        places = places_of(order, ids, self._party, self.peer)
        self._count = len(places)
        return places

    def fix_rows(self, count: int) -> None:
        """Take the rows of another pair: this one is in the rows of the same triple."""
        self._count = count

    @property
    def has_rows(self) -> bool:
        """Whether the rows are known."""
        return self._count is not None

    def hold_as(self, other: Pair) -> None:
        """Hold the matrix that another pair of the same triple holds, under this pair's own pad."""
        if self._own is not None:
            raise TagReused("the matrix of this attempt is fixed already.", party=self._party)
        self._count, self._known, self._own = other._count, other._known, other._matrix()

    @property
    def rows(self) -> int:
        """Shared rows, padded to a multiple of 50."""
        return bucket(self._shared())

    def _shared(self) -> int:
        if self._count is None:
            raise MessageMissing("rows are not aligned yet.", party=self.peer)
        return self._count

    def _given(self) -> int:
        """Return how many rows the caller hands over: all, or those of persons known here."""
        return self._shared() if self._known is None else len(self._known)

    # --- matrices ---------------------------------------------------------------------------

    def hold(self, matrix: Floats | None) -> None:
        """Fix own matrix for the run: (rows of ``align``, columns) in [-1, 1]; None for no matrix.

        Raises:
            TagReused: a matrix was fixed before; its pad must not mask another one.
            ShapeMismatch: not one row for each shared person.
            ValueRefused: an entry that is not finite or outside [-1, 1].
        """
        if self._own is not None:
            raise TagReused("the matrix of this attempt is fixed already.", party=self._party)
        count = self._given()
        columns = 0 if matrix is None else matrix.shape[1]
        encoded = np.zeros((columns, self.rows), dtype=np.int16)
        if matrix is not None:
            if matrix.ndim != 2 or matrix.shape[0] != count:
                raise ShapeMismatch(
                    f"a matrix of shape {matrix.shape} where {count} rows belong.",
                    party=self._party,
                )
            for at in range(0, count, _ENCODE_ROWS):
                block = matrix[at : at + _ENCODE_ROWS]
                if block.size and not float(np.abs(block).max()) <= 1.0:
                    raise ValueRefused("a matrix entry is not finite or outside [-1, 1].", party=self._party)
                rows = slice(at, at + len(block)) if self._known is None else self._known[at : at + len(block)]
                encoded[:, rows] = np.rint(block * 2.0**MATRIX_BITS).T
        self._own = encoded

    @property
    def chunks(self) -> int:
        """Messages that own masked matrix takes."""
        return -(-self.rows // self._chunk_rows) if len(self._matrix()) else 0

    def shape(self) -> bytes:
        """Return what the trustee may know: rows, columns and the salt of this session's pads."""
        size = np.array([self.rows, len(self._matrix())], dtype=np.uint64)
        return to_bytes(size) + self._salt

    def masked_chunk(self, chunk: int) -> bytes:
        """Return rows of ``X + A`` for the peer; each chunk once."""
        matrix = self._matrix()
        if not 0 <= chunk < self.chunks:
            raise ShapeMismatch(f"there is no chunk {chunk} of this matrix.", party=self._party)
        if chunk in self._masks_sent:
            raise TagReused(f"chunk {chunk} was sent before.", party=self._party)
        self._masks_sent.add(chunk)
        start, stop = chunk * self._chunk_rows, min(self.rows, (chunk + 1) * self._chunk_rows)
        words = matrix[:, start:stop].astype(np.int64).view(np.uint64)
        words += self._pads.matrix_rows(self.rows, len(matrix), start, stop)
        header = np.array([self.rows, len(matrix), start], dtype=np.uint64)
        return to_bytes(header) + to_bytes(words)

    def take_chunk(self, chunk: int, raw: bytes) -> None:
        """Keep rows of the peer's ``X + A``."""
        rows, columns, start = (int(n) for n in from_bytes(raw[: 8 * _HEADER], _HEADER, self.peer))
        expected = self._masked.shape[0] if self._masked is not None else columns
        if rows != self.rows or columns != expected or start != chunk * self._chunk_rows or start >= rows:
            raise ShapeMismatch("the peer's matrix does not fit the aligned rows.", party=self.peer)
        stop = min(rows, start + self._chunk_rows)
        words = from_bytes(raw[8 * _HEADER :], columns * (stop - start), self.peer)
        if self._masked is None:
            self._masked = self._store((columns, rows))
        self._masked[:, start:stop] = words.reshape(columns, stop - start)
        self._arrived.add(chunk)

    def own_column(self, query: PlannedQuery, row: int) -> NDArray[np.int16]:
        """Return one column of own matrix, on the grid of ``MATRIX_BITS``: row ``row`` of a query's result."""
        column = query.columns[0] + row
        if column >= min(query.columns[1], len(self._matrix())):
            raise ShapeMismatch(f"query {query.id} asks for columns beyond the matrix.", party=self._party)
        own: NDArray[np.int16] = self._matrix()[column]
        return own

    @property
    def masked(self) -> Words | None:
        """The peer's ``X + A``, (columns, rows), or None where it sent no matrix."""
        return self._masked

    def commitment(self, inputs: Floats) -> tuple[NDArray[np.int16], Floats]:
        """Return own matrix and own inputs in the pair's rows; rows of nobody known here are zeros."""
        if inputs.ndim != 2 or inputs.shape[0] != self._given():
            raise ShapeMismatch(f"inputs of shape {inputs.shape} where {self._given()} rows belong.", party=self._party)
        placed = np.zeros((self.rows, inputs.shape[1]))
        placed[slice(0, len(inputs)) if self._known is None else self._known] = inputs
        return self._matrix(), placed

    def _matrix(self) -> NDArray[np.int16]:
        if self._own is None:
            raise MessageMissing("own matrix is not fixed yet.", party=self._party)
        return self._own

    def _peer_matrix(self, query: PlannedQuery) -> Words:
        whole = -(-self.rows // self._chunk_rows)
        if self._masked is None or len(self._arrived) != whole:
            raise MessageMissing("the peer's masked matrix is not complete.", party=self.peer)
        if query.columns[1] > len(self._masked):
            raise ShapeMismatch(f"query {query.id} asks for columns beyond the matrix.", party=self.peer)
        return self._masked[query.columns[0] : query.columns[1]]

    # --- steps of a query -------------------------------------------------------------------

    def encode_vector(self, query: PlannedQuery, vector: Floats, cap: float) -> Words:
        """Return a vector (rows of ``align``,) or (…, J) as (J, padded rows) ring elements."""
        values = np.asarray(vector, dtype=np.float64)
        columns = values[:, None] if values.ndim == 1 else values
        if columns.ndim != 2 or columns.shape[0] != self._given():
            raise ShapeMismatch(
                f"a vector of shape {values.shape} where {self._given()} rows belong.",
                party=self._party,
            )
        out = np.zeros((columns.shape[1], self.rows), dtype=np.uint64)
        out[:, slice(len(columns)) if self._known is None else self._known] = encode_capped(columns, FACTOR_BITS, cap).T
        return out

    def open(self, query: PlannedQuery, factor: Words) -> bytes:
        """Step 3: mask own factor (1, rows) and return ``e`` or ``f`` for the peer."""
        masked = factor[0] - self._pads.factor(query, self.rows)
        self._opened[query.id] = masked
        return to_bytes(masked)

    def open_many(self, query: PlannedQuery, factors: Words) -> bytes:
        """TRILINEAR, step 2 at R: mask own factors (J, rows) and return ``e`` for Q."""
        masked = factors - self._pads.factors(query, self.rows)
        self._opened[query.id] = masked
        return to_bytes(masked)

    def product_of_factor(self, query: PlannedQuery, opened: bytes, deal: bytes) -> Words:
        """TRILINEAR, step 2 at Q: ``p_Q = e*y + s2``, shape (J, rows)."""
        self._opened.pop(query.id)
        shape = query.shape[1], self.rows
        e = from_bytes(opened, shape[0] * shape[1], self.peer).reshape(shape)
        s2 = from_bytes(deal, shape[0] * shape[1] + query.size, self._trustee)[: shape[0] * shape[1]].reshape(shape)
        return e * self._pads.factor(query, self.rows) + s2

    def product_of_third(self, query: PlannedQuery, opened: bytes) -> Words:
        """TRILINEAR, step 2 at R: ``p_R = f*x + s1 + e*f``, shape (J, rows)."""
        f, e = from_bytes(opened, self.rows, self.peer), self._opened.pop(query.id)
        x, s1 = self._pads.factors(query, self.rows), self._pads.products(query, self.rows)
        return f * x + s1 + e * f

    def share_vector(self, query: PlannedQuery, vector: Words) -> bytes:
        """Steps 2 and 3: keep the vector (J, rows) and return ``v + b`` for the matrix holder."""
        if vector.shape != (query.shape[1], self.rows):
            raise ShapeMismatch(f"query {query.id} expects {query.shape[1]} columns.", party=self._party)
        self._vectors[query.id] = vector
        return to_bytes(vector + self._pads.vector(query, self.rows))

    def product_share(self, query: PlannedQuery, opened: bytes, deal: bytes) -> Words:
        """Step 3 at Q: ``p_Q = e*y + s2``, shape (1, rows)."""
        self._opened.pop(query.id)
        e = from_bytes(opened, self.rows, self.peer)
        s2 = from_bytes(deal, self.rows + query.size, self._trustee)[: self.rows]
        return (e * self._pads.factor(query, self.rows) + s2)[None, :]

    def received(self, query: PlannedQuery, opened: bytes | None, shared: bytes) -> Words:
        """Return what the peer's vector is at P, under the pad b only: ``v + b``, of a WEIGHTED query ``a b + b``, (J, rows)."""
        vector = from_bytes(shared, query.shape[1] * self.rows, self.peer).reshape(query.shape[1], self.rows)
        if opened is None:
            return vector
        f, e = from_bytes(opened, self.rows, self.peer), self._opened[query.id]
        own = f * self._pads.factor(query, self.rows) + self._pads.product(query, self.rows) + e * f
        return vector + own[None, :]

    def matrix_share(self, query: PlannedQuery, opened: bytes | None, shared: bytes) -> Words:
        """Steps 2 and 3 at P: own share of the result, shape (K, J)."""
        masked = from_bytes(shared, query.shape[1] * self.rows, self.peer)
        vector = masked.reshape(query.shape[1], self.rows)
        share = self._pads.result(query) - pad_product(self._pads, query, vector)
        if opened is None:
            return share
        f, e = from_bytes(opened, self.rows, self.peer), self._opened.pop(query.id)
        p = f * self._pads.factor(query, self.rows) + self._pads.product(query, self.rows) + e * f
        return share + plain_product(self._matrix(), query, p[None, :])

    def vector_share(self, query: PlannedQuery, deal: bytes) -> Words:
        """Steps 2 and 3 at Q: own share of the result, shape (K, J)."""
        corrections = deal[8 * self.rows :] if query.kind == "WEIGHTED" else deal
        c2 = from_bytes(corrections, query.size, self._trustee).reshape(query.shape)
        return product(self._peer_matrix(query), self._vectors.pop(query.id)) + c2

    def check_ready(self, query: PlannedQuery, holds_matrix: bool) -> None:
        """Refuse before anything is spent when a matrix is missing or too narrow."""
        if not holds_matrix:
            self._peer_matrix(query)
        elif query.columns[1] > len(self._matrix()):
            raise ShapeMismatch(f"query {query.id} asks for columns beyond the matrix.", party=self._party)
