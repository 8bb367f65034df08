"""Coefficients of additive log-link towers from noisy sums: a Gaussian posterior, updated as sums
are opened.

Seen, per cell (a knot or level) of every block: noisy label sums ``S = X'y + noise`` once, and
noisy model sums ``G_t = X'mu(w_t) + noise`` at several public points ``w_t``. Everything here is
post-processing of released numbers and costs nothing. It is the method of marginal totals of motor
pricing (fit until fitted = observed in every margin) made Bayesian:

    S - G(w)  ~  Normal(H (w* - w),  H + V)           H: Fisher information, V: variance of the
    noise (public) w*        ~  Normal(centre, tau_f^2 R) per block  R: trend and bends on the knot
    axis (``information.kernel``)

What earns its keep (figures in ``models/LOG.md``): every model sum that was ever opened is used
again, carried to the current point and trusted less the farther it was carried; the scale ``tau_f``
of each feature is set by the sums themselves (empirical Bayes), so a feature without signal shrinks
away; correlation between features is learned from how sums moved, so whole towers are asked at once
and a few exchanges suffice.

At convergence ``H`` decides only how prior and data are weighed, not where the margins balance.

Source of the scale rule: MacKay 1992, "Bayesian interpolation", eq. 4.9; deviation: an
inverse-gamma prior at the contract's scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import Knots, Levels
from convoy_models.fixedpoint import Floats
from convoy_models.risk.information import Relation, Seen, information, kernel, relate

CARRY_ERROR = 0.6
"""How wrong ``H`` may be: error of a cell's relative change, per standard deviation of the change
of scores."""
BEND_ERROR = 0.3
"""The same for what is not linear, per variance of the change of scores."""
LONGEST_STEP = 1.0
"""Longest move of one coefficient (log scale) in one update."""
LEVEL_SCALE = 1.0
"""Prior standard deviation of the log level around the contract's prior rate."""
SCALE_WEIGHT = 4.0
"""Strength of the contract's prior scale, in degrees of freedom of a block."""
SCALE_PASSES = 8
DECIMALS = 9
"""Points are rounded before they are asked, so that what is asked is exactly what is remembered."""


@dataclass(frozen=True, slots=True)
class _Carried:
    """Model sums at the current point: value, variance, margins (p,); H and its correction (p,
    p)."""

    value: Floats
    variance: Floats
    margins: Floats
    info: Floats
    slope: Floats


