"""Risk benchmark on any portfolio: each insurer alone, joint, joint with privacy, and rivals, judged on the same test rows.

    python bench/risk.py --dataset bench/data/fremtpl2-zones.yaml --epsilon 4 --json out.json

Rows: one rate; every insurer alone; the vertical model (towers, where the description has them); the model of tables of
one feature and of two (boosting over public cells); LightGBM local, averaged, pooled and a pooled GLM, none of them private.
Levels are corrected by each insurer with one number from its own learning rows, as it would do at its own node. Noise rows
are the mean over seeds under the noise that is really added (collusion-robust rule), with a paired bootstrap interval of
the difference to each rival. ``--federated N`` trains N times through the real apps as well: coordinator, contract, nodes,
masks, ledgers and the nodes' own discrete noise.
LENGTH: over 500 lines, because every row of the table is one function and the table is read as a whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import PairsSpecification, RiskSpecification
from convoy_models.errors import ModelsError
from convoy_models.evaluation import d2, deviance_per_year, gini, poisson_deviance
from convoy_models.plan import plan
from convoy_models.risk.model import RiskModel, local_level
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.tables import TableRows
from convoy_models.risk.towers import Design
from convoy_models.simulate import PlainCohort, alone, fit_pairs_plain, fit_plain

sys.path.insert(0, str(Path(__file__).resolve().parent))
import rivals
from portfolio import DescriptionRefused, Portfolio, read_portfolio
from results_file import unwritable

Floats = npt.NDArray[np.float64]
Secure = Callable[[Portfolio, RiskSpecification, Literal["planned", "none"], int], RiskModel]
"""(portfolio, specification, noise, seed) -> model, trained through the real federated apps."""
Spec = TypeVar("Spec", RiskSpecification, PairsSpecification)
BOOTSTRAPS = 500
MOST_SHOWN = 10
"""Insurers with a line of their own."""


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


@dataclass(frozen=True, slots=True)
class Difference:
    """Deviance x 100 of a model minus that of a rival on the same test rows, with its 95 % paired bootstrap interval."""

    model: str
    rival: str
    difference_x100: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Result:
    """All lines, and differences between models and rivals."""

    rows: list[Row]
    differences: list[Difference]


class Board:
    """Collects judged models: expected claims of the test rows by model, one array per noise seed."""

    def __init__(self, portfolio: Portfolio) -> None:
        self._portfolio = portfolio
        self.rows: list[Row] = []
        self.losses: dict[str, Floats] = {}

    def add(self, name: str, epsilon: float | None, runs: Sequence[Floats], seconds: float) -> None:
        """Judge a model."""
        self.rows.append(judge(self._portfolio, name, epsilon, runs, seconds))
        claims = self._portfolio.claims[~self._portfolio.learn]
        self.losses[name] = np.mean([_losses(claims, expected) for expected in runs], axis=0)

    def differences(self, models: Sequence[str], against: Sequence[str]) -> list[Difference]:
        """Compare models with rivals on resampled test rows."""
        size = next(iter(self.losses.values())).size
        rng = np.random.default_rng(7)
        draws = [rng.poisson(1.0, size).astype(np.float32) for _ in range(BOOTSTRAPS)]
        out = []
        for model in models:
            for rival in against:
                gap = (100 * (self.losses[model] - self.losses[rival])).astype(np.float32)
                means = np.array([float(draw @ gap) / float(draw.sum()) for draw in draws])
                low, high = np.quantile(means, [0.025, 0.975])
                out.append(
                    Difference(model, rival, round(float(gap.mean()), 4), round(float(low), 4), round(float(high), 4))
                )
        return out


def _losses(claims: Floats, expected: Floats) -> Floats:
    logs = np.where(claims > 0, claims * np.log(np.maximum(claims, 1e-300) / expected), 0.0)
    return np.asarray(2.0 * (logs - claims + expected), dtype=np.float64)


def simulated(
    portfolio: Portfolio,
    specification: RiskSpecification,
    noise: Literal["planned", "none"],
    seed: int,
) -> RiskModel:
    """Train on plaintext sums with the noise of the plan: what the federated run computes."""
    has_oem = any(tower.role == "oem" for tower in specification.towers)
    roles = {"insurer": list(portfolio.insurers)} | ({"oem": ["oem"]} if has_oem else {})
    source = np.random.default_rng(seed) if noise == "planned" else None
    cohorts = _all_learning(portfolio, specification)
    return fit_plain(
        specification, plan(specification, roles), cohorts if has_oem else {"all": cohorts["joint"]}, source
    )


_cohorts: dict[int, tuple[Portfolio, dict[str, PlainCohort]]] = {}


def _all_learning(portfolio: Portfolio, specification: RiskSpecification) -> dict[str, PlainCohort]:
    """Return the encoded learning rows by cohort, kept for the next call (caps are not part of a design's rows)."""
    kept = _cohorts.get(id(portfolio))
    if kept is None or kept[0] is not portfolio:
        _cohorts.clear()
        parts = {"joint": portfolio.learn & portfolio.linked, "solo": portfolio.learn & ~portfolio.linked}
        made = {name: PlainCohort.build(specification, portfolio.rows(rows)) for name, rows in parts.items()}
        kept = (portfolio, made)
        _cohorts[id(portfolio)] = kept
    towers = {tower.role: tower for tower in specification.towers}
    return {
        name: PlainCohort(
            {role: Design(towers[role], design.blocks) for role, design in cohort.designs.items() if role in towers},
            cohort.labels,
        )
        for name, cohort in kept[1].items()
    }


def with_epsilon(specification: Spec, epsilon: float) -> Spec:
    """Return the same specification at another epsilon."""
    return specification.model_copy(update={"epsilonMicro": round(epsilon * 1e6)})


def uncapped(specification: RiskSpecification) -> RiskSpecification:
    """Return the same model without what only privacy needs: caps and few sweeps."""
    towers = tuple(tower.model_copy(update={"cap": "30"}) for tower in specification.towers)
    return specification.model_copy(update={"towers": towers, "claimCap": 20, "sweeps": 20})


def levelled(portfolio: Portfolio, expected: Floats) -> Floats:
    """Return expected claims of the test rows, (T,), each insurer's level corrected on its own learning rows.

    Args:
        portfolio: rows.
        expected: (N,) of all rows.
    """
    out = np.maximum(expected, 1e-9)
    for index in range(len(portfolio.insurers)):
        mine = portfolio.insurer == index
        learned = mine & portfolio.learn
        out[mine] *= local_level(portfolio.claims[learned], out[learned])
    return out[~portfolio.learn]


def expected_claims(portfolio: Portfolio, models: Sequence[RiskModel], cohort: str) -> Floats:
    """Return expected claims of the test rows, (T,), levels corrected.

    Args:
        portfolio: rows.
        models: one for all insurers, or one per insurer.
        cohort: of the models; persons whom the carmaker does not know are in 'solo' where it is 'joint'.
    """
    out = np.zeros(portfolio.learn.size)
    for index in range(len(portfolio.insurers)):
        model = models[index if len(models) > 1 else 0]
        mine = portfolio.insurer == index
        known = mine & portfolio.linked if cohort == "joint" else mine
        for name, rows in ((cohort, known), ("solo", mine & ~known)):
            if rows.any():
                out[rows] = model.rate(name, portfolio.rows(rows)) * portfolio.years[rows]
    return levelled(portfolio, out)


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
        gini=round(float(np.mean([gini(claims, m / years, years) for m in runs])), 4) if claims.any() else 0.0,
        seconds=round(seconds, 1),
    )


