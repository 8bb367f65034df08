"""An attack on the real pipeline: it must see every planted defect, and nothing without one.

8000 canary persons, each with one coordinate of their own at the clip bound, are in or out by a
fair coin and go through clip, fixed point, noise, masks and opening of ``convoy_models.sums``. The
adversary knows one party's share, as rule honest-one/1 allows. The proven epsilon (99.99 %
confidence, ``privacy_audit``) must stay under the claimed 4; with less noise, a missing share or a
missing clip it must not: in 50 of 50 seeds, and never in 200 without a defect.

``CONVOY_AUDIT=long`` draws all noise from the production sampler (minutes).
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from convoy_models.accounting import mu_of
from convoy_models.fixedpoint import LOCAL_BITS, decode
from convoy_models.masks import PairKeys
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.plan import PlannedQuery, Side
from convoy_models.privacy_audit import Coins, gdp_bound, one_run_bound
from convoy_models.sums import clipped_sum, fraction_bits, open_sum
from convoy_models.testing import MemoryFederation, NoNoise, SeededNoise, new_keys

EPSILON, DELTA, CLIP, CANARIES, BLOCK = 4.0, 1e-6, 0.5, 8000, 80
NODES = ("insurer-a", "insurer-b", "insurer-c")
SEEDS = range(50)
CORRECT = range(200)
LONG = os.environ.get("CONVOY_AUDIT") == "long"
KEYS: dict[str, PairKeys] = new_keys([*NODES, "oem", "trustee"])


class Known:
    """A party's noise that the adversary knows: it remembers what it drew."""

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self.drawn = np.zeros(0, dtype=np.int64)

    def draw(self, scale: float, size: int) -> np.ndarray:
        """Draw and remember."""
        self.drawn = self._source.draw(scale, size)
        return self.drawn


def query(kind: str, size: int, matrix: Side, vectors: tuple[Side, ...]) -> PlannedQuery:
    """A query that claims epsilon 4."""
    mu = mu_of(EPSILON, DELTA)
    return PlannedQuery(
        id=f"all/audit-{kind}", kind=kind, cohort="all", module="insurer", purpose="model", sweep=0,  # type: ignore[arg-type]
        group=0, columns=(0, size), shape=(size, 1), clip=CLIP, sigma=CLIP / mu, mu2=mu**2, matrix=matrix, vectors=vectors,
    )  # fmt: skip


def local_part(canaries: np.ndarray, size: float, clip: bool) -> np.ndarray:
    """Return a node's sum over its canaries; rows are made block by block, each canary in its own block."""
    total = np.zeros(CANARIES)
    for start in range(0, CANARIES, BLOCK):
        mine = canaries[(canaries >= start) & (canaries < start + BLOCK)] - start
        rows = np.zeros((len(mine), BLOCK))
        rows[np.arange(len(mine)), mine] = size * CLIP
        if len(mine):
            total[start : start + BLOCK] = clipped_sum(rows, CLIP) if clip else rows.sum(axis=0)
    return total


