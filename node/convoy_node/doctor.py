"""Is this node fit to work? Every check runs, whatever the others find; each finding says what to do.

    examine(home, now) -> tuple[Check, ...]

Reads only, and works beside a running node. Covers the folder: settings, keys, ledger, register, witness, contracts and their
parties' pins, data against each contract, disk and randomness. LIMIT: it opens no connection; reachability is not checked.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from convoy_audit.errors import AuditError
from convoy_audit.witness_store import FileWitnessStore
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_models.errors import ModelsError
from convoy_node import dataset
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.identity import Identity
from convoy_node.ledger_view import LedgerView
from convoy_node.preview import consenting, usual_purpose
from convoy_node.register import Register
from convoy_node.settings import HOLDERS, Settings
from convoy_node.setup import LEDGER, REGISTER, contracts

LEAST_FREE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``faults`` is empty where all is well, and says what is wrong and what to do where not."""

    name: str
    faults: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def examine(home: Path, now: datetime) -> tuple[Check, ...]:
    """Run every check on a node's folder."""
    checks: list[Check] = []

    def check(name: str, work: Callable[[], Iterator[str]]) -> None:
        try:
            checks.append(Check(name, tuple(work())))
        except (NodeError, AuditError, ModelsError) as error:
            reasons = tuple(error.reasons) if isinstance(error, NodeError) else ()
            checks.append(Check(name, (f"{error.cause} {error.fix}", *reasons)))
        except OSError as error:
            checks.append(Check(name, (f"{error.strerror}: see the file's owner and the disk.",)))

    check("folder", lambda: _folder(home))
    check("disk and randomness", lambda: _machine(home))
    try:
        settings = Settings.load(home)
    except HomeRefused as error:
        return (*checks, Check("settings", (f"{error.cause} {error.fix}", *error.reasons)))
    checks.append(Check("settings", ()))
    check("keys", lambda: _keys(home, settings, now))
    check("ledger", lambda: _ledger(home))
    check("witness", lambda: _witness(home, settings))
    signed = [Contract.parse(text) for text in contracts(home).values()]
    for contract in signed:
        check(f"contract {contract.uid}", lambda contract=contract: _contract(settings, contract, now))  # type: ignore[misc]
        if settings.role in HOLDERS:
            check(f"data for {contract.uid}", lambda contract=contract: _data(home, settings, contract, now))  # type: ignore[misc]
    return tuple(checks)


def _folder(home: Path) -> Iterator[str]:
    if not home.is_dir():
        yield f"there is no folder {home.name!r}. Name the node's folder with --home."
        return
    if home.stat().st_mode & 0o077:
        yield "others can look into the node's folder. Run: chmod 700 on it."


def _machine(home: Path) -> Iterator[str]:
    if home.is_dir() and shutil.disk_usage(home).free < LEAST_FREE_BYTES:
        yield f"less than {LEAST_FREE_BYTES // 1_000_000} MB are free. A node that cannot write its ledger answers nothing."
    if os.urandom(32) == os.urandom(32):
        yield "the system's randomness repeats. Do not run a node here."


def _keys(home: Path, settings: Settings, now: datetime) -> Iterator[str]:
    identity = Identity.load(home / "keys", settings.party)
    pin = next((pin for pin in settings.pins if pin.kid == identity.kid), None)
    if pin is None or pin.key != identity.card(name="-", role="-", region="-").identity_key:
        yield "pins.toml does not hold this node's own key. Add it from card.json."
    elif datetime.fromisoformat(pin.not_after) <= now:
        yield "this node's identity key has expired. Make a new one and enrol it."


def _ledger(home: Path) -> Iterator[str]:
    with LedgerView(home / LEDGER) as ledger:
        ledger.totals()
    return iter(())


def _witness(home: Path, settings: Settings) -> Iterator[str]:
    store = FileWitnessStore.open(home / "witness")
    store.load(settings.log_origin)
    for alarm in store.alarms():
        yield f"the log was caught ({alarm.finding}). Keep the folder witness/alarms and call the auditor."


def _contract(settings: Settings, contract: Contract, now: datetime) -> Iterator[str]:
    pinned = {pin.party for pin in settings.pins}
    for party in contract.parties:
        if party.id not in pinned:
            yield f"no key is pinned for {party.id}. Compare its fingerprint and run: convoy-node pin CARD."
    if now >= datetime.fromisoformat(contract.term.notAfter):
        yield f"it ended at {contract.term.notAfter}. Agree a new version."


def _data(home: Path, settings: Settings, contract: Contract, now: datetime) -> Iterator[str]:
    if settings.data is None:
        yield "node.toml names no data. Set data.source."
        return
    with Register(home / REGISTER, party=settings.party) as register:
        cohort = consenting(contract, usual_purpose(contract), register, now, sensitive=False)
    if not cohort.size:
        yield "nobody's consent counts under it. Run: convoy-node consent import FILE."
        return
    for algorithm in contract.algorithms:
        wanted = dataset.expected_columns(algorithm.specification, settings.role) if algorithm.specification else ()
        if not wanted:
            continue
        try:
            dataset.PersonTable.load(
                settings.data.open(settings.party),
                wanted,
                settings.party,
                person_column=settings.person_column,
                persons=cohort.persons,
            )
        except (NodeError, ContractsError) as error:
            yield from (error.reasons if isinstance(error, NodeError) and error.reasons else (error.cause,))
