"""The optimiser of ``risk-pairs/1``: federated boosting of tables of one feature and of two, as a generator.

Every round asks one feature, or pairs that share no feature, for the claims that the present model
expects in each cell; label sums are asked once, before. The step of a table is Newton's, shrunk by
a Gaussian process prior over its cells (neighbouring cells alike) against the Poisson variance of
the cell plus the public noise of both sums. The scale of each pair is chosen by marginal likelihood
of the noisy sums themselves, so a pair that says nothing stays near 1. All of it is post-processing
of released sums: no further privacy cost, and no row is seen here.

Sources: cyclic boosting of terms from private histograms as in DP-EBM (Nori et al. 2021,
arXiv:2106.09680) and Newton leaves from private sums over data-independent splits (Maddock et al.
2022, arXiv:2210.02910). Deviations: label sums are charged once and used in every pass; margins of
all label tables are made consistent by least squares (each feature is measured in every table that
uses it, cf. Hay et al. 2010, arXiv:0904.0942); shrinkage is a posterior mean, not a learning rate.

    steps = PairsFit(specification, plan).steps()       # same protocol as ``risk.fit.RiskFit``
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

import numpy as np

from convoy_contracts.specification import Cuts, Levels, PairsSpecification
from convoy_models.features import coarse_map
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Plan, PlannedQuery, Table, pair_width, table_cells, table_rounds
from convoy_models.risk.fit import Ask, Noise, Sums, checked_sum
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import LEVEL, key_of, ordered_tables

MAIN_REACH, PAIR_REACH = 6.0, 3.0
"""Cells over which the correlation of neighbouring log factors falls to 1/e."""
SCALES = (0.2, 0.4, 0.6, 0.9, 1.3, 1.8, 2.5)
"""Scales of a pair that are tried, in units of ``pairScale``; prior: log-normal with sd 0.8."""
LARGEST_STEP, LARGEST_RESIDUAL = 0.7, 1.5
FEWEST_CLAIMS = 3.0
"""Expected claims of a cell are never taken to be fewer than this, or than their own noise."""

PairSteps = Generator[list[Ask], Sums, PairsModel]


@dataclass(slots=True)
class _State:
    """What is known about one table. claims, margin, theta: (cells,); reach: prior correlation, (cells, cells)."""

    reach: Floats
    scale: float
    theta: Floats
    claims: Floats = field(default_factory=lambda: np.zeros(0))
    claims_variance: float = 0.0
    margin: Floats = field(default_factory=lambda: np.zeros(0))


class PairsFit:
    """One fit; use it once.

    Args:
        specification: the signed specification.
        plan: of the same specification.
        noise: 'planned' believes the plan's noise; 'none' is for sums without noise.
    """

    def __init__(self, specification: PairsSpecification, plan: Plan, noise: Noise = "planned") -> None:
        self._spec = specification
        self._plan = plan
        self._noise = noise
        self._features = {feature.name: feature for feature in specification.features}
        self._level = float(np.log(float(specification.priorRate)))
        self._tables = {
            table: _State(
                reach=self._reach(table),
                scale=float(specification.mainScale if len(table) == 1 else specification.pairScale),
                theta=np.zeros(table_cells(specification, table)),
            )
            for table in ordered_tables(specification)
        }

    def steps(self) -> PairSteps:
        """Ask batch by batch, be sent the opened sums, return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        labels = [query for query in self._plan.queries if query.purpose == "labels"]
        sums = yield [Ask(query.id, {}) for query in labels]
        for query in labels:
            self._take_labels(query, checked_sum(query, sums))
        self._agree()
        for query in (query for query in self._plan.queries if query.purpose == "model"):
            sums = yield [Ask(query.id, {"insurer": self._weights()})]
            value, place = checked_sum(query, sums), 0
            variance = self._variance(query)
            for table in table_rounds(self._spec)[query.group]:
                state = self._tables[table]
                self._step(table, state, value[place : place + state.theta.size], variance)
                place += state.theta.size
        return PairsModel.canonical(
            self._spec,
            self._level,
            {key_of(table): state.theta for table, state in self._tables.items()},
            {key_of(table): state.margin for table, state in self._tables.items()},
        )

    def _weights(self) -> dict[str, list[float]]:
        tables = {key_of(table): [float(x) for x in state.theta] for table, state in self._tables.items()}
        return tables | {LEVEL: [self._level]}

    def _variance(self, query: PlannedQuery) -> float:
        return query.noise_sd**2 if self._noise == "planned" else 0.0

    def _take_labels(self, query: PlannedQuery, value: Floats) -> None:
        place = 0
        for table, state in self._tables.items():
            if (len(table) == 1) == query.id.endswith("/mains"):
                state.claims = value[place : place + state.theta.size].copy()
                state.claims_variance = self._variance(query)
                place += state.theta.size

    def _agree(self) -> None:
        """Let every table have the same total claims per pair cell of a feature: the weighted mean of all tables."""
        if self._noise == "none":
            return
        for name, feature in self._features.items():
            to_pair, width = coarse_map(feature), pair_width(feature)
            counts = np.bincount(to_pair, minlength=width).astype(np.float64)
            own = self._tables[(name,)]
            found = [np.bincount(to_pair, own.claims, width)]
            variances = [counts * own.claims_variance]
            for table, axis, grid in self._grids(name):
                found.append(grid.sum(1 - axis))
                others = grid.shape[1 - axis] * self._tables[table].claims_variance
                variances.append(np.full(width, others))
            precision = 1.0 / np.array(variances)
            best = (np.array(found) * precision).sum(0) / precision.sum(0)
            own.claims = own.claims + ((best - found[0]) / counts)[to_pair]
            for (_, axis, grid), total in zip(self._grids(name), found[1:], strict=True):
                shift = (best - total) / grid.shape[1 - axis]
                grid += shift[:, None] if axis == 0 else shift[None, :]

    def _grids(self, name: str) -> list[tuple[Table, int, Floats]]:
        """Return the pair tables of a feature with its axis and a view of its claims as a grid."""
        out: list[tuple[Table, int, Floats]] = []
        for table, state in self._tables.items():
            if len(table) == 2 and name in table:
                shape = tuple(pair_width(self._features[part]) for part in table)
                out.append((table, table.index(name), state.claims.reshape(shape)))
        return out

    def _step(self, table: Table, state: _State, expected: Floats, variance: float) -> None:
        floor = max(float(np.sqrt(variance)), FEWEST_CLAIMS)
        margin = np.maximum(expected, floor)
        doubt = (margin + variance + state.claims_variance) / margin**2
        target = state.theta + np.clip((state.claims - expected) / margin, -LARGEST_RESIDUAL, LARGEST_RESIDUAL)
        state.margin = margin
        if len(table) == 2:
            step = self._best(state, doubt, target) - state.theta
            step = step - margin @ step / margin.sum()
        else:
            step = _posterior(state.reach, state.scale, doubt, target)[0] - state.theta
        state.theta = state.theta + np.clip(step, -LARGEST_STEP, LARGEST_STEP)
        if len(table) == 1:
            shift = float(margin @ state.theta / margin.sum())
            state.theta, self._level = state.theta - shift, self._level + shift

    def _best(self, state: _State, doubt: Floats, target: Floats) -> Floats:
        usual = float(self._spec.pairScale)
        found: list[tuple[float, float, Floats]] = []
        for ratio in SCALES:
            mean, evidence = _posterior(state.reach, usual * ratio, doubt, target)
            found.append((evidence - 0.5 * (np.log(ratio) / 0.8) ** 2, usual * ratio, mean))
        best = max(found, key=lambda row: row[0])
        state.scale = best[1]
        return best[2]

    def _reach(self, table: Table) -> Floats:
        reach = MAIN_REACH if len(table) == 1 else PAIR_REACH
        out: Floats = np.ones((1, 1))
        for name in table:
            feature = self._features[name]
            width = feature.width if len(table) == 1 else pair_width(feature)
            out = np.asarray(np.kron(out, _correlation(feature, width, reach)), dtype=np.float64)
        return out


def _correlation(feature: Cuts | Levels, width: int, reach: float) -> Floats:
    if isinstance(feature, Levels):
        return np.eye(width)
    place = np.arange(width)
    return np.asarray(np.exp(-np.abs(place[:, None] - place) / reach))


def _posterior(reach: Floats, scale: float, doubt: Floats, target: Floats) -> tuple[Floats, float]:
    """Return posterior mean and log evidence of ``target ~ N(theta, doubt)``, ``theta ~ N(0, scale^2 reach)``."""
    prior = scale * scale * reach
    lower = np.linalg.cholesky(prior + np.diag(doubt))
    white = np.linalg.solve(lower, target)
    mean = prior @ np.linalg.solve(lower.T, white)
    return mean, float(-0.5 * white @ white - np.log(np.diag(lower)).sum())
