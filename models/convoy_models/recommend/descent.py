"""Learn from noisy gradient sums: full-batch descent in which a person counts once.

    holder side     answer(holder, weights, terms, noise, parties)   -> ring elements, one LOCAL sum
    server side     train(holders, terms, noise)                     -> weights

Every step opens one LOCAL sum ``sum_i clip(g_i)``, where ``g_i`` is the MEAN gradient over all rows
of person ``i`` (a person with 200 offers counts as much as one with 2), cut to ``clip`` in L2. Full
batches, no sampling, hence no amplification is claimed: ``steps`` Gaussian mechanisms of
``mu = clip / sigma`` each compose to exactly ``steps mu^2``.

Why it works for few persons: at ``clip`` near the middle of the real norms one step over 450 persons
has a noise of 1.5 persons per coordinate, and momentum plus the average of the second half of the
path average the noise out (measured: ``models/LOG.md``).

The sum is divided by the PUBLIC number ``terms.persons``, never by a count of the data.
Source: heavy ball (Polyak 1964); DP gradient descent: Bassily, Smith, Thakurta 2014,
arXiv:1405.7085; user-level means: Charles et al. 2024 (ULS).

Does not: mask. ``answer`` is what a node gives to ``PartySession.close`` as its LOCAL sum, plus the
node's own share of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from convoy_models.errors import ModelsError, ValueRefused
from convoy_models.fixedpoint import LOCAL_BITS, Floats, Words, check_headroom, decode, encode, local_clip
from convoy_models.noise import NoiseSource, share_scale
from convoy_models.sums.local import clipped_sum

MOMENTUM = 0.9


class DescentRefused(ModelsError):
    """Terms or gradients with which no private descent is possible."""

    code = "DESCENT_REFUSED"
    fix = "Correct the terms, or the rows, that the message names."
    fix_zh = "请更正提示中所指的条款或数据行。"


@dataclass(frozen=True, slots=True)
class Terms:
    """The public terms of a descent.

    Attributes:
        steps: exchanges, each one LOCAL sum.
        rate: step length on the mean gradient.
        clip: L2 bound of a person's mean gradient.
        ridge: weight decay per step (a Gaussian prior around zero).
        persons: public number by which sums are divided.
        mu2: what the whole descent may spend; None trains without noise (gives NO privacy).
    """

    steps: int
    rate: float
    clip: float
    ridge: float
    persons: float
    mu2: float | None

    def __post_init__(self) -> None:
        numbers = (self.rate, self.clip, self.persons) + (() if self.mu2 is None else (self.mu2,))
        if self.steps < 1 or not all(math.isfinite(x) and x > 0 for x in numbers) or self.ridge < 0:
            raise DescentRefused("steps, rate, clip, persons and mu^2 must be positive and finite, ridge at least 0")

    def sensitivity(self, size: int) -> float:
        """Return how far one person moves an encoded sum of ``size`` numbers: clip plus the grid."""
        return local_clip(self.clip, size)

    def sigma(self, size: int) -> float:
        """Return the noise of one step that remains without any one party's share.

        Raises:
            DescentRefused: terms without mu^2.
        """
        if self.mu2 is None:
            raise DescentRefused("terms without mu^2 have no noise")
        return self.sensitivity(size) * math.sqrt(self.steps / self.mu2)


class Holder(Protocol):
    """One party's persons."""

    @property
    def persons(self) -> int:
        """How many."""

    @property
    def size(self) -> int:
        """How many weights."""

    def gradients(self, weights: Floats) -> Floats:
        """Return each person's mean ascent direction at these weights: (persons, size)."""


@runtime_checkable
class Summed(Protocol):
    """A holder that clips and sums by itself, so that gradients by person are never held in memory (``neural``)."""

    @property
    def persons(self) -> int:
        """How many."""

    @property
    def size(self) -> int:
        """How many weights."""

    def clipped_sum(self, weights: Floats, clip: float) -> Floats:
        """Return ``sum_i g_i min(1, clip / ||g_i||)`` at these weights: (size,)."""


def answer(holder: Holder | Summed, weights: Floats, terms: Terms, noise: NoiseSource | None, parties: int) -> Words:
    """Return one party's share of one step: its clipped sum plus its own discrete noise.

    Args:
        holder: the party's persons.
        weights: public, finite, (size,).
        terms: public.
        noise: the party's source; None only where ``terms.mu2`` is None.
        parties: how many parties answer; each adds sigma^2 / (parties - 1) (rule honest-one/1).

    Raises:
        ValueRefused: weights that are not ``size`` finite numbers, or gradients that are not finite.
        DescentRefused: noise and mu^2 do not go together.
        RingOverflow: the sum could leave the ring.
    """
    if weights.shape != (holder.size,) or not np.isfinite(weights).all():
        raise ValueRefused(f"weights are not {holder.size} finite numbers.")
    if (noise is None) != (terms.mu2 is None):
        raise DescentRefused("noise is due exactly where the terms have a mu^2")
    sigma = 0.0 if terms.mu2 is None else terms.sigma(holder.size)
    check_headroom(max(holder.persons, 1) * parties, terms.clip, LOCAL_BITS, sigma * 2)
    words = encode(_summed(holder, weights, terms.clip), LOCAL_BITS)
    if noise is None:
        return words
    scale = share_scale(sigma, parties) * 2.0**LOCAL_BITS
    return words + noise.draw(scale, holder.size).view(np.uint64)


def _summed(holder: Holder | Summed, weights: Floats, clip: float) -> Floats:
    if isinstance(holder, Summed):
        return holder.clipped_sum(weights, clip)
    return clipped_sum(holder.gradients(weights), clip)


def train(
    holders: Sequence[Holder | Summed],
    terms: Terms,
    noise: Sequence[NoiseSource] | None = None,
    start: Floats | None = None,
) -> Floats:
    """Run the descent in one process over the shares of every holder; return the weights (size,).

    ``start``: public weights to begin with, (size,); zeros by default, which a network cannot leave.

    The result is post-processing of the opened sums: private for anyone who sees every step.

    Raises:
        DescentRefused: no holder, holders of different sizes, or a source of noise per holder is missing.
    """
    sizes = {holder.size for holder in holders}
    if len(sizes) != 1:
        raise DescentRefused(f"{len(holders)} holders with {len(sizes)} sizes of weights; one size is needed")
    if noise is not None and len(noise) != len(holders):
        raise DescentRefused(f"{len(holders)} holders and {len(noise)} sources of noise")
    size = sizes.pop()
    weights, speed, tail = np.zeros(size) if start is None else start.copy(), np.zeros(size), np.zeros(size)
    late = terms.steps // 2
    for step in range(terms.steps):
        total = np.zeros(size, dtype=np.uint64)
        for number, holder in enumerate(holders):
            own = None if noise is None or terms.mu2 is None else noise[number]
            total = total + answer(holder, weights, terms, own, len(holders))
        weights, speed = advance(weights, speed, decode(total, LOCAL_BITS), terms)
        if step >= late:
            tail += weights / (terms.steps - late)
    return tail


def advance(weights: Floats, speed: Floats, opened: Floats, terms: Terms) -> tuple[Floats, Floats]:
    """Return weights and speed after one opened sum (heavy ball with weight decay)."""
    speed = MOMENTUM * speed + opened / terms.persons - terms.ridge * weights
    return weights + terms.rate * speed, speed
