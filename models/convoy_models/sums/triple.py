"""TRILINEAR sums: ``sum_i x_i a_i c_i`` where three parties hold one operand each.

P (the matrix holder, the OEM) holds X (rows x columns), Q (an insurer) a factor ``a``, R (the one
charging operator) ``c``, one or several columns. The trustee T knows none. Rows are those that P
and Q share, in their order; R supplies zeros for persons whom it does not know, so P and Q learn
nothing about who is R's customer, and R recognises its own customers only.

1. Set-up. P -> R: the link ids of the rows (``order``), padded with random ids; ``X + A'`` with a
   pad of its own (``A`` towards Q, ``A'`` towards R: whoever of Q and R colludes with the other
   sees X under two independent pads).
2. ``open``: Q -> R: ``f = a - y``; R -> Q: ``e = c - x``. T -> Q: ``s2 = x*y - s1``.
   Then ``p_Q = e*y + s2`` and ``p_R = f*x + s1 + e*f`` add up to ``a*c`` (Beaver 1991).
3. ``share``: the fixed-matrix DOT of ``bilinear`` twice: Q -> P: ``p_Q + b``; R -> P: ``p_R + b'``.
4. ``close``: P keeps ``c1 - A'(p_Q + b) + c1' - A''(p_R + b')``; Q and R keep their DOT shares;
   the three add up to ``X'(a*c)`` exactly, with 13 + 15 + 15 fraction bits.

Any two of P, Q, R together see the third's values under pads of the trustee only; sending ``p_R``
to P in the clear would save a pad and break exactly that. ASSUMPTION as for two parties: T
colludes with nobody.

The Pair objects of a triple are named ``<peer>@<third>``: two of its parties, in the rows of it.
Source: private_ml.md §5.2 (TRILINEAR), which reconstructs the product between two dot products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from convoy_models.errors import MessageUnexpected, ShapeMismatch
from convoy_models.fixedpoint import Floats, Words
from convoy_models.plan import PlannedQuery
from convoy_models.sums.pair import Pair


@dataclass(frozen=True, slots=True)
class Triple:
    """Who holds what: ``matrix`` the rows x, ``factor`` a, ``third`` c."""

    matrix: str
    factor: str
    third: str

    @property
    def parties(self) -> tuple[str, str, str]:
        """All three."""
        return self.matrix, self.factor, self.third


def triples_of(query: PlannedQuery) -> tuple[Triple, ...]:
    """Return the triples of a TRILINEAR query.

    Raises:
        MessageUnexpected: not three sides, or more than one party on the third.
    """
    if query.kind != "TRILINEAR" or len(query.vectors) != 2 or len(query.sides) != 3:
        raise MessageUnexpected(f"query {query.id} is not a sum over three parties.")
    factor, third = query.vectors
    if len(third.parties) != 1:
        raise MessageUnexpected(f"query {query.id} has {len(third.parties)} third parties; one is possible.")
    return tuple(Triple(p, q, third.parties[0]) for p in query.matrix.parties for q in factor.parties)


def at(peer: str, third: str) -> str:
    """Return the name of the pair with ``peer`` in the rows of a triple with ``third``."""
    return f"{peer}@{third}"


class Mail(Protocol):
    """What these steps need of a session."""

    def _pair(self, name: str) -> Pair: ...

    def _take(self, sender: str, tag: str) -> bytes: ...

    def _peek(self, sender: str, tag: str) -> bytes: ...

    def _blob(self, party: str, tag: str, plain: bytes) -> dict[str, bytes]: ...


def pair_names(party: str, triples: tuple[Triple, ...]) -> dict[str, str]:
    """Return the peer behind every extra pair that a party needs, by the pair's name."""
    names: dict[str, str] = {}
    for t in triples:
        if party == t.matrix:
            names[at(t.third, t.factor)] = t.third
        elif party == t.factor:
            names[at(t.third, t.matrix)] = t.third
        elif party == t.third:
            names[at(t.matrix, t.factor)] = t.matrix
            names[at(t.factor, t.matrix)] = t.factor
    return names


