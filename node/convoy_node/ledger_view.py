"""What the ledger says: totals, events, and its statement to a contract decision. Reads only.

    LedgerView(path)     open beside a running node, for its status page and command line

Units and composition are those of ``convoy_node.ledger``. Every epsilon is rounded up.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypedDict

from convoy_models import accounting
from convoy_models.accounting import GaussianEvent
from convoy_models.mechanisms import Mechanism, SampledGaussian, left_of, mixed_epsilon
from convoy_node import ledger_file

Cohort = Literal["joint", "solo", "all"]
TAIL_UNITS: Final = 10**18
"""A ledger keeps tails of delta as whole units of 1e-18, rounded up."""

_COSTS: Final = """
SELECT r.asset, r.contract, r.year, r.delta, r.contract_cap_micro, r.asset_cap_micro,
  MAX(SUM(CASE WHEN c.cohort != 'solo' AND (c.spent_at NOT NULL OR r.settled_at IS NULL)
          THEN c.units ELSE 0 END),
      SUM(CASE WHEN c.cohort != 'joint' AND (c.spent_at NOT NULL OR r.settled_at IS NULL)
          THEN c.units ELSE 0 END)) AS used,
  MAX(SUM(CASE WHEN c.cohort != 'solo' AND c.spent_at NOT NULL THEN c.units ELSE 0 END),
      SUM(CASE WHEN c.cohort != 'joint' AND c.spent_at NOT NULL THEN c.units ELSE 0 END)) AS spent,
  MAX(SUM(CASE WHEN c.cohort != 'solo' AND (c.spent_at NOT NULL OR r.settled_at IS NULL)
          THEN c.tail ELSE 0 END),
      SUM(CASE WHEN c.cohort != 'joint' AND (c.spent_at NOT NULL OR r.settled_at IS NULL)
          THEN c.tail ELSE 0 END)) AS tail
FROM reservation r JOIN charge c ON c.reservation = r.id
"""


@dataclass(frozen=True, slots=True)
class SpentEvent:
    """One answer that may have left the node, for an accountant that is not ours."""

    run: str
    query: str
    attempt: int
    contract: str
    asset: str
    year: int
    cohort: Cohort
    clip: float
    sigma: float
    mu2: float
    spent_at: str
    rate: float = 1.0
    steps: int = 1
    tail: float = 0.0
    lead: str | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """What an asset's persons have paid, to be shown: under one contract, or in one year.

    ``contract`` is None for the sum over all contracts of ``year``; otherwise ``year`` is None.
    ``epsilon`` is that of ``mu2`` (spent and reserved) at ``delta`` less ``tail``, what sampled
    mechanisms have set aside of it (``convoy_models.mechanisms``), rounded up.
    """

    asset: str
    contract: str | None
    year: int | None
    mu2: float
    spent_mu2: float
    delta: float
    epsilon: float
    cap_micro: int
    tail: float = 0.0


class BudgetStatement(TypedDict):
    """The ledger's member of ``node.budget`` in a contract decision (FORMAT.md §2)."""

    spent: int
    reserved: int
    deltaSpent: int
    deltaReserved: int


