"""The steps of a network's training as planned sums, and what they cost.

Every step is one LOCAL sum over secret Poisson samples; all of them are charged together, by the envelope of the
sampled Gaussian (``mechanisms``): mu^2 and a tail of delta / 50. The cost is written in the signed specification
(``costMicro``) and CHECKED here, not computed, because a plan must have the same bits at every party and an
accountant's last digits need not.
"""

from __future__ import annotations

import math
from typing import TypeVar

from convoy_contracts.specification import Descent, PairsSpecification, TowersSpecification
from convoy_models.accounting import mu_of
from convoy_models.fixedpoint import local_clip
from convoy_models.mechanisms import TAIL_SHARE, SampledGaussian, envelope, left_of
from convoy_models.neural import shapes
from convoy_models.plan import MU2_STEP, SIGMA_STEP, PlannedQuery, PlanRefused, Purpose, Side, local_query, noise_of
from convoy_models.recommend import towers

MICRO = 1e-6
MILLION = 1_000_000
LEAD = "all/residual"
DESCENT = "all/descent"
FEWEST_MU2 = 1e-3
"""What the tables need at least."""
MOST_TRIES = 30

Trained = PairsSpecification | TowersSpecification
S = TypeVar("S", PairsSpecification, TowersSpecification)


def residual_queries(spec: PairsSpecification, side: Side, limit: float) -> list[PlannedQuery]:
    """Return the steps in order; none without a residual.

    Args:
        spec: of the run.
        side: the insurers.
        limit: mu^2 of the whole run.

    Raises:
        PlanRefused: the stated cost is too small for the steps, or leaves nothing for the tables.
    """
    if spec.residual is None:
        return []
    cost = _checked_cost(spec, limit)
    if limit - cost < FEWEST_MU2:
        raise PlanRefused("the residual leaves nothing of epsilon for the tables; raise noiseMilli or epsilon")
    return _steps(spec, side, LEAD, "residual", spec.passes + 1)


def tower_queries(spec: TowersSpecification, side: Side, limit: float) -> list[PlannedQuery]:
    """Return the sums of ``recommend-towers/1`` in order: popularity, the steps, the hold-out.

    A person is a history scaled to norm 1 in the popularity, a gradient cut to ``clip`` in a step that its node's coins put it
    in, and one of four counts in the hold-out: which lists, personal and general, held the item that was hidden.

    Args:
        spec: of the run.
        side: the charging operators.
        limit: mu^2 of the whole run.

    Raises:
        PlanRefused: the stated cost is too small for the steps, or all sums together cost more than epsilon.
    """
    usable = limit * (1 - 1e-6)
    popular, judged = usable * spec.popularityMilli / 1000, usable * spec.test.shareMilli / 1000
    if _checked_cost(spec, limit) + popular + judged > usable:
        raise PlanRefused("popularity, steps and hold-out cost more than epsilon; raise noiseMilli or epsilon")
    steps = _steps(spec, side, DESCENT, "descent", 1)
    return [
        _count(side, "popularity", "popularity", 0, len(spec.items), popular),
        *steps,
        _count(side, "holdout", "holdout-lists", 2, towers.LISTS, judged),
    ]


def cost_micro(spec: Trained) -> int:
    """Return what all steps cost, mu^2 in millionths, rounded up: the least that ``costMicro`` may say.

    Raises:
        PlanRefused: no network.
    """
    descent = _descent(spec)
    clip, sigma = _scales(spec)
    event = SampledGaussian(clip, sigma, descent.rateMicro / MILLION, descent.steps)
    return math.ceil(envelope([event], _delta(spec) / TAIL_SHARE).mu2 / MICRO - 1e-6)


def tail_of(spec: object) -> float:
    """Return what a sampled training sets aside of delta (``mechanisms.envelope``); 0 where nothing is sampled."""
    if isinstance(spec, PairsSpecification) and spec.residual is None:
        return 0.0
    if not isinstance(spec, PairsSpecification | TowersSpecification) or _descent(spec).rateMicro == MILLION:
        return 0.0
    return _delta(spec) / TAIL_SHARE


