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

from convoy_models.canaries import attack_local, attack_pair
from convoy_models.masks import PairKeys
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.privacy_audit import Coins, gdp_bound, one_run_bound
from convoy_models.testing import NoNoise, SeededNoise, new_keys

EPSILON, DELTA, CANARIES = 4.0, 1e-6, 8000
NODES = ("insurer-a", "insurer-b", "insurer-c")
SEEDS = range(50)
CORRECT = range(200)
LONG = os.environ.get("CONVOY_AUDIT") == "long"
KEYS: dict[str, PairKeys] = new_keys([*NODES, "oem", "trustee"])


def attack(
    sources: dict[str, NoiseSource], seed: int, *, size: float = 1.0, clip: bool = True
) -> tuple[Coins, np.ndarray]:
    """Run the pipeline on canaries that claim epsilon 4; see ``convoy_models.canaries``."""
    return attack_local(sources, KEYS, seed, epsilon=EPSILON, delta=DELTA, canaries=CANARIES, size=size, clip=clip)


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


def proven_of_pair(noise: dict[str, NoiseSource], seed: int) -> float:
    """Attack a BILINEAR sum of a carmaker and an insurer's accomplice."""
    found = attack_pair(noise, KEYS, seed, epsilon=EPSILON, delta=DELTA, canaries=3000)
    return gdp_bound(*found, DELTA, confidence=0.999)


@pytest.mark.parametrize("seed", range(2))
def test_a_sum_over_two_parties_keeps_its_promise_and_the_attack_sees_defects(seed: int) -> None:
    """Correct: no alarm. Noise at four fifths: alarm."""
    parties = ("oem", NODES[0])
    good, weak = ({p: SeededNoise(100 * seed + k, factor) for k, p in enumerate(parties)} for factor in (1.0, 0.8))
    assert 2.0 < proven_of_pair(good, seed) < EPSILON
    assert proven_of_pair(weak, seed) > EPSILON
