"""What a node states about a run that is over: what its persons paid for it, and what they have paid in all.

Epsilon is that of the ledger's mu^2 at the contract's delta, in millionths, rounded up. ``epsilon_micro`` is the run alone;
``total_micro`` is the asset over all contracts and years, open reservations included, so it never under-states.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from convoy_audit.events import RunSettled
from convoy_models import accounting
from convoy_models.mechanisms import left_of
from convoy_node.ledger_view import LedgerView
from convoy_node.memory import KnownRun


def settled(
    ledger: LedgerView,
    known: KnownRun,
    party: str,
    now: datetime,
    outcome: Literal["finished", "aborted"],
    manifest: str | None,
    reason: str | None,
) -> RunSettled:
    """Return the event of a run whose reservation the ledger has settled."""
    spent, total = {}, {}
    if known.asset:
        left = left_of(known.delta, ledger.tail(known.asset))
        spent[known.asset] = accounting.micro(accounting.epsilon_of(run_mu2(ledger, known.run), left))
        total[known.asset] = accounting.micro(accounting.epsilon_of(ledger.mu2(known.asset), left))
    return RunSettled(
        at=now,
        party=party,
        run=known.run,
        contract=known.digest,
        outcome=outcome,
        manifest=manifest,
        epsilon_micro=spent,
        total_micro=total,
        reasons=(reason,) if reason else (),
    )


def run_mu2(ledger: LedgerView, run: str) -> float:
    """Return what a run has spent: per attempt the larger of the two cohorts' sums; attempts add up."""
    sums: dict[int, dict[str, float]] = {}
    for event in ledger.events():
        if event.run == run:
            of = sums.setdefault(event.attempt, {"joint": 0.0, "solo": 0.0})
            for cohort in of if event.cohort == "all" else (event.cohort,):
                of[cohort] += event.mu2
    return sum(max(of.values()) for of in sums.values())
