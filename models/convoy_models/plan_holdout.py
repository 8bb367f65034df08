"""The sums about the hold-out of a joint risk run (``holdout`` says what each of them is).

Sums over columns: the insurers' matrix has one more column, of ones (``ONES``), so a sum over persons is one number and
``clip`` is the bound of one person's part; sums by level use the block of a feature (norm <= 1).

Three kinds, told apart by ``purpose``:

    holdout-*        opened to everybody: all insurers together
    holdout-own-*    one insurer with the carmaker; the insurer keeps its part and adds it to the
                     carmaker's at home, so nobody else can read the sum
    holdout-less-*   all insurers but one (K >= 4)

What may never change for ``risk-towers/1``: ids, shares and bounds below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from convoy_contracts.specification import RiskSpecification
from convoy_models.plan import (
    EVALUATION_LOG_BOUND,
    EVALUATION_RATIO_BOUND,
    Kind,
    PlannedQuery,
    Purpose,
    Side,
    clip_of,
    floor_cap,
    layout,
    noise_of,
)

BANDS: Final = 10
SCORE_BOUND: Final = 1.5
"""Bound on |log of a yearly rate over the prior rate|."""
NULL_BOUND: Final = 6.0
"""Bound on -log of what the prior rate expects of a person."""
ONES: Final = 1
"""How many columns of ones the insurers' matrix has more than its tower, where somebody is held out."""
LEAST_FOR_LESS: Final = 4
"""With as many insurers every sum is also asked without each of them."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    id: str
    purpose: Purpose
    kind: Kind
    clip: float
    share: float
    over: str = "ones"
    group: int = 0
    insurers: tuple[str, ...] | None = None


def holdout_queries(spec: RiskSpecification, sides: Mapping[str, Side], limit: float) -> list[PlannedQuery]:
    """Return the evaluation's queries, which cost at most ``limit`` mu^2 together."""
    if spec.evaluation is None:
        return []
    places, start = {}, 0
    towers = {tower.role: tower for tower in spec.towers}
    for group in layout(towers["insurer"]):
        for feature in group:
            places[feature.name] = (start, start + feature.width)
            start += feature.width
    over = {
        "ones": (start, start + 1),
        "audit": places[spec.evaluation.audit],
        "bands": (0, BANDS),
    }
    wanted = _wanted(spec, sides["insurer"].parties)
    every = math.fsum(row.share for row in wanted)
    queries = []
    for row in wanted:
        columns = over[row.over]
        width = columns[1] - columns[0]
        clip = clip_of(row.kind, row.clip, width)
        sigma, mu2 = noise_of(clip, limit * row.share / every * (1 - 1e-6))
        insurer = sides["insurer"] if row.insurers is None else Side("insurer", row.insurers)
        queries.append(
            PlannedQuery(
                id=f"joint/{row.id}",
                kind=row.kind,
                cohort="joint",
                module="insurer",
                purpose=row.purpose,
                sweep=spec.sweeps + (2 if row.purpose.startswith("holdout-less") else 1),
                group=row.group,
                columns=columns,
                shape=(width, 1),
                clip=clip,
                sigma=sigma,
                mu2=mu2,
                matrix=insurer,
                vectors=() if row.kind == "LOCAL" else (insurer, sides["oem"]),
            )
        )
    return queries


def _wanted(spec: RiskSpecification, insurers: tuple[str, ...]) -> list[_Wanted]:
    """Return the sums with their bounds; shares are relative and were set once by the size of the bounds."""
    cap = math.prod(floor_cap(tower) for tower in spec.towers)
    most = float(spec.claimCap)
    rows = [
        _Wanted("holdout-observed", "holdout-observed", "LOCAL", most, 0.07, "audit"),
        _Wanted("holdout-levels", "holdout-levels", "WEIGHTED", cap, 0.12, "audit"),
        _Wanted("holdout-logs", "holdout-logs", "WEIGHTED", most * EVALUATION_LOG_BOUND, 0.16),
        _Wanted("holdout-ratio", "holdout-ratio", "LOCAL", most * EVALUATION_RATIO_BOUND, 0.10),
        _Wanted("holdout-base", "holdout-base", "LOCAL", cap, 0.05),
        _Wanted("holdout-insurer", "holdout-insurer", "LOCAL", cap, 0.03),
        _Wanted("holdout-squares", "holdout-squares", "LOCAL", most * EVALUATION_RATIO_BOUND**2, 0.01),
        _Wanted("holdout-score", "holdout-score", "LOCAL", most * SCORE_BOUND, 0.06),
        _Wanted("holdout-years", "holdout-years", "LOCAL", cap, 0.02),
        _Wanted("holdout-null", "holdout-null", "LOCAL", most * (NULL_BOUND + math.log(most)), 0.06),
        _Wanted("holdout-oem", "holdout-oem", "WEIGHTED", cap, 0.05),
        _Wanted("holdout-bands", "holdout-bands", "LOCAL", most, 0.02, "bands"),
    ]
    rows += [
        _Wanted(f"holdout-band/{band:02d}", "holdout-band", "WEIGHTED", cap, 0.30 / BANDS, group=band)
        for band in range(BANDS)
    ]
    each = 0.35 / len(insurers)
    for place, party in enumerate(insurers):
        rows.append(
            _Wanted(
                f"holdout-own-logs/{party}", "holdout-own-logs", "WEIGHTED", most * EVALUATION_LOG_BOUND, each,
                group=place, insurers=(party,),
            )
        )  # fmt: skip
    for place, party in enumerate(insurers if len(insurers) >= LEAST_FOR_LESS else ()):
        rest, part = tuple(name for name in insurers if name != party), 0.3 / len(insurers)
        rows += [
            _Wanted(
                f"holdout-less-base/{party}", "holdout-less-base", "LOCAL", cap + most * EVALUATION_RATIO_BOUND,
                part * 0.4, group=place, insurers=rest,
            ),
            _Wanted(
                f"holdout-less-expected/{party}", "holdout-less-expected", "WEIGHTED", cap, part * 0.2,
                group=place, insurers=rest,
            ),
            _Wanted(
                f"holdout-less-logs/{party}", "holdout-less-logs", "WEIGHTED", most * EVALUATION_LOG_BOUND, part * 0.4,
                group=place, insurers=rest,
            ),
        ]  # fmt: skip
    return rows
