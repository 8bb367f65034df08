"""Measures agree with values worked out by hand or with scikit-learn's definitions."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_models.evaluation import (
    auc,
    d2,
    deviance_per_year,
    gini,
    hit_rate,
    observed_expected,
    poisson_deviance,
    top_decile_auc,
)


def test_poisson_deviance_by_hand() -> None:
    """y = 0, m = .5 gives 1; y = 2, m = 1 gives 4 log 2 - 2."""
    value = poisson_deviance(np.array([0, 2]), np.array([0.5, 1.0]))
    assert value == pytest.approx((1.0 + 4 * np.log(2) - 2) / 2)
    years = np.array([0.25, 0.25])
    assert deviance_per_year(np.array([0, 2]), np.array([0.5, 1.0]), years) == pytest.approx(4 * value)


def test_d2_is_zero_for_one_rate_and_hundred_for_the_truth() -> None:
    """In per cent."""
    claims, years = np.array([0.0, 1.0, 3.0]), np.array([1.0, 0.5, 1.0])
    assert d2(claims, 1.6 * years, years) == pytest.approx(0.0)
    assert d2(claims, np.maximum(claims, 1e-12), years) == pytest.approx(100.0)


def test_gini_is_zero_for_ties_and_changes_sign_when_reversed() -> None:
    """One number for all persons orders nobody."""
    claims, years = np.array([0, 0, 1, 2]), np.ones(4)
    rate = np.array([0.1, 0.2, 0.3, 0.4])
    assert gini(claims, np.ones(4), years) == pytest.approx(0.0)
    assert gini(claims, rate, years) == pytest.approx(-gini(claims, -rate, years))
    assert gini(claims, rate, years) == pytest.approx(1 - (1 / 3 + 4 / 3) / 4)


def test_auc_counts_ties_half() -> None:
    """Pairs: 2 of 4 right, one tie, one wrong."""
    positive, score = np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.7])
    assert auc(positive, score) == pytest.approx((2 + 0.5) / 4)
    rate = np.arange(100.0)
    assert top_decile_auc(rate, rate) == 1.0


def test_hit_rate_leaves_used_items_out_and_counts_ties_against() -> None:
    """Top-1 of three items."""
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    used = np.array([[True, False, False], [False, False, False]])
    assert hit_rate(scores, used, np.array([1, 0]), k=1) == 0.5
    assert hit_rate(scores, used, np.array([1, 0]), k=2) == 1.0


def test_observed_over_expected_by_group() -> None:
    """Two groups, in order of name."""
    levels = observed_expected(np.array([1, 0, 2]), np.array([0.5, 0.5, 4.0]), np.array(["young", "young", "old"]))
    assert [(g.group, g.persons, g.ratio) for g in levels] == [("old", 1, 0.5), ("young", 2, 1.0)]
