"""The insurer's veto: a fitted model tried on its own customers before anybody may have it.

Only what the insurer holds all columns of can be tried: its customers outside the joint cohort, with the solo cohort of the
candidate. The answer is one bit by the insurer's own decision; it is not noised, and the reason names no figure. A book with
fewer than 200 claims decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification, RiskSpecification
from convoy_models.errors import ModelsError
from convoy_models.evaluation import d2
from convoy_models.risk.cann import CannModel
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.risk.towers import Design, Labels
from convoy_node.errors import ActionRefused

if TYPE_CHECKING:
    from convoy_models.neural.cann import Residuals

FEWEST_CLAIMS = 200
LEVEL = (0.5, 2.0)
WORST_D2 = -5.0
"""Per cent of deviance: worse than one rate for everybody by this much is a veto."""


def tried(spec: RiskSpecification, candidate: object, own: tuple[Design, Labels] | None) -> str | None:
    """Return the reason of a veto, or None.

    Args:
        spec: of the run.
        candidate: arrays of the model by name, as lists of numbers.
        own: customers outside the joint cohort.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    if not isinstance(candidate, Mapping):
        raise _no_model()
    try:
        arrays = {str(name): np.asarray(values, dtype=np.float64) for name, values in candidate.items()}
        model = RiskModel.from_arrays(spec, arrays)
    except (ModelsError, TypeError, ValueError) as error:
        raise _no_model() from error
    chosen = model.cohorts.get("solo")
    if own is None or chosen is None or own[1].claims.sum() < FEWEST_CLAIMS:
        return None
    design, labels = own
    score = np.full(design.size, chosen.level)
    for block in design.blocks:
        score += block.score(np.asarray(chosen.weights["insurer"][block.name]))
    # Severity: amounts stand for years, and who had no claim says nothing (``convoy_models.risk.severity``).
    there = labels.exposure_years > 0
    counted = Labels(labels.claims[there], labels.exposure_years[there])
    return _judged(np.exp(np.clip(score[there], -30.0, 30.0)) * counted.exposure_years, counted)


def tried_tables(spec: PairsSpecification, candidate: object, own: TableRows) -> str | None:
    """Return the reason of a veto, or None; a model of tables is tried on all own customers.

    Args:
        spec: of the run.
        candidate: arrays of the model by name, as lists of numbers.
        own: the insurer's customers with their claims.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    if not isinstance(candidate, Mapping):
        raise _no_model()
    try:
        arrays = {str(name): np.asarray(values, dtype=np.float64) for name, values in candidate.items()}
        model = PairsModel.from_arrays(spec, arrays)
    except (ModelsError, TypeError, ValueError) as error:
        raise _no_model() from error
    labels = own.labels
    if labels is None or labels.claims.sum() < FEWEST_CLAIMS:
        return None
    return _judged(model.rate_of(own) * labels.exposure_years, labels)


def tried_residual(spec: PairsSpecification, candidate: object, own: Residuals) -> str | None:
    """As ``tried_tables``, for tables with a network on top.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    if not isinstance(candidate, Mapping):
        raise _no_model()
    try:
        arrays = {str(name): np.asarray(values, dtype=np.float64) for name, values in candidate.items()}
        model = CannModel.from_arrays(spec, arrays)
    except (ModelsError, TypeError, ValueError) as error:
        raise _no_model() from error
    labels = own.tables.labels
    if labels is None or labels.claims.sum() < FEWEST_CLAIMS:
        return None
    return _judged(own.rate(model) * labels.exposure_years, labels)


def _judged(expected: npt.NDArray[np.float64], labels: Labels) -> str | None:
    ratio = float(labels.claims.sum()) / float(expected.sum())
    if not LEVEL[0] <= ratio <= LEVEL[1]:
        return "its level is off by more than a factor of two."
    if d2(labels.claims, expected * ratio, labels.exposure_years) < WORST_D2:
        return "it is clearly worse than one rate for everybody."
    return None


def _no_model() -> ActionRefused:
    return ActionRefused(
        "the candidate's arrays make no model of the signed specification.",
        code="CANDIDATE_MALFORMED",
        fix="The coordinator and this node may run different versions.",
    )
