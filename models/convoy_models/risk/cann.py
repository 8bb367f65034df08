"""Tables plus a small network (CANN) for ``risk-pairs/1`` with a residual: optimiser and trained model.

The optimiser first fits the tables (``boosting``), then asks one LOCAL sum of clipped gradients a step and
climbs: heavy ball with weight decay, the mean of the second half of the path at the end. A sum is divided by
``batch * priorRate``, both public: claims that a step of the stated size expects, so ``learningRate`` means the same in
every portfolio. Post-processing of released sums throughout: no row is seen here, no further cost.

What it costs in explanation: the factors of the tables are exact, the network's factor is one more number per person that
no table shows. The card says so.

    steps = CannFit(specification, plan).steps()       # same protocol as ``risk.fit.RiskFit``

What may never change: array names ``residual/hidden.weight``, ``residual/hidden.bias``, ``residual/output.weight``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy_contracts.specification import PairsSpecification
from convoy_models.fixedpoint import Floats
from convoy_models.neural import shapes
from convoy_models.neural.path import Path
from convoy_models.plan import Plan
from convoy_models.risk.boosting import PairsFit
from convoy_models.risk.fit import Ask, Noise, Sums, checked_sum
from convoy_models.risk.model import ModelMalformed
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import LEVEL, TableRows

PREFIX = "residual/"
NETWORK = "residual"
"""Key of the network's weights in an ask, beside 'insurer' (the tables)."""

CannSteps = Generator[list[Ask], Sums, "CannModel"]


@dataclass(frozen=True, slots=True)
class CannModel(PairsModel):
    """Tables and a network. network: flat weights of ``neural.shapes``; ``table()`` shows the tables only."""

    network: Floats

    @property
    def base(self) -> PairsModel:
        """The tables alone."""
        return PairsModel(self.specification, self.level, self.tables)

    def rate(self, columns: Mapping[str, Any]) -> Floats:
        """Return the yearly claim rate, (N,).

        Raises:
            ColumnRefused: bad columns.
        """
        return np.asarray(self.base.rate(columns) * self.factor(columns), dtype=np.float64)

    def rate_of(self, rows: TableRows) -> Floats:
        """Refuse: cells do not say where in a cell a person is.

        Raises:
            ModelMalformed: always; use ``rate``.
        """
        raise ModelMalformed("a model with a residual needs columns, not cells")

    def factor(self, columns: Mapping[str, Any]) -> Floats:
        """Return the network's own factor of the price, (N,).

        Raises:
            ColumnRefused: bad columns.
        """
        share = shapes.residual(self.specification, self.network, shapes.inputs(self.specification, columns))
        return np.asarray(np.exp(share), dtype=np.float64)

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors: no pickle, and torch is not needed to read them."""
        parts = shapes.split(self.specification, self.network)
        arrays = {PREFIX + name: np.ascontiguousarray(value) for name, value in parts.items()}
        return self.base.to_arrays() | arrays

    @classmethod
    def from_arrays(cls, specification: PairsSpecification, arrays: Mapping[str, Floats]) -> CannModel:
        """Rebuild a model from its specification and arrays; flat arrays will do for matrices.

        Raises:
            ModelMalformed: an array is missing, unknown, of wrong size or not finite.
        """
        mine = {name.removeprefix(PREFIX): value for name, value in arrays.items() if name.startswith(PREFIX)}
        rest = {name: value for name, value in arrays.items() if not name.startswith(PREFIX)}
        base = PairsModel.from_arrays(specification, rest)
        if set(mine) != set(shapes.NAMES):
            raise ModelMalformed(f"the residual's arrays are {sorted(mine)}, not {sorted(shapes.NAMES)}")
        try:
            flat = shapes.checked(specification, shapes.joined(mine))
        except shapes.ResidualRefused as refusal:
            raise ModelMalformed(refusal.cause) from refusal
        wanted = shapes.split(specification, flat)
        if any(np.size(mine[name]) != wanted[name].size for name in shapes.NAMES):
            raise ModelMalformed("an array of the residual has another size")
        return cls(base.specification, base.level, base.tables, flat)


class CannFit:
    """One fit of tables, then of the residual; use it once.

    Args:
        specification: the signed specification, with a residual.
        plan: of the same specification.
        noise: as for ``PairsFit``.
    """

    def __init__(self, specification: PairsSpecification, plan: Plan, noise: Noise = "planned") -> None:
        shapes.hidden_units(specification)
        self._spec = specification
        self._plan = plan
        self._tables = PairsFit(specification, plan, noise)

    def steps(self) -> CannSteps:
        """Ask batch by batch, be sent the opened sums, return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        base = yield from self._tables.steps()
        terms = self._spec.residual
        if terms is None:
            raise shapes.ResidualRefused("the specification has no residual")
        path = Path(terms, shapes.first_weights(self._spec), terms.batch * float(self._spec.priorRate))
        tables = {key: [float(v) for v in values] for key, values in base.tables.items()} | {LEVEL: [base.level]}
        for query in (query for query in self._plan.queries if query.purpose == "residual"):
            ask = Ask(query.id, {"insurer": tables, NETWORK: {"weights": [float(v) for v in path.weights]}})
            sums = yield [ask]
            path.take(checked_sum(query, sums))
        return CannModel(self._spec, base.level, base.tables, path.mean())


def tables_fit(specification: PairsSpecification, plan: Plan, noise: Noise = "planned") -> PairsFit | CannFit:
    """Return the optimiser of ``risk-pairs/1``: with a residual where the specification has one."""
    return (PairsFit if specification.residual is None else CannFit)(specification, plan, noise)


def tables_model(specification: PairsSpecification, arrays: Mapping[str, Floats]) -> PairsModel:
    """Rebuild a model of ``risk-pairs/1``, with its residual where the specification has one.

    Raises:
        ModelMalformed: arrays that make no such model.
    """
    return (PairsModel if specification.residual is None else CannModel).from_arrays(specification, arrays)
