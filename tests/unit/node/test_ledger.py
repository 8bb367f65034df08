"""The privacy ledger: what it permits, what it remembers, what it states."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convoy_models import accounting
from convoy_models.mechanisms import UnsupportedEvent
from convoy_node.errors import (
    BudgetExhausted,
    LedgerDamaged,
    LedgerError,
    NotReserved,
    RunSettled,
    SpentBefore,
)
from convoy_node.ledger import Charge, Ledger, sampled_charges
from convoy_node.ledger_view import LedgerView

DELTA = 1e-6
RUN_MU2 = accounting.mu_of(4.0, DELTA) ** 2
ASSET = "urn:oem:driving"


def clock() -> datetime:
    return datetime(2026, 11, 24, tzinfo=UTC)


def charge(query: str, mu2: float, cohort: str = "joint") -> Charge:
    return Charge(query, cohort, mu2, sigma=1 / math.sqrt(mu2), clip=1.0)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    return path


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(path, clock=clock)


def reserve(
    ledger: Ledger, run: str, charges: list[Charge], *, attempt: int = 1, contract: str = "risk",
    year: int = 2026, cap: int = 6_000_000, asset_cap: int = 9_000_000,
) -> None:  # fmt: skip
    ledger.reserve(
        run, attempt, contract, ASSET, year, DELTA, charges,
        contract_cap_micro=cap, asset_cap_micro=asset_cap,
    )  # fmt: skip


def test_two_runs_of_epsilon_four_fit_six_and_the_third_is_refused(ledger: Ledger) -> None:
    """The composed epsilon of two runs is 5.9; the refusal changes nothing."""
    for run in ("r1", "r2"):
        reserve(ledger, run, [charge("a", RUN_MU2)])
    before = ledger.mu2(ASSET)
    with pytest.raises(BudgetExhausted) as refused:
        reserve(ledger, "r3", [charge("a", RUN_MU2)])
    assert refused.value.refusal()["code"] == "BUDGET_EXHAUSTED"
    assert len(refused.value.reasons) == 1
    assert "under risk" in refused.value.reasons[0]
    assert ledger.mu2(ASSET) == before
    with pytest.raises(NotReserved):
        ledger.spend("r3", "a", 1)
    assert ledger.totals()[0].epsilon == pytest.approx(5.9, abs=0.05)


def test_the_year_of_an_asset_counts_every_contract(ledger: Ledger) -> None:
    """A second contract has its own total, but the asset's year is shared; a new year is not."""
    for run, contract in (("r1", "risk"), ("r2", "recommend")):
        reserve(ledger, run, [charge("a", RUN_MU2)], contract=contract, asset_cap=6_000_000)
    with pytest.raises(BudgetExhausted, match="in 2026"):
        reserve(ledger, "r3", [charge("a", RUN_MU2)], contract="third", asset_cap=6_000_000)
    reserve(ledger, "r3", [charge("a", RUN_MU2)], contract="third", year=2027, asset_cap=6_000_000)


def test_disjoint_cohorts_cost_the_larger_and_all_counts_in_both(ledger: Ledger) -> None:
    """Parallel composition inside a run; runs add up."""
    charges = [charge("a", 0.25), charge("b", 0.5, "solo"), charge("c", 0.125, "all")]
    reserve(ledger, "r1", charges)
    assert ledger.mu2(ASSET) == 0.625
    ledger.spend("r1", "a", 1)
    assert ledger.spent_mu2(ASSET) == 0.25
    ledger.spend("r1", "c", 1)
    assert ledger.spent_mu2(ASSET) == 0.375
    ledger.settle("r1", "finished")
    assert ledger.mu2(ASSET) == 0.375
    reserve(ledger, "r2", [charge("b", 0.25, "solo")])
    assert ledger.mu2(ASSET) == 0.625


def test_a_tag_is_spent_once_for_ever(ledger: Ledger) -> None:
    """Also after the run was settled."""
    reserve(ledger, "r1", [charge("a", 0.1), charge("b", 0.1)])
    ledger.spend("r1", "a", 1)
    with pytest.raises(SpentBefore):
        ledger.spend("r1", "a", 1)
    ledger.settle("r1", "finished")
    with pytest.raises(SpentBefore):
        ledger.spend("r1", "a", 1)
    with pytest.raises(RunSettled):
        ledger.spend("r1", "b", 1)


