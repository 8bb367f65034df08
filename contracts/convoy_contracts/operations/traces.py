"""OpenTelemetry traces, where an operator asks for them: off unless the environment names a collector.

    start_traces(service) -> bool              once, at the start of a process; extra ``otel``
    with span("authorise", run=…) as seen: …   nothing where traces are off

On where ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set, or ``CONVOY_OTEL`` (a collector's
address, such as http://127.0.0.1:4318). Export is OTLP over HTTP; headers, certificates and sampling follow the standard
``OTEL_*`` variables.

One trace a run, across organisations, without a message more: trace id and parent follow from the run's uid by SHA-256, so every
party's collector holds its own part of the same trace. Attributes are ids, codes and counts that this code names; never a
row, a person, a header or a body. The log and the ledger are the record; traces are for speed and faults only, and a collector
that is away stops nothing.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from convoy_contracts.errors import ContractsError

SWITCHES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "CONVOY_OTEL")
_started: list[Any] = []
"""The tracer of this process, once started; like the root logger there is one."""


class TracesRefused(ContractsError):
    """Traces were asked for and cannot be made."""

    code = "TRACES_REFUSED"


class Seen:
    """A span under way; does nothing where traces are off."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner

    def name(self, name: str) -> None:
        """Name it once its name is known."""
        if self._inner is not None:
            self._inner.update_name(name)

    def note(self, **ids: str | int) -> None:
        """Add ids, codes or counts."""
        if self._inner is not None:
            self._inner.set_attributes({f"convoy.{key}": value for key, value in ids.items()})


def start_traces(service: str) -> bool:
    """Send the spans of this process to the collector that the environment names; tell whether there is one.

    Args:
        service: ``service.name``, such as ``convoy-coordinator``; ``OTEL_SERVICE_NAME`` wins.

    Raises:
        TracesRefused: a collector is named, and the extra is not installed.
    """
    asked = next((name for name in SWITCHES if os.environ.get(name)), None)
    if asked is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or _started:
        return bool(_started)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        package = "convoy-node" if "node" in service else "convoy-coordinator"
        raise TracesRefused(
            f"{asked} is set, but OpenTelemetry is not installed.",
            fix=f"pip install '{package}[otel]', or leave the variable out.",
        ) from error
    own = os.environ["CONVOY_OTEL"].rstrip("/") + "/v1/traces" if asked == "CONVOY_OTEL" else None
    provider = TracerProvider(
        resource=Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME") or service}),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=own)))
    _started.append((provider, provider.get_tracer("convoy")))
    atexit.register(stop_traces)
    return True


def stop_traces() -> None:
    """Send what is left and end; traces are off afterwards."""
    while _started:
        provider, _ = _started.pop()
        provider.shutdown()


@contextmanager
def span(name: str, **ids: str | int) -> Iterator[Seen]:
    """Time what is inside as a span of the run that ``run`` names, or of its own trace.

    An exception marks the span with the name of its class; its text may hold what does not belong here and is left out.
    """
    if not _started:
        yield Seen()
        return
    from opentelemetry.trace import Status, StatusCode

    _, tracer = _started[0]
    parent = _parent(str(ids["run"])) if ids.get("run") else None
    with tracer.start_as_current_span(
        name, context=parent, record_exception=False, set_status_on_exception=False
    ) as inner:
        seen = Seen(inner)
        seen.note(**ids)
        try:
            yield seen
        except BaseException as error:
            inner.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def trace_of(run: str) -> tuple[int, int]:
    """Return trace id and parent span id of a run: the same at every party."""
    digest = hashlib.sha256(b"convoy-run-trace/1\n" + run.encode()).digest()
    return int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1


def _parent(run: str) -> Any:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    trace, parent = trace_of(run)
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace, parent, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))
    )
