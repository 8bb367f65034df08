"""Noise sources for tests; no setting or contract can name them, only code can pass them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class NoNoise:
    """Draw zeros: shows that the secure sum equals the plain one. Gives no privacy."""

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return zeros."""
        return np.zeros(size, dtype=np.int64)


class SeededNoise:
    """Draw repeatable rounded Gaussians. Gives no privacy: whoever knows the seed removes them.

    Args:
        seed: of the generator.
        factor: multiplies every scale; a test plants a defect with 0.8 or 0.
    """

    def __init__(self, seed: int, factor: float = 1.0) -> None:
        self._generator = np.random.default_rng(seed)
        self._factor = factor

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return rounded Gaussian draws."""
        return np.rint(self._generator.normal(0.0, scale * self._factor, size)).astype(np.int64)
