"""What is known about coefficients before and between sums: the prior kernel and the Fisher
information.

``H = sum_i mu_i x_i x_i'`` is never asked for (it would cost budget). It is built from the margins
``G = sum_i mu_i x_i`` that are opened anyway: inside a block from the shape of hat functions,
between blocks from one correlation per pair of features (``relate``), which is read off the way
model sums moved when weights moved. All of it is post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from convoy_contracts.specification import Knots, Levels
from convoy_models.fixedpoint import Floats

BEND = 0.3
"""Prior variance of a knot curve's bends, relative to that of its straight trend (log factor
against knot number)."""
RELATED_SD = 0.25
"""Prior standard deviation of the correlation of two features."""
RELATED_ERROR = 0.01
"""Error of the linear rule in ``relate``, in standard deviations of a feature."""
SMALLEST_EIGENVALUE = 0.1


def kernel(feature: Knots | Levels, smoothness: float) -> Floats:
    """Return the prior precision (width, width) of a block at scale 1.

    Scale 1 means: mean variance 1 (levels) or 1 + BEND (knots) around the block's own mean; the
    mean itself is pinned near 0, because the level of the price is one number of its own.

    Args:
        feature: knots are a straight trend plus bends whose neighbours correlate by ``smoothness``;
            levels are independent.
        smoothness: in (0, 1).
    """
    width = feature.width
    middle = np.eye(width) - 1.0 / width
    if isinstance(feature, Knots):
        steps = np.arange(width, dtype=np.float64)
        bends = middle @ smoothness ** np.abs(np.subtract.outer(steps, steps)) @ middle
        trend = np.outer(steps - steps.mean(), steps - steps.mean())
        covariance = trend / np.trace(trend) + BEND * bends / np.trace(bends)
    else:
        covariance = middle / np.trace(middle)
    return np.asarray(np.linalg.inv(covariance * width + 1e-4 + 1e-6 * np.eye(width)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Relation:
    """How blocks go together. scores: (p,) a standard score per cell; correlation: (blocks,
    blocks), zero diagonal."""

    scores: Floats
    correlation: Floats


def information(
    features: Sequence[Knots | Levels], blocks: Sequence[slice], margins: Floats, related: Relation
) -> Floats:
    """Return H, (p, p), as the margins and the relation imply it.

    Args:
        features: by block.
        blocks: cells of each feature.
        margins: (p,) positive, every block with the same total.
        related: see ``relate``.
    """
    total = float(margins[blocks[0]].sum())
    spread = np.zeros((margins.size, len(blocks)))
    for index, block in enumerate(blocks):
        mass = margins[block]
        score = related.scores[block] - mass @ related.scores[block] / total
        size = np.sqrt(mass @ score**2 / total)
        if size > 1e-9:
            spread[block, index] = mass * score / size
    out = (np.outer(margins, margins) + spread @ related.correlation @ spread.T) / total
    for feature, block in zip(features, blocks, strict=True):
        inner = np.diag(margins[block])
        if isinstance(feature, Knots):
            # Uniform inside an interval: E h_j h_(j+1) is 1/6 of its mass; a knot shares its mass
            # with two intervals.
            left, right = margins[block][:-1], margins[block][1:]
            cross = left * right / (3.0 * (left + right))
            inner += np.diag(cross, 1) + np.diag(cross, -1)
            inner -= np.diag(np.append(cross, 0.0)) + np.diag(np.insert(cross, 0, 0.0))
        out[block, block] = inner
    return np.asarray(out, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Seen:
    """One opened model sum. point: (p + 1,) where it was asked; cells: what it covers; value:
    (len,); variance: of its noise."""

    point: Floats
    cells: slice
    value: Floats
    variance: float


def relate(
    features: Sequence[Knots | Levels],
    blocks: Sequence[slice],
    first: Floats,
    labels: Floats,
    seen: Sequence[Seen],
) -> Relation:
    """Learn one correlation per pair of features from model sums at different weights.

    Tilting the population by a weight curve of feature g moves the mean score of feature f by
    ``correlation(f, g)`` times the size of the tilt (exact for jointly normal scores). Least
    squares over everything opened so far, with a normal prior at 0; the result is made positive
    definite.

    Args:
        features: by block; knots get normal scores of their margin, levels the log relativity of
            their claims.
        blocks: cells of each feature.
        first: (p,) positive margins at constant weights, every block with the same total.
        labels: (p,) opened label sums.
        seen: opened model sums; those at constant weights teach nothing here.
    """
    total, count = float(first[blocks[0]].sum()), len(blocks)
    scores = np.zeros(first.size)
    for feature, block in zip(features, blocks, strict=True):
        mass = first[block] / total
        if isinstance(feature, Knots):
            raw = ndtri(np.clip(np.cumsum(mass) - mass / 2, 1e-4, 1 - 1e-4))
        else:
            raw = np.log((labels[block].clip(0.0) + 0.02 * total) / (first[block] + 0.02 * total))
        raw = raw - mass @ raw
        scores[block] = raw / max(float(np.sqrt(mass @ raw**2)), 1e-9)
    place = np.zeros((count, count), dtype=np.int64)
    lower = np.tril_indices(count, -1)
    pairs = lower[0].size
    place[lower] = np.arange(pairs)
    place += place.T
    normal, right = np.eye(pairs) / RELATED_SD**2, np.zeros(pairs)
    for sums in seen:
        if not np.any(sums.point[:-1]):
            continue
        tilt = np.array([scores[b] * first[b] @ sums.point[b] / total for b in blocks])
        for f, block in enumerate(blocks):
            if block.start < sums.cells.start or block.stop > sums.cells.stop:
                continue
            value = sums.value[block.start - sums.cells.start : block.stop - sums.cells.start]
            size = max(float(value.sum()), 1.0)
            own = first[block] * np.exp(sums.point[block])
            surprise = scores[block] @ value / size - scores[block] @ own / own.sum()
            variance = sums.variance * float(scores[block] @ scores[block]) / size**2 + RELATED_ERROR**2
            row = np.zeros(pairs)
            others = np.arange(count) != f
            row[place[f, others]] = tilt[others]
            normal += np.outer(row, row) / variance
            right += row * surprise / variance
    matrix = np.eye(count)
    matrix[lower] = np.linalg.solve(normal, right) if pairs else np.zeros(0)
    matrix = np.tril(matrix) + np.tril(matrix, -1).T
    values, vectors = np.linalg.eigh(matrix)
    matrix = (vectors * np.maximum(values, SMALLEST_EIGENVALUE)) @ vectors.T
    size_of = np.sqrt(np.diag(matrix))
    return Relation(scores, matrix / np.outer(size_of, size_of) - np.eye(count))
