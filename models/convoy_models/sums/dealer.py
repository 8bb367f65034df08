"""The trustee's side: correlated randomness for every pair, from shapes alone.

The trustee learns how many rows (in buckets of 50) and columns a pair has, and nothing else: it
receives no row, no masked row and no sum. Its corrections are a function of streams and shapes.
ASSUMPTION, to be stated wherever epsilon is: the trustee does not collude with a data holder;
with the vector holder it could unmask the matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convoy_models.errors import MessageMissing, MessageUnexpected, ShapeMismatch, TagReused
from convoy_models.fixedpoint import Words
from convoy_models.masks import PairKeys
from convoy_models.messages import parse_name, to_party
from convoy_models.plan import PlannedQuery
from convoy_models.sums.align import BUCKET
from convoy_models.sums.bilinear import (
    SALT_BYTES,
    Attempt,
    Pads,
    from_bytes,
    pad_product,
    to_bytes,
)
from convoy_models.sums.triple import at, triples_of


@dataclass(frozen=True, slots=True)
class _Shape:
    rows: int
    columns: int
    salt: bytes


class DealerSession:
    """The trustee in one attempt of one run.

    Args:
        run: uid of the run.
        attempt: number of the try.
        keys: the trustee's keys.
    """

    def __init__(self, run: str, attempt: int, keys: PairKeys) -> None:
        self._attempt = Attempt(run, attempt)
        self._keys = keys
        self._shapes: dict[tuple[str, str], _Shape] = {}
        self._dealt: set[str] = set()

    def receive(self, blobs: Mapping[str, bytes]) -> None:
        """Take the holders' shapes (``from|<holder>|shape.<peer>``).

        Raises:
            SealBroken: not sealed by that holder for this attempt.
            TagReused: a second shape for a pair.
            MessageUnexpected: any other blob.
        """
        for name, blob in blobs.items():
            direction, holder, tag = parse_name(name)
            kind, _, peer = tag.partition(".")
            if direction != "from" or kind != "shape" or not peer:
                raise MessageUnexpected("the trustee takes shapes only.", party=holder)
            aad = self._attempt.aad(tag, holder, self._keys.party)
            raw = self._keys.unseal(holder, aad, blob)
            if (holder, peer) in self._shapes:
                raise TagReused(f"a second shape for the pair with {peer}.", party=holder)
            rows, columns = (int(n) for n in from_bytes(raw[:-SALT_BYTES], 2, holder))
            if rows % BUCKET or rows < BUCKET:
                raise ShapeMismatch("rows are not a multiple of 50.", party=holder)
            self._shapes[holder, peer] = _Shape(rows, columns, raw[-SALT_BYTES:])

    def deal(self, query: PlannedQuery) -> dict[str, bytes]:
        """Return the corrections of a query, one for the vector holder of every pair; once.

        Names: ``to|<vector holder>|deal.<query>.<matrix holder>``.

        Raises:
            TagReused: the query was dealt before in this attempt.
            MessageMissing: a pair's shape has not arrived.
            ShapeMismatch: the two ends of a pair disagree, or columns lie beyond the matrix.
        """
        if query.id in self._dealt:
            raise TagReused(f"query {query.id} was dealt before.", party=self._keys.party)
        if query.kind == "TRILINEAR":
            return self._deal_triples(query)
        side = vector_side(query)
        pairs = [(p, q) for p in query.matrix.parties for q in side]
        corrections = [self._correct(query, p, q) for p, q in pairs]
        self._dealt.add(query.id)
        blobs = {}
        for (p, q), plain in zip(pairs, corrections, strict=True):
            tag = f"deal.{query.id}.{p}"
            aad = self._attempt.aad(tag, self._keys.party, q)
            blobs[to_party(q, tag)] = self._keys.seal(q, aad, plain)
        return blobs

    def _deal_triples(self, query: PlannedQuery) -> dict[str, bytes]:
        """Return ``s2`` and ``c2`` for every factor holder, ``c2'`` for the third party (``triple``)."""
        plain: dict[tuple[str, str], bytes] = {}
        for t in triples_of(query):
            c2, rows = self._dot(query, (t.matrix, t.factor), (t.factor, t.matrix))
            third, _ = self._dot(query, (t.matrix, at(t.third, t.factor)), (t.third, at(t.matrix, t.factor)))
            q = self._shape(t.factor, at(t.third, t.matrix))
            r = self._shape(t.third, at(t.factor, t.matrix))
            if {q.rows, r.rows} != {rows}:
                raise ShapeMismatch("rows of the three parties differ.", party=t.third)
            at_q = self._pads(t.factor, at(t.third, t.matrix), q.salt)
            at_r = self._pads(t.third, at(t.factor, t.matrix), r.salt)
            s2 = at_r.factors(query, rows) * at_q.factor(query, rows) - at_r.products(query, rows)
            plain[t.factor, t.matrix] = to_bytes(np.concatenate([s2.ravel(), c2.ravel()]))
            plain[t.third, at(t.matrix, t.factor)] = to_bytes(third.ravel())
        self._dealt.add(query.id)
        blobs = {}
        for (receiver, pair), words in plain.items():
            tag = f"deal.{query.id}.{pair}"
            aad = self._attempt.aad(tag, self._keys.party, receiver)
            blobs[to_party(receiver, tag)] = self._keys.seal(receiver, aad, words)
        return blobs

    def _dot(self, query: PlannedQuery, holder: tuple[str, str], vector: tuple[str, str]) -> tuple[Words, int]:
        """Return ``c2`` of one DOT between two ends, each (party, its name for the pair), and the rows."""
        p, q = self._shape(*holder), self._shape(*vector)
        if p.rows != q.rows:
            raise ShapeMismatch(f"rows differ from those of {vector[0]}.", party=holder[0])
        if query.columns[1] > p.columns:
            raise ShapeMismatch(f"query {query.id} asks for columns beyond it.", party=holder[0])
        at_p, at_q = self._pads(*holder, p.salt), self._pads(*vector, q.salt)
        return pad_product(at_p, query, at_q.vector(query, p.rows)) - at_p.result(query), p.rows

    def _correct(self, query: PlannedQuery, matrix_holder: str, vector_holder: str) -> bytes:
        """Return ``s2`` (WEIGHTED only) and ``c2`` of one pair."""
        c2, rows = self._dot(query, (matrix_holder, vector_holder), (vector_holder, matrix_holder))
        if query.kind != "WEIGHTED":
            return to_bytes(c2)
        at_p = self._pads(matrix_holder, vector_holder, self._shape(matrix_holder, vector_holder).salt)
        at_q = self._pads(vector_holder, matrix_holder, self._shape(vector_holder, matrix_holder).salt)
        s2 = at_p.factor(query, rows) * at_q.factor(query, rows) - at_p.product(query, rows)
        return to_bytes(np.concatenate([s2, c2.ravel()]))

    def _shape(self, holder: str, peer: str) -> _Shape:
        if (holder, peer) not in self._shapes:
            raise MessageMissing(f"no shape for the pair with {peer}.", party=holder)
        return self._shapes[holder, peer]

    def _pads(self, holder: str, peer: str, salt: bytes) -> Pads:
        return Pads(self._keys, holder, self._attempt, holder, peer, salt)


def vector_side(query: PlannedQuery) -> tuple[str, ...]:
    """Return the parties that hold the vector of a BILINEAR query.

    Raises:
        MessageUnexpected: a query without a vector side.
    """
    sides = [side for side in query.vectors if side.role != query.matrix.role]
    if query.kind == "LOCAL" or len(sides) != 1:
        raise MessageUnexpected(f"query {query.id} is not a sum over two parties.")
    return sides[0].parties
