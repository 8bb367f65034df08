"""Is this node fit to work? Every check runs, whatever the others find; each finding says what to do.

    examine(home, now) -> tuple[Check, ...]

Reads only, and works beside a running node. Covers the folder (settings, keys, ledger, register, witness, contracts and their
parties' pins, the graded fields and the data against each contract, disk, randomness, versions) and, where the node has joined by
ticket, its way to the coordinator (``doctor_line``: proxy, reachability, TLS and certificate, clock, what the coordinator says).
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
from convoy_node.doctor_line import line_checks
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.findings import Finding, found, of_error
from convoy_node.identity import Identity
from convoy_node.ledger_view import LedgerView
from convoy_node.preview import consenting, usual_purpose
from convoy_node.register import Register
from convoy_node.settings import HOLDERS, Settings
from convoy_node.setup import LEDGER, REGISTER, contracts

LEAST_FREE_BYTES = 200_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One check; ``findings`` is empty where all is well."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """What is wrong and what to do, in English."""
        return tuple(finding.text.strip() for finding in self.findings)

    @property
    def is_well(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def examine(home: Path, now: datetime) -> tuple[Check, ...]:
    """Run every check on a node's folder."""
    checks: list[Check] = []

    def check(name: str, work: Callable[[], Iterator[Finding]]) -> None:
        try:
            checks.append(Check(name, tuple(work())))
        except NodeError as error:
            checks.append(Check(name, of_error(error)))
        except (AuditError, ModelsError) as error:
            zh = f"{error.code}：{error.cause}"
            checks.append(Check(name, (Finding(error.code, error.cause, error.fix, zh, error.fix),)))
        except OSError as error:
            checks.append(Check(name, (found("FILE_UNREADABLE", why=error.strerror or type(error).__name__),)))

    check("folder", lambda: _folder(home))
    check("disk and randomness", lambda: _machine(home))
    try:
        settings = Settings.load(home)
    except HomeRefused as error:
        return (*checks, Check("settings", of_error(error)))
    checks.append(Check("settings", ()))
    check("keys", lambda: _keys(home, settings, now))
    check("ledger", lambda: _ledger(home))
    check("witness", lambda: _witness(home, settings))
    signed = [Contract.parse(text) for text in contracts(home).values()]
    if settings.role in HOLDERS and settings.asset_fields and not signed:
        check("data", lambda: _columns(settings))
    for contract in signed:
        check(f"contract {contract.uid}", lambda contract=contract: _contract(settings, contract, now))  # type: ignore[misc]
        if settings.role in HOLDERS:
            check(f"data for {contract.uid}", lambda contract=contract: _data(home, settings, contract, now))  # type: ignore[misc]
    try:
        checks += [Check(name, findings) for name, findings in line_checks(home, settings, now)]
    except NodeError as error:
        checks.append(Check("channel", of_error(error)))
    return tuple(checks)


def _folder(home: Path) -> Iterator[Finding]:
    if not home.is_dir():
        yield found("FOLDER_MISSING", folder=home.name)
        return
    if home.stat().st_mode & 0o077:
        yield found("FOLDER_OPEN")


def _machine(home: Path) -> Iterator[Finding]:
    if home.is_dir() and shutil.disk_usage(home).free < LEAST_FREE_BYTES:
        yield found("DISK_FULL", megabytes=LEAST_FREE_BYTES // 1_000_000)
    try:
        os.getrandom(32, os.GRND_NONBLOCK)
    except BlockingIOError:
        yield found("RANDOMNESS_NOT_READY")
        return
    if os.urandom(32) == os.urandom(32):
        yield found("RANDOMNESS_REPEATS")


def _keys(home: Path, settings: Settings, now: datetime) -> Iterator[Finding]:
    identity = Identity.load(home / "keys", settings.party)
    pin = next((pin for pin in settings.pins if pin.kid == identity.kid), None)
    if pin is None or pin.key != identity.card(name="-", role="-", region="-").identity_key:
        yield found("OWN_KEY_NOT_PINNED")
    elif datetime.fromisoformat(pin.not_after) <= now:
        yield found("OWN_KEY_EXPIRED")


def _ledger(home: Path) -> Iterator[Finding]:
    with LedgerView(home / LEDGER) as ledger:
        ledger.totals()
    return iter(())


def _witness(home: Path, settings: Settings) -> Iterator[Finding]:
    store = FileWitnessStore.open(home / "witness")
    store.load(settings.log_origin)
    for alarm in store.alarms():
        yield found("LOG_CAUGHT", finding=alarm.finding)


def _columns(settings: Settings) -> Iterator[Finding]:
    """Look for the graded fields in the source, before any contract asks for them; reads no row."""
    if settings.data is None:
        yield found("DATA_NOT_NAMED")
        return
    present = set(settings.data.open(settings.party).describe())
    for name in (settings.person_column, *sorted(settings.asset_fields)):
        if name not in present:
            yield found("FIELD_NOT_IN_DATA", field=name)


def _contract(settings: Settings, contract: Contract, now: datetime) -> Iterator[Finding]:
    pinned = {pin.party for pin in settings.pins}
    for party in contract.parties:
        if party.id not in pinned:
            yield found("PARTNER_NOT_PINNED", party=party.id)
    if now >= datetime.fromisoformat(contract.term.notAfter):
        yield found("CONTRACT_ENDED", at=contract.term.notAfter)


def _data(home: Path, settings: Settings, contract: Contract, now: datetime) -> Iterator[Finding]:
    if settings.data is None:
        yield found("DATA_NOT_NAMED")
        return
    with Register(home / REGISTER, party=settings.party) as register:
        cohort = consenting(contract, usual_purpose(contract), register, now, sensitive=False)
    if not cohort.size:
        yield found("NOBODY_CONSENTS")
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
            reasons = error.reasons if isinstance(error, NodeError) and error.reasons else (error.cause,)
            yield from (found("REASON", what=reason) for reason in reasons)