def test_an_attempt_is_never_reserved_again(ledger: Ledger) -> None:
    """A later attempt adds to what the earlier one cost."""
    reserve(ledger, "r1", [charge("a", 0.1)], attempt=2)
    for attempt in (1, 2):
        with pytest.raises(SpentBefore):
            reserve(ledger, "r1", [charge("a", 0.1)], attempt=attempt)
    ledger.spend("r1", "a", 2)
    ledger.settle("r1", "aborted")
    reserve(ledger, "r1", [charge("a", 0.1)], attempt=3)
    assert ledger.mu2(ASSET) == 0.2
    with pytest.raises(NotReserved):
        ledger.spend("r1", "b", 3)


def test_what_a_dead_process_had_reserved_is_released_and_what_it_spent_stays(path: Path) -> None:
    """A copy of the file while it is open is what a crash leaves."""
    with Ledger(path, clock=clock) as ledger:
        reserve(ledger, "r1", [charge("a", 0.1), charge("b", 0.2)])
        ledger.spend("r1", "a", 1)
        image = path.parent / "crashed"
        image.mkdir()
        for file in path.parent.glob("ledger.db*"):
            shutil.copy(file, image)
    with Ledger(image / "ledger.db", clock=clock) as after:
        assert after.mu2(ASSET) == after.spent_mu2(ASSET) == 0.1
        with pytest.raises(RunSettled):
            after.spend("r1", "b", 1)


def test_a_charge_below_its_clip_and_sigma_is_refused() -> None:
    """The plan's mu^2 is checked, never believed; no other cohort exists."""
    with pytest.raises(LedgerError):
        Charge("a", "joint", 0.24, sigma=2.0, clip=1.0)
    with pytest.raises(LedgerError):
        Charge("a", "everyone", 0.25, sigma=2.0, clip=1.0)  # type: ignore[arg-type]
    assert Charge("a", "joint", 0.25, sigma=2.0, clip=1.0).units == 250_000_000_000


@pytest.mark.parametrize("cap", [4_000_000, 5_000_000, 5_890_000, 5_910_000, 8_000_000])
@pytest.mark.parametrize("asset_cap", [6_000_000, 7_000_000, 7_600_000, 9_000_000])
def test_the_linear_gate_decides_exactly_as_the_ledger(ledger: Ledger, cap: int, asset_cap: int) -> None:
    """FORMAT.md's gate 53 on the stated numbers permits what ``reserve`` permits, and no more."""
    reserve(ledger, "r1", [charge("a", RUN_MU2)])
    reserve(ledger, "r2", [charge("a", RUN_MU2)], contract="recommend")
    ledger.spend("r1", "a", 1)
    request = 4_000_000
    stated = ledger.statement(ASSET, "risk", request, RUN_MU2, DELTA)
    asset = ledger.stated_asset_cap_micro(ASSET, "risk", 2026, asset_cap, RUN_MU2, DELTA)
    gate = stated["spent"] + stated["reserved"] + request <= min(cap, asset)
    try:
        reserve(ledger, "r3", [charge("a", RUN_MU2)], cap=cap, asset_cap=asset_cap)
        permitted = True
    except BudgetExhausted:
        permitted = False
    assert gate == permitted


def test_an_independent_accountant_agrees_with_the_total(ledger: Ledger) -> None:
    """dp-accounting composes the spent events to the same epsilon."""
    charges = [charge(f"q{number}", RUN_MU2 / 10) for number in range(10)]
    reserve(ledger, "r1", charges)
    for number in range(10):
        ledger.spend("r1", f"q{number}", 1)
    events = [accounting.GaussianEvent(event.clip, event.sigma) for event in ledger.events()]
    assert accounting.independent_epsilon(events, DELTA) == pytest.approx(ledger.totals()[0].epsilon, abs=1e-6)


def test_one_process_writes_and_others_may_look(path: Path, ledger: Ledger) -> None:
    """A second writer would settle the first one's reservations."""
    reserve(ledger, "r1", [charge("a", 0.1)])
    with pytest.raises(LedgerError) as refused:
        Ledger(path, clock=clock, lock_wait_s=0.0)
    assert refused.value.code == "LEDGER_BUSY"
    with LedgerView(path) as view:
        assert view.mu2(ASSET) == 0.1
        assert [total.year for total in view.totals()] == [None, 2026]
    ledger.spend("r1", "a", 1)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    """A node never starts with an empty ledger, and never replaces one."""
    with pytest.raises(LedgerDamaged):
        Ledger(tmp_path / "none.db", clock=clock)
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(b"not a ledger" * 1000)
    with pytest.raises(LedgerDamaged):
        Ledger(foreign, clock=clock)
    with pytest.raises(LedgerError):
        Ledger.create(foreign)


