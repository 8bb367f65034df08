"""Coefficients of additive log-link towers from noisy sums: a Gaussian posterior around the current point.

What is seen, per cell (a knot or level) of every block: noisy label sums ``S = X'y + noise`` once, and noisy model sums
``G_t = X'mu(w_t) + noise`` at several public points ``w_t``. All are already private; everything here is post-processing and
costs nothing. The estimator is the method of marginal totals (fit until fitted = observed in every margin) made Bayesian:

    S - G(w)  ~  Normal(H (w* - w),  H + V)          H: Fisher information, V: variance of the noise (public)
    w*        ~  Normal(0, tau_f^2 R) per block      R: neighbours on the knot axis are alike (``smoothness``)

Three things earn their keep (``models/LOG.md``): every model sum that was ever opened is used again, carried to the current
point by ``H`` and trusted less the farther it was carried; neighbours on the knot axis share what they know; and the scale
``tau_f`` of each feature is set by the sums themselves (empirical Bayes, EM), so a feature without signal shrinks to nothing.

``H`` is not asked for (it would cost budget). It is built from the margins: inside a block from the shape of hat functions,
between blocks as if columns were independent given the model. That is wrong for correlated columns, and repaired by
asking again: at convergence ``H`` decides only how fast, and how prior and data are weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from convoy_contracts.specification import Knots, Levels

from convoy_models.features import Floats

CARRY_ERROR = 0.35
"""How wrong ``H (w - w_t)`` may be, as a share of itself: what correlation between blocks can do."""
STEP = 1.0
"""Longest step of one coefficient (log scale) in one update."""


@dataclass(slots=True)
class Observed:
    """One opened model sum. point: (p + 1,); cells: columns it covers; value: (len,); variance: of its noise."""

    point: Floats
    cells: slice
    value: Floats
    variance: float


@dataclass(slots=True)
class Posterior:
    """The coefficients of one cohort: p cells of all blocks and one level.

    ``theta`` is (p + 1,): block coefficients, then the log level. ``labels`` (p,) and ``label_variance`` (p,) come from label sums.
    """

    features: Sequence[Knots | Levels]
    prior_scale: float
    smoothness: float
    prior_level: float
    level_scale: float = 1.0
    theta: Floats = field(init=False)
    scale2: Floats = field(init=False)
    labels: Floats = field(init=False)
    label_variance: Floats = field(init=False)
    observed: list[Observed] = field(init=False, default_factory=list)
    blocks: list[slice] = field(init=False, default_factory=list)
    kernels: list[Floats] = field(init=False, default_factory=list)
    carry_error: float = CARRY_ERROR
    adapt: bool = True
    center: Floats | None = None

    def __post_init__(self) -> None:
        place = 0
        for feature in self.features:
            self.blocks.append(slice(place, place + feature.width))
            self.kernels.append(kernel(feature, self.smoothness))
            place += feature.width
        self.theta = np.zeros(place + 1)
        self.theta[-1] = self.prior_level
        self.scale2 = np.full(len(self.blocks), self.prior_scale**2)
        self.labels = np.zeros(place)
        self.label_variance = np.zeros(place)

    @property
    def cells(self) -> int:
        return self.theta.size - 1

    def see_labels(self, cells: slice, value: Floats, variance: float) -> None:
        """Take an opened label sum."""
        self.labels[cells] = value
        self.label_variance[cells] = variance

    def see_model(self, point: Floats, cells: slice, value: Floats, variance: float) -> None:
        """Take an opened model sum that was asked at ``point``."""
        self.observed.append(Observed(point.copy(), cells, value, variance))

    def _margins(self) -> tuple[Floats, Floats, Floats]:
        """Return the model's sums at ``theta`` (p,), their variance (p,), and positive margins with one total (p,)."""
        margins = np.maximum(self._first(), 1.0)
        for _ in range(3):
            total, precision = np.zeros(self.cells), np.zeros(self.cells)
            even = self._even(margins)
            info = information(self.features, self.blocks, even)
            for seen in self.observed:
                move = self.theta - seen.point
                shift = (info @ move[:-1] + even * move[-1])[seen.cells]
                base = np.maximum(seen.value, 0.2 * even[seen.cells])
                carried = seen.value + base * np.expm1(np.clip(shift / base, -1.5, 1.5))
                weight = 1.0 / (seen.variance + (self.carry_error * shift) ** 2 + 1e-9)
                total[seen.cells] += weight * carried
                precision[seen.cells] += weight
            value = total / precision
            margins = np.maximum(value, 1.0)
        return value, 1.0 / precision, self._even(margins)

    def _first(self) -> Floats:
        value = np.ones(self.cells)
        for seen in self.observed:
            value[seen.cells] = seen.value
        return value

    def _even(self, margins: Floats) -> Floats:
        """Scale every block to the mean of the block totals: each person is in every block once."""
        totals = np.array([margins[b].sum() for b in self.blocks])
        out = margins.copy()
        for block, total in zip(self.blocks, totals, strict=True):
            out[block] *= totals.mean() / total
        return out

    def _precision(self) -> Floats:
        out = np.zeros((self.cells + 1, self.cells + 1))
        for block, inner, scale2 in zip(self.blocks, self.kernels, self.scale2, strict=True):
            out[block, block] = inner / scale2
        out[-1, -1] = 1.0 / self.level_scale**2
        return out

    def update(self, damping: float = 1.0) -> None:
        """Move ``theta`` to the posterior mean seen from here, and each feature's scale to what the sums support."""
        model, model_variance, margins = self._margins()
        info = information(self.features, self.blocks, margins)
        operator = np.column_stack([info, margins])
        floor = 1e-4 * margins.mean()
        noise = info + np.diag(self.label_variance + model_variance + floor)
        whitened = np.linalg.solve(noise, operator)
        prior = self._precision()
        middle = np.zeros(self.cells + 1) if self.center is None else self.center.copy()
        middle[-1] = self.prior_level
        hessian = operator.T @ whitened + prior
        gradient = whitened.T @ (self.labels - model) - prior @ (self.theta - middle)
        covariance = np.linalg.inv(hessian)
        step = covariance @ gradient
        longest = float(np.abs(step).max())
        self.theta = self.theta + damping * step * min(1.0, STEP / max(longest, 1e-12))
        if self.adapt:
            self._adapt(covariance, middle)

    def _adapt(self, covariance: Floats, middle: Floats) -> None:
        for index, (block, inner) in enumerate(zip(self.blocks, self.kernels, strict=True)):
            away = self.theta[block] - middle[block]
            size = float(away @ inner @ away + np.trace(inner @ covariance[block, block]))
            width = away.size
            # inverse-gamma prior of 2 "observations" at the contract's scale keeps it finite and above zero
            self.scale2[index] = (size + 2 * self.prior_scale**2) / (width + 2)