def open_factors(
    mail: Mail, party: str, query: PlannedQuery, factors: Mapping[str, Floats], cap: float
) -> dict[str, bytes]:
    """Step 2, first half: own factor, masked, to the other factor holder.

    ``factors``: at Q by matrix holder, (shared rows,); at R by Q, (rows of the order, J).
    """
    blobs: dict[str, bytes] = {}
    for t in _mine(party, query, factors):
        tag = f"open.{query.id}@{t.matrix}"
        if party == t.factor:
            pair = mail._pair(at(t.third, t.matrix))
            words = pair.encode_vector(query, factors[t.matrix], cap)
            if len(words) != 1:
                raise ShapeMismatch(f"query {query.id} takes one factor.", party=party)
            blobs |= mail._blob(t.third, tag, pair.open(query, words))
        elif party == t.third:
            pair = mail._pair(at(t.factor, t.matrix))
            words = pair.encode_vector(query, factors[t.factor], cap)
            if len(words) != query.shape[1]:
                raise ShapeMismatch(f"query {query.id} expects {query.shape[1]} columns.", party=party)
            blobs |= mail._blob(t.factor, tag, pair.open_many(query, words))
    return blobs


def share_products(mail: Mail, party: str, query: PlannedQuery, trustee: str) -> dict[str, bytes]:
    """Steps 2 and 3: own share of the product, masked, to the matrix holder; nothing from there."""
    ready = [(t, *_operands(mail, party, query, t, trustee)) for t in triples_of(query) if party in (t.factor, t.third)]
    blobs: dict[str, bytes] = {}
    for t, pair, product in ready:
        if party == t.factor:
            blobs |= mail._blob(t.matrix, f"share.{query.id}", pair.share_vector(query, product))
        else:
            blobs |= mail._blob(t.matrix, f"share.{query.id}@{t.factor}", pair.share_vector(query, product))
    return blobs


def needed(party: str, query: PlannedQuery, trustee: str) -> list[tuple[str, str, str]]:
    """Return what must have arrived before ``close``: pair name, sender, tag."""
    out = []
    for t in triples_of(query):
        if party == t.matrix:
            out += [
                (t.factor, t.factor, f"share.{query.id}"),
                (at(t.third, t.factor), t.third, f"share.{query.id}@{t.factor}"),
            ]
        elif party == t.factor:
            out.append((t.matrix, trustee, f"deal.{query.id}.{t.matrix}"))
        elif party == t.third:
            out.append((at(t.matrix, t.factor), trustee, f"deal.{query.id}.{at(t.matrix, t.factor)}"))
    return out


def share_of_sum(mail: Mail, party: str, query: PlannedQuery, trustee: str) -> Words:
    """Step 4: own share of the result, flat."""
    total = np.zeros(query.size, dtype=np.uint64)
    for name, sender, tag in needed(party, query, trustee):
        pair, plain = mail._pair(name), mail._take(sender, tag)
        if party in query.matrix.parties:
            total = total + pair.matrix_share(query, None, plain).ravel()
        else:
            total = total + pair.vector_share(query, plain[len(plain) - 8 * query.size :]).ravel()
    return total


def _operands(mail: Mail, party: str, query: PlannedQuery, t: Triple, trustee: str) -> tuple[Pair, Words]:
    """Return the pair towards the matrix holder and own share of ``a*c``, (J, rows)."""
    tag = f"open.{query.id}@{t.matrix}"
    if party == t.factor:
        towards, pair = mail._pair(t.matrix), mail._pair(at(t.third, t.matrix))
        deal = mail._peek(trustee, f"deal.{query.id}.{t.matrix}")
        return towards, pair.product_of_factor(query, mail._take(t.third, tag), deal)
    towards, pair = mail._pair(at(t.matrix, t.factor)), mail._pair(at(t.factor, t.matrix))
    return towards, pair.product_of_third(query, mail._take(t.factor, tag))


def _mine(party: str, query: PlannedQuery, factors: Mapping[str, Floats]) -> list[Triple]:
    mine = [t for t in triples_of(query) if party in (t.factor, t.third)]
    wanted = {t.matrix if party == t.factor else t.factor for t in mine}
    if set(factors) != wanted:
        raise ShapeMismatch(f"query {query.id} needs one factor per pair.", party=party)
    return mine
