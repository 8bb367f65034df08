"""Two towers as a kind of contract: what is planned and paid, what a node sums, when nothing is released."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from convoy_contracts.specification import Knots, Levels, ListTest, Network, TowersSpecification
from convoy_models.accounting import epsilon_of
from convoy_models.curves import factors
from convoy_models.errors import ModelsError
from convoy_models.evaluation import hit_rate
from convoy_models.mechanisms import left_of
from convoy_models.neural.two_tower import Towers
from convoy_models.plan import Plan, PlanRefused, plan
from convoy_models.recommend import judged
from convoy_models.recommend.judged import Lists, lists_gate
from convoy_models.recommend.model import ItemsMalformed
from convoy_models.recommend.towers import GENERAL, NETWORK, TowersFit, TowersModel, asked_of, start, weight_count
from convoy_models.risk.fit import Ask, drive
from convoy_models.simulate import noisy
from convoy_models.sums import open_sum
from convoy_models.testing import MemoryFederation, NoNoise
from convoy_node.admission import charges
from convoy_node.ledger import charge_tail, charge_units

ITEMS = tuple(f"site-{n:02d}" for n in range(12))
NET = Network(
    units=8, space=4, steps=40, rateMicro=1_000_000, batch=1_200, noiseMilli=9_000, costMicro=500_000, learningRate="1"
)
SPEC = TowersSpecification(
    kind="recommend-towers/1",
    items=ITEMS,
    profile=(
        Levels(kind="levels", name="side", levels=("left", "right")),
        Knots(kind="knots", name="visits", knots=("0", "10")),
    ),
    network=NET,
    test=ListTest(length=3),
    epsilonMicro=4_000_000,
    deltaNano=1_000,
)
SAMPLED = SPEC.model_copy(
    update={
        "network": NET.model_copy(update={"steps": 5, "rateMicro": 200_000, "noiseMilli": 2_000, "costMicro": 120_000})
    }
)
ROLES = {"charging": ["a", "b", "c"]}
Columns = dict[str, np.ndarray]


class Half:
    """Coins without luck: every other person; a test's only."""

    def throw(self, persons: int, rate_micro: int) -> np.ndarray:
        """Return everybody at rate 1, else every other person."""
        return np.arange(persons) % 2 == 0 if rate_micro < 1_000_000 else np.ones(persons, dtype=bool)


class Nobody:
    """Hold nobody out; everybody is in every step."""

    def throw(self, persons: int, rate_micro: int) -> np.ndarray:
        """Return everybody at rate 1, else nobody."""
        return np.full(persons, rate_micro == 1_000_000)


class Same(np.random.Generator):
    """Items are kept, dropped or hidden alike for every person and node."""

    def random(self, size: tuple[int, int]) -> np.ndarray:  # type: ignore[override]
        """Return one row for all."""
        return np.broadcast_to(np.arange(size[1]) % 2 * 0.9, size)