def kernel(feature: Knots | Levels, smoothness: float) -> Floats:
    """Return the prior precision of a block at scale 1, (width, width)."""
    width = feature.width
    if isinstance(feature, Levels):
        return np.eye(width)
    distance = np.abs(np.subtract.outer(np.arange(width), np.arange(width)))
    covariance = smoothness ** distance.astype(np.float64) + 1e-6 * np.eye(width)
    return np.asarray(np.linalg.inv(covariance), dtype=np.float64)


def information(features: Sequence[Knots | Levels], blocks: Sequence[slice], margins: Floats) -> Floats:
    """Return the Fisher information (p, p) that the margins imply (see the module docstring)."""
    total = float(np.mean([margins[b].sum() for b in blocks]))
    out = np.outer(margins, margins) / total
    for feature, block in zip(features, blocks, strict=True):
        mass = margins[block]
        inner = np.diag(mass)
        if isinstance(feature, Knots):
            # uniform inside an interval: E h_j h_(j+1) = 1/6 of its mass, and a knot shares its mass with two intervals
            cross = mass[:-1] * mass[1:] / (3.0 * (mass[:-1] + mass[1:]))
            inner = inner - np.diag(np.r_[cross, 0.0]) - np.diag(np.r_[0.0, cross])
            inner += np.diag(cross, 1) + np.diag(cross, -1)
        out[block, block] = inner
    return out
