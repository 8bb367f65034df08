"""Two towers learn a taste from clipped sums; a person is bounded whatever the history; numpy scores what torch trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convoy_models.errors import ShapeMismatch
from convoy_models.evaluation import hit_rate
from convoy_models.neural.two_tower import Persons, TwoTowers, features, first_weights, scores
from convoy_models.recommend.descent import Terms, train
from convoy_models.testing import SeededNoise

ITEMS, UNITS, SPACE = 12, 8, 4


def _world(size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return profiles, histories and a held-out item: the sign of the profile decides which half of the items is liked."""
    rng = np.random.default_rng(seed)
    profile = rng.choice([-1.0, 1.0], (size, 1))
    liked = (np.arange(ITEMS)[None, :] < ITEMS // 2) == (profile > 0)
    wish = 2.5 * liked + rng.gumbel(size=(size, ITEMS))
    order = np.argsort(-wish, axis=1)
    used = np.zeros((size, ITEMS), dtype=bool)
    np.put_along_axis(used, order[:, :3], True, axis=1)
    return profile, used, order[:, 3]


def _holder(size: int, seed: int, clip: float = 1.0) -> Persons:
    profile, used, _ = _world(size, seed)
    return Persons(profile, used, UNITS, SPACE, clip, np.random.default_rng(seed))


def test_without_noise_three_partners_learn_a_taste_that_popularity_cannot() -> None:
    """HR@3 on fresh persons, far above the popular list; with noise at mu .8 still above it."""
    holders = [_holder(400, seed) for seed in (1, 2, 3)]
    start = first_weights(1, ITEMS, UNITS, SPACE, 1)
    assert start.size == holders[0].size
    profile, used, held_out = _world(2_000, 9)
    popular = hit_rate(np.tile(used.sum(axis=0).astype(float), (2_000, 1)), used, held_out, 3)

    def reached(mu2: float | None) -> float:
        terms = Terms(steps=40, rate=1.0, clip=1.0, ridge=0.0, persons=1_200, mu2=mu2)
        noise = None if mu2 is None else [SeededNoise(n) for n in range(3)]
        weights = train(holders, terms, noise, start)
        return hit_rate(scores(weights, profile, used, UNITS, SPACE), used, held_out, 3)

    assert reached(None) > popular + 0.2
    assert reached(0.64) > popular + 0.05


def test_a_person_with_a_long_history_moves_a_sum_by_at_most_the_clip() -> None:
    """The same coins for everybody else; the clip bounds a person who used everything."""
    profile, used, _ = _world(50, 4)
    used[-1] = True
    weights = 3 * first_weights(1, ITEMS, UNITS, SPACE, 2)
    both = [
        Persons(profile[:n], used[:n], UNITS, SPACE, 0.2, np.random.default_rng(7)).clipped_sum(weights, 0.2)
        for n in (50, 49)
    ]
    assert 0 < np.linalg.norm(both[0] - both[1]) <= 0.2


def test_numpy_scores_are_those_of_the_network() -> None:
    """No torch is needed where a list is made."""
    profile, used, _ = _world(30, 5)
    net = TwoTowers(1, ITEMS, UNITS, SPACE).double()
    weights = np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    with torch.no_grad():
        wanted = net(torch.from_numpy(features(profile, used))).numpy()
    np.testing.assert_allclose(scores(weights, profile, used, UNITS, SPACE), wanted, rtol=1e-12)
    with pytest.raises(ShapeMismatch):
        scores(weights[:-1], profile, used, UNITS, SPACE)
    with pytest.raises(ShapeMismatch):
        Persons(profile[:5], used, UNITS, SPACE, 1.0)
    with pytest.raises(ShapeMismatch):
        _holder(10, 1).clipped_sum(weights, 2.0)
