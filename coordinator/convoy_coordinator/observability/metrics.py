"""``/metrics`` for Prometheus: counts, sizes and ages of this coordinator; no party's data, no person, no row.

Values are read from the parts at each scrape, so a metric can never disagree with the page. Epsilon is per person of an asset at
the contract's delta, as each node last stated it; the node's own ledger is the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from convoy_contracts.operations.metrics import RequestMetrics, exposition, gauge

if TYPE_CHECKING:
    from convoy_coordinator.wiring import Parts

__all__ = ["PartsCollector", "RequestMetrics", "new_registry", "router"]


class PartsCollector(Collector):
    """Reads the coordinator's parts at each scrape."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield from self._log()
        yield from self._federation()

    def _log(self) -> Iterator[Metric]:
        view = self._parts.log_view()
        yield gauge("convoy_log_entries", "Entries in the log.", view.size)
        yield gauge(
            "convoy_log_checkpoint_entries", "Entries under the latest signed checkpoint.", view.checkpoint_size
        )
        yield gauge("convoy_log_cosignatures", "Witnesses that cosigned the latest checkpoint.", len(view.cosigned))
        yield gauge("convoy_log_quorum", "Cosignatures that the policy needs.", view.needed)
        sizes = GaugeMetricFamily("convoy_witness_entries", "How far a witness has followed the log.", labels=["party"])
        for party, size in sorted(view.witness_sizes.items()):
            sizes.add_metric([party], size or 0)
        yield sizes

    def _federation(self) -> Iterator[Metric]:
        parts = self._parts
        yield gauge("convoy_parties", "Enrolled parties.", len(parts.parties.all()))
        yield gauge("convoy_contracts", "Contracts on file.", len(parts.contracts.all()))
        yield gauge("convoy_releases", "Released models.", len(parts.releases.all()))
        runs = GaugeMetricFamily("convoy_runs", "Latest runs by state.", labels=["state"])
        for state, count in sorted(Counter(run.state.value for run in parts.runs.latest()).items()):
            runs.add_metric([state], count)
        yield runs
        refused = CounterMetricFamily(
            "convoy_access_refused",
            "Refusals at the partner channel and the SuperLink's door since the start.",
            labels=["code"],
        )
        for code, count in sorted(parts.refusals.totals.items()):
            refused.add_metric([code], count)
        yield refused


def new_registry(parts: Parts) -> CollectorRegistry:
    """Return a registry of one application; nothing is global, so two can live in one process."""
    registry = CollectorRegistry()
    registry.register(PartsCollector(parts))
    return registry


def router(registry: CollectorRegistry) -> APIRouter:
    """Return ``/metrics``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Answer in Prometheus's text format."""
        told, media = exposition(registry)
        return Response(told, media_type=media)

    return routes
