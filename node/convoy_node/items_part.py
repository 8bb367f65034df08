"""This node's part in a run of item-item recommendations (``recommend-items/1``): bounded histories, or bounded profiles.

A history of somebody who is held back is empty in every sum and is kept for the attack on the candidate only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RecommendSpecification
from convoy_models.home_attack import Attack, attacked, offer_scores
from convoy_models.plan import PlannedQuery
from convoy_models.recommend.items import history_rows, profile_rows, second_moments
from convoy_models.recommend.model import RecommendModel
from convoy_node import veto
from convoy_node.columns import HISTORY
from convoy_node.errors import ActionRefused
from convoy_node.held_back import HoldBack, nobody
from convoy_node.local_part import Floats, Rows

Ids = Sequence[tuple[str, bytes]]


class ItemsPart:
    """Either side of the recommender: histories at the charging operator, profiles at the OEM.

    Args:
        spec: the signed specification.
        role: 'charging' or 'oem'.
        links: (local id, link id) by peer, of everyone whose consent counts now.
        table: the node's rows.
        hold_back: whom the charging operator keeps out of every sum for its attack on the candidate.

    Raises:
        ModelsError: columns that do not fit; every fault at once.
    """

    def __init__(
        self,
        spec: RecommendSpecification,
        role: str,
        links: Mapping[str, Ids],
        table: Rows,
        hold_back: HoldBack = nobody,
    ) -> None:
        self._spec = spec
        self._role = role
        self._ids = {peer: list(ids) for peer, ids in links.items()}
        self._own: dict[str, Floats] = {}
        for peer, ids in self._ids.items():
            columns = table.columns([local for local, _ in ids])
            self._own[peer] = (
                history_rows(spec, columns[HISTORY]) if role == "charging" else profile_rows(spec, columns)
            )
        local_ids = [local for ids in self._ids.values() for local, _ in ids]
        self._held_back = hold_back(local_ids) if role == "charging" else frozenset()
        self._joint: dict[str, Floats] = {}
        self._tried: list[tuple[Floats, npt.NDArray[np.bool_]]] = []

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        """Link ids towards each peer, in the order of the part's rows."""
        return {peer: [link for _, link in ids] for peer, ids in self._ids.items()}

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        """Keep the common rows; return the profiles, of which the carmaker holds the matrix."""
        real = self._own.pop(peer)[rows]
        back = np.array([self._ids[peer][int(row)][0] in self._held_back for row in rows], dtype=bool)
        self._joint[peer] = np.where(back[:, None], 0.0, real)  # an empty history adds zero to every sum
        if self._role == "oem":
            return self._joint[peer]
        self._tried.append((real, back))
        return None

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        """Refuse: no sum of this kind has factors."""
        raise ActionRefused(f"query {query.id} has no factors.", code="QUERY_WITHOUT_PART")

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        """Return own histories by peer, and the cap of an entry."""
        return dict(self._joint), float(self._spec.historyNorm)

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        """Return own second moments, before noise."""
        total = np.zeros(query.size)
        for rows in self._joint.values():
            total = total + second_moments(rows)
        return total

    def try_candidate(self, candidate: object) -> str | None:
        """Nothing is tried on own customers but the attack."""
        return None

    def attack(self, candidate: object) -> list[Attack]:
        """Attack the candidate with own histories; a carmaker has none."""
        if not self._tried:
            return []
        model = veto.read_candidate(partial(RecommendModel.from_flat, self._spec), candidate)
        rows, is_out = (np.concatenate(parts) for parts in zip(*self._tried, strict=True))
        known = (rows > 0).any(axis=1)  # who has no item says nothing
        return [attacked("joint", offer_scores(model, rows[known]), is_out[known], self._spec)]

    def committed(self, peer: str) -> Floats:
        """Return what a commitment to rows covers beside the matrix."""
        rows = self._joint[peer]
        return rows if self._role == "charging" else np.zeros((len(rows), 0))
