"""An attack on the real pipeline: it must see every planted defect, and nothing without one.

Two-sample Gaussian-DP audit (after Nasr et al. 2023, arXiv:2302.07956). 4000 canary persons, each
with one coordinate of their own at the clip bound, are in or out by a fair coin. The adversary
knows one party's share, as rule honest-one/1 allows, and compares "in" with "out" on what remains
of the opened sum. The lower confidence bound (99.9 %) of its mu, as epsilon at delta 1e-6, must
stay under the claimed epsilon; with less noise, a missing share or a missing clip it must not.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from convoy_models.accounting import epsilon_of, mu_of
from convoy_models.fixedpoint import LOCAL_BITS, Floats, decode
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import clipped_sum, fraction_bits, open_sum
from convoy_models.testing import MemoryFederation, NoNoise, SeededNoise

EPSILON, DELTA, CLIP, CANARIES = 4.0, 1e-6, 0.5, 4000
NODES = ("insurer-a", "insurer-b", "insurer-c")
SEEDS = range(5)


class Known:
    """A party's noise that the adversary knows: it remembers what it drew."""

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self.drawn = np.zeros(0, dtype=np.int64)

    def draw(self, scale: float, size: int) -> np.ndarray:
        """Draw and remember."""
        self.drawn = self._source.draw(scale, size)
        return self.drawn


def lower_bound(canaries_in: np.ndarray, scores: Floats) -> float:
    """Return the epsilon that the attack proves, at 99.9 % confidence."""
    inside, outside = scores[canaries_in], scores[~canaries_in]
    spread = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 2)
    mu = (inside.mean() - outside.mean()) / spread
    mu -= norm.ppf(0.999) * math.sqrt(4 / len(scores) + mu**2 / (2 * len(scores)))
    return epsilon_of(max(0.0, float(mu)) ** 2, DELTA)


def attack(sources: dict[str, NoiseSource], seed: int, *, size: float = 1.0, clip: bool = True) -> float:
    """Run the pipeline (clip, fixed point, noise, masks, opening) on canaries and attack it.

    Args:
        sources: noise by party; the adversary knows that of the first.
        seed: of the coins and of who holds which canary.
        size: of a canary, in clips.
        clip: whether the node clips.
    """
    rng = np.random.default_rng(seed)
    inside = rng.random(CANARIES) < 0.5
    holder = rng.integers(0, len(NODES), CANARIES)
    known = Known(sources[NODES[0]])
    federation = MemoryFederation({**sources, NODES[0]: known})
    query = PlannedQuery(
        id="all/audit", kind="LOCAL", cohort="all", module="insurer", purpose="model", sweep=0,
        group=0, columns=(0, CANARIES), shape=(CANARIES, 1), clip=CLIP,
        sigma=CLIP / mu_of(EPSILON, DELTA), mu2=mu_of(EPSILON, DELTA) ** 2,
        matrix=Side("insurer", NODES), vectors=(),
    )  # fmt: skip
    local = {}
    for number, node in enumerate(NODES):
        persons = np.flatnonzero(inside & (holder == number))
        total = np.zeros(CANARIES)
        for start in range(0, len(persons), 200):  # rows of 4000 numbers: 200 persons at a time
            chunk = persons[start : start + 200]
            rows = np.zeros((len(chunk), CANARIES))
            rows[np.arange(len(chunk)), chunk] = size * CLIP
            total += clipped_sum(rows, CLIP) if clip else rows.sum(axis=0)
        local[node] = total
    opened = open_sum(query, federation.ask(query, local=local))
    return lower_bound(inside, opened - decode(known.drawn.view(np.uint64), LOCAL_BITS))


def seeded(seed: int, factor: float = 1.0) -> dict[str, NoiseSource]:
    """Repeatable noise at every node."""
    return {n: SeededNoise(1000 * seed + k, factor) for k, n in enumerate(NODES)}


def test_the_real_noise_gives_no_alarm() -> None:
    """The production sampler, once: the proven epsilon is below 4 and above 2.5 (power)."""
    proven = attack({node: DiscreteGaussian() for node in NODES}, 1)
    assert 2.5 < proven < EPSILON


@pytest.mark.parametrize("seed", SEEDS)
def test_a_correct_pipeline_gives_no_alarm(seed: int) -> None:
    """Also when canaries bring four times what the clip allows."""
    assert attack(seeded(seed), seed) < EPSILON
    assert attack(seeded(seed), seed, size=4.0) < EPSILON


@pytest.mark.parametrize("seed", SEEDS)
def test_noise_at_four_fifths_is_noticed(seed: int) -> None:
    """Every node draws at 0.8 of its scale."""
    assert attack(seeded(seed, 0.8), seed) > EPSILON


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_share_of_noise_is_noticed(seed: int) -> None:
    """One of the two nodes whose noise the adversary does not know adds none."""
    assert attack({**seeded(seed), NODES[1]: NoNoise()}, seed) > EPSILON


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_clip_is_noticed(seed: int) -> None:
    """Canaries twice as long as the clip, and a node that does not clip."""
    assert attack(seeded(seed), seed, size=2.0, clip=False) > EPSILON


def attack_pair(noise: dict[str, NoiseSource], seed: int, canaries: int = 3000) -> float:
    """Attack a BILINEAR sum: each canary has an own column of the carmaker's matrix.

    The adversary is the insurer side's accomplice: it knows the insurer's noise share.
    """
    oem, insurer = "oem", NODES[0]
    known = Known(noise[insurer])
    federation = MemoryFederation({oem: noise[oem], insurer: known}, [(oem, insurer)])
    ids = [n.to_bytes(16, "big") for n in range(canaries)]
    federation.align({(oem, insurer): ids, (insurer, oem): ids})
    federation.hold({(oem, insurer): np.eye(canaries)})
    query = PlannedQuery(
        id="joint/audit", kind="DOT", cohort="joint", module="oem", purpose="labels", sweep=0,
        group=0, columns=(0, canaries), shape=(canaries, 1), clip=CLIP,
        sigma=CLIP / mu_of(EPSILON, DELTA), mu2=mu_of(EPSILON, DELTA) ** 2,
        matrix=Side("oem", (oem,)), vectors=(Side("insurer", (insurer,)),),
    )  # fmt: skip
    inside = np.random.default_rng(seed).random(canaries) < 0.5
    answer = federation.ask(query, values={(insurer, oem): CLIP * inside.astype(np.float64)}, caps={insurer: CLIP})
    opened = open_sum(query, answer) - decode(known.drawn.view(np.uint64), fraction_bits(query))
    return lower_bound(inside, opened)


@pytest.mark.parametrize("seed", range(2))
def test_a_sum_over_two_parties_keeps_its_promise_and_the_attack_sees_defects(seed: int) -> None:
    """Correct: no alarm. Noise at four fifths: alarm."""
    parties = ("oem", NODES[0])
    good, weak = ({p: SeededNoise(100 * seed + k, factor) for k, p in enumerate(parties)} for factor in (1.0, 0.8))
    assert 2.0 < attack_pair(good, seed) < EPSILON
    assert attack_pair(weak, seed) > EPSILON
