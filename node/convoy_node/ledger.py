"""The node's own privacy ledger: what was reserved and spent, durably, before anything leaves.

Promises. Unit: person. Amounts are mu^2 of Gaussian DP in whole units of 1e-12, rounded up, so a
sum does not depend on its order. ``spend`` returns only when the charge is on disk; the caller lets
a byte leave only after it has returned. A tag (run, query, attempt) is spent at most once, for
ever. Nothing ever lowers what was spent: not a version, a withdrawal, an abort or a restart.

Composition. Within one reservation a person is in the cohort *joint* or in *solo*, never in both
(parallel composition), and in *all* either way: the charge is the larger of the two sums. Runs,
and attempts of a run, add up, because a person may change cohort between them. Refusing once the
composed epsilon would pass a cap is a valid filter (``convoy_models.accounting``).

Mixed mechanisms. The steps of a Poisson-sampled training (DP-SGD) have one *lead* charge with the
envelope of all of them (``convoy_models.mechanisms``: a mu^2 and a tail of delta); the first step
that is spent spends the lead. Each step still spends its own tag, at one unit.

Life of a charge: reserved -> spent, or reserved -> released when its run is settled. A process that
dies leaves its reservations open; the next one settles them when it opens the ledger.

A copy that was put back is noticed (``backup.standing``): nothing is reserved or spent until ``take_back`` has counted in
full what the log says was authorised since.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

from convoy_models import accounting
from convoy_models.mechanisms import (
    TAIL_SHARE,
    SampledGaussian,
    envelope,
    forbid_sampling_of_joint_rows,
    left_of,
)
from convoy_node import ledger_file
from convoy_node.durable import transaction
from convoy_node.errors import BudgetExhausted, LedgerError, NotReserved, RunSettled, SpentBefore
from convoy_node.ledger_view import TAIL_UNITS, Cohort, LedgerView
from convoy_node.memory import RESTORED

Clock = Callable[[], datetime]

FROZEN: Final = "ledger.frozen"
"""A file beside the ledger: while it is there nothing is reserved or spent any more (``convoy_node.leave``)."""
_RESTART: Final = "restart"


@dataclass(frozen=True, slots=True)
class Charge:
    """What one planned query costs a person of its cohort.

    ``mu2`` (and ``tail``, for a sampled mechanism of ``steps`` steps at ``rate``) is at least what
    clip and sigma cost; a smaller number is refused, never believed. ``lead`` names the charge that
    carries the cost of the sampled training whose step this is.

    Raises:
        LedgerError: an unknown cohort, or a mu^2 below what clip and sigma cost.
        UnsupportedEvent: a sampled mechanism over the joint cohort, whose rows two parties know.
        AccountingRefused: a clip, sigma, rate or number of steps out of range.
    """

    query: str
    cohort: Cohort
    mu2: float
    sigma: float
    clip: float
    rate: float = 1.0
    steps: int = 1
    tail: float = 0.0
    lead: str | None = None

    def __post_init__(self) -> None:
        if self.cohort not in get_args(Cohort) or not self.query:
            raise LedgerError("a charge without a query or of an unknown cohort.")
        event = SampledGaussian(self.clip, self.sigma, self.rate, self.steps)
        forbid_sampling_of_joint_rows([event], self.cohort)
        if self.lead is not None:
            if self.steps != 1 or self.lead == self.query:
                raise LedgerError(f"query {self.query} is no step of {self.lead}.")
        elif not self.mu2 >= envelope([event], self.tail).mu2 * (1 - 1e-9):
            raise LedgerError(f"query {self.query} states less than its clip and sigma cost.")

    @property
    def units(self) -> int:
        """The cost in whole ledger units of 1e-12, rounded up; one unit for a step whose lead carries the cost."""
        return accounting.units_of(self.mu2) if self.lead is None else 1

    @property
    def tail_units(self) -> int:
        """What is set aside of delta, in whole units of 1e-18, rounded up."""
        return math.ceil(self.tail * TAIL_UNITS) if self.lead is None else 0


def sampled_charges(
    lead: str, queries: Sequence[str], cohort: Cohort, clip: float, sigma: float, rate: float, delta: float
) -> list[Charge]:
    """Return the charges of a Poisson-sampled training: its lead, then one for each step.

    Args:
        lead: a name that is no query's.
        queries: ids of the steps.
        cohort: never joint.
        clip: L2 sensitivity per person of one step's sum.
        sigma: noise of one step's sum.
        rate: probability of a person to be in a step.
        delta: of the contract; a fiftieth of it is set aside as tail.
    """
    steps, tail = len(queries), delta / TAIL_SHARE
    cost = envelope([SampledGaussian(clip, sigma, rate, steps)], tail)
    whole = Charge(lead, cohort, cost.mu2, sigma, clip, rate=rate, steps=steps, tail=cost.tail)
    return [whole, *(Charge(q, cohort, 0.0, sigma, clip, rate=rate, lead=lead) for q in queries)]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ledger(LedgerView):
    """The open ledger of a running node; one process at a time.

    Args:
        path: the file that ``Ledger.create`` made.
        clock: returns the present instant, aware.
        lock_wait_s: how long to wait for another process that still holds the ledger.

    Raises:
        LedgerDamaged: missing, of another version, or inconsistent.
        LedgerError: another process holds it (code ``LEDGER_BUSY``).
    """

    _mode = "rw"

    def __init__(self, path: Path, *, clock: Clock = _utc_now, lock_wait_s: float = 5.0) -> None:
        self._clock = clock
        self._frozen, self._restored = path.with_name(FROZEN), path.with_name(RESTORED)
        self._lock = ledger_file.lock(path, lock_wait_s)
        try:
            super().__init__(path)
            # A reservation that is still open belongs to a process that died. If we die here, the
            # next start settles it: until then it counts in full.
            with self._writing() as db:
                db.execute(
                    "UPDATE reservation SET settled_at = ?, reason = ? WHERE settled_at IS NULL",
                    (self._now(), _RESTART),
                )
        except BaseException:
            os.close(self._lock)  # the lock of a ledger that is damaged or full is let go
            raise

    @classmethod
    def create(cls, path: Path) -> None:
        """Make an empty ledger, once in the life of a node.

        Raises:
            LedgerError: there is one already.
        """
        ledger_file.create(path)

    def close(self) -> None:
        """Close file and lock; reservations that are still open are settled at the next start."""
        with self._guard:
            super().close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def reserve(
        self,
        run: str,
        attempt: int,
        contract: str,
        asset: str,
        year: int,
        delta: float,
        charges: Sequence[Charge],
        *,
        contract_cap_micro: int,
        asset_cap_micro: int,
    ) -> None:
        """Set aside what a run's plan costs, all or nothing.

        Args:
            run: uid of the run.
            attempt: larger than every earlier attempt of the run.
            contract: uid of the contract; its versions share one total.
            asset: the data asset whose persons pay.
            year: the asset's year; all contracts share its total.
            delta: in (0, 1), the delta at which the caps are stated.
            charges: one for each planned query.
            contract_cap_micro: cap of the contract for this asset, epsilon in millionths.
            asset_cap_micro: the owner's cap for the asset's year over all contracts.

        Raises:
            BudgetExhausted: a cap would be passed; ``reasons`` names each of them.
            SpentBefore: the run has had this attempt or a later one.
            LedgerError: no charges, or a query twice.
        """
        if not charges or len({charge.query for charge in charges}) != len(charges):
            raise LedgerError(f"run {run} names no query, or one query twice.")
        _check_leads(run, charges)
        self._refuse_frozen()
        request, tail = accounting.mu2_of_units(charge_units(charges)), charge_tail(charges)
        with self._writing() as db:
            (last,) = db.execute("SELECT MAX(attempt) FROM reservation WHERE run = ?", (run,)).fetchone()
            if last is not None and attempt <= last:
                raise SpentBefore(f"run {run} has had attempt {last}; {attempt} is not later.")
            reasons = []
            for whole, of, cap in (
                (f"{asset} under {contract}", (asset, contract, None), contract_cap_micro),
                (f"{asset} in {year}", (asset, None, year), asset_cap_micro),
            ):
                used, tails = self.mu2(*of), self.tail(*of) + tail
                if tails >= delta:
                    reasons.append(f"{whole} would set aside all of delta for sampled mechanisms")
                elif not accounting.fits(used, request, left_of(delta, tails), cap):
                    reached = accounting.epsilon_of(used + request, left_of(delta, tails))
                    reasons.append(
                        f"{whole} would reach epsilon {accounting.micro(reached) / 1e6:.6f}; the cap is {cap / 1e6:.6f}"
                    )
            if reasons:
                raise BudgetExhausted(f"run {run} does not fit the budget.", reasons=reasons)
            row = db.execute(
                "INSERT INTO reservation (run, attempt, contract, asset, year, delta,"
                " contract_cap_micro, asset_cap_micro, reserved_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    run,
                    attempt,
                    contract,
                    asset,
                    year,
                    delta,
                    contract_cap_micro,
                    asset_cap_micro,
                    self._now(),
                ),
            )
            db.executemany(
                "INSERT INTO charge (reservation, query, cohort, units, sigma, clip, rate, steps, tail, lead)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(row.lastrowid, *_columns(charge)) for charge in charges],
            )

    def spend(self, run: str, query: str, attempt: int) -> None:
        """Spend one reserved charge; returns only when that is on disk.

        Raises:
            SpentBefore: this very tag was spent before.
            RunSettled: the reservation was settled, or belongs to a process that died.
            NotReserved: the plan of this attempt has no such query.
        """
        self._refuse_frozen()
        with self._writing() as db:
            row = db.execute(
                "SELECT r.id, r.settled_at, c.spent_at, c.lead FROM charge c"
                " JOIN reservation r ON r.id = c.reservation"
                " WHERE r.run = ? AND r.attempt = ? AND c.query = ?",
                (run, attempt, query),
            ).fetchone()
            tag = f"query {query} of run {run}, attempt {attempt},"
            if row is None:
                raise NotReserved(f"{tag} was never reserved.")
            reservation, settled_at, spent_at, lead = row
            if spent_at is not None:
                raise SpentBefore(f"{tag} was spent at {spent_at}.")
            if settled_at is not None:
                raise RunSettled(f"{tag} was settled at {settled_at}.")
            db.execute(
                "UPDATE charge SET spent_at = ? WHERE reservation = ? AND query IN (?, ?) AND spent_at IS NULL",
                (self._now(), reservation, query, lead if lead is not None else query),
            )
        # If we die here, the charge is spent and nothing has left: the person is better off.

    def settle(self, run: str, reason: str) -> None:
        """Keep what a run has spent and release the rest; nothing to do the second time."""
        with self._writing() as db:
            db.execute(
                "UPDATE reservation SET settled_at = ?, reason = ? WHERE run = ? AND settled_at IS NULL",
                (self._now(), reason, run),
            )

    def take_back(
        self, run: str, attempt: int, contract: str, asset: str, year: int, delta: float, charges: Sequence[Charge],
        *, contract_cap_micro: int, asset_cap_micro: int,
    ) -> None:  # fmt: skip
        """Count a run in full as spent that this file has forgotten, whatever the caps; of a known one, what was not spent.

        Args: as ``reserve``.
        """
        now = self._now()
        with self._writing() as db:
            key = (run, attempt)
            if db.execute("SELECT 1 FROM reservation WHERE run = ? AND attempt = ?", key).fetchone() is None:
                made = db.execute(
                    "INSERT INTO reservation (run, attempt, contract, asset, year, delta, contract_cap_micro,"
                    " asset_cap_micro, reserved_at, settled_at, reason) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (*key, contract, asset, year, delta, contract_cap_micro, asset_cap_micro, now, now, "caught up"),
                )
                db.executemany(
                    "INSERT INTO charge (reservation, query, cohort, units, sigma, clip, rate, steps, tail, lead)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [(made.lastrowid, *_columns(charge)) for charge in charges],
                )
            db.execute(
                "UPDATE charge SET spent_at = ? WHERE spent_at IS NULL"
                " AND reservation IN (SELECT id FROM reservation WHERE run = ? AND attempt = ?)",
                (now, *key),
            )

    def _refuse_frozen(self) -> None:
        if self._frozen.exists():
            raise LedgerError(
                "the budgets are frozen: this node leaves or has left.",
                code="LEDGER_FROZEN",
                fix="Nothing is answered any more; join again with a new ticket.",
            )
        if self._restored.exists():
            raise LedgerError(
                "this ledger was restored from a copy and may lack what was spent since.",
                code="LEDGER_STALE",
                fix="convoy-node catch-up first; it counts in full what the log says was authorised since.",
            )

    def _now(self) -> str:
        return self._clock().astimezone(UTC).isoformat(timespec="microseconds")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; on disk when the block has ended, gone if it raised."""
        with self._guard:
            try:
                with transaction(self._db) as db:
                    yield db
            except sqlite3.Error as error:
                raise LedgerError(
                    "the ledger cannot be written; nothing was let out.",
                    code="LEDGER_WRITE_FAILED",
                    fix="See the node's log: disk full, or the file was moved or closed.",
                ) from error