@dataclass(slots=True)
class Posterior:
    """The coefficients of one cohort: p cells of all blocks and one log level.

    ``theta`` (p + 1,) is the current point; ``centre`` (p,) the prior mean of the blocks. Mutable,
    used by one fit.
    """

    features: Sequence[Knots | Levels]
    prior_scale: float
    smoothness: float
    prior_level: float
    theta: Floats = field(init=False)
    centre: Floats = field(init=False)
    blocks: tuple[slice, ...] = field(init=False)
    _kernels: list[Floats] = field(init=False)
    _scale2: Floats = field(init=False)
    _labels: Floats = field(init=False)
    _label_variance: Floats = field(init=False)
    _seen: list[Seen] = field(init=False, default_factory=list)
    _contrasts: Floats = field(init=False)

    def __post_init__(self) -> None:
        blocks, place = [], 0
        for feature in self.features:
            blocks.append(slice(place, place + feature.width))
            place += feature.width
        self.blocks = tuple(blocks)
        self.theta = np.append(np.zeros(place), self.prior_level)
        self.centre = np.zeros(place)
        self._kernels = [kernel(feature, self.smoothness) for feature in self.features]
        self._scale2 = np.full(len(blocks), self.prior_scale**2)
        self._labels, self._label_variance = np.zeros(place), np.zeros(place)
        self._contrasts = _contrasts(self.blocks, place)

    def see_labels(self, cells: slice, value: Floats, variance: float) -> None:
        """Take an opened label sum; ``variance`` is that of its noise."""
        self._labels[cells] = value
        self._label_variance[cells] = variance

    def see_model(self, cells: slice, value: Floats, variance: float) -> None:
        """Take a model sum that was asked at the current point."""
        self._seen.append(Seen(self.theta.copy(), cells, value, variance))

    def update(self, damping: float = 1.0) -> None:
        """Move ``theta`` to the posterior mean as seen from here, and every feature's scale to what
        the sums support.

        Every cell must have been seen once. damping: in (0, 1], share of the step that is taken.
        """
        related = self._relate()
        at = self._carry(related)
        operator = self._contrasts @ np.column_stack([at.info + at.slope, at.margins])
        variance = np.diag(self._label_variance + at.variance)
        noise = self._contrasts @ (at.info + variance) @ self._contrasts.T
        whitened = np.linalg.solve(noise, operator)
        known = operator.T @ whitened
        surprise = self._contrasts @ (self._labels - at.value)
        target = whitened.T @ surprise + known @ self.theta
        middle = np.append(self.centre, self.prior_level)
        mean = self.theta
        for _ in range(SCALE_PASSES):
            prior = self._prior()
            covariance = np.linalg.inv(known + prior)
            mean = covariance @ (target + prior @ middle)
            self._rescale(covariance, mean - middle)
        step = mean - self.theta
        longest = float(np.abs(step).max())
        shrink = damping * min(1.0, LONGEST_STEP / max(longest, 1e-12))
        self.theta = np.round(self.theta + shrink * step, DECIMALS)

    def margins(self) -> Floats:
        """Return the model's margins at the current point, (p,), positive, every block with the
        same total."""
        return self._carry(self._relate()).margins

    def _relate(self) -> Relation:
        first = np.ones(self.centre.size)
        for seen in self._seen:
            if not np.any(seen.point[:-1]):
                first[seen.cells] = seen.value
        return relate(self.features, self.blocks, self._even(first), self._labels, self._seen)

    def _carry(self, related: Relation) -> _Carried:
        """Return what the model sums at ``theta`` would be, from all that were opened elsewhere.

        Kriging per cell: a sum opened at ``w_t`` is carried here by the growth that ``H`` predicts
        (log-linear); what is left is a constant (the value wanted) plus an error that is a random
        linear and quadratic function of the move. Sums opened at similar points therefore count
        once, far ones little, and the linear part of the error, seen along the moves already made,
        corrects ``H`` (``slope``), like Broyden's method with noise.
        """
        value = np.ones(self.centre.size)
        for seen in self._seen:
            value[seen.cells] = seen.value
        variance, slope = np.zeros_like(value), np.zeros((value.size, value.size))
        even = self._even(value)
        info = information(self.features, self.blocks, even, related)
        visits = self._visits()
        noise = np.array([seen.variance for seen in self._seen])
        for _ in range(3):
            moves = np.array([seen.point - self.theta for seen in self._seen])
            metric = info - np.outer(even, even) / even[self.blocks[0]].sum()
            pull = moves[:, :-1] @ metric / even[self.blocks[0]].sum()  # (T, p)
            spread = pull @ moves[:, :-1].T
            error = CARRY_ERROR**2 * spread + BEND_ERROR**2 * spread**2
            for block, rows in visits:
                mass = even[block]
                shift = moves[rows, :-1] @ info[:, block] + np.outer(moves[rows, -1], mass)
                growth = np.expm1(np.clip(shift / mass, -1.5, 1.5)) * mass
                rest = self._opened(block, rows) - growth  # (T, cells)
                kernel_of = error[np.ix_(rows, rows)] + 1e-6 * np.eye(len(rows))
                spread_of = mass[:, None, None] ** 2 * kernel_of + np.diag(noise[rows])
                inverse = np.linalg.inv(spread_of)  # (cells, T, T)
                share = inverse.sum(axis=1)
                variance[block] = 1.0 / share.sum(axis=1)
                value[block] = variance[block] * (share * rest.T).sum(axis=1)
                left = np.einsum("cst,tc->cs", inverse, rest - value[block])
                slope[block] = (mass**2 * CARRY_ERROR**2)[:, None] * (left @ pull[rows])
            even = self._even(value)
            info = information(self.features, self.blocks, even, related)
        return _Carried(value, variance, even, info, slope)

    def _opened(self, block: slice, rows: list[int]) -> Floats:
        """Return the opened sums of a block, (len(rows), cells)."""
        parts = []
        for t in rows:
            start = self._seen[t].cells.start
            parts.append(self._seen[t].value[block.start - start : block.stop - start])
        return np.array(parts)

    def _visits(self) -> list[tuple[slice, list[int]]]:
        """Return the blocks with the numbers of the opened sums that cover them."""
        return [
            (
                block,
                [
                    t
                    for t, seen in enumerate(self._seen)
                    if seen.cells.start <= block.start and block.stop <= seen.cells.stop
                ],
            )
            for block in self.blocks
        ]

    def _even(self, margins: Floats) -> Floats:
        """Make margins positive and scale every block to the mean total: each person is in every
        block once.

        A margin below the noise of its own sum is not known, so it is set to that noise: ``H`` of a
        nearly empty cell would otherwise be a coin toss.
        """
        floor = np.ones_like(margins)
        for seen in self._seen:
            floor[seen.cells] = max(1.0, seen.variance**0.5)
        out = np.maximum(margins, floor)
        totals = np.array([out[block].sum() for block in self.blocks])
        for block, total in zip(self.blocks, totals, strict=True):
            out[block] *= totals.mean() / total
        return out

    def _prior(self) -> Floats:
        out = np.zeros((self.theta.size, self.theta.size))
        for block, inner, scale2 in zip(self.blocks, self._kernels, self._scale2, strict=True):
            out[block, block] = inner / scale2
        out[-1, -1] = 1.0 / LEVEL_SCALE**2
        return out

    def _rescale(self, covariance: npt.NDArray[Any], away: npt.NDArray[Any]) -> None:
        for index, (block, inner) in enumerate(zip(self.blocks, self._kernels, strict=True)):
            size = float(away[block] @ inner @ away[block])
            free = away[block].size - float(np.trace(inner @ covariance[block, block])) / self._scale2[index]
            self._scale2[index] = (size + SCALE_WEIGHT * self.prior_scale**2) / (max(free, 0.0) + SCALE_WEIGHT)


def _contrasts(blocks: Sequence[slice], cells: int) -> Floats:
    """Return (p - blocks + 1, p): inside every block what is not its total, and one total (block
    totals are all the same)."""
    out = np.zeros((cells - len(blocks) + 1, cells))
    row = 0
    for block in blocks:
        width = block.stop - block.start
        basis = np.linalg.qr(np.column_stack([np.ones(width), np.eye(width)[:, 1:]]))[0]
        out[row : row + width - 1, block] = basis[:, 1:].T
        out[-1, block] = 1.0 / len(blocks)
        row += width - 1
    return out