def _world(size: int, seed: int) -> tuple[Columns, list[list[str]]]:
    """Return columns and histories: the side of a person decides which half of the items it likes."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, size)
    liked = (np.arange(12)[None, :] < 6) == (side[:, None] == 0)
    order = np.argsort(-(2.5 * liked + rng.gumbel(size=(size, 12))), axis=1)[:, :4]
    columns = {"side": np.where(side == 0, "left", "right"), "visits": rng.uniform(0, 10, size)}
    return columns, [[ITEMS[item] for item in row] for row in order]


def _node(spec: TowersSpecification, seed: int, size: int = 400) -> Towers:
    columns, histories = _world(size, seed)
    return Towers.build(spec, columns, histories, Half(), np.random.default_rng(seed))


def _fit(spec: TowersSpecification, made: Plan, nodes: list[Towers], noise: np.random.Generator | None) -> TowersModel:
    def total(ask: Ask) -> np.ndarray:
        query = made[ask.query]
        return noisy(query, sum((node.local_sum(query, ask.weights) for node in nodes), np.zeros(query.size)), noise)

    return drive(TowersFit(spec, made).steps(), lambda asks: {ask.query: total(ask) for ask in asks})


def test_the_plan_pays_for_popularity_steps_and_hold_out_within_epsilon() -> None:
    """All are LOCAL sums over all persons; the ledger is charged what the plan says, steps under one lead with a tail."""
    made = plan(SAMPLED, ROLES)
    assert [q.purpose for q in made.queries] == ["popularity", *["descent"] * 5, "holdout-lists"]
    assert {(q.kind, q.cohort, q.module, q.participants) for q in made.queries} == {
        ("LOCAL", "all", "charging", ("a", "b", "c"))
    }
    assert made.charge <= made.mu2_limit
    charged = charges(made.queries, 1e-6)
    assert charge_tail(charged) == pytest.approx(2e-8)
    assert epsilon_of(charge_units(charged) / 1e12, left_of(1e-6, charge_tail(charged))) <= 4.0
    assert [q.purpose for q in made.evaluation.queries] == ["holdout-lists"]


def test_steps_that_cost_more_than_stated_or_than_epsilon_are_refused() -> None:
    """A specification states its own price and is not believed."""
    for changes in ({"costMicro": 100}, {"costMicro": 690_000}, {"noiseMilli": 100}):
        spec = SPEC.model_copy(update={"network": NET.model_copy(update=changes)})
        with pytest.raises(PlanRefused):
            plan(spec, ROLES)
    with pytest.raises(PlanRefused, match="charging"):
        plan(SPEC, {"oem": ["o"], "insurer": ["a", "b", "c"]})


@pytest.mark.parametrize(
    "changes",
    [
        {"items": ("a", "a", "b")},
        {"items": ("a", "b", "c")},  # no longer than the list
        {"profile": (Knots(kind="knots", name="items", knots=("0", "1")),)},
        {"profile": (SPEC.profile[0], SPEC.profile[0])},
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    """Before anybody signs it."""
    with pytest.raises(ValidationError):
        TowersSpecification(**{**{name: getattr(SPEC, name) for name in type(SPEC).model_fields}, **changes})


def test_sums_of_three_nodes_are_the_sum_over_all_their_persons() -> None:
    """Popularity and a step over everybody: three nodes together give what one node with all rows gives."""
    everybody = SPEC.model_copy(update={"test": ListTest(length=3, holdoutMilli=20)})

    worlds = [_world(60, seed) for seed in (1, 2, 3)]
    pooled = (
        {name: np.concatenate([columns[name] for columns, _ in worlds]) for name in ("side", "visits")},
        [history for _, histories in worlds for history in histories],
    )
    made = plan(everybody, ROLES)
    popularity, step = made.queries[0], made.queries[1]
    rng = Same(np.random.PCG64(1))
    nodes = [Towers.build(everybody, *world, Nobody(), rng) for world in worlds]
    (one,) = [Towers.build(everybody, *pooled, Nobody(), rng)]
    weights = {NETWORK: {"weights": start(everybody, np.ones(12), 0.0).tolist()}}
    for query, asked in ((popularity, {}), (step, weights)):
        together = sum(node.local_sum(query, asked) for node in nodes)
        np.testing.assert_allclose(together, one.local_sum(query, asked), atol=1e-9)
        assert np.abs(together).max() > 0.1


def test_a_secure_step_is_the_plain_one() -> None:
    """Through masks and the ring, without noise: to half a grid step for each node; a share alone says nothing."""
    made = plan(SPEC, ROLES)
    query = made.queries[1]
    weights = {NETWORK: {"weights": start(SPEC, np.ones(12), 0.0).tolist()}}
    local = {party: _node(SPEC, seed, 50).local_sum(query, weights) for seed, party in enumerate(query.participants)}
    shares = MemoryFederation(dict.fromkeys(query.participants, NoNoise())).ask(query, local=local)
    np.testing.assert_allclose(open_sum(query, shares), sum(local.values()), atol=3 * 2.0**-21)
    alone = shares["a"].astype(np.float64) / 2.0**64
    assert alone.std() > 0.2  # uniform on the ring


def test_one_person_moves_every_sum_by_at_most_its_clip() -> None:
    """Somebody who has used everything, in popularity, step and hold-out."""
    made = plan(SPEC, ROLES)
    columns, histories = _world(42, 4)
    histories[40] = histories[41] = list(ITEMS)
    weights = {NETWORK: {"weights": (5 * start(SPEC, np.ones(12), 0.0)).tolist()}, GENERAL: {"weights": [1.0] * 12}}

    def sums(size: int) -> list[np.ndarray]:
        cut = {name: values[:size] for name, values in columns.items()}
        node = Towers.build(SPEC, cut, histories[:size], Half(), Same(np.random.PCG64(1)))
        return [node.local_sum(query, weights) for query in asked]

    asked = (made.queries[0], made.queries[1], made.queries[-1])
    for size, moved in ((42, (True, True, False)), (41, (False, False, True))):  # the last one learns, or is held out
        for query, more, less, is_moved in zip(asked, sums(size), sums(size - 1), moved, strict=True):
            assert np.linalg.norm(more - less) <= query.clip
            assert bool(np.any(more != less)) == is_moved


def test_without_noise_three_operators_learn_what_popularity_cannot_and_with_noise_still() -> None:
    """Hit rate at 3 of fresh persons, warm and cold; the hold-out's counts say the same and the gate opens."""
    made = plan(SPEC, ROLES)
    nodes = [_node(SPEC, seed) for seed in (1, 2, 3)]
    columns, histories = _world(1_000, 9)
    hidden = np.array([ITEMS.index(history[-1]) for history in histories])
    rest = [history[:-1] for history in histories]
    used = np.array([[item in history for item in ITEMS] for history in rest])
    for noise in (None, np.random.default_rng(5)):
        model = _fit(SPEC, made, nodes, noise)
        popular = hit_rate(np.tile(model.popularity, (1_000, 1)), used, hidden, 3)
        assert hit_rate(model.scores_of(columns, rest), used, hidden, 3) > popular + 0.15
        assert hit_rate(model.scores_of(columns, [[]] * 1_000), used, hidden, 3) > popular + 0.1  # profile only
        query = made["all/holdout"]
        opened = sum((node.local_sum(query, asked_of(model)) for node in nodes), np.zeros(4))
        assert opened.sum() == 600
        found = judged.read_lists(query, opened if noise is None else opened + query.noise_sd * noise.normal(size=4))
        assert found.gain > 0.1
        assert lists_gate(found, {"a": "undecided", "b": "worse"}, 0.8).passed
        again = TowersModel.from_arrays(SPEC, model.to_arrays())
        np.testing.assert_array_equal(again.scores_of(columns, rest), model.scores_of(columns, rest))
    shown = factors(SPEC.model_dump(mode="json"), model.to_arrays())
    assert [row.point for row in shown] == list(ITEMS)


