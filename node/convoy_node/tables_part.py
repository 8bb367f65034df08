"""This node's part in a run of tables (``risk-pairs/1``): every insurer sums over its own customers, nobody is aligned.

A customer adds one bounded number to one cell of each asked table (``convoy_models.risk.tables``); the cells
are public, the numbers are capped claims or the claims that the public model expects under the same cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification
from convoy_models.home_attack import Attack, attacked, claim_scores
from convoy_models.plan import PlannedQuery
from convoy_models.risk.cann import tables_model
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows, capped_mean
from convoy_models.risk.towers import Labels
from convoy_node import veto
from convoy_node.errors import ActionRefused
from convoy_node.held_back import HoldBack, nobody

Floats = npt.NDArray[np.float64]


class Rows(Protocol):
    """The rows of one party by person."""

    def columns(self, local_ids: Sequence[str]) -> Mapping[str, Any]:
        """Return the columns of these persons, in this order."""


class TablesPart:
    """An insurer's contribution: LOCAL sums over cells.

    Args:
        spec: the signed specification.
        ids: local ids of everyone whose consent counts now, each once.
        table: the node's rows.
        hold_back: whom this node keeps out of every sum for its attack on the candidate.

    Raises:
        ModelsError: columns that do not fit; every fault at once.
    """

    def __init__(self, spec: PairsSpecification, ids: Sequence[str], table: Rows, hold_back: HoldBack = nobody) -> None:
        self._spec = spec
        back = hold_back(ids)
        self._columns = table.columns([person for person in ids if person not in back])
        self._others = table.columns([person for person in ids if person in back]) if back else None
        self._rows = TableRows.build(spec, self._columns)

    @property
    def links(self) -> Mapping[str, list[bytes]]:
        """Nobody is aligned with anybody."""
        return {}

    def aligned(self, peer: str, rows: npt.NDArray[np.int64]) -> Floats | None:
        """Refuse: a run of tables has no common rows."""
        raise ActionRefused("a run of tables aligns no rows.", code="QUERY_WITHOUT_PART")

    def factors(self, query: PlannedQuery, weights: object) -> tuple[dict[str, Floats], float]:
        """Refuse: LOCAL sums have no factors."""
        raise ActionRefused(f"query {query.id} has no factors.", code="QUERY_WITHOUT_PART")

    def vectors(self, query: PlannedQuery) -> tuple[dict[str, Floats], float]:
        """Refuse: LOCAL sums have no vectors."""
        raise ActionRefused(f"query {query.id} has no vectors.", code="QUERY_WITHOUT_PART")

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        """Return own sum over cells, before noise; what the weights may be is decided by the specification."""
        mine = weights.get("insurer") if isinstance(weights, Mapping) else None
        return self._rows.local_sum(query, mine)

    def try_candidate(self, candidate: object) -> str | None:
        """Return why this insurer does not want the fitted model, tried on its own customers, or None."""
        return veto.tried_tables(self._spec, candidate, self._rows)

    def attack(self, candidate: object) -> list[Attack]:
        """Attack the candidate with own customers: those in the sums, and those held back."""
        if self._others is None:
            return [Attack("all", None)]
        model = veto.read_candidate(partial(tables_model, self._spec), candidate)
        parts = [self._expected(model, columns) for columns in (self._columns, self._others)]
        claims, expected, years = (np.concatenate(both) for both in zip(*parts, strict=True))
        is_out = np.arange(claims.size) >= parts[0][0].size
        return [attacked("all", claim_scores(claims, expected, years, is_out), is_out, self._spec)]

    def _expected(self, model: PairsModel, columns: Mapping[str, Any]) -> tuple[Floats, Floats, Floats]:
        """Return capped claims, what the model expects of them, and years; (N,) each."""
        labels, cap = Labels.build(self._spec, columns), self._spec.claimCap
        return labels.capped(cap), capped_mean(model.rate(columns) * labels.exposure_years, cap), labels.exposure_years
