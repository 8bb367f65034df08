"""Build what the overview page shows: plain values, ready for the template.

Nothing is decided here and nothing is counted that a service does not already know. Epsilon is
rounded up wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from convoy_audit.composition import composed_micro
from convoy_contracts.problems import PROBLEMS
from convoy_coordinator.console.wording import Say
from convoy_coordinator.contracts.service import ContractView
from convoy_coordinator.language import Language
from convoy_coordinator.ledgers.store import Ledger
from convoy_coordinator.log.levels import Level
from convoy_coordinator.parties.store import Party, short_name
from convoy_coordinator.releases.store import Release
from convoy_coordinator.runs.states import RunState
from convoy_coordinator.runs.store import Run

REFRESH_S: Final = 5
RUNS_SHOWN: Final = 8
RESULTS_SHOWN: Final = 4
METRICS: Final = ("d2", "gini", "auc10")
RATIOS: Final = frozenset({"d2", "gini"})
"""Measures that are zero for a model without skill, so that a quotient says something."""


@dataclass(frozen=True, slots=True)
class LogView:
    """The log as the page shows it; ``root`` is hex, ``None`` before the first checkpoint."""

    origin: str
    policy_digest: str
    size: int
    checkpoint_size: int
    root: str | None
    cosigned: tuple[str, ...]
    needed: int
    witness_sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PartyLine:
    """One party."""

    id: str
    name: str
    role: str
    region: str
    signed: int
    asked: int
    witness_size: int
    behind: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ContractLine:
    """One contract."""

    title: str
    uid: str
    version: int
    digest: str
    state: str
    start: str
    end: str
    signed: int
    asked: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunLine:
    """One run."""

    uid: str
    algorithm: str
    contract_title: str
    asked: str
    state: str
    done: int
    total: int
    released: bool
    reason: str | None
    party: str | None
    cause: str | None
    fix: str | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure, and its share of the largest in the row for the thin bar."""

    text: str
    share: float | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One measure; ``gain`` is how many times the best alone the joint model reaches."""

    metric: str
    gain: str | None
    gain_key: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one released model."""

    model: str
    run: str
    columns: tuple[str, ...]
    rows: tuple[ResultRow, ...]


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One asset under one contract: what its runs cost together, from the party's statements in the log."""

    party: str
    asset: str
    contract: str
    spent: str
    allowed: str
    left: str
    share: float


@dataclass(frozen=True, slots=True)
class Budget:
    """All ledgers, the numbers of the plain sentence, and what each asset has cost over all contracts."""

    lines: tuple[BudgetLine, ...]
    assets: tuple[tuple[str, str, str], ...]  # party, asset, epsilon
    epsilon: str
    delta: str
    odds: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole page."""

    name: str
    version: str
    url: str
    time: str
    other_language: Language
    refresh_s: int | None
    parties: tuple[PartyLine, ...]
    contracts: tuple[ContractLine, ...]
    active_contracts: int
    runs: tuple[RunLine, ...]
    finished_runs: int
    total_runs: int
    results: tuple[Result, ...]
    budget: Budget
    log: LogView
    commands: Mapping[str, str]


def overview(
    *,
    name: str,
    version: str,
    url: str,
    now: datetime,
    say: Say,
    parties: Sequence[Party],
    contracts: Sequence[ContractView],
    runs: Sequence[Run],
    releases: Sequence[Release],
    ledgers: Sequence[Ledger],
    log: LogView,
) -> Overview:
    """Put the page together from what the services know at ``now``."""
    titles = {view.contract.digest: view.agreed.title for view in contracts}
    released = {release.run for release in releases}
    by_uid = {run.uid: run for run in runs}
    busy = any(run.state in {RunState.AUTHORISED, RunState.RUNNING} for run in runs)
    return Overview(
        name=name,
        version=version,
        url=url,
        time=_time(now) + " UTC",
        other_language="en" if say.language == "zh" else "zh",
        refresh_s=REFRESH_S if busy else None,
        parties=tuple(_party(party, contracts, log) for party in parties),
        contracts=tuple(_contract(view) for view in reversed(contracts)),
        active_contracts=sum(view.standing.is_active for view in contracts),
        runs=tuple(_run(run, titles, released, say.language) for run in runs[:RUNS_SHOWN]),
        finished_runs=sum(run.state is RunState.FINISHED for run in runs),
        total_runs=len(runs),
        results=tuple(
            result
            for release in releases[:RESULTS_SHOWN]
            if (result := _result(release, by_uid.get(release.run), say)) is not None
        ),
        budget=_budget(ledgers, contracts),
        log=log,
        commands=_commands(url),
    )


def _party(party: Party, contracts: Sequence[ContractView], log: LogView) -> PartyLine:
    asked = [view for view in contracts if party.id in view.agreed.parties]
    seen = log.witness_sizes.get(party.id, 0)
    return PartyLine(
        id=party.id,
        name=party.name,
        role=party.role,
        region=party.region,
        signed=sum(party.id in view.standing.signed for view in asked),
        asked=len(asked),
        witness_size=seen,
        behind=max(0, log.size - seen),
        fingerprint=party.fingerprint,
    )


def _contract(view: ContractView) -> ContractLine:
    return ContractLine(
        title=view.agreed.title,
        uid=view.contract.uid,
        version=view.contract.version,
        digest=view.contract.digest,
        state=_state(view),
        start=view.agreed.term[0],
        end=view.agreed.term[1],
        signed=len(view.standing.signed),
        asked=len(view.agreed.parties),
        missing=tuple(short_name(p) for p in view.standing.unsigned),
    )


def _state(view: ContractView) -> str:
    """Return the state, or that an active contract waits for the witnesses."""
    is_waiting = view.standing.is_active and view.level < Level.WITNESSED
    return "waiting" if is_waiting else view.standing.state.value


def _run(run: Run, titles: Mapping[str, str], released: set[str], language: Language) -> RunLine:
    done, total = _count(run.progress.get("done")), _count(run.progress.get("total"))
    return RunLine(
        uid=run.uid,
        algorithm=run.algorithm,
        contract_title=titles.get(run.contract_digest, run.contract_uid),
        asked=_time(run.requested_at),
        state=run.state.value,
        done=min(done, total),
        total=total,
        released=run.uid in released,
        reason=run.reason,
        party=None if run.party is None else short_name(run.party),
        cause=run.cause,
        fix=_fix(run, language),
    )


def _fix(run: Run, language: Language) -> str | None:
    """Return what to do as the run was told; on the Chinese page in the catalogue's words for its code."""
    known = PROBLEMS.get(run.reason or "")
    return known.fix_zh if language == "zh" and known is not None and run.fix else run.fix


