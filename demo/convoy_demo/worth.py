"""Is joining worth it? The joint model against what each insurer can do alone, on held-out drivers.

Every model is judged on the same drivers: all with OEM data in a population that nobody trained on.
The joint model's level is corrected by each insurer on its own training customers by age group (a
few numbers that never leave it), an insurer's own model likewise. The insurer alone gets the same
estimator, no noise, no caps and all of its customers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RiskSpecification
from convoy_demo.population import INSURER_COLUMNS, INSURERS, Floats, Population
from convoy_demo.specifications import AGE_GROUPS
from convoy_models.evaluation import d2, gini, top_decile_auc
from convoy_models.features import cells_of
from convoy_models.risk.model import RiskModel, local_levels
from convoy_models.simulate import alone


@dataclass(frozen=True, slots=True)
class Worth:
    """d2: deviance explained in per cent; gini: of claims over exposure; auc10: finds the riskiest
    tenth (true rate)."""

    d2: float
    gini: float
    auc10: float


def columns_of(population: Population, rows: npt.NDArray[np.bool_], specification: RiskSpecification) -> dict[str, Any]:
    """Return all columns of some drivers, with claims and exposure under the specification's
    names."""
    out: dict[str, Any] = {name: values[rows] for name, values in population.columns.items()}
    out[specification.claims] = population.claims[rows]
    out[specification.exposure] = population.exposure_years[rows]
    return out


def priced(model: RiskModel, cohort: str, training: Population, holdout: Population) -> Floats:
    """Return the yearly rate of the fresh drivers with a cohort's pattern of data, (N,), as their insurers would price them:
    the released model, its level corrected by each insurer on its own training customers by age group.

    Args:
        cohort: 'joint' (with OEM data) or 'solo'.
    """
    trained, judged = ((p.has_oem if cohort == "joint" else ~p.has_oem) for p in (training, holdout))
    rate = model.rate(cohort, columns_of(holdout, judged, model.specification))
    for number in range(len(INSURERS)):
        mine = trained & (training.insurer == number)
        levels = _levels(training, mine, model.rate(cohort, columns_of(training, mine, model.specification)))
        theirs = holdout.insurer[judged] == number
        rate[theirs] *= levels[cells_of(AGE_GROUPS, holdout.columns["driver_age"][judged][theirs])]
    return rate


def joint_worth(model: RiskModel, training: Population, holdout: Population) -> Worth:
    """Judge the joint model on held-out drivers with OEM data."""
    return _worth(holdout, holdout.has_oem, priced(model, "joint", training, holdout))


def alone_worth(specification: RiskSpecification, training: Population, holdout: Population) -> Mapping[str, Worth]:
    """Judge each insurer's own model on held-out drivers with OEM data."""
    out = {}
    ages = cells_of(AGE_GROUPS, holdout.columns["driver_age"][holdout.has_oem])
    for number, name in enumerate(INSURERS):
        mine = training.insurer == number
        columns = {
            key: value
            for key, value in columns_of(training, mine, specification).items()
            if key in (*INSURER_COLUMNS, specification.claims, specification.exposure)
        }
        model = alone(specification, columns)
        # Drivers with OEM data are a part of its book with a level of its own.
        judged = mine & training.has_oem
        levels = _levels(training, judged, model.rate("all", columns_of(training, judged, specification)))
        rate = levels[ages] * model.rate("all", columns_of(holdout, holdout.has_oem, specification))
        out[name] = _worth(holdout, holdout.has_oem, rate)
    return out


def _levels(training: Population, mine: npt.NDArray[np.bool_], rate: Floats) -> Floats:
    """Return an insurer's own correction of a yearly rate by age group; rate: (customers,)."""
    groups = cells_of(AGE_GROUPS, training.columns["driver_age"][mine])
    claims, expected = training.claims[mine].astype(np.float64), rate * training.exposure_years[mine]
    return local_levels(claims, expected, groups, AGE_GROUPS.width)


def _worth(holdout: Population, rows: npt.NDArray[np.bool_], rate: Floats) -> Worth:
    claims, years = holdout.claims[rows], holdout.exposure_years[rows]
    return Worth(
        d2=d2(claims, rate * years, years),
        gini=gini(claims, rate, years),
        auc10=top_decile_auc(holdout.rate[rows], rate),
    )
