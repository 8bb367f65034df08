"""What both applications show their operators: logs, health, spans. Never a row, a person or a text from outside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from convoy_contracts.operations import traces
from convoy_contracts.operations.health import standing
from convoy_contracts.operations.metrics import RequestMetrics, exposition
from convoy_contracts.operations.traces import SWITCHES, TracesRefused, span, start_traces, stop_traces, trace_of


class Collector:
    """An OTLP collector in this process: keeps every span that is sent to it."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                kept.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[tuple[str, Any]]:
        """Return (service, span) of everything that arrived."""
        return [
            (next(a.value.string_value for a in told.resource.attributes if a.key == "service.name"), one)
            for request in self.requests
            for told in request.resource_spans
            for scope in told.scope_spans
            for one in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector that the environment names in the standard way."""
    made = Collector()
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    stop_traces()
    made.close()


def attributes(one: Any) -> dict[str, Any]:
    """Return a span's attributes."""
    return {a.key: a.value.string_value or a.value.int_value for a in one.attributes}


def test_the_spans_of_a_run_are_one_trace_at_every_party(collector: Collector) -> None:
    """Two services, two processes' worth of tracers: the same trace id from the run's uid, and nothing was exchanged."""
    for service in ("convoy-coordinator", "convoy-node"):
        assert start_traces(service)
        with span("outer", run="run-7", contract="sha256:ab") as seen, span("inner"):
            seen.note(code="NONE")
        stop_traces()
    found = collector.spans
    assert sorted((service, one.name) for service, one in found) == [
        ("convoy-coordinator", "inner"), ("convoy-coordinator", "outer"), ("convoy-node", "inner"), ("convoy-node", "outer"),
    ]  # fmt: skip
    trace, parent = trace_of("run-7")
    assert {int.from_bytes(one.trace_id, "big") for _, one in found} == {trace}
    outer = [one for _, one in found if one.name == "outer"]
    assert {int.from_bytes(one.parent_span_id, "big") for one in outer} == {parent}
    assert attributes(outer[0]) == {"convoy.run": "run-7", "convoy.contract": "sha256:ab", "convoy.code": "NONE"}


def test_a_span_names_the_class_of_an_exception_and_never_its_text(collector: Collector) -> None:
    """Texts may hold what untrusted input said."""
    start_traces("convoy-node")
    with pytest.raises(ValueError), span("work", run="run-8"):
        raise ValueError("person P-1 said no")
    stop_traces()
    raw = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"ValueError" in raw
    assert b"P-1" not in raw


def test_a_request_is_a_span_of_its_route(collector: Collector) -> None:
    """Never of its path: a path may hold an id."""

    async def answer(_: Any) -> PlainTextResponse:
        return PlainTextResponse("yes")

    app = Starlette(routes=[Route("/v1/persons/{person}", answer)])
    registry = CollectorRegistry()
    start_traces("convoy-node-api")
    with TestClient(RequestMetrics(app, registry)) as client:
        client.get("/v1/persons/P-77")
    stop_traces()
    ((_, one),) = collector.spans
    assert attributes(one) == {"convoy.status": 200}
    raw = b"".join(request.SerializeToString() for request in collector.requests) + exposition(registry)[0]
    assert b"P-77" not in raw


def test_nothing_is_sent_where_nobody_asked(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off without a collector's address, and off where OTEL_SDK_DISABLED says so."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not start_traces("convoy-node")
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert not start_traces("convoy-node")
    with span("work", run="run-1") as seen:
        seen.name("other")
        seen.note(code="X")
    assert collector.requests == []


def test_a_short_name_for_the_address_and_an_error_without_the_extra(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CONVOY_OTEL names the collector; without the extra the message has the command."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("CONVOY_OTEL", collector.url)
    assert start_traces("convoy-node")
    with span("work"):
        pass
    stop_traces()
    assert len(collector.spans) == 1
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracesRefused) as refused:
        start_traces("convoy-node")
    assert "pip install 'convoy-node[otel]'" in refused.value.fix
    assert traces._started == []


def test_readiness_names_what_fails_and_hides_why() -> None:
    """A fault of the program is no failing check: it goes up."""

    def full() -> None:
        raise OSError("disk /secret/path is full")

    body, status = standing({"disk": full, "clock": lambda: None}, (OSError,))
    assert (status, body) == (503, {"status": "failing", "checks": {"disk": "failing", "clock": "ok"}})
    assert standing({}, (OSError,)) == ({"status": "ok", "checks": {}}, 200)
    with pytest.raises(ZeroDivisionError):
        standing({"program": lambda: print(1 / 0)}, (OSError,))
