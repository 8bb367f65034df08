"""The noise: exact discrete Gaussians, drawn inside the node that owns the data.

``DiscreteGaussian`` is the only source for production. There is no setting that replaces it:
other sources exist in ``convoy_models.testing`` and are passed by code. Draws come from ``gaussian``
(operating-system entropy, exact), so there is no floating-point leak (Mironov 2012) and no seed that
could be repeated; a test compares them with OpenDP's.

Honesty rule ``honest-one/1``. A side with one party adds variance sigma^2, a side with K >= 2
parties sigma^2 / (K - 1) each. What remains for anyone who knows one party's share is then at
least sigma^2: without the only party of a side, the other side's noise; without one of K, still
``(K - 1) * sigma^2 / (K - 1)``. LIMIT: a LOCAL sum with a single holder rests on that holder's
own noise; a coalition of two parties of a side keeps ``(K - 2) / (K - 1)`` of it plus the other
side.

Source: Canonne, Kamath, Steinke 2020, arXiv:2004.00010 (mechanism).
"""

from __future__ import annotations

import math
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import NoiseRefused
from convoy_models.gaussian import discrete_gaussian

MIN_SCALE: Final = 16.0
"""Grid steps. From here on the discrete curve equals the continuous one far below 1e-12."""
MAX_SCALE: Final = 2.0**58
"""Grid steps. Sixteen standard deviations stay below 2^62: 64-bit integers never saturate."""


class NoiseSource(Protocol):
    """Whoever draws integer noise."""

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return ``size`` independent integers with standard deviation ``scale`` (grid steps)."""
        ...


class DiscreteGaussian:
    """The exact discrete Gaussian: about a microsecond a draw."""

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Return ``size`` independent draws of N_Z(0, scale^2).

        Raises:
            NoiseRefused: a scale outside [16, 2^58], or a negative size.
        """
        check_scale(scale)
        if size < 0:
            raise NoiseRefused(f"{size} draws cannot be made.")
        return discrete_gaussian(scale, size)


def check_scale(scale: float) -> None:
    """Refuse a scale that cannot be drawn exactly.

    Raises:
        NoiseRefused: not finite, below 16 or above 2^58 grid steps.
    """
    if not (math.isfinite(scale) and MIN_SCALE <= scale <= MAX_SCALE):
        raise NoiseRefused(f"a noise scale of {scale:g} grid steps is outside [{MIN_SCALE:g}, 2^58].")


def share_scale(sigma: float, parties_on_side: int) -> float:
    """Return the standard deviation that each party of a side adds (rule ``honest-one/1``).

    Raises:
        NoiseRefused: sigma not positive and finite, or a side without parties.
    """
    if not (math.isfinite(sigma) and sigma > 0):
        raise NoiseRefused(f"sigma is {sigma!r}; it must be positive and finite.")
    if parties_on_side < 1:
        raise NoiseRefused("a side without parties adds no noise.")
    return sigma if parties_on_side == 1 else sigma / math.sqrt(parties_on_side - 1)
