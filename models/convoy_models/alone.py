"""What an insurer can do alone, computed at its own node on its own rows; nothing here leaves it.

The same estimator as the joint model's insurer tower, without noise and without caps, trained on
everybody but the held-out; its level is then corrected on the customers that the joint model is
about. The evaluation compares the joint model with it (``holdout``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from convoy_contracts.specification import RiskSpecification
from convoy_models.features import Block
from convoy_models.fixedpoint import Floats
from convoy_models.plan import plan
from convoy_models.risk.model import RiskModel, local_level
from convoy_models.risk.towers import Design, Labels
from convoy_models.simulate import PlainCohort, fit_plain

Rows = tuple[Design, Labels]
SWEEPS = 8
FEWEST = 50
"""Below as many training rows an insurer alone has one rate for all."""


def fit_alone(specification: RiskSpecification, learned: Sequence[Rows]) -> RiskModel | None:
    """Fit the insurer's own model; None where it has fewer than 50 rows or no claim.

    Args:
        specification: of the joint run; its claim cap is used, so that both predict capped claims.
        learned: the insurer's training rows, in one or more parts.
    """
    design, labels = joined(learned)
    if labels.claims.size < FEWEST or not labels.claims.any():
        return None
    tower = design.tower.model_copy(update={"cap": "30", "groups": None})
    mine = specification.model_copy(update={"towers": (tower,), "sweeps": SWEEPS, "evaluation": None})
    ordered = {block.name: block for block in design.blocks}
    plain = Design(tower, tuple(ordered[feature.name] for feature in tower.features))
    cohort = PlainCohort({"insurer": plain}, labels)
    return fit_plain(mine, plan(mine, {"insurer": ["alone"]}), {"all": cohort})


def expected_alone(model: RiskModel | None, rate: float, rows: Rows) -> Floats:
    """Return expected claims of some rows, (N,): of the own model, or of one yearly rate where there is none."""
    design, labels = rows
    if model is None:
        return np.asarray(rate * labels.exposure_years)
    cohort = model.cohorts["all"]
    score = np.full(design.size, cohort.level)
    for block in design.blocks:
        score += block.score(np.asarray(cohort.weights["insurer"][block.name]))
    return np.asarray(np.exp(np.minimum(score, 30.0)) * labels.exposure_years)


def alone_on(
    specification: RiskSpecification, learned: Sequence[Rows], judged: Sequence[Rows], level_on: Sequence[Rows]
) -> list[Floats]:
    """Return the own model's expected capped claims of every part of ``judged``.

    Args:
        specification: of the joint run.
        learned: every training row of the insurer.
        judged: parts to predict.
        level_on: training rows of the customers in question; they correct the level by one number.
    """
    _, labels = joined(learned)
    claims = labels.capped(specification.claimCap)
    rate = float((claims.sum() + 1) / (labels.exposure_years.sum() + 1 / max(float(specification.priorRate), 1e-9)))
    model = fit_alone(specification, learned)
    level = 1.0
    if level_on:
        seen = joined(level_on)
        level = local_level(seen[1].capped(specification.claimCap), expected_alone(model, rate, seen))
    return [level * expected_alone(model, rate, rows) for rows in judged]


def joined(parts: Sequence[Rows]) -> Rows:
    """Return parts as one; of the tower of the first."""
    first = parts[0][0]
    blocks = tuple(
        Block(
            block.name,
            block.width,
            np.concatenate([design.blocks[place].low for design, _ in parts]),
            np.concatenate([design.blocks[place].upper for design, _ in parts]),
        )
        for place, block in enumerate(first.blocks)
    )
    labels = Labels(
        np.concatenate([labels.claims for _, labels in parts]),
        np.concatenate([labels.exposure_years for _, labels in parts]),
    )
    return Design(first.tower, blocks), labels
