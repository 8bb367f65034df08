"""The risk optimiser as a generator: it asks for planned noisy sums and is sent them; it does no
input or output.

The same generator is driven by the federated round loop and by ``simulate``. One item of
``steps()`` is one exchange: a list of independent asks (both cohorts, all towers) that may go
through the protocol as one batch. Batches follow the order of the plan and every planned query is
asked exactly once. Weights in an ask are public: they derive from sums that were released before.

    model = drive(RiskFit(specification, plan).steps(), opened)      # opened(asks) -> {query id: float64 vector}
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from convoy_contracts.specification import RiskSpecification, Tower
from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Cohort, Plan, PlannedQuery, layout
from convoy_models.risk.model import DECIMALS, CohortModel, RiskModel
from convoy_models.risk.posterior import Posterior

FIRST_DAMPING = 0.6
"""Share of the first step that is taken: correlation between features is not known yet."""
FINAL_UPDATES = 12
BORROW = 0.7
"""Prior mean of the joint cohort's insurer factors, as a share of the solo cohort's: part of what
age says is seen by the OEM."""

Noise = Literal["planned", "none"]
Sums = Mapping[str, Floats]
"""Opened sums by query id, float64 of the planned size (rows first)."""
Steps = Generator[list["Ask"], Sums, RiskModel]
Fitted = TypeVar("Fitted")


class FitRefused(ModelsError):
    """The optimiser was sent sums that do not answer what it asked."""

    code = "FIT_REFUSED"
    fix = "Answer every ask of a batch with one finite vector of the planned size."
    fix_zh = "请对批次中的每个请求返回一个符合计划长度的有限向量。"


@dataclass(frozen=True, slots=True)
class Ask:
    """One planned query: its id and public log weights by tower role and feature (none for label
    sums)."""

    query: str
    weights: dict[str, dict[str, list[float]]]


def drive(steps: Generator[list[Ask], Sums, Fitted], opened: Callable[[list[Ask]], Sums]) -> Fitted:
    """Answer everything that a fit asks and return its model.

    Args:
        steps: of any fit; each item is one exchange.
        opened: returns the opened sums of a batch by query id, float64 of the planned size.

    Raises:
        FitRefused: sums that do not answer what was asked.
    """
    try:
        asks = next(steps)
        while True:
            asks = steps.send(opened(asks))
    except StopIteration as done:
        model: Fitted = done.value
        return model


class RiskFit:
    """One fit; use it once.

    Args:
        specification: the signed specification.
        plan: of the same specification.
        noise: 'planned' believes the plan's noise; 'none' is for sums without noise (pooled and
            local fits, tests).
    """

    def __init__(self, specification: RiskSpecification, plan: Plan, noise: Noise = "planned") -> None:
        self._spec = specification
        self._plan = plan.training
        self._cohorts: dict[Cohort, _Cohort] = {}
        for query in self._plan.queries:
            if query.cohort not in self._cohorts:
                towers = [t for t in specification.towers if query.cohort != "solo" or t.role == "insurer"]
                towers.sort(key=lambda tower: tower.role != "insurer")
                self._cohorts[query.cohort] = _Cohort(specification, towers, noise)

    def batches(self) -> tuple[tuple[PlannedQuery, ...], ...]:
        """Return the planned queries as exchanges: labels with the first model sums, then group by
        group."""
        turns = {
            cohort: sorted({_turn(q) for q in self._plan.queries if q.cohort == cohort}) for cohort in self._cohorts
        }
        longest = max(len(turn) for turn in turns.values())
        out: list[list[PlannedQuery]] = [[] for _ in range(longest)]
        for query in self._plan.queries:
            out[turns[query.cohort].index(_turn(query))].append(query)
        return tuple(tuple(batch) for batch in out)

    def steps(self) -> Steps:
        """Ask batch by batch, be sent the opened sums, return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        for batch in self.batches():
            weights = {query.cohort: self._cohorts[query.cohort].weights() for query in batch}
            sums = yield [Ask(q.id, {} if q.purpose == "labels" else weights[q.cohort]) for q in batch]
            for query in batch:
                self._cohorts[query.cohort].take(query, checked_sum(query, sums))
            # The solo cohort goes first: what it learned is the prior of the joint cohort.
            for cohort in sorted({query.cohort for query in batch}, reverse=True):
                self._borrow(cohort)
                self._cohorts[cohort].update()
        for cohort in sorted(self._cohorts, reverse=True):
            self._borrow(cohort)
            for _ in range(FINAL_UPDATES):
                self._cohorts[cohort].update()
        return RiskModel(self._spec, {name: self._cohorts[name].model() for name in sorted(self._cohorts)})

    def _borrow(self, cohort: Cohort) -> None:
        """Centre the joint cohort's insurer factors on the solo cohort's (disjoint persons,
        released sums: no cost)."""
        if cohort != "joint" or "solo" not in self._cohorts:
            return
        joint, solo = self._cohorts["joint"].posterior, self._cohorts["solo"].posterior
        for block in solo.blocks:
            joint.centre[block] = BORROW * (solo.theta[block] - solo.theta[block].mean())


