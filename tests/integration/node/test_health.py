"""/livez, /readyz and /metrics of a node: what works, in figures that say nothing about a person."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from convoy_node.api import create_app, health_app
from convoy_node.backup.standing import mark_restored
from convoy_node.channel_home import CHANNEL
from convoy_node.errors import HomeRefused

ASSET, UID = "urn:convoy:asset:insurer-a:1", "urn:convoy:contract:risk"


def families(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return each metric's values by its labels."""
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def test_a_node_that_works_is_ready_and_its_figures_are_those_of_the_commands(noisy_federation) -> None:
    """Without a token, in the API for the party's app and alone for a monitor."""
    federation, home = noisy_federation, noisy_federation.home("insurer-a")
    federation.complete()
    for app in (create_app(home, clock=federation.clock), health_app(home, clock=federation.clock)):
        with TestClient(app, base_url="http://127.0.0.1") as client:
            assert client.get("/livez").json() == {"status": "ok"}
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ok")
            told = client.get("/metrics")
            assert told.headers["content-type"].startswith("text/plain")
    found = families(told.text)
    assert set(found["convoy_node_ready"].values()) == {1.0}
    assert 3.9 < found["convoy_node_epsilon"][ASSET, UID, ""] <= found["convoy_node_epsilon_cap"][ASSET, UID, ""]
    assert found["convoy_node_consents"][(UID,)] % 50 == 0
    assert found["convoy_node_consents"][(UID,)] > 0
    assert found["convoy_node_log_entries"][()] > 0
    assert found["convoy_node_duties"][("overdue",)] == 0
    with sqlite3.connect(home / "register.db") as db:
        (person,) = db.execute("SELECT local_id FROM consent LIMIT 1").fetchone()
    assert f'"{person}"' not in told.text


@pytest.mark.parametrize(("check", "spoil"), [
    ("current", lambda home: mark_restored(home, "test")),
    ("ledger", lambda home: (home / "ledger.db").write_bytes(b"no ledger")),
    ("keys", lambda home: (home / "keys" / "identity.pem").chmod(0o644)),
    ("settings", lambda home: (home / "node.toml").write_text("schema = 1")),
    ("channel", lambda home: (home / CHANNEL).write_text("{}")),
])  # fmt: skip
def test_what_does_not_work_is_named_and_the_metrics_go_on(federation, check: str, spoil) -> None:
    """503 with the check's name and no detail; a scrape still answers."""
    home: Path = federation.home("insurer-b")
    app = health_app(home, clock=federation.clock)
    spoil(home)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"][check]) == (503, "failing")
        assert str(home) not in answer.text
        found = families(client.get("/metrics").text)
        assert found["convoy_node_ready"][(check,)] == 0.0
        assert client.get("/livez").status_code == 200


def test_a_stale_register_and_an_overdue_duty_show(federation) -> None:
    """Before a run is denied for it."""
    home = federation.home("insurer-c")
    office = federation.node("insurer-c").home.office
    federation.node("insurer-c").home.duties.raise_duty("delete", UID, federation.clock.now, subject="P")
    office._watermark.suspect()
    federation.clock.pass_by(days=40)
    with TestClient(health_app(home, clock=federation.clock), base_url="http://127.0.0.1") as client:
        assert client.get("/readyz").json()["checks"]["register"] == "failing"
        assert families(client.get("/metrics").text)["convoy_node_duties"][("overdue",)] == 1.0


def test_the_api_counts_its_requests_by_route_and_never_by_person(federation) -> None:
    """The path of a person's consents is one series."""
    home = federation.home("insurer-a")
    app = create_app(home, clock=federation.clock)
    token = (home / "api.token").read_text()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.get("/v1/persons/P-secret/consents/risk", headers={"authorization": f"Bearer {token}"})
        assert client.get("/v1/persons/P-secret/consents/risk").status_code == 401
        text = client.get("/metrics").text
    assert "P-secret" not in text
    assert ("GET", "/v1/persons/{person}/consents/{contract}", "404") in families(text)["convoy_http_requests"]


def test_health_wants_a_nodes_folder(tmp_path: Path) -> None:
    """An empty folder is none."""
    with pytest.raises(HomeRefused):
        health_app(tmp_path)
