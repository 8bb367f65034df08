"""Membership inference on a run before its release: an attack on the same plan, over generated persons.

Nobody who may publish has all rows, and real rows must not be spent on attacks. So the attack trains the
run's own specification and plan (its clips, its sigmas, its optimiser) many times on persons drawn from
the specification's public bounds, with and without target persons who are as conspicuous as the
specification allows (rarest cells, claims at the cap, a full year), and runs LiRA over what the model says
about each target (``privacy_audit.shadow_membership``). An alarm means that plan, noise and optimiser
together leak more than epsilon allows: nothing may be released then.

It looks at a plan and no data, so CI and ``bench/privacy_audit.py`` run it; before a release every data holder attacks the
real candidate with real persons (``home_attack``).

It says nothing about a node that lies about its noise; the audits of ``privacy_audit`` over the real
pipeline, and the rule of noise honesty, do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from convoy_contracts.specification import Cuts, Knots, Levels, PairsSpecification, RiskSpecification
from convoy_models.errors import AccountingRefused
from convoy_models.fixedpoint import Floats
from convoy_models.plan import plan
from convoy_models.privacy_audit import Coins, Membership, shadow_membership
from convoy_models.risk.tables import TableRows
from convoy_models.simulate import PlainCohort, fit_pairs_plain, fit_plain

PERSONS: Final = 300
ATTACKED: Final = 1200
"""Pairs of target and model that are attacked, at least: enough to prove an advantage of 0.2 with confidence."""
SHADOWS: Final = 40


def attack(
    specification: RiskSpecification | PairsSpecification,
    roles: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
    *,
    persons: int = PERSONS,
    shadows: int = SHADOWS,
    attacked: int = ATTACKED,
    noise: float = 1.0,
) -> Membership:
    """Attack a specification's plan; a few seconds.

    Args:
        specification: of the run, towers or tables.
        roles: party ids by role, as for ``plan``.
        rng: of everything drawn.
        persons: generated persons beside the targets; few, so that a leak shows.
        shadows: models that the attack learns from.
        attacked: pairs of target and further model, at least; one target for each feature.
        noise: factor on every sigma; 1 is the plan, tests plant less.

    Raises:
        AccountingRefused: a specification of another kind.
    """
    if not isinstance(specification, RiskSpecification | PairsSpecification):
        raise AccountingRefused("this attack knows towers and tables only; recommendations have no loss per person.")
    targets = len(features_of(specification))
    columns = drawn(specification, persons, targets, rng)
    told = {name: values[persons:] for name, values in columns.items()}

    def train(inside: Coins) -> Floats:
        kept = np.concatenate([np.ones(persons, dtype=bool), inside])
        chosen = {name: values[kept] for name, values in columns.items()}
        rates = _rates(specification, roles, chosen, told, rng, noise)
        return np.asarray(told[specification.claims] * np.log(rates) - rates, dtype=np.float64)

    return shadow_membership(
        train, targets, specification.epsilonMicro / 1e6, specification.deltaNano / 1e9, rng,
        shadows=shadows, trials=-(-attacked // targets),
    )  # fmt: skip


def features_of(specification: RiskSpecification | PairsSpecification) -> tuple[Knots | Levels | Cuts, ...]:
    """Return the features of all parties."""
    if isinstance(specification, RiskSpecification):
        return tuple(feature for tower in specification.towers for feature in tower.features)
    return tuple(specification.features)


def drawn(
    specification: RiskSpecification | PairsSpecification, persons: int, targets: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return generated columns: ordinary persons, then targets, each in the rarest cell of one feature."""
    features = features_of(specification)
    columns: dict[str, Any] = {}
    for place, feature in enumerate(features):
        odd = np.arange(targets) % len(features) == place
        if isinstance(feature, Levels):
            levels = np.array(feature.levels)
            values = levels[rng.integers(0, max(1, len(levels) - 1), persons + targets)]
            values[persons:][odd] = levels[-1]
        else:
            ends = [float(x) for x in (feature.knots if isinstance(feature, Knots) else feature.cuts)]
            low, high = ends[0], ends[-1] if ends[-1] > ends[0] else ends[0] + 1.0
            values = rng.uniform(low, low + 0.8 * (high - low), persons + targets)
            values[persons:][odd] = high + 1.0
        columns[feature.name] = values
    claims = np.minimum(rng.poisson(float(specification.priorRate), persons), specification.claimCap)
    columns[specification.claims] = np.concatenate([claims, np.full(targets, specification.claimCap)]).astype(float)
    columns[specification.exposure] = np.ones(persons + targets)
    return columns


def _rates(
    specification: RiskSpecification | PairsSpecification,
    roles: Mapping[str, Sequence[str]],
    columns: Mapping[str, Any],
    told: Mapping[str, Any],
    rng: np.random.Generator,
    factor: float,
) -> Floats:
    made = plan(specification, roles).training
    source = _Weaker(rng, factor)
    if isinstance(specification, PairsSpecification):
        rows = TableRows.build(specification, columns)
        return np.asarray(fit_pairs_plain(specification, made, rows, source).rate(told))  # type: ignore[arg-type]
    cohorts = {query.cohort: PlainCohort.build(specification, columns) for query in made.queries}
    model = fit_plain(specification, made, cohorts, source)  # type: ignore[arg-type]
    return np.asarray(model.rate("joint" if "joint" in cohorts else "all", told))


class _Weaker:
    """A generator whose normal draws are scaled: how a test plants too little noise."""

    def __init__(self, rng: np.random.Generator, factor: float) -> None:
        self._rng = rng
        self._factor = factor

    def normal(self, size: int) -> Floats:
        """Return scaled draws."""
        return self._factor * self._rng.normal(size=size)