def measure(
    portfolio: Portfolio,
    epsilons: Sequence[float],
    seeds: int,
    run_secure: Secure = simulated,
    *,
    with_rivals: bool = True,
    federated_runs: int = 0,
) -> Result:
    """Train and judge every model of the benchmark.

    Args:
        portfolio: rows.
        epsilons: of one run; the first one is that of the federated runs.
        seeds: noise seeds per epsilon.
        run_secure: trains the towers.
        with_rivals: train LightGBM and GLMs too.
        federated_runs: how often to train through the real apps.
    """
    board = Board(portfolio)
    years, test = portfolio.years, ~portfolio.learn
    rate = float(portfolio.claims[portfolio.learn].sum() / years[portfolio.learn].sum())
    board.add("null (one rate)", None, [rate * years[test]], 0.0)
    if portfolio.specification is not None:
        _measure_towers(board, portfolio, epsilons, seeds, run_secure)
    models = []
    if portfolio.pairs is not None:
        models = _measure_tables(board, portfolio, epsilons, seeds)
    if federated_runs:
        models += _measure_federated(board, portfolio, epsilons[0], federated_runs)
    against = _measure_rivals(board, portfolio) if with_rivals else []
    own = [row.model for row in board.rows if row.model.startswith("joint") and row.model not in models]
    return Result(board.rows, board.differences([*models, *own], against) if against else [])


