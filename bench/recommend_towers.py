"""The second backend in the benchmark: two towers trained by Opacus' ghost clipping through the nodes' noisy sums.

Needs the extra ``neural``; without torch the rows are left out and a note says so. Settings were set once on generated histories
(``models/LOG.md``), never on a data set of the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convoy_models.accounting import mu_of
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.recommend.descent import Terms, train
from convoy_models.testing import SeededNoise

Floats = npt.NDArray[np.float64]
UNITS, SPACE = 8, 4
STEPS, PLAIN_STEPS, RATE, CLIP = 25, 100, 10.0, 1.5
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
    nobody = np.zeros((used.shape[0], 0))
    holders = [
        Persons(nobody[mine], used[mine], UNITS, SPACE, CLIP, np.random.default_rng([seed, int(k)]))
        for k in np.unique(party)
        for mine in [np.flatnonzero((party == k) & used.any(axis=1))]
        if mine.size
    ]
    terms = Terms(
        steps=PLAIN_STEPS if plain else STEPS,
        rate=RATE,
        clip=CLIP,
        ridge=0.0,
        persons=float(max(10, sum(holder.persons for holder in holders) // 10 * 10)),
        mu2=None if epsilon is None else mu_of(epsilon, DELTA) ** 2,
    )
    sources: Sequence[NoiseSource] = [
        DiscreteGaussian() if exact else SeededNoise(seed * 100 + n) for n in range(len(holders))
    ]
    start = first_weights(0, used.shape[1], UNITS, SPACE, seed)
    weights = train(holders, terms, None if plain else sources, start)
    return score(weights, np.zeros((test.shape[0], 0)), test, UNITS, SPACE)