def _turn(query: PlannedQuery) -> tuple[int, int]:
    return (query.sweep, query.group) if query.purpose == "model" else (1, 0)


def checked_sum(query: PlannedQuery, sums: Sums) -> Floats:
    """Return the opened sum of a query.

    Raises:
        FitRefused: missing, of wrong size, or not finite.
    """
    if query.id not in sums:
        raise FitRefused(f"no sum for query {query.id!r}")
    value = np.asarray(sums[query.id], dtype=np.float64).reshape(-1)
    if value.size != query.size or not np.all(np.isfinite(value)):
        raise FitRefused(f"query {query.id!r} gave {value.size} numbers; {query.size} finite ones are due")
    return value


class _Cohort:
    """One cohort's posterior, in the words of towers and features."""

    def __init__(self, spec: RiskSpecification, towers: list[Tower], noise: Noise) -> None:
        self._noise = noise
        self._updates = 0
        self._cells: dict[str, dict[str, slice]] = {}
        features, place = [], 0
        for tower in towers:
            self._cells[tower.role] = {}
            for feature in (feature for group in layout(tower) for feature in group):
                self._cells[tower.role][feature.name] = slice(place, place + feature.width)
                features.append(feature)
                place += feature.width
        self.posterior = Posterior(
            features,
            float(spec.priorScale),
            float(spec.smoothness),
            float(np.log(float(spec.priorRate))),
        )

    def weights(self) -> dict[str, dict[str, list[float]]]:
        """Return the current point as public weights; the level goes into the first feature of the
        insurer tower."""
        theta, level, out = self.posterior.theta, float(self.posterior.theta[-1]), {}
        for role, cells in self._cells.items():
            mine: dict[str, list[float]] = {}
            for name, block in cells.items():
                mine[name] = [float(weight) + level for weight in theta[block]]
                level = 0.0
            out[role] = mine
        return out

    def take(self, query: PlannedQuery, value: Floats) -> None:
        start = min(block.start for block in self._cells[query.module].values())
        cells = slice(start + query.columns[0], start + query.columns[1])
        variance = query.noise_sd**2 if self._noise == "planned" else 0.0
        if query.purpose == "labels":
            self.posterior.see_labels(cells, value, variance)
        else:
            self.posterior.see_model(cells, value, variance)

    def update(self) -> None:
        self.posterior.update(1.0 if self._updates else FIRST_DAMPING)
        self._updates += 1

    def model(self) -> CohortModel:
        """Return the canonical form: mean log factor 0 in every block over the model's own
        margins."""
        theta, margins = self.posterior.theta, self.posterior.margins()
        level, weights = float(theta[-1]), {}
        for role, cells in self._cells.items():
            mine = {}
            for name, block in cells.items():
                mean = float(margins[block] @ theta[block] / margins[block].sum())
                level += mean
                mine[name] = np.round(theta[block] - mean, DECIMALS)
            weights[role] = mine
        return CohortModel(round(level, DECIMALS), weights)
