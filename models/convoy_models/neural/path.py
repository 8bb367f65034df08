"""Where the weights of a network have been while its training opened sums: heavy ball with weight decay, then a mean.

Post-processing of released sums; no row is seen here. A sum is divided by a PUBLIC number, never by a count of the data.
Source: heavy ball (Polyak 1964); mean of the path (Polyak & Juditsky 1992), here of its second half.
"""

from __future__ import annotations

import numpy as np

from convoy_contracts.specification import Descent
from convoy_models.fixedpoint import Floats

MOMENTUM = 0.9
LARGEST_WEIGHT = 50.0
DECIMALS = 6


class Path:
    """One training's path.

    Args:
        terms: public terms of the training.
        start: public weights it begins with, (size,).
        expected: what a sum is divided by; public.
    """

    def __init__(self, terms: Descent, start: Floats, expected: float) -> None:
        self.weights = start
        self._speed = np.zeros(start.size)
        self._tail = np.zeros(start.size)
        self._expected = expected
        self._rate, self._decay = float(terms.learningRate), float(terms.decay)
        self._from, self._done, self._steps = terms.steps // 2, 0, terms.steps

    def take(self, uphill: Floats) -> None:
        """Move by one opened sum of ascent directions."""
        slope = uphill / self._expected - self._decay * self.weights
        self._speed = MOMENTUM * self._speed + slope
        self.weights = np.clip(self.weights + self._rate * self._speed, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        if self._done >= self._from:
            self._tail += self.weights / (self._steps - self._from)
        self._done += 1

    def mean(self) -> Floats:
        """Return the mean of the second half, six decimals."""
        return np.asarray(np.round(self._tail, DECIMALS), dtype=np.float64)