def test_threads_spend_each_tag_once(ledger: Ledger) -> None:
    """Of eight threads that spend the same tags, one succeeds for each."""
    reserve(ledger, "r1", [charge(f"q{number}", 0.01) for number in range(5)])
    done: list[int] = []

    def work() -> None:
        for number in range(5):
            try:
                ledger.spend("r1", f"q{number}", 1)
            except SpentBefore:
                continue
            done.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3, 4]


def test_a_closed_ledger_refuses_with_its_own_error(path: Path) -> None:
    """Nothing but the node's errors comes out."""
    ledger = Ledger(path, clock=clock)
    ledger.close()
    with pytest.raises(LedgerError):
        reserve(ledger, "r1", [charge("a", 0.1)])


def test_a_sampled_training_is_paid_once_with_its_first_step(ledger: Ledger) -> None:
    """The lead's envelope is reserved with the plan, spent with the first step, and never released then."""
    steps = [f"all/residual/{n}" for n in range(400)]
    reserve(
        ledger, "r1", [charge("gam", 0.7, "all"), *sampled_charges("residual", steps, "all", 1.0, 2.0, 0.04, DELTA)]
    )
    assert ledger.tail(ASSET) == pytest.approx(DELTA / 50)
    ledger.spend("r1", steps[7], 1)
    with pytest.raises(SpentBefore):
        ledger.spend("r1", steps[7], 1)
    ledger.settle("r1", "aborted")
    assert accounting.epsilon_of(ledger.spent_mu2(ASSET), DELTA) == pytest.approx(2.03, abs=0.02)
    assert {event.query for event in ledger.events()} == {"residual", steps[7]}
    assert ledger.independent_epsilon(DELTA, ASSET, "risk") == pytest.approx(2.004, abs=0.002)
    assert ledger.totals()[0].epsilon >= ledger.independent_epsilon(DELTA, ASSET, "risk")


def test_a_sampled_training_that_understates_its_cost_is_refused(ledger: Ledger) -> None:
    """Too small a mu^2, too few steps under a lead, another rate, or a joint cohort."""
    honest = sampled_charges("residual", ["s1", "s2"], "all", 1.0, 2.0, 0.04, DELTA)
    with pytest.raises(LedgerError):
        dataclasses.replace(honest[0], mu2=honest[0].mu2 / 2)
    with pytest.raises(UnsupportedEvent):
        dataclasses.replace(honest[0], cohort="joint")
    more = [*honest, dataclasses.replace(honest[1], query="s3")]
    for wrong in (more, honest[1:], [honest[0], dataclasses.replace(honest[1], rate=0.05)]):
        with pytest.raises(LedgerError):
            reserve(ledger, "r1", wrong)
    assert ledger.mu2(ASSET) == 0


def test_tails_that_use_up_delta_are_refused(ledger: Ledger) -> None:
    """Forty-nine sampled trainings fit a delta of fifty tails; the fiftieth would leave none of it."""
    for number in range(49):
        cheap = sampled_charges("lead", ["step"], "all", 1.0, 50.0, 0.001, DELTA)
        reserve(ledger, f"r{number}", cheap)
    with pytest.raises(BudgetExhausted) as refused:
        reserve(ledger, "last", sampled_charges("lead", ["step"], "all", 1.0, 50.0, 0.001, DELTA))
    assert "delta" in refused.value.reasons[0]


def test_a_ledger_of_version_one_is_brought_up_and_keeps_its_meaning(path: Path) -> None:
    """Its charges are Gaussian sums; reading beside a node asks for the node to be started once."""
    with Ledger(path, clock=clock) as ledger:
        reserve(ledger, "r1", [charge("q", RUN_MU2)])
        ledger.spend("r1", "q", 1)
        before = ledger.spent_mu2(ASSET)
    db = sqlite3.connect(path)
    for column in ("rate", "steps", "tail", "lead"):
        db.execute("DROP TRIGGER IF EXISTS spent_stays")
        db.execute(f"ALTER TABLE charge DROP COLUMN {column}")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    with pytest.raises(LedgerDamaged):
        LedgerView(path)
    with Ledger(path, clock=clock) as ledger:
        assert ledger.spent_mu2(ASSET) == before
        reserve(ledger, "r2", [charge("q", 0.1)])
