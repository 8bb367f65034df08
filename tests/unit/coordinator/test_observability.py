"""What operators watch names runs and routes, and never a row, a person or a path that somebody made up."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from convoy_contracts.operations.logs import about, start_logs
from convoy_coordinator.observability import metrics


def test_a_line_is_one_json_object_with_run_and_contract() -> None:
    """Also a line of a library inside the block carries the ids; outside it does not."""
    script = (
        "import logging\n"
        "from convoy_contracts.operations.logs import start_logs, about\n"
        "start_logs('coordinator')\n"
        "with about(run='run-1', contract='sha256:ab'):\n"
        "    logging.getLogger('a.library').warning('zh \\u4e2d %s', 7)\n"
        "logging.getLogger('x').info('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stderr.splitlines())
    assert (first["run"], first["contract"], first["event"], first["level"]) == (
        "run-1",
        "sha256:ab",
        "zh 中 7",
        "warning",
    )
    assert first["process"] == "coordinator"
    assert "run" not in second


def test_the_form_can_be_chosen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """CONVOY_LOG=text is for people."""
    monkeypatch.setenv("CONVOY_LOG", "text")
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        start_logs("coordinator")
        with about(run="run-2"):
            logging.getLogger("x").info("hello")
        told = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    assert "hello" in told
    assert not told.lstrip().startswith("{")


def test_a_made_up_path_is_no_label() -> None:
    """A scanner's thousand paths are one series; so nobody fills the memory, and no id gets into a label."""
    app, registry = FastAPI(), CollectorRegistry()

    @app.get("/v1/runs/{uid}")
    def run(uid: str) -> dict[str, str]:
        return {"uid": uid}

    app.add_middleware(metrics.RequestMetrics, registry=registry)
    app.include_router(metrics.router(registry))
    with TestClient(app) as client:
        for number in range(5):
            client.get(f"/nothing/{number}")
            client.get(f"/v1/runs/{number}")
        text = client.get("/metrics").text
    (requests,) = [f for f in text_string_to_metric_families(text) if f.name == "convoy_http_requests"]
    series = {(s.labels["route"], s.labels["status"]): s.value for s in requests.samples if s.name.endswith("_total")}
    assert series == {("(none)", "404"): 5.0, ("/v1/runs/{uid}", "200"): 5.0}