def attack(
    sources: dict[str, NoiseSource], seed: int, *, size: float = 1.0, clip: bool = True
) -> tuple[Coins, np.ndarray]:
    """Run the pipeline (clip, fixed point, noise, masks, opening) on canaries; return coins and scores.

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
    federation = MemoryFederation({**sources, NODES[0]: known}, keys=KEYS, run=f"run-{seed}")
    asked = query("LOCAL", CANARIES, Side("insurer", NODES), ())
    local = {
        node: local_part(np.flatnonzero(inside & (holder == number)), size, clip) for number, node in enumerate(NODES)
    }
    opened = open_sum(asked, federation.ask(asked, local=local))
    return inside, opened - decode(known.drawn.view(np.uint64), LOCAL_BITS)


def proven(sources: dict[str, NoiseSource], seed: int, **planted: object) -> float:
    """Return the epsilon that the two-sample attack proves."""
    return gdp_bound(*attack(sources, seed, **planted), DELTA)  # type: ignore[arg-type]


def noisy(seed: int, factor: float = 1.0) -> dict[str, NoiseSource]:
    """Noise at every node: repeatable, or (long form, without a defect) the production sampler."""
    if LONG and factor == 1.0:
        return {node: DiscreteGaussian() for node in NODES}
    return {n: SeededNoise(1000 * seed + k, factor) for k, n in enumerate(NODES)}


def test_the_real_noise_gives_no_alarm_and_the_attack_has_power() -> None:
    """The production sampler, once: both audits prove less than 4, the strong one more than 2.5."""
    coins, scores = attack({node: DiscreteGaussian() for node in NODES}, 1)
    assert 2.5 < gdp_bound(coins, scores, DELTA) < EPSILON
    assert 0.5 < one_run_bound(coins, scores, DELTA) < EPSILON


def test_a_correct_pipeline_gives_no_alarm_in_two_hundred_seeds() -> None:
    """Also when canaries bring four times what the clip allows (every second seed)."""
    found = [proven(noisy(seed), seed, size=4.0 if seed % 2 else 1.0) for seed in CORRECT]
    assert max(found) < EPSILON
    assert min(found) > 2.5


def test_noise_at_four_fifths_is_noticed_in_every_seed() -> None:
    """Every node draws at 0.8 of its scale."""
    assert min(proven(noisy(seed, 0.8), seed) for seed in SEEDS) > EPSILON


def test_a_missing_share_of_noise_is_noticed_in_every_seed() -> None:
    """One of the two nodes whose noise the adversary does not know adds none."""
    assert min(proven({**noisy(seed), NODES[1]: NoNoise()}, seed) for seed in SEEDS) > EPSILON


def test_a_missing_clip_is_noticed_in_every_seed() -> None:
    """Canaries twice as long as the clip, and a node that does not clip."""
    assert min(proven(noisy(seed), seed, size=2.0, clip=False) for seed in SEEDS) > EPSILON


def test_the_one_run_audit_sees_gross_defects_and_raises_no_false_alarm() -> None:
    """Mechanism-agnostic, weaker (private_ml.md §6): noise at a quarter is seen, a correct pipeline never blamed."""
    for seed in range(20):
        assert one_run_bound(*attack(noisy(seed), seed), DELTA) < EPSILON
        assert one_run_bound(*attack(noisy(seed, 0.25), seed), DELTA, guesses=CANARIES // 5) > EPSILON


def attack_pair(noise: dict[str, NoiseSource], seed: int, canaries: int = 3000) -> float:
    """Attack a BILINEAR sum: each canary has an own column of the carmaker's matrix.

    The adversary is the insurer side's accomplice: it knows the insurer's noise share.
    """
    oem, insurer = "oem", NODES[0]
    known = Known(noise[insurer])
    federation = MemoryFederation({oem: noise[oem], insurer: known}, [(oem, insurer)], keys=KEYS, run=f"pair-{seed}")
    ids = [n.to_bytes(16, "big") for n in range(canaries)]
    federation.align({(oem, insurer): ids, (insurer, oem): ids})
    federation.hold({(oem, insurer): np.eye(canaries)})
    asked = query("DOT", canaries, Side("oem", (oem,)), (Side("insurer", (insurer,)),))
    inside = np.random.default_rng(seed).random(canaries) < 0.5
    answer = federation.ask(asked, values={(insurer, oem): CLIP * inside.astype(np.float64)}, caps={insurer: CLIP})
    opened = open_sum(asked, answer) - decode(known.drawn.view(np.uint64), fraction_bits(asked))
    return gdp_bound(inside, opened, DELTA, confidence=0.999)


@pytest.mark.parametrize("seed", range(2))
def test_a_sum_over_two_parties_keeps_its_promise_and_the_attack_sees_defects(seed: int) -> None:
    """Correct: no alarm. Noise at four fifths: alarm."""
    parties = ("oem", NODES[0])
    good, weak = ({p: SeededNoise(100 * seed + k, factor) for k, p in enumerate(parties)} for factor in (1.0, 0.8))
    assert 2.0 < attack_pair(good, seed) < EPSILON
    assert attack_pair(weak, seed) > EPSILON
