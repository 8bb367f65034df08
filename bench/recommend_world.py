"""Two towers against the Gram model on the generated world: HR@10 on fresh customers, both kinds of contract in one run.

    python bench/recommend_world.py --json bench/results/recommend-world.json        a quarter of an hour
    python bench/recommend_world.py --persons 2000 --seeds 1                         a look

The same customers train both: they consented at the charging operator and at the carmaker, and are spread over three
operators. ``recommend-items/1`` also reads the carmaker's profile; ``recommend-towers/1`` has histories only and holds out a
fifth of them for its gate. Both pay for everything they ask out of the same epsilon. Sums are plaintext sums with Gaussian
noise of the planned standard deviation (the federation's own sums are compared with these in the tests). *alone* is each
operator's own item-item model (EASE) without any noise, which never leaves it; the mean over operators is told.

Settings of the towers were chosen on other draws of the world (``models/LOG.md``).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import ListTest, Network, TowersSpecification
from convoy_demo.population import ITEMS, generate, histories
from convoy_demo.specifications import recommend_specification
from convoy_models.evaluation import hit_rate
from convoy_models.neural.planned import priced
from convoy_models.neural.two_tower import Towers
from convoy_models.plan import Plan, plan
from convoy_models.recommend import judged
from convoy_models.recommend.items import bounded, profile_rows
from convoy_models.recommend.towers import TowersFit, TowersModel, asked_of, bounded_history
from convoy_models.risk.fit import Ask, drive
from convoy_models.simulate import noisy, recommend_plain

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
OPERATORS = ("op-1", "op-2", "op-3")
ROLES = {"oem": ["oem"], "charging": list(OPERATORS)}
DRIVERS_A_CUSTOMER = 12.4
"""Generated drivers for one customer who has consented at both."""
TRAIN_SEED, TEST_SEED, LENGTH, FRESH = 700, 900, 10, 20_000
LARGE = 20_000
"""Customers from which a larger network pays."""


def world(persons: int, seed: int) -> tuple[Bools, npt.NDArray[np.int64], dict[str, Any]]:
    """Return histories, a hidden item of each, and the carmaker's columns of customers who consented at both."""
    people = generate(round(persons * DRIVERS_A_CUSTOMER * 1.03), seed)
    found = histories(people, seed)
    mine = np.flatnonzero(people.has_charging[found.drivers])[:persons]
    return found.used[mine], found.held_out[mine], {k: v[found.drivers[mine]] for k, v in people.columns.items()}


def towers_specification(persons: int, epsilon: float, *, is_free: bool = False) -> TowersSpecification:
    """Return a contract's specification for so many customers; ``is_free`` leaves the steps unpriced, for no noise."""
    large = persons >= LARGE
    net = Network(
        units=16 if large else 8,
        space=8 if large else 4,
        steps=200 if large else 100,
        rateMicro=1_000_000 if is_free else 100_000 if large else 200_000,
        batch=max(10, round(persons * 0.8 * (1.0 if is_free else 0.1 if large else 0.2))),
        clip="0.5",
        noiseMilli=100_000 if is_free else 2_800,
        costMicro=50_000,
        learningRate="5" if epsilon >= 2 else "2",
    )
    spec = TowersSpecification(
        kind="recommend-towers/1", items=ITEMS, network=net, test=ListTest(length=LENGTH),
        epsilonMicro=round(epsilon * 1e6), deltaNano=1_000,
    )  # fmt: skip
    return spec if is_free else priced(spec, 0.899)


def fit_towers(
    spec: TowersSpecification, made: Plan, nodes: Sequence[Towers], noise: np.random.Generator | None
) -> TowersModel:
    """Run the optimiser over several nodes' plaintext sums."""

    def total(ask: Ask) -> Floats:
        query = made[ask.query]
        return noisy(query, sum((node.local_sum(query, ask.weights) for node in nodes), np.zeros(query.size)), noise)

    return drive(TowersFit(spec, made).steps(), lambda asks: {ask.query: total(ask) for ask in asks})


