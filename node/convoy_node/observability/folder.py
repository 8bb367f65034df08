"""What operators watch at a node, read from its folder at each scrape: ``/livez``, ``/readyz``, ``/metrics``.

    checks(home, clock) -> {name: check}      FolderCollector(home, clock)      routes(home, clock)

Works beside the running node, in another process: everything is opened for reading. Numbers of persons are in whole fifties, as
everything that leaves the node; no id of a person, contract text or path is a label. The ledger's figures are epsilon per person at
the contract's delta, rounded up, as ``convoy-node ledger`` shows them.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from convoy_audit.errors import AuditError
from convoy_audit.witness_store import FileWitnessStore
from convoy_contracts.errors import ContractsError
from convoy_contracts.operations.health import ALIVE, Check, standing
from convoy_contracts.operations.metrics import exposition, gauge
from convoy_node import setup
from convoy_node.backup.standing import check_current
from convoy_node.channel_home import CHANNEL
from convoy_node.consent.office import BUCKET, ConsentOffice
from convoy_node.duties import DutyDesk
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.identity import Identity
from convoy_node.ledger_view import LedgerView
from convoy_node.settings import Settings
from convoy_node.up import is_alive
from convoy_node.witness_home import FOLDER

Clock = Callable[[], datetime]
LEAST_FREE_BYTES: Final = 512 << 20
FAILURES: Final = (NodeError, ContractsError, AuditError, OSError, sqlite3.Error)


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def checks(home: Path, clock: Clock = utc_now) -> Mapping[str, Check]:
    """Return what must work for this node to take part in a run; each raises one of ``FAILURES``."""

    def settings() -> None:
        Settings.load(home)

    def keys() -> None:
        Identity.load(home / "keys", Settings.load(home).party)

    def current() -> None:
        check_current(home)

    def ledger() -> None:
        LedgerView(home / setup.LEDGER).close()

    def register() -> None:
        with ConsentOffice.open(home, clock) as office:
            if office.is_stale():
                raise HomeRefused("the register is stale.", code="REGISTER_STALE")

    def witness() -> None:
        origin = Settings.load(home).log_origin
        if any(alarm.origin == origin for alarm in FileWitnessStore.open(home / FOLDER).alarms()):
            raise HomeRefused("the log was caught.", code="LOG_CONVICTED")

    def disk() -> None:
        if shutil.disk_usage(home).free < LEAST_FREE_BYTES:
            raise HomeRefused("the disk is full.", code="DISK_FULL")

    def channel() -> None:
        if (home / CHANNEL).exists() and not is_alive(home, clock()):
            raise HomeRefused("the partner channel is not open.", code="CHANNEL_DOWN")

    found = (settings, keys, current, ledger, register, witness, disk, channel)
    return {check.__name__: check for check in found}


class FolderCollector(Collector):
    """Reads a node's folder at each scrape; a part that cannot be read is left out, and ``convoy_node_ready`` says so."""

    def __init__(self, home: Path, clock: Clock = utc_now) -> None:
        self._home = home
        self._clock = clock

    def describe(self) -> Iterable[Metric]:
        """Name nothing ahead: a registry need not open the folder when it is made."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        body, _ = standing(checks(self._home, self._clock), FAILURES)
        ready = GaugeMetricFamily("convoy_node_ready", "1 where a check of /readyz passes.", labels=["check"])
        for name, told in body["checks"].items():
            ready.add_metric([name], float(told == "ok"))
        yield ready
        for part in (self._log, self._ledger, self._consents):
            with suppress(*FAILURES):
                yield from list(part())

    def _log(self) -> Iterator[Metric]:
        settings, store = Settings.load(self._home), FileWitnessStore.open(self._home / FOLDER)
        seen = store.load(settings.log_origin)
        yield gauge("convoy_node_log_entries", "Entries of the log cosigned.", seen.checkpoint.size if seen else 0)
        yield gauge("convoy_node_alarms", "Pairs of notes that do not fit together.", len(store.alarms()))
        yield gauge("convoy_node_contracts", "Contracts signed here.", len(setup.contracts(self._home)))

    def _ledger(self) -> Iterator[Metric]:
        labels = ["asset", "contract", "year"]
        epsilon = GaugeMetricFamily("convoy_node_epsilon", "Epsilon per person, spent and held.", labels=labels)
        cap = GaugeMetricFamily("convoy_node_epsilon_cap", "Cap of epsilon per person.", labels=labels)
        with LedgerView(self._home / setup.LEDGER) as view:
            for total in view.totals():
                values = [total.asset, total.contract or "", str(total.year or "")]
                epsilon.add_metric(values, total.epsilon)
                cap.add_metric(values, total.cap_micro / 1e6)
        yield epsilon
        yield cap

    def _consents(self) -> Iterator[Metric]:
        now = self._clock()
        standing_now = GaugeMetricFamily(
            "convoy_node_consents", "Consents in force, in whole fifties.", labels=["contract"]
        )
        duties = GaugeMetricFamily("convoy_node_duties", "Duties that are not fulfilled.", labels=["state"])
        statements = 0
        with ConsentOffice.open(self._home, self._clock) as office:
            for contract in office.signed():
                rows = office.register.subjects(contract.uid, now)
                given = sum(row["n"] for row in rows if row["given"] is not None and row["withdrawn"] is None)
                standing_now.add_metric([contract.uid], given // BUCKET * BUCKET)
            with closing(DutyDesk.open(self._home, office)) as desk:
                left = [duty for duty in desk.due_list(now) if not duty.is_fulfilled]
            statements = len(office.memory.unreported())
        overdue = sum(duty.is_overdue(now) for duty in left)
        duties.add_metric(["overdue"], overdue)
        duties.add_metric(["open"], len(left) - overdue)
        yield standing_now
        yield duties
        yield gauge("convoy_node_statements_waiting", "Own statements that the log does not have yet.", statements)


def routes(home: Path, clock: Clock = utc_now, registry: CollectorRegistry | None = None) -> APIRouter:
    """Return ``/livez``, ``/readyz`` and ``/metrics`` of a node's folder; they need no token and tell no person's data."""
    registry = registry or CollectorRegistry()
    registry.register(FolderCollector(home, clock))
    asked, made = checks(home, clock), APIRouter(tags=["health"])

    @made.get("/livez")
    def livez() -> dict[str, str]:
        """Answer that the process runs."""
        return dict(ALIVE)

    @made.get("/readyz")
    def readyz() -> JSONResponse:
        """Answer 200 if every check passes, 503 if one does not."""
        body, status = standing(asked, FAILURES)
        return JSONResponse(body, status_code=status)

    @made.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Answer in Prometheus's text format."""
        told, media = exposition(registry)
        return Response(told, media_type=media)

    return made