def test_a_model_that_is_not_better_stays_where_it_is() -> None:
    """Not better than popularity, or worse than alone for everybody: the gate says why, with figures."""
    verdict = lists_gate(Lists(100, 20, 30, 50, 5), {"a": "better"}, 0.8)
    assert not verdict.passed
    assert "60.0 % / 65.0 %" in verdict.text.en
    clear = Lists(100, 90, 10, 50, 5)
    assert lists_gate(clear, {"a": "worse", "b": "undecided"}, 0.8).passed
    assert "alone" in lists_gate(clear, {"a": "worse", "b": "worse"}, 0.8).text.en
    assert judged.word_of(np.array([1.0, 40, 0, 1]), 0.8) == "undecided"  # too few persons
    assert judged.word_of(np.array([10.0, 40, 10, 10]), 0.8) == "better"
    assert judged.word_of(np.array([10.0, 10, 40, 10]), 0.8) == "worse"


@pytest.mark.parametrize(
    "asked",
    [None, {}, {NETWORK: {}}, {NETWORK: {"weights": ["x"]}}, {NETWORK: {"weights": [0.0]}}, {NETWORK: [1.0]},
     {NETWORK: {"weights": [float("nan")] * weight_count(SPEC)}}, {NETWORK: {"weights": [1e9] * weight_count(SPEC)}}],
)  # fmt: skip
def test_weights_that_are_not_the_specifications_are_refused(asked: object) -> None:
    """Missing, short, text, not finite, huge: nothing is summed."""
    node, made = _node(SPEC, 1, 20), plan(SPEC, ROLES)
    for query in made.queries[1], made.queries[-1]:
        with pytest.raises(ModelsError):
            node.local_sum(query, asked)


def test_bad_rows_and_arrays_are_refused_by_name() -> None:
    """A side that the contract does not know, an item that it does not list, an array that is missing."""
    columns, histories = _world(10, 1)
    with pytest.raises(ModelsError, match="side"):
        Towers.build(SPEC, columns | {"side": np.array(["up"] * 10)}, histories)
    with pytest.raises(ModelsError, match="1 entries"):
        Towers.build(SPEC, columns, [*histories[:9], ["elsewhere"]])
    arrays = TowersModel(SPEC, start(SPEC, np.ones(12), 1.0), np.ones(12)).to_arrays()
    for broken in (
        {k: v for k, v in arrays.items() if k != "popularity"},
        arrays | {"more": np.zeros(1)},
        arrays | {"items.bias": np.zeros(3)},
        arrays | {"items.bias": np.full(12, np.inf)},
    ):
        with pytest.raises(ItemsMalformed):
            TowersModel.from_arrays(SPEC, broken)


def test_empty_nodes_and_persons_without_a_history_make_zero_sums() -> None:
    """Nobody is held out who has nothing to hide; sums keep their shape."""
    made = plan(SPEC, ROLES)
    columns = {"side": np.array(["left"] * 4), "visits": np.zeros(4)}
    node = Towers.build(SPEC, columns, [[]] * 4, Half())
    weights = {NETWORK: {"weights": start(SPEC, np.ones(12), 0.0).tolist()}, GENERAL: {"weights": [1.0] * 12}}
    for query in made.queries[:2] + made.queries[-1:]:
        assert not node.local_sum(query, weights).any()