def _measure_towers(
    board: Board, portfolio: Portfolio, epsilons: Sequence[float], seeds: int, run_secure: Secure
) -> None:
    spec = portfolio.towers
    cohort = "joint" if any(tower.role == "oem" for tower in spec.towers) else "all"
    start = time.monotonic()
    own = []
    for index, name in enumerate(portfolio.insurers):
        began = time.monotonic()
        own.append(alone(spec, _own_columns(portfolio, index)))
        spent = time.monotonic() - began
        if index < MOST_SHOWN:
            expected = expected_claims(portfolio, [own[-1]], "all")
            board.add(f"{name} alone, on all test rows", None, [expected], spent)
    expected = expected_claims(portfolio, own, "all")
    board.add("every insurer alone, on its own", None, [expected], time.monotonic() - start)

    jobs: list[tuple[str, float | None, int]] = [("joint without DP", None, 1)]
    jobs += [(f"joint at epsilon {epsilon:g}", epsilon, seeds) for epsilon in epsilons]
    for name, epsilon, count in jobs:
        start = time.monotonic()
        runs = []
        for seed in range(count):
            chosen = spec if epsilon is None else with_epsilon(spec, epsilon)
            model = run_secure(portfolio, chosen, "none" if epsilon is None else "planned", seed)
            runs.append(expected_claims(portfolio, [model], cohort))
        board.add(name, epsilon, runs, (time.monotonic() - start) / count)

    start = time.monotonic()
    pooled = simulated(portfolio, uncapped(spec), "none", 0)
    expected = expected_claims(portfolio, [pooled], cohort)
    board.add("pooled plaintext, same model", None, [expected], time.monotonic() - start)


def _measure_tables(board: Board, portfolio: Portfolio, epsilons: Sequence[float], seeds: int) -> list[str]:
    spec = portfolio.pairs
    if spec is None:
        return []
    everyone = TableRows.build(spec, portfolio.rows(np.ones(portfolio.learn.size, dtype=np.bool_)))
    learning = TableRows.build(spec, portfolio.rows(portfolio.learn))
    start = time.monotonic()
    own = _tables_alone(portfolio, spec, everyone)
    board.add("tables, every insurer alone, on its own", None, [levelled(portfolio, own)], time.monotonic() - start)
    jobs: list[tuple[str, float | None, int]] = [("tables without DP", None, 1)]
    jobs += [(f"tables at epsilon {epsilon:g}", epsilon, seeds) for epsilon in epsilons]
    for name, epsilon, count in jobs:
        start = time.monotonic()
        chosen = spec if epsilon is None else with_epsilon(spec, epsilon)
        made = plan(chosen, {"insurer": list(portfolio.insurers)})
        runs = []
        for seed in range(count):
            noise = None if epsilon is None else np.random.default_rng(seed)
            model = fit_pairs_plain(chosen, made, learning, noise)
            runs.append(levelled(portfolio, model.rate_of(everyone) * portfolio.years))
        board.add(name, epsilon, runs, (time.monotonic() - start) / count)
    return [name for name, _, _ in jobs]


def _tables_alone(portfolio: Portfolio, spec: PairsSpecification, everyone: TableRows) -> Floats:
    """Return expected claims of all rows, (N,), each from its own insurer's tables, without noise and without the others."""
    out = np.zeros(portfolio.learn.size)
    for index, name in enumerate(portfolio.insurers):
        mine = portfolio.insurer == index
        learned = portfolio.learn & mine
        if portfolio.claims[learned].any():
            made = plan(spec, {"insurer": [name]})
            model = fit_pairs_plain(spec, made, TableRows.build(spec, portfolio.rows(learned)), None)
            out[mine] = (model.rate_of(everyone) * portfolio.years)[mine]
        else:
            out[mine] = float(spec.priorRate) * portfolio.years[mine]
    return out


