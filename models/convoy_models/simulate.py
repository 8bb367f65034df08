"""The optimiser on plaintext: for tuning, for the pooled fit, for an insurer alone, and to check
the secure run.

Sums are made from the same designs and factors (same fixed-point grids) as at the nodes. Noise is a
continuous Gaussian of the standard deviation that the deployed sum carries with all parties honest
(``PlannedQuery.noise_sd``), so accuracy measured here is accuracy under the collusion-robust rule.

Gives NO privacy: whoever calls this sees all data. A node uses it on its own rows only (``alone``), a coordinator never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy_contracts.specification import PairsSpecification, RecommendSpecification, RiskSpecification
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Plan, PlannedQuery, plan
from convoy_models.recommend.items import second_moments
from convoy_models.recommend.model import RecommendFit, RecommendModel
from convoy_models.risk.boosting import PairsFit
from convoy_models.risk.fit import Ask, FitRefused, Noise, RiskFit, drive
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.risk.towers import Design, Labels


@dataclass(frozen=True, slots=True)
class PlainCohort:
    """All persons of a cohort, over all insurers. designs: by tower role, rows aligned with
    labels."""

    designs: Mapping[str, Design]
    labels: Labels

    @classmethod
    def build(cls, specification: RiskSpecification, columns: Mapping[str, Any]) -> PlainCohort:
        """Encode every tower for which all columns are there.

        Args:
            specification: names the columns.
            columns: (N,) values by name, of all parties.
        """
        designs: dict[str, Design] = {
            tower.role: Design.build(tower, columns)
            for tower in specification.towers
            if tower.role == "insurer" or all(feature.name in columns for feature in tower.features)
        }
        return cls(designs, Labels.build(specification, columns))


def plain_sums(
    specification: RiskSpecification,
    made: Plan,
    cohorts: Mapping[str, PlainCohort],
    asks: Sequence[Ask],
    noise: np.random.Generator | None = None,
) -> dict[str, Floats]:
    """Return what an exchange of ``asks`` would open, by query id."""
    out: dict[str, Floats] = {}
    factors: dict[str, Floats] = {}
    for ask in asks:
        query = made[ask.query]
        cohort = cohorts[query.cohort]
        if query.purpose == "labels":
            values = cohort.labels.capped(specification.claimCap)
        else:
            if query.cohort not in factors:
                product = np.ones(cohort.labels.claims.size)
                for role, weights in ask.weights.items():
                    years = cohort.labels.exposure_years if role == "insurer" else None
                    product = product * cohort.designs[role].factor(weights, years)
                factors[query.cohort] = product
            values = factors[query.cohort]
        total = cohort.designs[query.module].sums(values, query.columns)
        if noise is not None:
            total = total + query.noise_sd * noise.normal(size=total.size)
        out[query.id] = total
    return out


def fit_plain(
    specification: RiskSpecification,
    made: Plan,
    cohorts: Mapping[str, PlainCohort],
    noise: np.random.Generator | None = None,
    believed: Noise | None = None,
) -> RiskModel:
    """Run the optimiser on plaintext.

    Args:
        specification: of the run.
        made: its plan.
        cohorts: persons by cohort of the plan.
        noise: source of the planned noise, or None for exact sums.
        believed: what the optimiser believes; by default the truth. 'planned' with exact sums is
            what a secure run with its noise switched off (tests only) must reproduce.
    """
    belief: Noise = believed if believed is not None else ("none" if noise is None else "planned")
    steps = RiskFit(specification, made, belief).steps()
    return drive(steps, lambda asks: plain_sums(specification, made, cohorts, asks, noise))


def fit_pairs_plain(
    specification: PairsSpecification,
    made: Plan,
    rows: TableRows,
    noise: np.random.Generator | None = None,
    believed: Noise | None = None,
) -> PairsModel:
    """Run the optimiser of tables on plaintext.

    Args:
        specification: of the run.
        made: its plan.
        rows: persons of all insurers.
        noise: source of the planned noise, or None for exact sums.
        believed: see ``fit_plain``.

    Raises:
        FitRefused: the specification has a residual (``neural.cann.fit_cann_plain``).
    """
    if specification.residual is not None:
        raise FitRefused("a specification with a residual is trained by neural.cann.fit_cann_plain")
    belief: Noise = believed if believed is not None else ("none" if noise is None else "planned")

    def opened(asks: list[Ask]) -> dict[str, Floats]:
        return {
            ask.query: noisy(made[ask.query], rows.local_sum(made[ask.query], ask.weights.get("insurer")), noise)
            for ask in asks
        }

    return drive(PairsFit(specification, made, belief).steps(), opened)


def noisy(query: PlannedQuery, total: Floats, noise: np.random.Generator | None) -> Floats:
    """Return a plaintext sum with the noise that the deployed one carries, or as it is."""
    return total if noise is None else total + query.noise_sd * noise.normal(size=total.size)


def alone(specification: RiskSpecification, columns: Mapping[str, Any], sweeps: int = 8) -> RiskModel:
    """Fit what an insurer can do alone on its own columns: the same estimator without noise,
    without caps.

    Args:
        specification: its insurer tower is used.
        columns: (N,) the insurer's customers, all of them.
        sweeps: passes; exact sums cost nothing.
    """
    tower = next(tower for tower in specification.towers if tower.role == "insurer")
    mine = specification.model_copy(
        update={
            "towers": (tower.model_copy(update={"cap": "30", "groups": None}),),
            "claimCap": 20,
            "sweeps": sweeps,
        }
    )
    return fit_plain(mine, plan(mine, {"insurer": ["alone"]}), {"all": PlainCohort.build(mine, columns)})


def recommend_plain(
    specification: RecommendSpecification,
    made: Plan,
    histories: Floats,
    profiles: Floats,
    noise: np.random.Generator | None = None,
    believed: Noise | None = None,
) -> RecommendModel:
    """Run the recommender's optimiser on plaintext.

    Args:
        specification: of the run.
        made: its plan.
        histories: (N, items) of ``recommend.items.history_rows``.
        profiles: (N, width) of ``recommend.items.profile_rows``, rows aligned with histories.
        noise: source of the planned noise, or None for exact sums.
        believed: see ``fit_plain``.
    """
    sums = {
        "gram": second_moments(histories),
        "cross": (profiles.T @ histories).reshape(-1),
        "profile": second_moments(profiles),
    }
    opened = {}
    for query in made.queries:
        extra = 0.0 if noise is None else query.noise_sd * noise.normal(size=query.size)
        opened[query.id] = sums[query.purpose] + extra
    belief: Noise = believed if believed is not None else ("none" if noise is None else "planned")
    steps = RecommendFit(specification, made, belief).steps()
    next(steps)
    try:
        steps.send(opened)
    except StopIteration as done:
        model: RecommendModel = done.value
        return model
    raise FitRefused("the recommender asked twice")
