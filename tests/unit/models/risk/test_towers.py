"""Node side of a tower: factors within caps, sums on the grid, bad input refused."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_contracts.specification import Knots, Levels, Tower
from convoy_demo.specifications import risk_specification
from convoy_models.plan import floor_cap
from convoy_models.risk.towers import Design, Labels, LabelsRefused, WeightsRefused

TOWER = Tower(
    role="insurer",
    features=(
        Knots(kind="knots", name="age", knots=("18", "50", "85")),
        Levels(kind="levels", name="fuel", levels=("diesel", "petrol")),
    ),
    groups=(("fuel",), ("age",)),
    cap="0.3",
)
COLUMNS = {"age": [18.0, 34.0, 90.0], "fuel": ["petrol", "diesel", "petrol"]}
ZERO = {"age": [0.0, 0.0, 0.0], "fuel": [0.0, 0.0]}


def test_columns_follow_the_groups() -> None:
    """The design's order is the order in which groups are asked."""
    design = Design.build(TOWER, COLUMNS)
    assert design.slices() == {"fuel": slice(0, 2), "age": slice(2, 5)}
    assert design.dense().tolist() == [[0, 1, 1, 0, 0], [1, 0, 0.5, 0.5, 0], [0, 1, 0, 0, 1]]
    assert design.dense(1, 2).tolist() == [[1, 0, 0.5, 0.5, 0]]


def test_a_factor_is_the_product_of_its_blocks_and_the_exposure() -> None:
    """exp(log .1 + log 2) x half a year, on the 2^-15 grid."""
    weights = {"age": [np.log(0.1)] * 3, "fuel": [0.0, np.log(2.0)]}
    factor = Design.build(TOWER, COLUMNS).factor(weights, np.array([0.5, 1.0, 1.0]))
    assert factor == pytest.approx([0.1, 0.1, 0.2], abs=2**-15)
    assert np.all(factor * 2**15 == np.rint(factor * 2**15))


def test_no_weight_lifts_a_factor_above_the_cap() -> None:
    """Not even a malicious one."""
    weights = {"age": [50.0, 50.0, -50.0], "fuel": [50.0, 50.0]}
    factor = Design.build(TOWER, COLUMNS).factor(weights, np.ones(3))
    assert factor.max() == floor_cap(TOWER) <= 0.3
    assert factor.min() >= 0.0


def test_sums_equal_the_dense_product() -> None:
    """For the whole design and for one group."""
    design, values = Design.build(TOWER, COLUMNS), np.array([0.25, 0.5, 2.0])
    assert np.array_equal(design.sums(values), design.dense().T @ values)
    assert np.array_equal(design.sums(values, (2, 5)), (design.dense().T @ values)[2:])
    with pytest.raises(WeightsRefused, match="in two"):
        design.sums(values, (1, 5))


@pytest.mark.parametrize(
    "weights",
    [
        {"age": [0.0, 0.0, 0.0]},
        ZERO | {"colour": [1.0]},
        ZERO | {"fuel": [0.0]},
        ZERO | {"fuel": [0.0, float("nan")]},
        ZERO | {"fuel": ["x", "y"]},
        ZERO | {"fuel": [[0.0], [0.0, 1.0]]},
        ZERO | {"fuel": {"diesel": 0.0}},
        ZERO | {"fuel": [1e300, -1e300]},
        [0.0],
    ],
)
def test_weights_that_do_not_fit_the_tower_are_refused(weights: object) -> None:
    """Missing, unknown, short, not finite, not numbers, too large, no mapping."""
    with pytest.raises(WeightsRefused):
        Design.build(TOWER, COLUMNS).factor(weights)  # type: ignore[arg-type]


def test_labels_are_capped_only_for_the_sum() -> None:
    """The node keeps the true counts for its own level correction."""
    spec = risk_specification()
    labels = Labels.build(spec, {"claim_count": [0, 3], "exposure_years": [1.0, 0.5]})
    assert labels.capped(1).tolist() == [0.0, 1.0]
    assert labels.claims.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("claims", "years", "cause"),
    [
        ([0, -1], [1.0, 1.0], "negative or fractional"),
        ([0, 0.5], [1.0, 1.0], "negative or fractional"),
        ([0, 1], [1.0, -0.5], "outside"),
        ([0, 1], [1.0, 0.0], "outside"),
        ([0, 1, 1], [1.0, 1.0], "lengths"),
    ],
)
def test_impossible_claims_or_exposure_are_refused(claims: list[float], years: list[float], cause: str) -> None:
    """The message names the column and how many rows."""
    with pytest.raises(LabelsRefused, match=cause):
        Labels.build(risk_specification(), {"claim_count": claims, "exposure_years": years})


def test_an_absent_label_column_is_named() -> None:
    """Both, if both are absent."""
    with pytest.raises(LabelsRefused, match=r"claim_count.*exposure_years"):
        Labels.build(risk_specification(), {})
