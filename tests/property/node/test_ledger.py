"""The ledger under random lives: it never under-counts and never passes a cap."""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from convoy_models import accounting
from convoy_node.errors import BudgetExhausted, LedgerError
from convoy_node.ledger import Charge, Ledger

DELTA = 1e-6
CAP, ASSET_CAP = 4_000_000, 5_000_000
QUERIES = ("q0", "q1", "q2", "q3")
COHORTS = ("joint", "solo", "all")


@dataclass
class Told:
    """What the ledger has acknowledged about one reservation, kept apart from it."""

    run: str
    attempt: int
    contract: str
    year: int
    charges: dict[str, Charge]
    spent: set[str] = field(default_factory=set)
    is_open: bool = True

    def units(self, *, open_counts: bool) -> int:
        """Add up per person, the plain way."""
        return max(
            sum(
                charge.units
                for query, charge in self.charges.items()
                if charge.cohort in (cohort, "all") and (query in self.spent or (open_counts and self.is_open))
            )
            for cohort in ("joint", "solo")
        )


class LedgerLife(RuleBasedStateMachine):
    """Reserve, spend, settle and crash in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.crashes = 0
        Ledger.create(self.folder / "ledger.db")
        self.ledger = self.open()
        self.told: list[Told] = []

    def open(self) -> Ledger:
        return Ledger(self.folder / "ledger.db", clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def teardown(self) -> None:
        self.ledger.close()
        shutil.rmtree(self.folder)

    @rule(
        run=st.sampled_from(("r1", "r2", "r3")),
        attempt=st.integers(1, 4),
        contract=st.sampled_from(("risk", "recommend")),
        year=st.sampled_from((2026, 2027)),
        plan=st.dictionaries(
            st.sampled_from(QUERIES),
            st.tuples(st.sampled_from(COHORTS), st.floats(0.01, 0.5)),
            min_size=1,
        ),
    )
    def reserve(
        self, run: str, attempt: int, contract: str, year: int,
        plan: dict[str, tuple[str, float]],
    ) -> None:  # fmt: skip
        charges = {
            query: Charge(query, cohort, mu2, 1 / math.sqrt(mu2), 1.0)  # type: ignore[arg-type]
            for query, (cohort, mu2) in plan.items()
        }
        try:
            self.ledger.reserve(
                run, attempt, contract, "asset", year, DELTA, list(charges.values()),
                contract_cap_micro=CAP, asset_cap_micro=ASSET_CAP,
            )  # fmt: skip
        except BudgetExhausted:
            return
        except LedgerError:
            assert any(told.run == run and told.attempt >= attempt for told in self.told)
            return
        self.told.append(Told(run, attempt, contract, year, charges))

    @precondition(lambda self: self.told)
    @rule(data=st.data(), query=st.sampled_from(QUERIES))
    def spend(self, data: st.DataObject, query: str) -> None:
        told = data.draw(st.sampled_from(self.told))
        may = told.is_open and query in told.charges and query not in told.spent
        try:
            self.ledger.spend(told.run, query, told.attempt)
        except LedgerError:
            assert not may
        else:
            assert may
            told.spent.add(query)

    @rule(run=st.sampled_from(("r1", "r2", "r3")))
    def settle(self, run: str) -> None:
        self.ledger.settle(run, "finished")
        for told in self.told:
            told.is_open = told.is_open and told.run != run

    @rule()
    def crash(self) -> None:
        """Go on with the files as a killed process leaves them."""
        self.crashes += 1
        image = Path(tempfile.mkdtemp())
        for file in self.folder.iterdir():
            shutil.copy(file, image)
        self.ledger.close()
        shutil.rmtree(self.folder)
        self.folder = image
        self.ledger = self.open()
        for told in self.told:
            told.is_open = False

    @invariant()
    def nothing_is_forgotten_and_no_cap_is_passed(self) -> None:
        for contract, year, cap in (
            ("risk", None, CAP),
            ("recommend", None, CAP),
            (None, 2026, ASSET_CAP),
            (None, 2027, ASSET_CAP),
        ):
            mine = [told for told in self.told if contract in (None, told.contract) and year in (None, told.year)]
            used = accounting.mu2_of_units(sum(told.units(open_counts=True) for told in mine))
            spent = accounting.mu2_of_units(sum(told.units(open_counts=False) for told in mine))
            assert self.ledger.mu2("asset", contract, year) == used
            assert self.ledger.spent_mu2("asset", contract, year) == spent
            assert accounting.fits(used, 0.0, DELTA, cap)
        assert len(self.ledger.events()) == sum(len(told.spent) for told in self.told)


TestLedgerLife = LedgerLife.TestCase
TestLedgerLife.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
