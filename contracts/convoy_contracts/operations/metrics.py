"""Metrics for Prometheus: HTTP requests by route, and gauges that are read at each scrape.

    RequestMetrics(app, registry)      ASGI middleware
    gauge(name, what, value)           one family of one value
    exposition(registry) -> (bytes, media type)

A path that no route took could be anything and is no label: a scanner's thousand paths are one series.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Total
from prometheus_client.core import GaugeMetricFamily

from convoy_contracts.operations.traces import span

SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
UNMATCHED: Final = "(none)"
"""The route label of a request that no route took."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class RequestMetrics:
    """ASGI middleware: requests by route template, method and status; seconds by route; a span where traces are on."""

    def __init__(self, app: Asgi, registry: CollectorRegistry) -> None:
        self._app = app
        labels = ["method", "route", "status"]
        self._requests = Total("convoy_http_requests", "HTTP requests.", labels, registry=registry)
        self._seconds = Histogram(
            "convoy_http_seconds", "Seconds per HTTP request.", ["route"], buckets=SECONDS, registry=registry
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
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

        with span("request") as seen:
            try:
                await self._app(scope, receive, noting)
            finally:
                route = getattr(scope.get("route"), "path", UNMATCHED)
                self._requests.labels(scope["method"], route, str(status)).inc()
                self._seconds.labels(route).observe(time.monotonic() - started)
                seen.name(f"{scope['method']} {route}")
                seen.note(status=status)


def gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    """Return a family of one value without labels."""
    family = GaugeMetricFamily(name, what)
    family.add_metric([], value)
    return family


def exposition(registry: CollectorRegistry) -> tuple[bytes, str]:
    """Return everything of a registry in Prometheus's text format, and its media type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
