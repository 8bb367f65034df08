"""Learning from noisy gradient sums: one person counts once, noise is the plan's, bad input is refused."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_contracts.specification import Knots, Levels
from convoy_models.accounting import mu_of
from convoy_models.errors import ValueRefused
from convoy_models.evaluation import auc
from convoy_models.features import ColumnRefused, encode
from convoy_models.fixedpoint import LOCAL_BITS, decode
from convoy_models.recommend.choices import ChoiceRows, ChoicesRefused, choice_rows, choice_scores
from convoy_models.recommend.descent import DescentRefused, Terms, answer, train
from convoy_models.recommend.offers import OfferDesign, OfferRows, OffersRefused, probability, tables
from convoy_models.testing import NoNoise, SeededNoise

OFFER = Levels(kind="levels", name="offer", levels=("coffee", "bar", "wash"))
VISITS = Levels(kind="levels", name="visits", levels=("never", "often"))
AGE = Knots(kind="knots", name="age", knots=("18", "30", "60"))
DESIGN = OfferDesign((OFFER, VISITS, AGE), (("offer", "visits"), ("age",)))
MU2 = mu_of(4.0, 1e-6) ** 2


def world(persons: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return columns, answers and persons: bars are for those who go out, five rows each."""
    random = np.random.default_rng(seed)
    who = np.repeat(np.arange(persons), 5)
    columns = {
        "offer": random.choice(OFFER.levels, who.size),
        "visits": np.repeat(random.choice(VISITS.levels, persons), 5),
        "age": np.repeat(random.uniform(15, 70, persons), 5),
    }
    logit = np.where(columns["visits"] == "often", 1.5, -1.5) * (columns["offer"] == "bar") + 0.3
    return columns, (random.random(who.size) < 1 / (1 + np.exp(-logit))).astype(float), who


def holders(persons: int, parties: int, seed: int = 0) -> list[OfferRows]:
    """Return rows of some parties, persons in turn."""
    columns, taken, who = world(persons, seed)
    rows = DESIGN.rows(columns)
    return [
        OfferRows(rows[who % parties == k], taken[who % parties == k], who[who % parties == k]) for k in range(parties)
    ]


def terms(persons: float, mu2: float | None = MU2) -> Terms:
    """Return the terms of the tests."""
    return Terms(steps=20, rate=10.0, clip=0.3, ridge=0.003, persons=persons, mu2=mu2)


def test_several_parties_learn_what_one_pool_learns() -> None:
    """Sums over parties are the sum over the pool, up to the grid."""
    apart = train(holders(300, 5), terms(300, None))
    together = train(holders(300, 1), terms(300, None))
    assert apart == pytest.approx(together, abs=1e-4)


def test_epsilon_four_still_ranks_offers() -> None:
    """600 persons, three parties, robust noise: close to exact sums, on fresh persons."""
    exact = train(holders(600, 3), terms(600, None))
    noisy = train(holders(600, 3), terms(600), [SeededNoise(k) for k in range(3)])
    columns, taken, _ = world(2000, 99)
    rows = DESIGN.rows(columns)
    assert auc(taken > 0, probability(rows, exact)) > 0.62
    assert auc(taken > 0, probability(rows, noisy)) > auc(taken > 0, probability(rows, exact)) - 0.03


def test_one_person_moves_a_sum_by_the_clip_at_most() -> None:
    """Whatever the number of rows: the person with 500 rows counts like any other."""
    columns, taken, who = world(60, 3)
    who[:] = np.where(who < 30, 0, who)  # one person with 150 rows
    rows = DESIGN.rows(columns)
    weights = np.random.default_rng(1).normal(size=DESIGN.size)
    agreed = terms(60, None)
    whole = decode(answer(OfferRows(rows, taken, who), weights, agreed, None, 1), LOCAL_BITS)
    for person in (0, 31, 59):
        left = who != person
        less = decode(answer(OfferRows(rows[left], taken[left], who[left]), weights, agreed, None, 1), LOCAL_BITS)
        assert np.linalg.norm(whole - less) <= agreed.sensitivity(DESIGN.size)


