"""Does a network on top of the tables gain anything, under privacy? Tables of one feature, of two, each with and without.

    python bench/cann.py --dataset bench/data/fremtpl2-zones.yaml --json bench/results/cann.json
    python bench/cann.py --inside ...                # judged on a fifth of the learning rows: where settings are chosen

Every arm spends the whole epsilon: with a residual, the tables get what it leaves (``SHARE``). Noise is the plan's
under ``honest-one/1``; sums are simulated, the secure run opens the same ones (``tests/e2e/test_residual_federated.py``).
Levels are corrected on the learning rows. Deviance x 100 per row; epsilon per person, delta 1e-6, the whole run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convoy_contracts.specification import PairsSpecification, Residual
from convoy_models.evaluation import poisson_deviance
from convoy_models.neural.cann import fit_cann_plain
from convoy_models.neural.planned import priced
from convoy_models.plan import plan
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.simulate import fit_pairs_plain

sys.path.insert(0, str(Path(__file__).resolve().parent))
from portfolio import read_portfolio

SHARE = 0.25
"""Part of a run's mu^2 that the residual may cost."""
NETWORK = {"hidden": 16, "steps": 60, "rateMicro": 200_000, "clip": "1.5", "learningRate": "1", "noiseMilli": 5_000}


def with_network(spec: PairsSpecification, persons: int) -> PairsSpecification:
    """Return the specification with a residual that costs ``SHARE`` of the run."""
    given: dict[str, Any] = {**NETWORK, "batch": max(1, round(persons * NETWORK["rateMicro"] / 1e6)), "costMicro": 1}
    return priced(spec.model_copy(update={"residual": Residual(**given)}), SHARE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its figures."""
    parser = argparse.ArgumentParser(description="A network on top of private tables.")
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of the data; else $CONVOY_SHARED/data")
    parser.add_argument("--runs", type=int, default=2, help="draws of the noise")
    parser.add_argument("--inside", action="store_true", help="judge on a fifth of the learning rows")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    started = time.monotonic()
    report: dict[str, Any] = {"what": "Poisson deviance x 100 per row on unseen rows; lower is better", "share": SHARE}
    for epsilon in (4.0, 1.0):
        portfolio = read_portfolio(given.dataset, given.data, epsilon)
        spec = portfolio.pairs
        if spec is None:
            parser.error("the description has no model of tables")
        learn, test = portfolio.learn, ~portfolio.learn
        if given.inside:
            kept = np.random.default_rng(5).random(learn.size) < 0.8
            learn, test = learn & kept, learn & ~kept
        rows, unseen = portfolio.rows(learn), portfolio.rows(test)
        roles = {"insurer": list(portfolio.insurers)}
        arms = {"tables of one feature": spec.model_copy(update={"pairs": ()}), "tables of one and of two": spec}
        for name, bare in arms.items():
            for network in (False, True):
                chosen = with_network(bare, int(learn.sum())) if network else bare
                made = plan(chosen, roles)
                found = []
                for seed in range(given.runs):
                    noise = np.random.default_rng([seed, 48])
                    model: PairsModel
                    if network:
                        model = fit_cann_plain(chosen, made, rows, noise)
                    else:
                        model = fit_pairs_plain(chosen, made, TableRows.build(chosen, rows), noise)
                    expected = model.rate(rows) * rows[spec.exposure]
                    level = float(rows[spec.claims].sum() / expected.sum())
                    seen = model.rate(unseen) * unseen[spec.exposure] * level
                    found.append(100 * poisson_deviance(unseen[spec.claims], seen))
                key = f"{name}{' + network' if network else ''}"
                report.setdefault(f"epsilon {epsilon:g}", {})[key] = {
                    "mean": round(float(np.mean(found)), 4),
                    "sd": round(float(np.std(found)), 4),
                }
                print(f"epsilon {epsilon:g}  {key:42} {np.mean(found):8.4f}", flush=True)
    report["judged on"] = "a fifth of the learning rows" if given.inside else "test rows"
    report["runs"] = given.runs
    report["seconds"] = round(time.monotonic() - started, 1)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
