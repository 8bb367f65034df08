"""Choose the settings of a model of tables inside the learning rows; test rows are never looked at.

    python bench/choose.py --dataset bench/data/fremtpl2-zones.yaml --json bench/results/choose-fremtpl2.json

A fifth of the learning rows judges, the others train, under the noise of the plan. First pairs are taken one by
one as long as the best next one helps, then each number of ``boosting`` is varied in turn. Score: mean deviance x 100 over
epsilons 4 and 1 and over noise seeds.

LIMIT: this looks at real rows without noise, so what it picks is not covered by epsilon. It shows what a portfolio can give;
partners choose on generated or public data, or each on its own book, before they sign.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification
from convoy_models.evaluation import poisson_deviance
from convoy_models.plan import pair_width, plan
from convoy_models.risk.model import local_level
from convoy_models.risk.tables import TableRows
from convoy_models.risk.towers import Labels
from convoy_models.simulate import fit_pairs_plain

sys.path.insert(0, str(Path(__file__).resolve().parent))
from portfolio import Portfolio, read_portfolio

Floats = npt.NDArray[np.float64]
EPSILONS = (4.0, 1.0)
LARGEST_TABLE = 400
LEAST_GAIN = 0.001
"""A further pair must lower the score by this much."""
GRID: dict[str, tuple[Any, ...]] = {
    "mainScale": ("0.3", "0.5", "0.8"),
    "pairScale": ("0.06", "0.1", "0.16"),
    "passes": (2, 3, 4),
    "labelShareMilli": (450, 600, 700),
    "mainWeightMilli": (1000, 1500, 2000),
    "modelCap": ("0.15", "0.25", "0.4"),
}


@dataclass
class Judge:
    """Trains on four fifths of the learning rows and judges on the rest."""

    portfolio: Portfolio
    seeds: int
    trials: int = 0
    steps: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Note a step and print it at once."""
        self.steps.append(text)
        print(text, flush=True)

    def __post_init__(self) -> None:
        """Encode the learning rows once."""
        portfolio = self.portfolio
        if portfolio.pairs is None:
            raise SystemExit("refused: the description asks for no tables")
        rows = TableRows.build(portfolio.pairs, portfolio.rows(portfolio.learn))
        is_train = np.random.default_rng(11).random(rows.size) >= 0.2
        self._all, self._train, self._claims = rows, is_train, portfolio.claims[portfolio.learn]
        self._years, self._insurer = portfolio.years[portfolio.learn], portfolio.insurer[portfolio.learn]
        labels = rows.labels
        if labels is None:
            raise SystemExit("refused: no labels")
        kept = Labels(labels.claims[is_train], labels.exposure_years[is_train])
        self._fit = TableRows(portfolio.pairs, {name: cells[is_train] for name, cells in rows.own.items()}, kept)
        self._cells: tuple[dict[Any, Any], dict[Any, Any]] = ({}, {})

    def score(self, spec: PairsSpecification) -> float:
        """Return the mean deviance x 100 on the judging rows; lower is better."""
        losses = []
        for epsilon in EPSILONS:
            chosen = spec.model_copy(update={"epsilonMicro": round(epsilon * 1e6)})
            made = plan(chosen, {"insurer": list(self.portfolio.insurers)})
            for seed in range(self.seeds):
                rows = TableRows(chosen, self._fit.own, self._fit.labels, self._cells[0])
                model = fit_pairs_plain(chosen, made, rows, np.random.default_rng([seed, 17]))
                expected = model.rate_of(TableRows(chosen, self._all.own, None, self._cells[1])) * self._years
                losses.append(100 * poisson_deviance(self._claims[~self._train], self._levelled(expected)))
        out = float(np.mean(losses))
        self.trials += 1
        return out

    def _levelled(self, expected: Floats) -> Floats:
        out = expected.copy()
        for index in range(len(self.portfolio.insurers)):
            mine = self._insurer == index
            learned = mine & self._train
            out[mine] *= local_level(self._claims[learned], out[learned])
        return out[~self._train]


def choose(judge: Judge, spec: PairsSpecification) -> tuple[PairsSpecification, float]:
    """Return the specification that judged best: pairs by forward choice, then one number after the other."""
    widths = {feature.name: pair_width(feature) for feature in spec.features}
    left = [pair for pair in combinations(widths, 2) if widths[pair[0]] * widths[pair[1]] <= LARGEST_TABLE]
    best_spec = spec.model_copy(update={"pairs": ()})
    best = judge.score(best_spec)
    judge.say(f"no pairs: {best:.4f}")
    while left:
        found = min(
            (judge.score(best_spec.model_copy(update={"pairs": (*best_spec.pairs, pair)})), pair) for pair in left
        )
        if found[0] > best - LEAST_GAIN:
            break
        best, best_spec = found[0], best_spec.model_copy(update={"pairs": (*best_spec.pairs, found[1])})
        left.remove(found[1])
        judge.say(f"+ {' x '.join(found[1])}: {best:.4f}")
    for name, values in GRID.items():
        for value in values:
            if value == getattr(best_spec, name):
                continue
            candidate = best_spec.model_copy(update={name: value})
            score = judge.score(candidate)
            if score < best:
                best, best_spec = score, candidate
                judge.say(f"{name} = {value}: {best:.4f}")
    return best_spec, best


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the choice; returns the exit code."""
    parser = argparse.ArgumentParser(description="Choose settings of a model of tables inside the learning rows.")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    start = time.monotonic()
    portfolio = read_portfolio(options.dataset, options.data, EPSILONS[0])
    judge = Judge(portfolio, options.seeds)
    if portfolio.pairs is None:
        return 2
    as_written = judge.score(portfolio.pairs)
    judge.say(f"as described: {as_written:.4f}")
    spec, best = choose(judge, portfolio.pairs)
    judge.say(f"chosen: {best:.4f} after {judge.trials} trials, {time.monotonic() - start:.0f} s")
    chosen = {"pairs": [list(pair) for pair in spec.pairs], **{name: getattr(spec, name) for name in GRID}}
    judge.say(json.dumps(chosen))
    if options.json is not None:
        out = {"dataset": portfolio.name, "described": round(as_written, 4), "score": round(best, 4), "chosen": chosen}
        options.json.write_text(
            json.dumps(out | {"trials": judge.trials, "steps": judge.steps}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
