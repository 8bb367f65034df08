"""This node's part in a run of tables (``risk-pairs/1``): every insurer sums over its own customers, nobody is aligned.

A customer adds one bounded number to one cell of each asked table (``convoy_models.risk.tables``); the cells
are public, the numbers are capped claims or the claims that the public model expects under the same cap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from convoy_contracts.specification import PairsSpecification
from convoy_models.home_attack import Attack, attacked, claim_scores
from convoy_models.plan import PlannedQuery
from convoy_models.risk.cann import tables_model
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows, capped_mean
from convoy_models.risk.towers import Labels
from convoy_node import veto
from convoy_node.held_back import HoldBack, nobody
from convoy_node.local_part import Floats, LocalPart, Rows


class TablesPart(LocalPart):
    """An insurer's contribution: LOCAL sums over cells.

    Args:
        spec: the signed specification.
        ids: local ids of everyone whose consent counts now, each once.
        table: the node's rows.
        hold_back: whom this node keeps out of every sum for its attack on the candidate.

    Raises:
        ModelsError: columns that do not fit; every fault at once.
    """

    KIND = "tables"

    def __init__(self, spec: PairsSpecification, ids: Sequence[str], table: Rows, hold_back: HoldBack = nobody) -> None:
        self._spec = spec
        back = hold_back(ids)
        self._columns = table.columns([person for person in ids if person not in back])
        self._others = table.columns([person for person in ids if person in back]) if back else None
        self._rows = TableRows.build(spec, self._columns)

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