def test_the_whole_descent_costs_exactly_its_mu_squared() -> None:
    """steps x (sensitivity / sigma)^2 = mu^2."""
    agreed = terms(450)
    assert agreed.steps * (agreed.sensitivity(9) / agreed.sigma(9)) ** 2 == pytest.approx(MU2)


def test_every_party_adds_noise_so_that_one_share_less_leaves_sigma() -> None:
    """K parties add sigma^2 / (K - 1) each."""
    scales: list[float] = []

    class Spy(NoNoise):
        def draw(self, scale: float, size: int) -> np.ndarray:
            scales.append(scale)
            return super().draw(scale, size)

    agreed = terms(60)
    train(holders(60, 4), agreed, [Spy() for _ in range(4)])
    sigma = agreed.sigma(DESIGN.size) * 2.0**LOCAL_BITS
    assert len(scales) == 4 * agreed.steps
    assert 3 * scales[0] ** 2 == pytest.approx(sigma**2)


def test_what_cannot_be_private_is_refused() -> None:
    """Bad weights, noise without mu^2, unknown cells, answers that are no answers."""
    party = holders(40, 1)[0]
    with pytest.raises(ValueRefused):
        answer(party, np.full(DESIGN.size, np.nan), terms(40, None), None, 1)
    with pytest.raises(DescentRefused):
        answer(party, np.zeros(DESIGN.size), terms(40), None, 1)
    with pytest.raises(DescentRefused):
        Terms(steps=5, rate=1.0, clip=float("inf"), ridge=0.0, persons=10, mu2=None)
    with pytest.raises(DescentRefused):
        train([], terms(40, None))
    columns, taken, who = world(10, 1)
    with pytest.raises(ColumnRefused):
        DESIGN.rows(columns | {"offer": np.full(50, "tea")})
    with pytest.raises(OffersRefused):
        OfferRows(DESIGN.rows(columns), taken * 0.5, who)
    with pytest.raises(OffersRefused):
        OfferDesign((OFFER,), (("offer", "price"),))


def test_every_weight_is_a_cell_that_can_be_read() -> None:
    """Tables have one line per cell, named by both features."""
    shown = tables(DESIGN, np.arange(DESIGN.size, dtype=float))
    assert list(shown) == ["offer x visits", "age"]
    assert [name for name, _ in shown["offer x visits"]][:3] == ["coffee x never", "coffee x often", "bar x never"]
    assert sum(map(len, shown.values())) == DESIGN.size


def moments(persons: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, used, chosen, person: whoever charges fast goes to the fast new site."""
    random = np.random.default_rng(seed)
    used = np.zeros((persons, 6), dtype=bool)
    used[np.arange(persons), random.integers(0, 2, persons)] = True
    fast = random.random(persons)
    chosen = np.where(fast > 0.5, 2 + random.integers(0, 2, persons), 4 + random.integers(0, 2, persons))
    block = encode(Knots(kind="knots", name="fast", knots=("0", "0.5", "1")), fast)
    return choice_rows(used, (block,)), used, chosen, np.arange(persons)


def test_choice_rows_are_bounded_and_the_context_decides_the_next_site() -> None:
    """At epsilon 4, four of five new sites are in the half of the town that the context names."""
    rows, used, chosen, who = moments(800, 1)
    assert np.linalg.norm(rows, axis=1).max() <= 1 + 1e-12
    parties = [
        ChoiceRows(rows[who % 2 == k], used[who % 2 == k], chosen[who % 2 == k], who[who % 2 == k]) for k in (0, 1)
    ]
    agreed = Terms(steps=15, rate=3.0, clip=0.5, ridge=0.01, persons=800, mu2=MU2)
    weights = train(parties, agreed, [SeededNoise(4), SeededNoise(5)])
    fresh, out, target, _ = moments(1000, 2)
    best = choice_scores(fresh, out, weights).argmax(axis=1)
    assert np.mean((best >= 4) == (target >= 4)) > 0.8
    assert not out[np.arange(1000), best].any()


def test_a_choice_of_what_was_used_before_is_refused() -> None:
    """It would teach the model to recommend what is known."""
    rows, used, _, who = moments(10, 1)
    with pytest.raises(ChoicesRefused):
        ChoiceRows(rows, used, used.argmax(axis=1), who)