def _result(release: Release, run: Run | None, say: Say) -> Result | None:
    """Read a summary of the shape that ``make demo`` writes; what is not a figure is left out."""
    summary = release.summary or {}
    model = run.algorithm if run is not None else release.run
    joint = _figures(summary.get("joint"))
    if joint:
        alone = {
            short_name(party): _figures(figures) for party, figures in sorted(_mapping(summary.get("alone")).items())
        }
        columns = (say("joint"), *(say("alone", party=party) for party in alone))
        rows = tuple(
            _row(
                say.known(f"metric_{m}", m),
                joint[m],
                [f.get(m) for f in alone.values()],
                "gain" if m in RATIOS else None,
            )
            for m in sorted(joint, key=lambda m: METRICS.index(m) if m in METRICS else len(METRICS))
        )
        return Result(model, release.run, columns, rows)
    ours, popular = _figure(summary.get("hr10")), _figure(summary.get("popularity"))
    if ours is None:
        return None
    row = _row(say("metric_hr10"), ours, [popular], "gain_popularity")
    return Result(model, release.run, (say("joint"), say("popularity")), (row,))


def _row(metric: str, joint: float, others: Sequence[float | None], gain_key: str | None) -> ResultRow:
    known = [value for value in others if value is not None]
    best = max(known, default=0.0)
    largest = max([joint, *known, 0.0])
    cells = tuple(
        Cell("–", None) if value is None else Cell(f"{value:.3f}", None if largest <= 0 else max(0.0, value) / largest)
        for value in (joint, *others)
    )
    is_better = gain_key is not None and best > 0 and joint / best >= 1.05
    return ResultRow(metric, f"{joint / best:.1f}" if is_better else None, gain_key or "", cells)


def _budget(ledgers: Sequence[Ledger], contracts: Sequence[ContractView]) -> Budget:
    """Compose what each party has stated about the runs under one contract, and set it against the cap that was agreed."""
    views = {view.contract.digest: view for view in contracts}
    newest: dict[tuple[str, str, str], Ledger] = {}
    runs: dict[tuple[str, str, str], list[int]] = {}
    totals: dict[tuple[str, str], int] = {}
    for ledger in sorted(ledgers, key=lambda ledger: ledger.log_index):
        view = views.get(ledger.contract)
        key = ledger.party, ledger.asset, view.agreed.uid if view else ledger.contract
        newest[key] = ledger
        runs.setdefault(key, []).extend(ledger.runs_micro)
        totals[ledger.party, ledger.asset] = ledger.total_micro
    lines, highest, delta_nano = [], 0, 0
    for key, ledger in sorted(newest.items()):
        view = views.get(ledger.contract)
        agreed = None if view is None else view.agreed.budgets.get(ledger.asset)
        allowed = ledger.cap_micro if agreed is None or ledger.cap_micro is not None else agreed.total_micro
        if view is None or allowed is None:
            continue
        delta = 0 if agreed is None else agreed.delta_nano
        spent = composed_micro(runs[key], delta)
        highest, delta_nano = max(highest, spent), max(delta_nano, delta)
        lines.append(
            BudgetLine(
                party=short_name(ledger.party),
                asset=ledger.asset,
                contract=view.agreed.title,
                spent=micro_up(spent),
                allowed=micro_down(allowed),
                left=micro_down(max(0, allowed - spent)),
                share=min(1.0, spent / allowed) if allowed > 0 else 1.0,
            )
        )
    return Budget(
        lines=tuple(lines),
        assets=tuple((short_name(party), asset, micro_up(total)) for (party, asset), total in sorted(totals.items())),
        epsilon=micro_up(highest),
        delta=_power(delta_nano / 1e9) if delta_nano else "0",
        odds=f"{math.ceil(math.exp(min(highest / 1e6, 50.0))):,}",
    )


def _commands(url: str) -> dict[str, str]:
    return {
        "install": "pip install ./audit",
        "log": f"curl -O {url}/v1/evidence.zip\nconvoy-audit verify evidence.zip --policy MY-POLICY.txt",
        "contract": "convoy-contracts digest CONTRACT.json",
    }


def _time(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M}"


def micro_up(micro: int) -> str:
    """Write micro-epsilon with two decimals, never less than it is."""
    return f"{-(-micro // 10_000) / 100:.2f}"


def micro_down(micro: int) -> str:
    """Write micro-epsilon with two decimals, never more than it is; for what is allowed or left."""
    return f"{micro // 10_000 / 100:.2f}"


def _power(value: float) -> str:
    """Return 1e-6 as 10⁻⁶ where it is a power of ten, else in plain scientific notation."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _figure(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _figures(value: Any) -> dict[str, float]:
    return {key: f for key, raw in _mapping(value).items() if (f := _figure(raw)) is not None}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
