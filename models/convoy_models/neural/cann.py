"""Node side of the CANN residual: one step of DP-SGD as a LOCAL sum.

    Residuals.build(specification, columns, coins)     rows of this node's persons
    .local_sum(query, weights) -> (query.size,)         clipped gradients of a secret Poisson sample, summed

The loss of a person is the quasi-Poisson loss of its capped claims against the capped mean that the tables and the
residual expect together: ``m - y log m`` with ``m = E min(Y, claimCap)``. What is returned points uphill (minus the
gradient), so that the coordinator adds it. Nothing of a sample is kept after the sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convoy_contracts.specification import PairsSpecification
from convoy_models.fixedpoint import Floats
from convoy_models.neural import shapes
from convoy_models.neural.clipped import ClippedSums, Rows
from convoy_models.neural.sampling import Coins, SecretCoins
from convoy_models.plan import Plan, PlannedQuery
from convoy_models.risk.cann import NETWORK, CannFit, CannModel
from convoy_models.risk.fit import Ask, Noise, drive
from convoy_models.risk.tables import TableRows, check_table_weights
from convoy_models.risk.towers import WeightsRefused
from convoy_models.simulate import noisy

SMALLEST_LOG, LARGEST_LOG = -20.0, 5.0


class ResidualNet(nn.Module):
    """The network of ``shapes``: inputs (B, width) -> share of the log rate (B,)."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, units)
        self.output = nn.Linear(units, 1, bias=False)
        self._scale = 1.0 / math.sqrt(units)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,), never (B, 1)."""
        made: Tensor = self.output(torch.tanh(self.hidden(x)))[:, 0] * self._scale
        return made


def capped_losses(score: Tensor, years: Tensor, claims: Tensor, cap: int) -> Tensor:
    """Return each person's loss, (B,). score: log yearly rate; years: exposure; claims: capped counts."""
    mean = torch.exp(score.clamp(SMALLEST_LOG, LARGEST_LOG)) * years
    term = torch.exp(-mean)
    tail = -torch.expm1(-mean)
    total = tail
    for k in range(1, cap):
        term = term * mean / k
        tail = tail - term
        total = total + tail
    return total - claims * torch.log(total.clamp(min=1e-12))


@dataclass(slots=True)
class Residuals:
    """One node's persons in a residual's training. tables: encoded rows with labels; x: (N, width)."""

    spec: PairsSpecification
    tables: TableRows
    x: Floats
    coins: Coins
    sums: ClippedSums

    @classmethod
    def build(
        cls, spec: PairsSpecification, columns: Mapping[str, Any], tables: TableRows, coins: Coins | None = None
    ) -> Residuals:
        """Encode the persons of ``tables`` again for the network.

        Args:
            spec: with a residual.
            columns: the same rows as those of ``tables``.
            tables: of the same specification, with labels.
            coins: a node's own; others are for tests.

        Raises:
            ColumnRefused: an absent or bad column.
            ResidualRefused: the specification has no residual.
        """
        units = shapes.hidden_units(spec)
        clip = float(spec.residual.clip) if spec.residual is not None else 1.0
        network = ResidualNet(shapes.input_width(spec), units)
        return cls(spec, tables, shapes.inputs(spec, columns), coins or SecretCoins(), ClippedSums(network, clip))

    def rate(self, model: CannModel) -> Floats:
        """Return a model's yearly claim rate of these persons, (N,)."""
        share = shapes.residual(self.spec, model.network, self.x)
        return np.asarray(model.base.rate_of(self.tables) * np.exp(share), dtype=np.float64)

    def local_sum(self, query: PlannedQuery, weights: object, network: object) -> Floats:
        """Return this node's part of one step, (query.size,) float64, before noise.

        Args:
            query: a residual step of the plan.
            weights: public weights of the tables, as for ``TableRows.local_sum``.
            network: public weights of the residual, (weight_count,).

        Raises:
            WeightsRefused: table weights that do not fit.
            ResidualRefused: residual weights that do not fit.
        """
        if self.spec.residual is None or self.tables.labels is None or query.purpose != "residual":
            raise WeightsRefused(f"query {query.id!r} is no step of a residual")
        now = shapes.checked(self.spec, network)
        offset = self.tables.score(check_table_weights(self.spec, weights))
        labels, cap = self.tables.labels, self.spec.claimCap
        chosen = np.flatnonzero(self.coins.throw(self.tables.size, self.spec.residual.rateMicro))
        claims, years = labels.capped(cap), labels.exposure_years

        def losses(net: nn.Module, rows: Rows) -> Tensor:
            share = net(torch.from_numpy(self.x[rows]))
            base, time, counted = (torch.from_numpy(values[rows]) for values in (offset, years, claims))
            return capped_losses(base + share, time, counted, cap)

        return -self.sums.sum(now, chosen, losses)


def fit_cann_plain(
    spec: PairsSpecification,
    made: Plan,
    columns: Mapping[str, Any],
    noise: np.random.Generator | None = None,
    believed: Noise | None = None,
    coins: Coins | None = None,
) -> CannModel:
    """Run the optimiser on plaintext, as ``simulate.fit_pairs_plain`` does; gives no privacy.

    Args:
        spec: of the run, with a residual.
        made: its plan.
        columns: persons of all insurers.
        noise: source of the planned noise, or None for exact sums.
        believed: what the tables' optimiser believes; by default the truth.
        coins: who throws the coins; the operating system by default.
    """
    belief: Noise = believed if believed is not None else ("none" if noise is None else "planned")
    rows = TableRows.build(spec, columns)
    own = Residuals.build(spec, columns, rows, coins)

    def total(ask: Ask) -> Floats:
        query, tables = made[ask.query], ask.weights.get("insurer")
        if query.purpose == "residual":
            return own.local_sum(query, tables, ask.weights[NETWORK]["weights"])
        return rows.local_sum(query, tables)

    steps = CannFit(spec, made, belief).steps()
    return drive(steps, lambda asks: {ask.query: noisy(made[ask.query], total(ask), noise) for ask in asks})