def _measure_federated(board: Board, portfolio: Portfolio, epsilon: float, runs: int) -> list[str]:
    """Train through the real apps; each run draws its noise inside the nodes."""
    from federated import RunEnded, federation

    from convoy_demo.api import DemoFailed

    names = []
    specs: dict[str, RiskSpecification | PairsSpecification | None]
    specs = {"tables": portfolio.pairs, "joint": portfolio.specification}
    for short, spec in specs.items():
        if spec is None:
            continue
        name = f"{short} at epsilon {epsilon:g}, through the real apps"
        chosen = spec.model_copy(update={"epsilonMicro": round(epsilon * 1e6)})
        with tempfile.TemporaryDirectory(prefix="convoy-bench-") as folder:
            try:
                with federation(portfolio, chosen, Path(folder)) as founded:
                    start = time.monotonic()
                    made = [founded.train() for _ in range(runs)]
                    spent = (time.monotonic() - start) / runs
            except (RunEnded, DemoFailed) as ended:
                portfolio.notes.append(f"{name}: {ended}")
                continue
        board.add(name, epsilon, [_expected_of(portfolio, model) for model in made], spent)
        names.append(name)
    return names


def _expected_of(portfolio: Portfolio, model: RiskModel | PairsModel) -> Floats:
    if isinstance(model, PairsModel):
        return levelled(portfolio, model.rate(portfolio.columns) * portfolio.years)
    return expected_claims(portfolio, [model], "joint" if "joint" in model.cohorts else "all")


def _measure_rivals(board: Board, portfolio: Portfolio) -> list[str]:
    names = []
    if rivals.has_lightgbm():
        features, named = rivals.matrix(portfolio)
        start = time.monotonic()
        local = np.zeros(portfolio.learn.size)
        average = np.zeros(portfolio.learn.size)
        shares = np.bincount(portfolio.insurer[portfolio.learn], minlength=len(portfolio.insurers))
        for index in range(len(portfolio.insurers)):
            mine = portfolio.insurer == index
            expected = rivals.boosted(portfolio, features, named, mine & portfolio.learn)
            local[mine] = expected[mine]
            average += expected * shares[index] / shares.sum()
        spent = time.monotonic() - start
        board.add("LightGBM, every insurer alone, on its own", None, [levelled(portfolio, local)], spent)
        board.add("LightGBM, local models averaged", None, [levelled(portfolio, average)], spent)
        start = time.monotonic()
        pooled = rivals.boosted(portfolio, features, named, portfolio.learn)
        board.add("LightGBM, pooled", None, [levelled(portfolio, pooled)], time.monotonic() - start)
        names += [row.model for row in board.rows if row.model.startswith("LightGBM")]
    else:
        portfolio.notes.append(
            "LightGBM cannot be loaded: its rows are left out (pip install lightgbm; Debian: libgomp1)"
        )
    if portfolio.pairs is not None:
        start = time.monotonic()
        expected = levelled(portfolio, rivals.pooled_glm(portfolio))
        board.add("pooled GLM, same cells", None, [expected], time.monotonic() - start)
        names.append("pooled GLM, same cells")
    if rivals.has_glm3(portfolio):
        start = time.monotonic()
        expected = rivals.glm3(portfolio)[~portfolio.learn]
        board.add("pooled " + rivals.GLM3, None, [expected], time.monotonic() - start)
        names.append("pooled " + rivals.GLM3)
    return names


def _own_columns(portfolio: Portfolio, index: int) -> dict[str, npt.NDArray[np.generic]]:
    spec = portfolio.towers
    tower = next(tower for tower in spec.towers if tower.role == "insurer")
    names = [feature.name for feature in tower.features] + [spec.claims, spec.exposure]
    mine = portfolio.learn & (portfolio.insurer == index)
    return {name: portfolio.columns[name][mine] for name in names}


def privacy_of(portfolio: Portfolio) -> str:
    """Return what an epsilon of these rows means: unit, delta, scope and adversary."""
    deltas = {spec.deltaNano for spec in (portfolio.specification, portfolio.pairs) if spec is not None}
    told = " or ".join(f"{delta / 1e9:g}" for delta in sorted(deltas))
    return (
        f"epsilon is per person (unit: {portfolio.unit}) at delta {told}, for one run, against the coordinator, every recipient"
        " of the model and any one party; nodes follow the protocol and the trustee colludes with nobody"
    )


