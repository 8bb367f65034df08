"""The attack of the empirical audit: canary persons through the real pipeline.

Canaries, each with one coordinate of their own at the clip bound, are in or out by a fair coin and go
through clip, fixed point, noise, masks and opening of ``convoy_models.sums``. The adversary knows one
party's share of the noise, as rule honest-one/1 allows. What comes back feeds ``privacy_audit``.
Defects are planted by the caller: a weaker source, a source of zeros, no clip. Tests and
``bench/privacy_audit.py`` use the same functions; no run may.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from convoy_models.accounting import mu_of
from convoy_models.fixedpoint import LOCAL_BITS, Floats, decode
from convoy_models.masks import PairKeys
from convoy_models.noise import NoiseSource
from convoy_models.plan import Kind, PlannedQuery, Side
from convoy_models.privacy_audit import Coins
from convoy_models.sums import clipped_sum, fraction_bits, open_sum
from convoy_models.testing import MemoryFederation

CLIP = 0.5
BLOCK = 80


class Known:
    """A party's noise that the adversary knows: it remembers what was drawn.

    Args:
        source: who draws.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self.drawn: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def draw(self, scale: float, size: int) -> NDArray[np.int64]:
        """Draw and remember."""
        self.drawn = self._source.draw(scale, size)
        return self.drawn


def claimed(
    kind: Kind, size: int, matrix: Side, vectors: tuple[Side, ...], epsilon: float, delta: float
) -> PlannedQuery:
    """Return a query that claims (epsilon, delta) by itself."""
    mu = mu_of(epsilon, delta)
    return PlannedQuery(
        id=f"all/audit-{kind}", kind=kind, cohort="all", module="insurer", purpose="model", sweep=0, group=0,
        columns=(0, size), shape=(size, 1), clip=CLIP, sigma=CLIP / mu, mu2=mu**2, matrix=matrix, vectors=vectors,
    )  # fmt: skip


def attack_local(
    sources: Mapping[str, NoiseSource],
    keys: Mapping[str, PairKeys],
    seed: int,
    *,
    epsilon: float,
    delta: float,
    canaries: int,
    size: float = 1.0,
    clip: bool = True,
) -> tuple[Coins, Floats]:
    """Attack a LOCAL sum; return coins and scores.

    Args:
        sources: noise by party; the adversary knows that of the first.
        keys: of these parties and of a ``trustee``.
        seed: of the coins and of who holds which canary.
        epsilon: claimed, with ``delta``.
        delta: in (0, 1).
        canaries: a multiple of 80.
        size: of a canary, in clips.
        clip: whether the nodes clip.
    """
    nodes = tuple(sources)
    rng = np.random.default_rng(seed)
    inside = rng.random(canaries) < 0.5
    holder = rng.integers(0, len(nodes), canaries)
    known = Known(sources[nodes[0]])
    federation = MemoryFederation({**sources, nodes[0]: known}, keys=keys, run=f"run-{seed}")
    asked = claimed("LOCAL", canaries, Side("insurer", nodes), (), epsilon, delta)
    local = {
        node: _part(np.flatnonzero(inside & (holder == number)), canaries, size, clip)
        for number, node in enumerate(nodes)
    }
    opened = open_sum(asked, federation.ask(asked, local=local))
    return inside, opened - decode(known.drawn.view(np.uint64), LOCAL_BITS)


def attack_pair(
    sources: Mapping[str, NoiseSource],
    keys: Mapping[str, PairKeys],
    seed: int,
    *,
    epsilon: float,
    delta: float,
    canaries: int,
) -> tuple[Coins, Floats]:
    """Attack a BILINEAR sum: each canary has an own column of the carmaker's matrix.

    Args:
        sources: noise of the carmaker and of one insurer, in this order; the adversary knows the insurer's.
        keys: of both and of a ``trustee``.
        seed: of the coins.
        epsilon: claimed, with ``delta``.
        delta: in (0, 1).
        canaries: how many.
    """
    oem, insurer = sources
    known = Known(sources[insurer])
    federation = MemoryFederation({oem: sources[oem], insurer: known}, [(oem, insurer)], keys=keys, run=f"pair-{seed}")
    ids = [n.to_bytes(16, "big") for n in range(canaries)]
    federation.align({(oem, insurer): ids, (insurer, oem): ids})
    federation.hold({(oem, insurer): np.eye(canaries)})
    asked = claimed("DOT", canaries, Side("oem", (oem,)), (Side("insurer", (insurer,)),), epsilon, delta)
    inside = np.random.default_rng(seed).random(canaries) < 0.5
    values = {(insurer, oem): CLIP * inside.astype(np.float64)}
    opened = open_sum(asked, federation.ask(asked, values=values, caps={insurer: CLIP}))
    return inside, opened - decode(known.drawn.view(np.uint64), fraction_bits(asked))


def _part(mine: Sequence[int] | NDArray[np.int64], canaries: int, size: float, clip: bool) -> Floats:
    """Return a node's sum over its canaries; rows are made block by block, each canary in its own block."""
    total = np.zeros(canaries)
    places = np.asarray(mine, dtype=np.int64)
    for start in range(0, canaries, BLOCK):
        here = places[(places >= start) & (places < start + BLOCK)] - start
        rows = np.zeros((len(here), BLOCK))
        rows[np.arange(len(here)), here] = size * CLIP
        if len(here):
            total[start : start + BLOCK] = clipped_sum(rows, CLIP) if clip else rows.sum(axis=0)
    return total
