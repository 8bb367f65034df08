"""The steps of a residual as planned sums, and what they cost.

Every step is one LOCAL sum over secret Poisson samples; all of them are charged together, by the envelope of the
sampled Gaussian (``mechanisms``): mu^2 and a tail of delta / 50. The cost is written in the signed specification
(``costMicro``) and CHECKED here, not computed, because a plan must have the same bits at every party and an
accountant's last digits need not.
"""

from __future__ import annotations

import math

from convoy_contracts.specification import PairsSpecification, Residual
from convoy_models.accounting import mu_of
from convoy_models.fixedpoint import LOCAL_BITS
from convoy_models.mechanisms import TAIL_SHARE, SampledGaussian, envelope, left_of
from convoy_models.neural.shapes import weight_count
from convoy_models.plan import MU2_STEP, SIGMA_STEP, PlannedQuery, PlanRefused, Side

MICRO = 1e-6
MILLION = 1_000_000
LEAD = "all/residual"
FEWEST_MU2 = 1e-3
"""What the tables need at least."""
MOST_TRIES = 30


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
    rate = spec.residual.rateMicro / MILLION
    about = spec.residual.steps * rate * rate * math.expm1(min(50.0, (1000 / spec.residual.noiseMilli) ** 2))
    if about > 4 * limit:  # by the central limit; the accountant would work for minutes to say no
        raise PlanRefused("the residual's steps cost several times the run's epsilon; raise noiseMilli")
    needed = cost_micro(spec)
    cost = spec.residual.costMicro * MICRO
    if spec.residual.costMicro < needed:
        raise PlanRefused(f"the residual costs {needed} millionths of mu^2, the specification states less")
    if limit - cost < FEWEST_MU2:
        raise PlanRefused("the residual leaves nothing of epsilon for the tables; raise noiseMilli or epsilon")
    size, steps = weight_count(spec), spec.residual.steps
    each = math.ceil(cost / steps / MU2_STEP) * MU2_STEP
    clip, sigma = _scales(spec, spec.residual)
    return [
        PlannedQuery(
            id=f"{LEAD}-{step:04d}",
            kind="LOCAL",
            cohort="all",
            module="insurer",
            purpose="residual",
            sweep=spec.passes + 1,
            group=step,
            columns=(0, size),
            shape=(size, 1),
            clip=clip,
            sigma=sigma,
            mu2=each,
            matrix=side,
            vectors=(),
            rate=spec.residual.rateMicro / MILLION,
            lead=LEAD,
        )
        for step in range(steps)
    ]


def cost_micro(spec: PairsSpecification) -> int:
    """Return what all steps cost, mu^2 in millionths, rounded up: the least that ``costMicro`` may say.

    Raises:
        PlanRefused: no residual.
    """
    if spec.residual is None:
        raise PlanRefused("the specification has no residual")
    clip, sigma = _scales(spec, spec.residual)
    event = SampledGaussian(clip, sigma, spec.residual.rateMicro / MILLION, spec.residual.steps)
    return math.ceil(envelope([event], _delta(spec) / TAIL_SHARE).mu2 / MICRO - 1e-6)


def priced(spec: PairsSpecification, share: float) -> PairsSpecification:
    """Return the specification with about the least noise at which the residual costs at most a share of the run's mu^2.

    For authors of a contract; nothing of a run calls it.

    Args:
        spec: with a residual; its ``noiseMilli`` and ``costMicro`` are replaced.
        share: in (0, 1).

    Raises:
        PlanRefused: no residual, or no noise in range that is enough.
    """
    if spec.residual is None:
        raise PlanRefused("the specification has no residual")
    tail = 0.0 if spec.residual.rateMicro == 1_000_000 else _delta(spec) / TAIL_SHARE
    wanted = share * mu_of(spec.epsilonMicro * MICRO, left_of(_delta(spec), tail)) ** 2

    def at(noise: int) -> PairsSpecification:
        made = spec.residual.model_copy(update={"noiseMilli": noise}) if spec.residual is not None else None
        return spec.model_copy(update={"residual": made})

    # The central limit of many small steps gives a first guess; the accountant decides.
    rate, steps = spec.residual.rateMicro / MILLION, spec.residual.steps
    guess = math.sqrt(1 / math.log1p(wanted / (steps * rate * rate)))
    noise = max(100, math.ceil(guess * 1000))
    for _ in range(MOST_TRIES):
        found = at(noise)
        cost = cost_micro(found)
        if cost * MICRO <= wanted and found.residual is not None:
            return spec.model_copy(update={"residual": found.residual.model_copy(update={"costMicro": cost})})
        noise = math.ceil(noise * max(1.01, math.sqrt(cost * MICRO / wanted)))
        if noise > 1_000_000:
            break
    raise PlanRefused("no noise in range makes these steps so cheap")


def _scales(spec: PairsSpecification, residual: Residual) -> tuple[float, float]:
    """Return clip and sigma of a step's sum."""
    clip = (float(residual.clip) + math.sqrt(weight_count(spec)) * 2.0**-LOCAL_BITS) * (1 + 2.0**-40)
    return clip, math.ceil(clip * residual.noiseMilli / 1000 / SIGMA_STEP) * SIGMA_STEP


def _delta(spec: PairsSpecification) -> float:
    return spec.deltaNano / 1e9
