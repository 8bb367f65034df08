"""Risk benchmark on any portfolio: each insurer alone, joint, joint with privacy, pooled.

    python bench/risk.py --dataset bench/data/fremtpl2-zones.yaml --epsilon 4 --json out.json

Every row is judged on the same test rows. Levels are corrected by each insurer with one number from
its own learning rows, as it would do at its own node. Noise rows are the mean over seeds under the
noise that is really added (collusion-robust rule). ``run_secure`` is where the federated run is
plugged in: give ``main`` a function and the joint rows are trained through it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RiskSpecification
from convoy_models.errors import ModelsError
from convoy_models.evaluation import d2, deviance_per_year, gini, poisson_deviance
from convoy_models.plan import plan
from convoy_models.risk.model import RiskModel, local_level
from convoy_models.simulate import PlainCohort, alone, fit_plain

sys.path.insert(0, str(Path(__file__).resolve().parent))
from portfolio import DescriptionRefused, Portfolio, read_portfolio

Floats = npt.NDArray[np.float64]
Secure = Callable[[Portfolio, RiskSpecification, Literal["planned", "none"], int], RiskModel]
"""(portfolio, specification, noise, seed) -> model, trained through the real federated apps."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. deviance_x100: mean Poisson deviance per row x 100; lower is
    better."""

    model: str
    epsilon: float | None
    runs: int
    deviance_x100: float
    deviance_x100_sd: float
    deviance_per_year: float
    d2: float
    gini: float
    seconds: float


def simulated(
    portfolio: Portfolio,
    specification: RiskSpecification,
    noise: Literal["planned", "none"],
    seed: int,
) -> RiskModel:
    """Train on plaintext sums with the noise of the plan: what the federated run computes."""
    roles = {"insurer": list(portfolio.insurers), "oem": ["oem"]}
    cohort = _all_learning(portfolio, specification)
    source = np.random.default_rng(seed) if noise == "planned" else None
    return fit_plain(specification, plan(specification, roles), {"joint": cohort}, source)


_cohorts: dict[int, PlainCohort] = {}


def _all_learning(portfolio: Portfolio, specification: RiskSpecification) -> PlainCohort:
    key = id(portfolio)
    if key not in _cohorts:
        _cohorts[key] = PlainCohort.build(specification, portfolio.rows(portfolio.learn))
    return _cohorts[key]


def with_epsilon(specification: RiskSpecification, epsilon: float) -> RiskSpecification:
    """Return the same specification at another epsilon."""
    return specification.model_copy(update={"epsilonMicro": round(epsilon * 1e6)})


def uncapped(specification: RiskSpecification) -> RiskSpecification:
    """Return the same model without what only privacy needs: caps and few sweeps."""
    towers = tuple(tower.model_copy(update={"cap": "30"}) for tower in specification.towers)
    return specification.model_copy(update={"towers": towers, "claimCap": 20, "sweeps": 20})


def expected_claims(portfolio: Portfolio, models: Sequence[RiskModel], cohort: str) -> Floats:
    """Return expected claims of the test rows, (T,), each insurer's level corrected on its own
    rows.

    Args:
        portfolio: rows.
        models: one for all insurers, or one per insurer.
        cohort: of the models.
    """
    out = np.zeros(portfolio.learn.size)
    for index in range(len(portfolio.insurers)):
        model = models[index if len(models) > 1 else 0]
        mine = portfolio.insurer == index
        out[mine] = model.rate(cohort, portfolio.rows(mine)) * portfolio.years[mine]
        learned = mine & portfolio.learn
        out[mine] *= local_level(portfolio.claims[learned], out[learned])
    return out[~portfolio.learn]


def judge(portfolio: Portfolio, name: str, epsilon: float | None, runs: Sequence[Floats], seconds: float) -> Row:
    """Return one line from the expected test claims of one or more runs."""
    test = ~portfolio.learn
    claims, years = portfolio.claims[test], portfolio.years[test]
    rate = float(portfolio.claims[portfolio.learn].sum() / portfolio.years[portfolio.learn].sum())
    losses = [100 * poisson_deviance(claims, expected) for expected in runs]
    return Row(
        model=name,
        epsilon=epsilon,
        runs=len(runs),
        deviance_x100=round(float(np.mean(losses)), 4),
        deviance_x100_sd=round(float(np.std(losses)), 4),
        deviance_per_year=round(float(np.mean([deviance_per_year(claims, m, years) for m in runs])), 5),
        d2=round(float(np.mean([d2(claims, m, years, rate) for m in runs])), 3),
        gini=round(float(np.mean([gini(claims, m / years, years) for m in runs])), 4),
        seconds=round(seconds, 1),
    )


def measure(portfolio: Portfolio, epsilons: Sequence[float], seeds: int, run_secure: Secure = simulated) -> list[Row]:
    """Train and judge every model of the benchmark."""
    spec = portfolio.specification
    years, test = portfolio.years, ~portfolio.learn
    rate = float(portfolio.claims[portfolio.learn].sum() / years[portfolio.learn].sum())
    rows = [judge(portfolio, "null (one rate)", None, [rate * years[test]], 0.0)]

    start = time.monotonic()
    own = []
    for index, name in enumerate(portfolio.insurers):
        began = time.monotonic()
        own.append(alone(spec, _own_columns(portfolio, index)))
        spent = time.monotonic() - began
        expected = expected_claims(portfolio, [own[-1]], "all")
        rows.append(judge(portfolio, f"{name} alone, on all test rows", None, [expected], spent))
    expected = expected_claims(portfolio, own, "all")
    spent = time.monotonic() - start
    rows.append(judge(portfolio, "every insurer alone, on its own", None, [expected], spent))

    jobs: list[tuple[str, float | None, int]] = [("joint without DP", None, 1)]
    jobs += [(f"joint at epsilon {epsilon:g}", epsilon, seeds) for epsilon in epsilons]
    for name, epsilon, count in jobs:
        start = time.monotonic()
        runs = []
        for seed in range(count):
            chosen = spec if epsilon is None else with_epsilon(spec, epsilon)
            model = run_secure(portfolio, chosen, "none" if epsilon is None else "planned", seed)
            runs.append(expected_claims(portfolio, [model], "joint"))
        rows.append(judge(portfolio, name, epsilon, runs, (time.monotonic() - start) / count))

    start = time.monotonic()
    pooled = simulated(portfolio, uncapped(spec), "none", 0)
    expected = expected_claims(portfolio, [pooled], "joint")
    spent = time.monotonic() - start
    rows.append(judge(portfolio, "pooled plaintext, same model", None, [expected], spent))
    return rows


def _own_columns(portfolio: Portfolio, index: int) -> dict[str, npt.NDArray[np.generic]]:
    spec = portfolio.specification
    tower = next(tower for tower in spec.towers if tower.role == "insurer")
    names = [feature.name for feature in tower.features] + [spec.claims, spec.exposure]
    mine = portfolio.learn & (portfolio.insurer == index)
    return {name: portfolio.columns[name][mine] for name in names}


def show(portfolio: Portfolio, rows: Sequence[Row]) -> str:
    """Return the result as a Markdown table."""
    learned, tested = int(portfolio.learn.sum()), int((~portfolio.learn).sum())
    lines = [
        f"{portfolio.name}: {learned:,} learning rows, {tested:,} test rows; unit: {portfolio.unit}",
        "",
        "| model | test deviance x10^-2 (sd over seeds) | per year | D2 % | Gini | runs | s/run |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.deviance_x100:.3f} ({r.deviance_x100_sd:.3f}) | {r.deviance_per_year:.4f} "
        f"| {r.d2:.2f} | {r.gini:.3f} | {r.runs} | {r.seconds:.1f} |"
        for r in rows
    ]
    lines += [f"| published: {name} | {loss:.3f} | | | | | |" for name, loss in portfolio.references.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, run_secure: Secure = simulated) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="Joint risk model on a portfolio, against alone.")
    parser.add_argument("--dataset", type=Path, required=True, help="YAML description")
    parser.add_argument("--data", type=Path, help="folder of the data file")
    parser.add_argument("--epsilon", type=float, default=4.0, help="per run; 1 is shown as well")
    parser.add_argument("--seeds", type=int, default=10, help="noise seeds per epsilon")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args(arguments)
    try:
        portfolio = read_portfolio(options.dataset, options.data, options.epsilon)
        epsilons = sorted({options.epsilon, 1.0}, reverse=True)
        rows = measure(portfolio, epsilons, options.seeds, run_secure)
    except (DescriptionRefused, ModelsError) as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    print(show(portfolio, rows))
    if options.json is not None:
        document = {
            "dataset": portfolio.name,
            "unit": portfolio.unit,
            "federated": run_secure is not simulated,
            "specification": portfolio.specification.model_dump(mode="json"),
            "rows": [asdict(row) for row in rows],
            "references": dict(portfolio.references),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