class LedgerView:
    """A ledger opened for reading; the node may be writing it meanwhile.

    Raises:
        LedgerDamaged: missing, of another version, or inconsistent.
    """

    _mode: Literal["rw", "ro"] = "ro"

    def __init__(self, path: Path) -> None:
        self._guard = threading.RLock()
        self._db: sqlite3.Connection = ledger_file.open_file(path, self._mode)

    def close(self) -> None:
        """Close the file."""
        with self._guard:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def mu2(self, asset: str, contract_uid: str | None = None, year: int | None = None) -> float:
        """Return mu^2 used so far, spent and reserved, of an asset (and contract, and year)."""
        return accounting.mu2_of_units(self._units(asset, contract_uid, year)[0])

    def spent_mu2(self, asset: str, contract_uid: str | None = None, year: int | None = None) -> float:
        """Return mu^2 spent so far of an asset (and contract, and year)."""
        return accounting.mu2_of_units(self._units(asset, contract_uid, year)[1])

    def tail(self, asset: str, contract_uid: str | None = None, year: int | None = None) -> float:
        """Return what sampled mechanisms have set aside of delta so far, spent and reserved."""
        return self._units(asset, contract_uid, year)[2] / TAIL_UNITS

    def reservations(self) -> set[tuple[str, int]]:
        """Return (run, attempt) of everything that was ever reserved."""
        with self._guard:
            return {(run, attempt) for run, attempt in self._db.execute("SELECT run, attempt FROM reservation")}

    def statement(
        self, asset: str, contract_uid: str, epsilon_request_micro: int, mu2_request: float,
        delta: float, tail_request: float = 0.0,
    ) -> BudgetStatement:  # fmt: skip
        """State the contract's use so that a linear gate decides exactly the GDP filter.

        ``spent + reserved + request <= cap`` holds if and only if the composed epsilon of what is
        used and asked for is within the cap. Delta is 0: everything is quoted at one delta.
        """
        left = left_of(delta, self.tail(asset, contract_uid) + tail_request)
        used, spent = (
            accounting.spent_micro(mu2, mu2_request, left, epsilon_request_micro)
            for mu2 in (self.mu2(asset, contract_uid), self.spent_mu2(asset, contract_uid))
        )
        return {"spent": spent, "reserved": used - spent, "deltaSpent": 0, "deltaReserved": 0}

    def stated_asset_cap_micro(
        self, asset: str, contract_uid: str, year: int, asset_cap_micro: int, mu2_request: float,
        delta: float, tail_request: float = 0.0,
    ) -> int:  # fmt: skip
        """Return the ``assetCapMicro`` to state beside ``statement``.

        The statement speaks of one contract; what other contracts used in the year (and this one
        in other years) is taken off the owner's cap, so that the gate decides the cap of the
        asset's year exactly.
        """
        in_year, in_contract = (
            accounting.micro(accounting.epsilon_of(mu2 + mu2_request, left_of(delta, tail + tail_request)))
            for mu2, tail in (
                (self.mu2(asset, year=year), self.tail(asset, year=year)),
                (self.mu2(asset, contract_uid), self.tail(asset, contract_uid)),
            )
        )
        return max(0, asset_cap_micro - (in_year - in_contract))

    def totals(self) -> list[Total]:
        """Return what has been used: by asset and contract, then by asset and year."""
        with self._guard:
            rows = self._db.execute(f"{_COSTS} GROUP BY r.id ORDER BY r.id").fetchall()
        sums: dict[tuple[str, str | None, int | None], tuple[int, int, float, int, int]] = {}
        for asset, contract, year, delta, contract_cap, asset_cap, used, spent, tail in rows:
            for key, cap in (
                ((asset, contract, None), contract_cap),
                ((asset, None, year), asset_cap),
            ):
                before = sums.get(key, (0, 0, delta, cap, 0))
                # The last stated cap and the smallest delta are shown.
                sums[key] = (before[0] + used, before[1] + spent, min(before[2], delta), cap, before[4] + tail)
        return [
            Total(
                asset=asset,
                contract=contract,
                year=year,
                mu2=accounting.mu2_of_units(used),
                spent_mu2=accounting.mu2_of_units(spent),
                delta=delta,
                epsilon=accounting.epsilon_of(accounting.mu2_of_units(used), left_of(delta, tail / TAIL_UNITS)),
                cap_micro=cap,
                tail=tail / TAIL_UNITS,
            )
            for (asset, contract, year), (used, spent, delta, cap, tail) in sorted(
                sums.items(), key=lambda item: (item[0][1] is None, *map(str, item[0]))
            )
        ]

    def events(self) -> list[SpentEvent]:
        """Return every spent charge in the order of spending."""
        with self._guard:
            rows = self._db.execute(
                "SELECT r.run, c.query, r.attempt, r.contract, r.asset, r.year, c.cohort, c.clip,"
                " c.sigma, c.units / 1e12, c.spent_at, c.rate, c.steps, c.tail / 1e18, c.lead"
                " FROM charge c JOIN reservation r"
                " ON r.id = c.reservation WHERE c.spent_at NOT NULL ORDER BY c.spent_at, c.rowid"
            ).fetchall()
        return [SpentEvent(*row) for row in rows]

    def independent_epsilon(
        self, delta: float, asset: str, contract_uid: str | None = None, year: int | None = None
    ) -> float:
        """Return what dp-accounting's PLD says about everything spent: a second opinion, not our arithmetic.

        Persons are charged for every cohort here (an upper bound of the larger one).

        Raises:
            UnsupportedEvent: a spent event that no accountant covers.
        """
        mechanisms: list[Mechanism] = []
        for event in self.events():
            mine = contract_uid in (None, event.contract) and year in (None, event.year) and event.asset == asset
            if mine and event.lead is None:
                sampled = event.rate < 1 or event.steps > 1
                mechanisms.append(
                    SampledGaussian(event.clip, event.sigma, event.rate, event.steps)
                    if sampled
                    else GaussianEvent(event.clip, event.sigma)
                )
        return mixed_epsilon(mechanisms, delta) if mechanisms else 0.0

    def _units(self, asset: str, contract: str | None, year: int | None) -> tuple[int, int, int]:
        with self._guard:
            rows = self._db.execute(
                f"{_COSTS} WHERE r.asset = ? AND (? IS NULL OR r.contract = ?)"
                " AND (? IS NULL OR r.year = ?) GROUP BY r.id",
                (asset, contract, contract, year, year),
            ).fetchall()
        return sum(row[-3] for row in rows), sum(row[-2] for row in rows), sum(row[-1] for row in rows)
