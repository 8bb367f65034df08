"""The recommender: bounded rows, three sums, item tables, and its worth under noise."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from convoy_demo.population import ITEMS, generate, histories
from convoy_demo.specifications import recommend_specification
from convoy_models.evaluation import hit_rate
from convoy_models.fixedpoint import Floats
from convoy_models.plan import plan
from convoy_models.recommend.items import HistoryRefused, bounded, history_rows, profile_rows
from convoy_models.recommend.model import ItemsMalformed, RecommendFit, RecommendModel
from convoy_models.risk.fit import FitRefused
from convoy_models.simulate import recommend_plain

ROLES = {"oem": ["oem"], "charging": ["charging"]}
SPEC = recommend_specification()


@cache
def world(size: int, seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return histories, profiles, used and held-out items of consenting users."""
    people = generate(size, seed)
    known = histories(people, seed)
    agreed = people.has_charging[known.drivers]
    rows = known.drivers[agreed]
    columns = {name: values[rows] for name, values in people.columns.items()}
    used = known.used[agreed]
    return (
        bounded(used.astype(float), float(SPEC.historyNorm)),
        profile_rows(SPEC, columns),
        used,
        known.held_out[agreed],
    )


@cache
def trained() -> RecommendModel:
    """Return the model at epsilon 4 from 8,000 users."""
    history, profile, _, _ = world(100_000, 1)
    return recommend_plain(SPEC, plan(SPEC, ROLES), history, profile, np.random.default_rng(1))


def test_joint_offers_beat_popularity_by_far_at_epsilon_4() -> None:
    """HR@10 on fresh users: blend over history over popularity; cold start over popularity."""
    history, profile, used, held_out = world(60_000, 2)
    model = trained()
    popular = hit_rate(np.tile(model.popularity, (held_out.size, 1)), used, held_out)
    warm = hit_rate(model.warm(history), used, held_out)
    cold = hit_rate(model.cold(profile), used, held_out)
    assert hit_rate(model.blend(history, profile), used, held_out) > popular + 0.18
    assert warm > popular + 0.15
    assert cold > popular + 0.12


def test_rows_never_pass_their_bounds() -> None:
    """Norms that the plan's clips rely on, after rounding."""
    history, profile, _, _ = world(60_000, 2)
    assert np.sqrt((history**2).sum(axis=1)).max() <= float(SPEC.historyNorm)
    assert np.sqrt((profile**2).sum(axis=1)).max() <= 1.0
    assert profile.min() >= 0.0


def test_a_history_counts_an_item_once_and_may_be_empty() -> None:
    """Two visits are one; nobody is divided by zero."""
    rows = history_rows(SPEC, [[ITEMS[3], ITEMS[3]], []])
    assert rows[0, 3] == 1.0
    assert rows.sum() == 1.0


def test_an_item_outside_the_contract_is_refused_without_naming_it() -> None:
    """Only how many."""
    with pytest.raises(HistoryRefused, match="2 entries") as refused:
        history_rows(SPEC, [["secret", ITEMS[0]], ["secret"]])
    assert "secret" not in refused.value.cause


def test_arrays_survive_the_round_trip_and_strangers_are_refused() -> None:
    """Shapes, names and finiteness are checked."""
    arrays = trained().to_arrays()
    again = RecommendModel.from_arrays(SPEC, arrays).to_arrays()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    faults = (
        {"item_item": arrays["item_item"][:, 1:]},
        {"popularity": arrays["popularity"] * np.nan},
        {"extra": np.zeros(1)},
    )
    for change in faults:
        with pytest.raises(ItemsMalformed):
            RecommendModel.from_arrays(SPEC, arrays | change)
    with pytest.raises(ItemsMalformed):
        trained().warm(np.zeros((1, 3)))


def test_sums_that_do_not_answer_are_refused() -> None:
    """A missing or short sum stops the fit."""
    steps = RecommendFit(SPEC, plan(SPEC, ROLES)).steps()
    next(steps)
    with pytest.raises(FitRefused, match="joint/gram"):
        steps.send({"joint/gram": np.zeros(3)})
