"""The second backend in the benchmark: two towers trained by Opacus' ghost clipping through the nodes' noisy sums.

As in ``recommend-towers/1`` a noisy popularity is opened first, at ``POPULARITY_SHARE`` of mu^2, and training starts there.
Needs the extra ``neural``; without torch the rows are left out and a note says so. Settings were set once on generated histories
(``models/LOG.md``), never on a data set of the benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convoy_models.accounting import mu_of
from convoy_models.fixedpoint import LOCAL_BITS
from convoy_models.noise import DiscreteGaussian, NoiseSource, share_scale
from convoy_models.recommend.descent import Terms, train
from convoy_models.recommend.towers import bounded_history, first_biases
from convoy_models.testing import SeededNoise

Floats = npt.NDArray[np.float64]
UNITS, SPACE = 8, 4
STEPS, PLAIN_STEPS, RATE, PLAIN_RATE, CLIP = 25, 100, 1.0, 10.0, 0.5
POPULARITY_SHARE = 0.05
DELTA = 1e-6


def is_there() -> bool:
    """Return whether torch and Opacus are installed."""
    try:
        import opacus  # noqa: F401
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


def scores(
    used: npt.NDArray[np.bool_], party: npt.NDArray[np.int64], test: npt.NDArray[np.bool_], epsilon: float | None,
    seed: int, exact: bool,
) -> Floats:  # fmt: skip
    """Train on everybody's histories and return scores of every item for the test's histories.

    Args:
        used: (N, items) of all persons that train; party: (N,) whose they are.
        test: (T, items) histories to be continued.
        epsilon: per person; None without privacy.
        seed: of the starting weights, dropped items and repeatable noise; exact: noise from the nodes' sampler.
    """
    from convoy_models.neural.two_tower import Persons, first_weights
    from convoy_models.neural.two_tower import scores as score

    plain = epsilon is None
    mu2 = 0.0 if epsilon is None else mu_of(epsilon, DELTA) ** 2
    nobody = np.zeros((used.shape[0], 0))
    holders = [
        Persons(nobody[mine], used[mine], UNITS, SPACE, CLIP, np.random.default_rng([seed, int(k)]))
        for k in np.unique(party)
        for mine in [np.flatnonzero((party == k) & used.any(axis=1))]
        if mine.size
    ]
    terms = Terms(
        steps=PLAIN_STEPS if plain else STEPS,
        rate=PLAIN_RATE if plain else RATE,
        clip=CLIP,
        ridge=0.0,
        persons=float(max(10, sum(holder.persons for holder in holders) // 10 * 10)),
        mu2=None if plain else mu2 * (1 - POPULARITY_SHARE),
    )
    sources: Sequence[NoiseSource] = [
        DiscreteGaussian() if exact else SeededNoise(seed * 100 + n) for n in range(len(holders))
    ]
    sums = [bounded_history(used[(party == k) & used.any(axis=1)]).sum(axis=0) for k in np.unique(party)]
    popularity, sd = np.sum(sums, axis=0), 1.0
    if not plain:
        sigma = (1 + math.sqrt(popularity.size) * 2.0**-LOCAL_BITS) / math.sqrt(mu2 * POPULARITY_SHARE)
        grid = share_scale(sigma, len(holders)) * 2.0**LOCAL_BITS
        popularity = popularity + sum(source.draw(grid, popularity.size) for source in sources) * 2.0**-LOCAL_BITS
        sd = sigma * math.sqrt(len(holders) / max(len(holders) - 1, 1))
    start = first_weights(0, used.shape[1], UNITS, SPACE, seed)
    start[-popularity.size :] = first_biases(popularity, sd)
    weights = train(holders, terms, None if plain else sources, start)
    return score(weights, np.zeros((test.shape[0], 0)), test, UNITS, SPACE)
