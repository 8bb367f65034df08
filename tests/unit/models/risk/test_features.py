"""Columns become bounded blocks, or are refused with a cause."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_contracts.specification import Knots, Levels
from convoy_models.features import ColumnRefused, encode, encode_all

AGE = Knots(kind="knots", name="age", knots=("18", "25", "50", "85"))
FUEL = Levels(kind="levels", name="fuel", levels=("diesel", "petrol"))


def test_a_value_between_knots_is_shared_by_its_two_neighbours() -> None:
    """21.5 is half way between 18 and 25; a knot belongs to itself."""
    dense = encode(AGE, [21.5, 25.0, 85.0]).dense()
    assert dense.tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def test_values_beyond_the_outer_knots_are_clipped_to_them() -> None:
    """The contract's bounds hold for any input."""
    assert encode(AGE, [-1e9, 1e9]).dense().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]


def test_a_log_scale_places_values_by_their_logarithm() -> None:
    """With scale log1p, sqrt(1 * 100) - 1 = 9 is the middle of 0 and 99."""
    km = Knots(kind="knots", name="km", knots=("0", "99"), scale="log1p")
    assert encode(km, [9.0]).dense().tolist() == [[0.5, 0.5]]


def test_levels_become_one_column_each() -> None:
    """Numbers and booleans are compared as text."""
    flag = Levels(kind="levels", name="flag", levels=("false", "true"))
    assert encode(FUEL, ["petrol", "diesel"]).dense().tolist() == [[0, 1], [1, 0]]
    assert encode(flag, np.array([True, False])).dense().tolist() == [[0, 1], [1, 0]]


def test_an_unknown_level_counts_as_other_only_where_the_contract_says_so() -> None:
    """Otherwise it is refused, without showing the value."""
    lenient = FUEL.model_copy(update={"other": "petrol"})
    assert encode(lenient, ["lpg"]).low.tolist() == [1]
    with pytest.raises(ColumnRefused, match=r"fuel.*1 row") as refused:
        encode(FUEL, ["lpg"])
    assert "lpg" not in refused.value.cause


@pytest.mark.parametrize(
    "values",
    [
        [20.0, float("nan")],
        [20.0, float("inf")],
        ["20", "30"],
        [[20.0], [30.0]],
        np.ma.masked_array([20.0, 30.0], mask=[False, True]),
        [20.0, None],
    ],
)
def test_a_column_that_is_not_finite_numbers_is_refused(values: object) -> None:
    """NaN, infinity, text, a matrix and missing values name the column."""
    with pytest.raises(ColumnRefused, match="age"):
        encode(AGE, values)


def test_all_faults_are_reported_at_once() -> None:
    """An absent column, a bad one and unequal lengths stand in one message."""
    with pytest.raises(ColumnRefused) as refused:
        encode_all([AGE, FUEL], {"age": [float("nan")]})
    assert "'fuel' is absent" in refused.value.cause
    assert "'age'" in refused.value.cause
    with pytest.raises(ColumnRefused, match="lengths"):
        encode_all([AGE, FUEL], {"age": [20.0], "fuel": ["diesel", "petrol"]})