def _columns(charge: Charge) -> tuple[object, ...]:
    """Return a charge as the columns of its table, after the reservation."""
    return (
        charge.query, charge.cohort, charge.units, charge.sigma, charge.clip, charge.rate, charge.steps,
        charge.tail_units, charge.lead,
    )  # fmt: skip


def _check_leads(run: str, charges: Sequence[Charge]) -> None:
    """Refuse steps without a lead that covers all of them."""
    leads = {charge.query: charge for charge in charges if charge.lead is None}
    steps: dict[str, int] = {}
    for charge in charges:
        if charge.lead is not None:
            whole = leads.get(charge.lead)
            same = whole is not None and (whole.cohort, whole.sigma, whole.clip, whole.rate) == (
                charge.cohort, charge.sigma, charge.clip, charge.rate,
            )  # fmt: skip
            steps[charge.lead] = steps.get(charge.lead, 0) + 1
            if not same or whole is None or steps[charge.lead] > whole.steps:
                raise LedgerError(f"run {run}: query {charge.query} is no step that {charge.lead} pays for.")


def charge_tail(charges: Sequence[Charge]) -> float:
    """Return what is set aside of delta at most: the larger cohort's sum."""
    units = max(
        sum(charge.tail_units for charge in charges if charge.cohort in (cohort, "all")) for cohort in ("joint", "solo")
    )
    return units / TAIL_UNITS


def charge_units(charges: Sequence[Charge]) -> int:
    """Return what one person pays at most, in ledger units: the larger cohort's sum."""
    return max(
        sum(charge.units for charge in charges if charge.cohort in (cohort, "all")) for cohort in ("joint", "solo")
    )
