"""Is joining worth it? The joint model against what each insurer can do alone, on held-out drivers.

Every model is judged on the same drivers: all with OEM data in a population that nobody trained on.
The joint model's level is corrected by each insurer on its own training customers (one number that
never leaves it), an insurer's own model likewise. The insurer alone gets the same estimator, no
noise, no caps and all of its customers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RiskSpecification
from convoy_demo.population import INSURER_COLUMNS, INSURERS, Floats, Population
from convoy_models.evaluation import d2, gini, top_decile_auc
from convoy_models.risk.model import RiskModel, local_level
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


def joint_worth(model: RiskModel, training: Population, holdout: Population) -> Worth:
    """Judge the joint model on held-out drivers with OEM data."""
    spec, years = model.specification, training.exposure_years
    rate = model.rate("joint", columns_of(holdout, holdout.has_oem, spec))
    trained = training.has_oem
    expected = model.rate("joint", columns_of(training, trained, spec)) * years[trained]
    for number in range(len(INSURERS)):
        mine = training.insurer[trained] == number
        level = local_level(training.claims[trained][mine].astype(np.float64), expected[mine])
        rate[holdout.insurer[holdout.has_oem] == number] *= level
    return _worth(holdout, holdout.has_oem, rate)


def alone_worth(specification: RiskSpecification, training: Population, holdout: Population) -> Mapping[str, Worth]:
    """Judge each insurer's own model on held-out drivers with OEM data."""
    out = {}
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
        expected = model.rate("all", columns_of(training, judged, specification))
        expected = expected * training.exposure_years[judged]
        level = local_level(training.claims[judged].astype(np.float64), expected)
        rate = level * model.rate("all", columns_of(holdout, holdout.has_oem, specification))
        out[name] = _worth(holdout, holdout.has_oem, rate)
    return out


def _worth(holdout: Population, rows: npt.NDArray[np.bool_], rate: Floats) -> Worth:
    claims, years = holdout.claims[rows], holdout.exposure_years[rows]
    return Worth(
        d2=d2(claims, rate * years, years),
        gini=gini(claims, rate, years),
        auc10=top_decile_auc(holdout.rate[rows], rate),
    )
