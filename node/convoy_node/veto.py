"""The insurer's veto: a fitted model tried on its own customers before anybody may have it.

Only what the insurer holds all columns of can be tried: its customers outside the joint cohort, with the solo cohort of the
candidate. The answer is one bit by the insurer's own decision; it is not noised, and the reason names no figure. A book with
fewer than 200 claims decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification, RiskSpecification
from convoy_models.errors import ModelsError
from convoy_models.evaluation import d2
from convoy_models.risk.cann import CannModel
from convoy_models.risk.model import CohortModel, RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.risk.towers import Design, Labels
from convoy_node.errors import ActionRefused

if TYPE_CHECKING:
    from convoy_models.neural.cann import Residuals

Floats = npt.NDArray[np.float64]
T = TypeVar("T")
FEWEST_CLAIMS = 200
LEVEL = (0.5, 2.0)
WORST_D2 = -5.0
"""Per cent of deviance: worse than one rate for everybody by this much is a veto."""


def read_candidate(make: Callable[[dict[str, Floats]], T], candidate: object) -> T:
    """Return a candidate's model.

    Args:
        make: builds it from arrays by name, such as ``from_arrays`` of its kind for a specification.
        candidate: arrays by name, as lists of numbers or as arrays.

    Raises:
        ActionRefused: the arrays make no model of the specification.
    """
    try:
        if not isinstance(candidate, Mapping):
            raise TypeError("no arrays by name")
        return make({str(name): np.asarray(values, dtype=np.float64) for name, values in candidate.items()})
    except (ModelsError, TypeError, ValueError) as error:
        raise ActionRefused(
            "the candidate's arrays make no model of the signed specification.",
            code="CANDIDATE_MALFORMED",
            fix="The coordinator and this node may run different versions.",
        ) from error


def expected_of(design: Design, labels: Labels, cohort: CohortModel) -> Floats:
    """Return what the insurer's tower of a cohort expects of own customers, level and exposure included: (N,) > 0 or 0."""
    score = np.full(design.size, cohort.level)
    for block in design.blocks:
        score += block.score(np.asarray(cohort.weights["insurer"][block.name]))
    return np.asarray(np.exp(np.clip(score, -30.0, 30.0)) * labels.exposure_years)


def tried(spec: RiskSpecification, candidate: object, own: tuple[Design, Labels] | None) -> str | None:
    """Return the reason of a veto, or None.

    Args:
        spec: of the run.
        candidate: arrays of the model by name, as lists of numbers.
        own: customers outside the joint cohort.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    chosen = read_candidate(partial(RiskModel.from_arrays, spec), candidate).cohorts.get("solo")
    if own is None or chosen is None or own[1].claims.sum() < FEWEST_CLAIMS:
        return None
    expected, labels = expected_of(*own, chosen), own[1]
    # Severity: amounts stand for years, and who had no claim says nothing (``convoy_models.risk.severity``).
    there = labels.exposure_years > 0
    return _judged(expected[there], Labels(labels.claims[there], labels.exposure_years[there]))


def tried_tables(spec: PairsSpecification, candidate: object, own: TableRows) -> str | None:
    """Return the reason of a veto, or None; a model of tables is tried on all own customers.

    Args:
        spec: of the run.
        candidate: arrays of the model by name, as lists of numbers.
        own: the insurer's customers with their claims.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    model, labels = read_candidate(partial(PairsModel.from_arrays, spec), candidate), own.labels
    if labels is None or labels.claims.sum() < FEWEST_CLAIMS:
        return None
    return _judged(model.rate_of(own) * labels.exposure_years, labels)


def tried_residual(spec: PairsSpecification, candidate: object, own: Residuals) -> str | None:
    """As ``tried_tables``, for tables with a network on top.

    Raises:
        ActionRefused: the arrays make no model of this specification.
    """
    model, labels = read_candidate(partial(CannModel.from_arrays, spec), candidate), own.tables.labels
    if labels is None or labels.claims.sum() < FEWEST_CLAIMS:
        return None
    return _judged(own.rate(model) * labels.exposure_years, labels)


def _judged(expected: Floats, labels: Labels) -> str | None:
    ratio = float(labels.claims.sum()) / float(expected.sum())
    if not LEVEL[0] <= ratio <= LEVEL[1]:
        return "its level is off by more than a factor of two."
    if d2(labels.claims, expected * ratio, labels.exposure_years) < WORST_D2:
        return "it is clearly worse than one rate for everybody."
    return None