def once(
    persons: int, epsilon: float | None, seed: int, fresh: tuple[Bools, npt.NDArray[np.int64], Any]
) -> dict[str, float]:
    """Train both kinds once; return hit rates on fresh customers. epsilon: None is without noise."""
    rng = np.random.default_rng([seed, 77])
    noise = None if epsilon is None else rng
    used, _, columns = world(persons, TRAIN_SEED + seed)
    test_used, hidden, test_columns = fresh
    operator = rng.integers(0, len(OPERATORS), persons)

    items = recommend_specification().model_copy(update={"epsilonMicro": round((epsilon or 4.0) * 1e6)})
    norm = float(items.historyNorm)
    started = time.perf_counter()
    gram = recommend_plain(
        items, plan(items, ROLES), bounded(used.astype(float), norm), profile_rows(items, columns), noise
    )
    gram_s = time.perf_counter() - started
    rows, profile = bounded(test_used.astype(float), norm), profile_rows(items, test_columns)

    spec = towers_specification(persons, epsilon or 4.0, is_free=epsilon is None)
    made = plan(spec, ROLES)
    names = [[ITEMS[item] for item in np.flatnonzero(row)] for row in used]
    started = time.perf_counter()
    nodes = [
        Towers.build(spec, {}, [names[i] for i in np.flatnonzero(operator == k)], rng=rng)
        for k in range(len(OPERATORS))
    ]
    model = fit_towers(spec, made, nodes, noise)
    towers_s = time.perf_counter() - started
    query = made["all/holdout"]
    opened = sum((node.local_sum(query, asked_of(model)) for node in nodes), np.zeros(4))
    said = judged.read_lists(query, opened if noise is None else opened + query.noise_sd * noise.normal(size=4))

    def hit(scores: Floats) -> float:
        return hit_rate(scores, test_used, hidden, LENGTH)

    history = bounded_history(test_used)
    alone = [hit(history @ judged.own_item_item(used[operator == k])) for k in range(len(OPERATORS))]
    return {
        "general": hit(np.tile(model.popularity, (hidden.size, 1))),
        "towers": hit(model.scores(np.zeros((hidden.size, 0)), test_used)),
        "gramWarm": hit(gram.warm(rows)),
        "gramCold": hit(gram.cold(profile)),
        "gramBlend": hit(gram.blend(rows, profile)),
        "alone": float(np.mean(alone)),
        "gatePersonal": said.hit_personal,
        "gateGeneral": said.hit_general,
        "gateOpens": float(said.low(spec.test.confidenceMilli / 1000) > 0),
        "towersSeconds": towers_s,
        "gramSeconds": gram_s,
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--persons", type=int, nargs="+", default=[8_000, 32_000], help="customers of all operators together"
    )
    parser.add_argument("--epsilon", type=float, nargs="+", default=[4.0, 1.0])
    parser.add_argument("--seeds", type=int, default=3, help="draws of customers and noise")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    fresh = world(FRESH, TEST_SEED)
    found = []
    for persons in chosen.persons:
        for epsilon in (None, *chosen.epsilon):
            runs = [once(persons, epsilon, seed, fresh) for seed in range(chosen.seeds)]
            mean = {name: round(float(np.mean([run[name] for run in runs])), 4) for name in runs[0]}
            spread = {name: round(float(np.ptp([run[name] for run in runs])), 4) for name in ("towers", "gramBlend")}
            found.append({"customers": persons, "epsilon": epsilon, "mean": mean, "range": spread})
            told = "no noise" if epsilon is None else f"eps {epsilon:g}"
            print(
                f"{persons:>7} customers, {told:>8}: HR@{LENGTH} general {mean['general']:.3f}  towers {mean['towers']:.3f}  Gram warm "
                f"{mean['gramWarm']:.3f} cold {mean['gramCold']:.3f} blend {mean['gramBlend']:.3f}  alone {mean['alone']:.3f}",
                flush=True,
            )
    if chosen.json is not None:
        facts = {
            "what": "HR@10 on fresh customers of the generated world; recommend-towers/1 and recommend-items/1, three operators",
            "privacy": "epsilon per person, delta 1e-6, one run, towards the coordinator and every recipient of the model",
            "seeds": chosen.seeds, "fresh": FRESH, "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "rows": found,
        }  # fmt: skip
        chosen.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
