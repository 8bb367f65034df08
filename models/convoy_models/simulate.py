"""Drive the optimiser on plaintext."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from convoy_models.features import Floats
from convoy_models.plan import Plan
from convoy_models.risk.fit import Ask, RiskFit
from convoy_models.risk.model import RiskModel
from convoy_models.risk.towers import Design, Labels


@dataclass(frozen=True, slots=True)
class PlainCohort:
    designs: Mapping[str, Design]
    labels: Labels


def answer(plan: Plan, cohorts, asks: list[Ask], claim_cap: int, noise=None) -> dict[str, Floats]:
    out = {}
    cache = {}
    for ask in asks:
        q = plan[ask.query]
        c = cohorts[q.cohort]
        if q.purpose == "labels":
            v = c.labels.capped(claim_cap)
        else:
            if q.cohort not in cache:
                v = np.ones(c.labels.claims.size)
                for role, w in ask.weights.items():
                    v = v * c.designs[role].factor(w, c.labels.exposure_years if role == "insurer" else None)
                cache[q.cohort] = v
            v = cache[q.cohort]
        s = c.designs[q.module].sums(v, q.columns)
        if noise is not None:
            s = s + q.noise_sd * noise.normal(size=s.size)
        out[q.id] = s
    return out


def run(spec, plan: Plan, cohorts, noise=None) -> RiskModel:
    fit = RiskFit(spec, plan)
    for c in fit._cohorts.values():
        c.with_noise = noise is not None
        c.posterior.adapt = c.posterior.adapt 
    gen = fit.steps()
    asks = next(gen)
    while True:
        try:
            asks = gen.send(answer(plan, cohorts, asks, spec.claimCap, noise))
        except StopIteration as stop:
            return stop.value
