"""The coordinator's side: the sum of all contributions, the only number it can read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convoy_models.errors import MessageMissing, MessageUnexpected, ShapeMismatch
from convoy_models.fixedpoint import FACTOR_BITS, LOCAL_BITS, MATRIX_BITS, Floats, Words, decode
from convoy_models.plan import PlannedQuery


def fraction_bits(query: PlannedQuery) -> int:
    """Return the fraction bits of a query's result."""
    match query.kind:
        case "LOCAL":
            return LOCAL_BITS
        case "DOT":
            return MATRIX_BITS + FACTOR_BITS
        case "WEIGHTED" | "TRILINEAR":
            return MATRIX_BITS + 2 * FACTOR_BITS


def open_sum(query: PlannedQuery, contributions: Mapping[str, Words]) -> Floats:
    """Return the noisy sum of a query: float64, flat, in C order of ``query.shape``.

    Args:
        query: from the plan. contributions: by the party that the transport authenticated;
        exactly the query's participants.

    Raises:
        MessageMissing: a participant's part has not arrived; what did arrive is uniform noise.
        MessageUnexpected: a party that does not take part.
        ShapeMismatch: a part of another size.
    """
    participants = set(query.participants)
    for party in sorted(participants - set(contributions)):
        raise MessageMissing(f"no contribution to query {query.id}.", party=party)
    for party in sorted(set(contributions) - participants):
        raise MessageUnexpected(f"not a participant of query {query.id}.", party=party)
    total = np.zeros(query.size, dtype=np.uint64)
    for party, words in contributions.items():
        if words.dtype != np.uint64 or words.shape != (query.size,):
            raise ShapeMismatch(f"a contribution of another size to {query.id}.", party=party)
        total = total + words
    return decode(total, fraction_bits(query))