def priced(spec: S, share: float) -> S:
    """Return the specification with about the least noise at which the steps cost at most a share of the run's mu^2.

    For authors of a contract; nothing of a run calls it.

    Args:
        spec: with a network; its ``noiseMilli`` and ``costMicro`` are replaced.
        share: in (0, 1).

    Raises:
        PlanRefused: no network, or no noise in range that is enough.
    """
    descent = _descent(spec)
    wanted = share * mu_of(spec.epsilonMicro * MICRO, left_of(_delta(spec), tail_of(spec))) ** 2
    # The central limit of many small steps gives a first guess; the accountant decides.
    rate = descent.rateMicro / MILLION
    guess = math.sqrt(1 / math.log1p(wanted / (descent.steps * rate * rate)))
    noise = max(100, math.ceil(guess * 1000))
    for _ in range(MOST_TRIES):
        found = _with(spec, noiseMilli=noise)
        cost = cost_micro(found)
        if cost * MICRO <= wanted:
            return _with(found, costMicro=cost)
        noise = math.ceil(noise * max(1.01, math.sqrt(cost * MICRO / wanted)))
        if noise > 1_000_000:
            break
    raise PlanRefused("no noise in range makes these steps so cheap")


def _checked_cost(spec: Trained, limit: float) -> float:
    """Return the stated mu^2 of the steps if it is enough for them."""
    descent = _descent(spec)
    rate = descent.rateMicro / MILLION
    about = descent.steps * rate * rate * math.expm1(min(50.0, (1000 / descent.noiseMilli) ** 2))
    if about > 4 * limit:  # by the central limit; the accountant would work for minutes to say no
        raise PlanRefused("the steps cost several times the run's epsilon; raise noiseMilli")
    needed = cost_micro(spec)
    if descent.costMicro < needed:
        raise PlanRefused(f"the steps cost {needed} millionths of mu^2, the specification states less")
    return descent.costMicro * MICRO


def _steps(spec: Trained, side: Side, lead: str, purpose: Purpose, sweep: int) -> list[PlannedQuery]:
    descent, size = _descent(spec), _size(spec)
    each = math.ceil(descent.costMicro * MICRO / descent.steps / MU2_STEP) * MU2_STEP
    clip, sigma = _scales(spec)
    return [
        local_query(
            f"{lead}-{step:04d}",
            side,
            purpose,
            size,
            clip=clip,
            noise=(sigma, each),
            sweep=sweep,
            group=step,
            rate=descent.rateMicro / MILLION,
            lead=lead,
        )
        for step in range(descent.steps)
    ]


def _count(side: Side, name: str, purpose: Purpose, sweep: int, size: int, mu2: float) -> PlannedQuery:
    """Return a sum in which a person's part has norm 1."""
    clip = local_clip(1.0, size)
    return local_query(f"all/{name}", side, purpose, size, clip=clip, noise=noise_of(clip, mu2), sweep=sweep)


def _descent(spec: Trained) -> Descent:
    found = spec.residual if isinstance(spec, PairsSpecification) else spec.network
    if found is None:
        raise PlanRefused("the specification has no residual")
    return found


def _size(spec: Trained) -> int:
    return shapes.weight_count(spec) if isinstance(spec, PairsSpecification) else towers.weight_count(spec)


def _with(spec: S, **members: int) -> S:
    name = "residual" if isinstance(spec, PairsSpecification) else "network"
    return spec.model_copy(update={name: _descent(spec).model_copy(update=members)})


def _scales(spec: Trained) -> tuple[float, float]:
    """Return clip and sigma of a step's sum."""
    descent = _descent(spec)
    clip = local_clip(float(descent.clip), _size(spec))
    return clip, math.ceil(clip * descent.noiseMilli / 1000 / SIGMA_STEP) * SIGMA_STEP


def _delta(spec: Trained) -> float:
    return spec.deltaNano / 1e9
