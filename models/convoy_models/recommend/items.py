"""Node side of the recommender: a person's bounded row at the charging operator, and at the OEM.

Histories and profiles stay at their nodes; only sums over persons leave: item x item (LOCAL at
charging), profile x item (DOT), profile x profile (LOCAL at the OEM). Bounds that ``plan`` relies
on: a history row has L2 norm <= historyNorm, a profile row L2 norm <= 1, fixed-point rounding
included (towards zero).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RecommendSpecification
from convoy_models.errors import ModelsError
from convoy_models.features import encode_all
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats


class HistoryRefused(ModelsError):
    """A history names something that cannot be counted."""

    code = "HISTORY_REFUSED"
    fix = "Map items to the list of the contract at their source; leave others out there."
    fix_zh = "请在数据源将物品映射到合同清单；清单之外的请先剔除。"


def history_rows(specification: RecommendSpecification, histories: Iterable[Iterable[str]]) -> Floats:
    """Return (N, items) rows: 1 per used item, scaled down to norm historyNorm, on the 2^-15 grid.

    Args:
        specification: names the items.
        histories: item ids of each person; repetition counts once; an empty history is a zero row.

    Raises:
        HistoryRefused: an item that the contract does not list (count only, never the ids).
    """
    return bounded(used_items(specification.items, histories).astype(np.float64), float(specification.historyNorm))


def used_items(items: Sequence[str], histories: Iterable[Iterable[str]]) -> npt.NDArray[np.bool_]:
    """Return who used what, (N, items).

    Args:
        items: of the contract, in its order.
        histories: item ids of each person; repetition counts once.

    Raises:
        HistoryRefused: an item that the contract does not list (count only, never the ids).
    """
    place = {item: column for column, item in enumerate(items)}
    people = [list(history) for history in histories]
    used = np.zeros((len(people), len(place)), dtype=np.bool_)
    unknown = 0
    for row, history in enumerate(people):
        for item in history:
            column = place.get(item, -1)
            if column < 0:
                unknown += 1
            else:
                used[row, column] = True
    if unknown:
        raise HistoryRefused(f"{unknown} entries name items that the contract does not list")
    return used


def bounded(used: Floats, norm: float) -> Floats:
    """Scale rows down to L2 norm ``norm`` at most, towards zero on the 2^-15 grid. used: (N,
    items)."""
    length = np.sqrt((used**2).sum(axis=1, keepdims=True))
    grid = float(1 << FACTOR_BITS)
    return np.asarray(np.floor(used / np.maximum(1.0, length / norm) * grid) / grid)


def profile_rows(specification: RecommendSpecification, columns: Mapping[str, Any]) -> Floats:
    """Return (N, 1 + sum of widths) rows of norm <= 1 on the 2^-13 grid: a constant and the hat
    blocks.

    A constant and ``m`` blocks of norm <= 1 are divided by sqrt(1 + m).

    Raises:
        ColumnRefused: every fault of every column at once.
    """
    blocks = encode_all(specification.profile, columns)
    parts = [np.ones((blocks[0].low.size, 1))] + [block.dense() for block in blocks]
    grid = float(1 << MATRIX_BITS)
    rows = np.concatenate(parts, axis=1) / math.sqrt(1 + len(blocks))
    return np.asarray(np.floor(rows * grid) / grid)


def second_moments(rows: Floats) -> Floats:
    """Return ``rows' rows`` flattened, (columns^2,): what LOCAL 'gram' and 'profile' queries
    sum."""
    return np.asarray((rows.T @ rows).reshape(-1))
