"""What an honest holder sends for a committed row: recomputed by the trustee from the signed specification.

Committed beside the matrix row (``inputs``): at an insurer exposure in years, claims as capped, and 1 for a
person who is held out; at the carmaker the last of these; at the charging operator the history itself. From
these and the public weights of a query follows the factor or vector, to a grid step or two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy_contracts.specification import RecommendSpecification, RiskSpecification
from convoy_models.errors import MessageMalformed
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats
from convoy_models.plan import EVALUATION_LOG_BOUND, PlannedQuery, floor_cap
from convoy_models.risk.towers import check_weights, slices
from convoy_models.sums.row_audit import OpenedRow


@dataclass(frozen=True, slots=True)
class PlannedValues:
    """The trustee's view of a run.

    Args:
        specification: signed.
        roles: role by party.
        weights: public weights by query id, as the coordinator asked them.
    """

    specification: RiskSpecification | RecommendSpecification
    roles: Mapping[str, str]
    weights: Mapping[str, Any]

    def factor(self, query: PlannedQuery, party: str, row: OpenedRow) -> Floats | None:
        """Return a party's factor (1,) or vector (J,) of a row; None in sums about the hold-out (caps only).

        Raises:
            MessageMalformed: inputs of another form than the specification's.
            WeightsRefused: weights that do not fit the specification.
        """
        if query.purpose.startswith("holdout"):
            return None
        if isinstance(self.specification, RecommendSpecification):
            return np.rint(row.inputs * 2.0**FACTOR_BITS) / 2.0**FACTOR_BITS
        role = self.roles[party]
        width = 3 if role == "insurer" else 1
        if row.inputs.shape != (width,):
            raise MessageMalformed("the inputs of an opened row have another form.", party=party)
        if row.inputs[-1] or not row.x.any():
            return np.zeros(1)
        if query.purpose == "labels":
            return row.inputs[1:2]
        tower = next(tower for tower in self.specification.towers if tower.role == role)
        asked = self.weights.get(query.id)
        if not isinstance(asked, Mapping) or role not in asked:
            raise MessageMalformed(f"query {query.id} has no weights for the {role} tower.")
        checked = check_weights(tower, asked[role])
        places = slices(tower)
        score = sum(float(checked[name] @ row.x[place]) for name, place in places.items()) / 2.0**MATRIX_BITS
        value = float(np.exp(min(score, 30.0))) * (float(row.inputs[0]) if role == "insurer" else 1.0)
        grid, cap = 2.0**FACTOR_BITS, floor_cap(tower)
        return np.array([min(float(np.rint(min(value, cap) * grid)) / grid, cap)])

    def cap(self, query: PlannedQuery, party: str) -> float:
        """Return the most that a party's factor or an entry of its vector may be."""
        if isinstance(self.specification, RecommendSpecification):
            return float(self.specification.historyNorm)
        claims = float(self.specification.claimCap)
        if query.purpose == "labels":
            return claims
        caps: dict[str, float] = {tower.role: floor_cap(tower) for tower in self.specification.towers}
        own = caps[self.roles[party]]
        if not query.purpose.startswith("holdout"):
            return own
        return max(own, EVALUATION_LOG_BOUND, claims if self.roles[party] == "insurer" else 0.0)