def show(portfolio: Portfolio, result: Result) -> str:
    """Return the result as Markdown tables."""
    learned, tested = int(portfolio.learn.sum()), int((~portfolio.learn).sum())
    rows = f"{learned:,} learning rows, {tested:,} test rows"
    lines = [
        f"{portfolio.name}: {rows}, {len(portfolio.insurers)} insurers; unit: {portfolio.unit}",
        f"privacy: {privacy_of(portfolio)}",
        *(f"note: {note}" for note in portfolio.notes),
        "",
        "| model | test deviance x10^-2 (sd over seeds) | per year | D2 % | Gini | runs | s/run |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.model} | {r.deviance_x100:.3f} ({r.deviance_x100_sd:.3f}) | {r.deviance_per_year:.4f} "
        f"| {r.d2:.2f} | {r.gini:.3f} | {r.runs} | {r.seconds:.1f} |"
        for r in result.rows
    ]
    lines += [f"| published: {name} | {loss:.3f} | | | | | |" for name, loss in portfolio.references.items()]
    if result.differences:
        lines += ["", "| model | minus rival | difference x10^-2 | 95 % paired bootstrap |", "|---|---|---|---|"]
        lines += [
            f"| {d.model} | {d.rival} | {d.difference_x100:+.3f} | [{d.low:+.3f}, {d.high:+.3f}] |"
            for d in result.differences
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None, run_secure: Secure = simulated) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="Joint risk model on a portfolio, against alone and against rivals.")
    parser.add_argument("--dataset", type=Path, required=True, help="YAML description")
    parser.add_argument("--data", type=Path, help="folder of the data file")
    parser.add_argument(
        "--epsilon", type=float, nargs="+", default=[4.0], help="of one run; after a single one, 1 as well"
    )
    parser.add_argument("--seeds", type=int, default=10, help="noise seeds per epsilon")
    parser.add_argument(
        "--federated", type=int, default=0, metavar="N", help="train N times through the real apps as well"
    )
    parser.add_argument("--no-rivals", action="store_true", help="leave LightGBM and GLMs out")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args(arguments)
    try:
        epsilons = list(dict.fromkeys(options.epsilon if len(options.epsilon) > 1 else [*options.epsilon, 1.0]))
        if not all(0 < epsilon < 1_000 for epsilon in epsilons) or options.seeds < 1 or options.federated < 0:
            raise DescriptionRefused(
                "--epsilon must be positive and below 1000, --seeds at least 1, --federated at least 0"
            )
        if options.json is not None and (cause := unwritable(options.json)):
            raise DescriptionRefused(
                f"--json {options.json}: {cause}. Fix: name a file in a folder that can be written."
            )
        if options.federated:
            import federated  # noqa: F401  (now, so that a fault of the apps is told before an hour of training)
        portfolio = read_portfolio(options.dataset, options.data, epsilons[0])
        result = measure(
            portfolio,
            epsilons,
            options.seeds,
            run_secure,
            with_rivals=not options.no_rivals,
            federated_runs=options.federated,
        )
    except (DescriptionRefused, ModelsError) as refusal:
        print(f"refused: {options.dataset}: {refusal}", file=sys.stderr)
        return 2
    print(show(portfolio, result))
    if options.json is not None:
        document = _document(portfolio, result, federated_runs=options.federated)
        options.json.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def _document(portfolio: Portfolio, result: Result, *, federated_runs: int) -> dict[str, Any]:
    specs = {"towers": portfolio.specification, "tables": portfolio.pairs}
    return {
        "dataset": portfolio.name,
        "unit": portfolio.unit,
        "privacy": privacy_of(portfolio),
        "insurers": len(portfolio.insurers),
        "learningRows": int(portfolio.learn.sum()),
        "testRows": int((~portfolio.learn).sum()),
        "federatedRuns": federated_runs,
        "notes": list(portfolio.notes),
        "specifications": {name: spec.model_dump(mode="json") for name, spec in specs.items() if spec is not None},
        "rows": [asdict(row) for row in result.rows],
        "differences": [asdict(difference) for difference in result.differences],
        "references": dict(portfolio.references),
    }


if __name__ == "__main__":
    sys.exit(main())
