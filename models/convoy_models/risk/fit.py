"""The risk optimiser as a generator: it asks for planned noisy sums and receives them; it does no input or output.

The same generator is driven by the federated round loop and by ``simulate``. One item of ``steps()`` is one exchange: a list
of independent asks (joint and solo cohorts together) that may go through the protocol as one batch. Weights in an ask
are public. The order of asks is the plan's order; every planned query is asked exactly once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from convoy_contracts.specification import RiskSpecification, Tower

from convoy_models.errors import ModelsError
from convoy_models.features import Floats
from convoy_models.plan import Cohort, Plan, PlannedQuery, layout
from convoy_models.risk.model import CohortModel, RiskModel
from convoy_models.risk.posterior import Posterior

FINAL_UPDATES = 12


class FitRefused(ModelsError):
    """The optimiser was given sums that do not answer what it asked."""

    code = "FIT_REFUSED"


@dataclass(frozen=True, slots=True)
class Ask:
    """One query to be made: its planned id and public weights by tower role and feature (none for label sums)."""

    query: str
    weights: dict[str, dict[str, list[float]]]


Sums = Mapping[str, Floats]
"""Opened noisy sums by query id, float64 vectors of the planned size."""


class RiskFit:
    """One fit. Use once: ``model = yield from fit.steps()`` or drive the generator by hand."""

    def __init__(self, specification: RiskSpecification, plan: Plan) -> None:
        self._spec = specification
        self._plan = plan
        towers = {tower.role: tower for tower in specification.towers}
        self._cohorts: dict[Cohort, _Cohort] = {}
        for query in plan.queries:
            if query.cohort not in self._cohorts:
                used = [towers["insurer"]] if query.cohort == "solo" else list(specification.towers)
                used.sort(key=lambda tower: tower.role != "insurer")
                self._cohorts[query.cohort] = _Cohort(specification, used)

    def batches(self) -> list[list[PlannedQuery]]:
        """Return the planned queries as exchanges: labels with the first model sums, then group by group."""
        steps: dict[tuple[str, int], list[PlannedQuery]] = {}
        order: dict[str, list[tuple[int, int]]] = {}
        for query in self._plan.queries:
            key = (query.sweep, query.group) if query.purpose == "model" else (1, 0)
            places = order.setdefault(query.cohort, [])
            if key not in places:
                places.append(key)
        for cohort, places in order.items():
            order[cohort] = sorted(places)
        longest = max(len(places) for places in order.values())
        for query in self._plan.queries:
            key = (query.sweep, query.group) if query.purpose == "model" else (1, 0)
            steps.setdefault(("", order[query.cohort].index(key)), []).append(query)
        return [steps[("", index)] for index in range(longest)]

    def steps(self) -> Generator[list[Ask], Sums, RiskModel]:
        """Ask batch by batch; return the model."""
        for batch in self.batches():
            asks = [
                Ask(query.id, {} if query.purpose == "labels" else self._cohorts[query.cohort].weights())
                for query in batch
            ]
            sums = yield asks
            for query in batch:
                self._take(query, sums)
            for cohort in {query.cohort for query in batch}:
                self._cohorts[cohort].update()
        return self._finish()

    def _take(self, query: PlannedQuery, sums: Sums) -> None:
        if query.id not in sums:
            raise FitRefused(f"no sum for query {query.id!r}; every ask of a batch must be answered")
        value = np.asarray(sums[query.id], dtype=np.float64).reshape(-1)
        if value.size != query.size or not np.all(np.isfinite(value)):
            raise FitRefused(f"the sum of query {query.id!r} has {value.size} numbers, {query.size} finite ones are due")
        self._cohorts[query.cohort].take(query, value)

    def _finish(self) -> RiskModel:
        for cohort in self._cohorts.values():
            cohort.finish()
        return RiskModel(
            self._spec, {name: cohort.model() for name, cohort in sorted(self._cohorts.items())}
        )


class _Cohort:
    def __init__(self, spec: RiskSpecification, towers: list[Tower]) -> None:
        self.towers = towers
        features = [feature for tower in towers for group in layout(tower) for feature in group]
        self.start: dict[str, int] = {}
        place = 0
        for tower in towers:
            self.start[tower.role] = place
            place += sum(feature.width for feature in tower.features)
        self.posterior = Posterior(
            features,
            prior_scale=float(spec.priorScale),
            smoothness=float(spec.smoothness),
            prior_level=float(np.log(float(spec.priorRate))),
        )
        self.with_noise = True

    def weights(self) -> dict[str, dict[str, list[float]]]:
        """Return the current point as public weights; the level goes into the first block of the first tower."""
        theta, place, out = self.posterior.theta, 0, {}
        for number, tower in enumerate(self.towers):
            mine: dict[str, list[float]] = {}
            for feature in (f for group in layout(tower) for f in group):
                block = theta[place : place + feature.width]
                if number == 0 and not mine:
                    block = block + theta[-1]
                mine[feature.name] = [float(w) for w in block]
                place += feature.width
            out[tower.role] = mine
        return out

    def take(self, query: PlannedQuery, value: Floats) -> None:
        start = self.start[query.module]
        cells = slice(start + query.columns[0], start + query.columns[1])
        variance = query.noise_sd**2 if self.with_noise else 0.0
        if query.purpose == "labels":
            self.posterior.see_labels(cells, value, variance)
        else:
            self.posterior.see_model(self.posterior.theta, cells, value, variance)

    def update(self) -> None:
        self.posterior.update()

    def finish(self) -> None:
        for _ in range(FINAL_UPDATES):
            self.posterior.update()

    def model(self) -> CohortModel:
        weights, place = {}, 0
        for tower in self.towers:
            mine = {}
            for feature in (f for group in layout(tower) for f in group):
                mine[feature.name] = self.posterior.theta[place : place + feature.width].copy()
                place += feature.width
            weights[tower.role] = mine
        return CohortModel(float(self.posterior.theta[-1]), weights)
