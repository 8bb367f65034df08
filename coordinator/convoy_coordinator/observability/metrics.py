"""``/metrics`` for Prometheus: counts, sizes and ages of this coordinator; no party's data, no person, no row.

Values are read from the parts at each scrape, so a metric can never disagree with the page. Epsilon is per person of an asset at
the contract's delta, as each node last stated it; the node's own ledger is the truth.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Total
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from convoy_coordinator.wiring import Parts

SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
UNMATCHED: Final = "(none)"
"""The route label of a request that no route took; its path could be anything and is not a label."""


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
        yield _gauge("convoy_log_entries", "Entries in the log.", view.size)
        yield _gauge(
            "convoy_log_checkpoint_entries", "Entries under the latest signed checkpoint.", view.checkpoint_size
        )
        yield _gauge("convoy_log_cosignatures", "Witnesses that cosigned the latest checkpoint.", len(view.cosigned))
        yield _gauge("convoy_log_quorum", "Cosignatures that the policy needs.", view.needed)
        sizes = GaugeMetricFamily("convoy_witness_entries", "How far a witness has followed the log.", labels=["party"])
        for party, size in sorted(view.witness_sizes.items()):
            sizes.add_metric([party], size or 0)
        yield sizes

    def _federation(self) -> Iterator[Metric]:
        parts = self._parts
        yield _gauge("convoy_parties", "Enrolled parties.", len(parts.parties.all()))
        yield _gauge("convoy_contracts", "Contracts on file.", len(parts.contracts.all()))
        yield _gauge("convoy_releases", "Released models.", len(parts.releases.all()))
        runs = GaugeMetricFamily("convoy_runs", "Latest runs by state.", labels=["state"])
        for state, count in sorted(Counter(run.state.value for run in parts.runs.latest()).items()):
            runs.add_metric([state], count)
        yield runs


class RequestMetrics:
    """ASGI middleware: requests by route template, method and status; seconds by route."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["method", "route", "status"]
        self._requests = Total("convoy_http_requests", "HTTP requests.", labels, registry=registry)
        self._seconds = Histogram(
            "convoy_http_seconds", "Seconds per HTTP request.", ["route"], buckets=SECONDS, registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", UNMATCHED)
            self._requests.labels(scope["method"], route, str(status)).inc()
            self._seconds.labels(route).observe(time.monotonic() - started)


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
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what)
    family.add_metric([], value)
    return family
