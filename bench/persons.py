"""One learning row per person: claims and exposure added, rating factors of the row with the longest exposure.

The privacy unit is the person. A person with several rows would move a sum several times, so its learning rows
become one before anything is summed. Test rows stay as they are: they are only judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]
LONGEST_YEARS = 10.0


def one_row_per_person(
    columns: Columns,
    keys: npt.NDArray[Any],
    insurer: npt.NDArray[np.int64],
    learn: npt.NDArray[np.bool_],
    claims: str,
    years: str,
) -> tuple[npt.NDArray[np.bool_], int]:
    """Add claims and exposure of a person's learning rows at one insurer to its longest row, in place.

    Args:
        columns: (N,) by name; claims and years are changed.
        keys: (N,) the person of each row.
        insurer: (N,) a person at two insurers is two persons (LIMIT: the two losses add up).
        learn: (N,) learning rows.
        claims: name of the claim counts.
        years: name of the exposure. Of a person with more than 10 years in all, 10 years count and the claims in the same
            proportion, so that the rate stays what it was.

    Returns:
        (N,) rows to keep: all test rows, and one learning row per person and insurer; and how many persons were cut.
    """
    rows = np.flatnonzero(learn)
    codes = np.unique(keys[rows].astype(np.str_), return_inverse=True)[1].astype(np.int64)
    person = np.unique(codes * (int(insurer.max()) + 1) + insurer[rows], return_inverse=True)[1]
    order = np.lexsort((columns[years][rows], person))
    last = np.append(np.flatnonzero(np.diff(person[order])), order.size - 1)
    chosen = rows[order[last]]
    columns[claims] = columns[claims].copy()
    columns[years] = columns[years].astype(np.float64).copy()
    total = np.bincount(person, columns[claims][rows])
    length = np.bincount(person, columns[years][rows])
    share = np.minimum(1.0, LONGEST_YEARS / np.maximum(length, LONGEST_YEARS))
    columns[claims][chosen] = np.rint(total * share).astype(columns[claims].dtype)
    columns[years][chosen] = np.minimum(length, LONGEST_YEARS)
    keep = ~learn
    keep[chosen] = True
    return keep, int((length > LONGEST_YEARS).sum())
