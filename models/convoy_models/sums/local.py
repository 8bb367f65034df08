"""LOCAL sums: each person's row clipped, then added, inside one node."""

from __future__ import annotations

import numpy as np

from convoy_models.errors import ValueRefused
from convoy_models.fixedpoint import Floats


def clipped_sum(rows: Floats, clip: float) -> Floats:
    """Return ``sum_i g_i min(1, clip / ||g_i||_2)``: (persons, d) float64 -> (d,).

    One row per person: the L2 sensitivity of the result to one person is then ``clip`` (privacy
    unit: person).

    Raises:
        ValueRefused: a value that is not finite, or a clip that is not positive.
    """
    if not clip > 0:
        raise ValueRefused("a clip must be positive.")
    if not np.isfinite(rows).all():
        raise ValueRefused("a value is not a finite number.")
    norms = np.linalg.norm(rows, axis=1)
    weights = np.minimum(1.0, clip / np.maximum(norms, np.finfo(np.float64).tiny))
    return np.asarray(weights @ rows, dtype=np.float64)
