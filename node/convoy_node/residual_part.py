"""This node's part in a run of tables with a residual: the tables' sums, and steps of DP-SGD (``convoy_models.neural``).

Torch is imported by the first run that needs it. Who is in a step is decided here by coins of the operating system; the
coordinator sends public weights and learns a masked, noisy sum of clipped gradients, nothing about the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convoy_contracts.specification import PairsSpecification
from convoy_models.plan import PlannedQuery
from convoy_models.risk.cann import NETWORK
from convoy_node import veto
from convoy_node.held_back import HoldBack, nobody
from convoy_node.local_part import Floats, Rows, needing_torch
from convoy_node.tables_part import TablesPart

if TYPE_CHECKING:
    from convoy_models.neural.cann import Residuals


class ResidualPart(TablesPart):
    """An insurer's contribution to a run with a residual.

    Args:
        spec: the signed specification, with a residual.
        ids: local ids of everyone whose consent counts now, each once.
        table: the node's rows.
        hold_back: whom this node keeps out of every sum for its attack on the candidate.

    Raises:
        ModelsError: columns that do not fit.
        ActionRefused: this node was installed without torch.
    """

    def __init__(self, spec: PairsSpecification, ids: Sequence[str], table: Rows, hold_back: HoldBack = nobody) -> None:
        super().__init__(spec, ids, table, hold_back)
        with needing_torch():
            from convoy_models.neural.cann import Residuals
        self._residuals: Residuals = Residuals.build(spec, self._columns, self._rows)

    def local(self, query: PlannedQuery, weights: object) -> Floats:
        """Return own sum over cells, or of clipped gradients, before noise."""
        if query.purpose != "residual":
            return super().local(query, weights)
        given = weights if isinstance(weights, Mapping) else {}
        network = given.get(NETWORK)
        flat = network.get("weights") if isinstance(network, Mapping) else None
        return self._residuals.local_sum(query, given.get("insurer"), flat)

    def try_candidate(self, candidate: object) -> str | None:
        """Return why this insurer does not want the fitted model, tried on its own customers, or None."""
        return veto.tried_residual(self._spec, candidate, self._residuals)
