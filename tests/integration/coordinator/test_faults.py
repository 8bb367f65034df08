"""What happens when something below breaks: nothing is half-done, and nothing is told that should not be."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from convoy_coordinator.app import create_app
from convoy_coordinator.errors import SetupError
from convoy_coordinator.settings import read_settings
from convoy_coordinator.testing import Federation, Member, bundle_files, contract_text


def execute(federation: Federation, statement: str) -> None:
    """Break something in the database."""
    engine = federation.client.app.state.parts.engine  # type: ignore[attr-defined]
    with engine.begin() as connection:
        connection.execute(text(statement))


def test_without_the_log_nothing_is_done(federation: Federation) -> None:
    """Every effect waits for its entry: no enrolment, offer, run, ending or release without it."""
    digest = federation.agree()
    uid = federation.ask(digest).json()["uid"]
    run = federation.claim() or {}
    federation.authorise(uid)
    federation.move(uid, "running")
    before = [federation.client.get(f"/v1/{kind}").json() for kind in ("parties", "contracts", "runs", "releases")]
    execute(federation, "ALTER TABLE log_entry RENAME TO log_entry_lost")
    newcomer = Member("did:web:new.example", "New", "insurer").enrolment()
    other = contract_text((federation.oem, federation.insurer), uid="urn:convoy:contract:other")
    bundle = {"run": uid, "files": bundle_files(run, card_md=b"x")}
    answers = [
        federation.client.post("/v1/parties", json=newcomer, headers=federation.operator),
        federation.client.post("/v1/contracts", json={"text": other}, headers=federation.operator),
        federation.ask(digest),
        federation.move(uid, "failed", reason="NODE_LOST"),
        federation.client.post("/internal/releases", json=bundle, headers=federation.internal),
    ]
    assert {(a.status_code, a.json()["code"]) for a in answers} == {(503, "LOG_UNAVAILABLE")}
    after = [federation.client.get(f"/v1/{kind}").json() for kind in ("parties", "contracts", "runs", "releases")]
    assert after == before


def test_an_unforeseen_error_tells_a_trace_id_and_no_more(federation: Federation) -> None:
    """Neither SQL nor a table's name reaches the wire; readiness says that the database is the trouble."""
    execute(federation, "ALTER TABLE run RENAME TO run_lost")
    done = federation.client.get("/v1/runs")
    assert (done.status_code, done.json()["code"]) == (500, "INTERNAL")
    assert len(done.json()["trace_id"]) == 16
    assert "run_lost" not in done.text
    assert "SELECT" not in done.text
    assert "sqlite" not in done.text.lower()


def test_a_log_that_was_changed_behind_its_back_stops_the_start(federation: Federation) -> None:
    """An entry edited in the database is found before the first request is answered."""
    federation.enrol()
    federation.witness(federation.oem)
    execute(federation, "UPDATE log_entry SET body = X'7B7D' WHERE idx = 1")
    settings = federation.client.app.state.parts.settings  # type: ignore[attr-defined]
    with pytest.raises(SetupError) as caught:
        create_app(read_settings(settings.home))
    assert caught.value.code == "LOG_BROKEN"


def test_a_log_that_was_rolled_back_stops_the_start(federation: Federation) -> None:
    """Entries that were signed and are gone are noticed, whatever else fits together."""
    federation.enrol(federation.oem)
    federation.witness(federation.oem)
    execute(federation, "DELETE FROM log_entry")
    execute(federation, "DELETE FROM log_frontier")
    settings = federation.client.app.state.parts.settings  # type: ignore[attr-defined]
    with pytest.raises(SetupError) as caught:
        create_app(read_settings(settings.home))
    assert caught.value.code == "LOG_BEHIND_WITNESS"


def test_the_description_of_the_interface_is_whole(federation: Federation) -> None:
    """Every reference in openapi.json leads somewhere, and every body has a schema."""
    described = federation.client.get("/openapi.json").json()
    written = json.dumps(described)
    known = described.get("components", {}).get("schemas", {})
    for reference in {part.split('"')[0] for part in written.split('"$ref": "')[1:]}:
        assert reference.rsplit("/", 1)[-1] in known, reference
    bodies = [
        path
        for path, methods in described["paths"].items()
        if "post" in methods and "requestBody" not in methods["post"]
    ]
    assert sorted(bodies) == [
        "/internal/log/checkpoint",
        "/v1/log/archive",
        "/v1/log/timestamp",
        "/v1/runs/{uid}/again",
    ]
