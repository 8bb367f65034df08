"""Reading the log over HTTP: a partner needs nothing but these addresses to check it."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from convoy_audit.canonical import unb64
from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from convoy_audit.policy import Policy
from convoy_audit.tiles import decode_bundle, entries_path, entries_spans, tile_path, tile_spans
from convoy_coordinator.log import LogService
from convoy_coordinator.log.routes import router
from convoy_coordinator.problems import install_problems


@pytest.fixture
def log(start: Callable[[], LogService], entry: Callable[[int], bytes]) -> LogService:
    """A log of 600 entries: two full tiles and a partial one."""
    log = start()
    log.append_many([entry(number) for number in range(600)])
    return log


@pytest.fixture
def client(log: LogService) -> TestClient:
    """The routes and nothing else."""
    app = FastAPI()
    install_problems(app)
    app.include_router(router(log))
    return TestClient(app, raise_server_exceptions=False)


def test_the_whole_log_is_checked_from_outside(client: TestClient, log: LogService) -> None:
    """Checkpoint, entries, proofs, tiles, policy."""
    assert client.get("/v1/log/checkpoint").status_code == 404
    log.checkpoint()
    answer = client.get("/v1/log/checkpoint")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["cache-control"] == "no-store"
    checkpoint, _ = open_checkpoint(answer.content, log.verifiers)
    entries = [
        base64.b64decode(text)
        for text in client.get("/v1/log/entries", params={"start": 0, "end": 600}).json()["entries"]
    ]
    assert root(map(leaf_hash, entries)) == checkpoint.root
    proof = client.get("/v1/log/proof/inclusion", params={"index": 299, "size": 600}).json()["proof"]
    verify_inclusion(leaf_hash(entries[299]), 299, 600, [unb64(node) for node in proof], checkpoint.root)
    proof = client.get("/v1/log/proof/consistency", params={"old": 7, "new": 600}).json()["proof"]
    old_root = root(map(leaf_hash, entries[:7]))
    verify_consistency(7, 600, [unb64(node) for node in proof], old_root, checkpoint.root)
    assert client.get("/v1/log/proof/consistency", params={"old": 0, "new": 600}).json() == {"proof": []}
    assert Policy.parse(client.get("/v1/log/policy").content) == log.policy()
    bundles = [client.get(f"/v1/log/{entries_path(s.index, s.width)}").content for s in entries_spans(600)]
    widths = [s.width for s in entries_spans(600)]
    decoded = [e for data, width in zip(bundles, widths, strict=True) for e in decode_bundle(data, width)]
    assert decoded == entries
    for span in tile_spans(600):
        answer = client.get(f"/v1/log/{tile_path(span.level, span.index, span.width)}")
        assert len(answer.content) == 32 * span.width
        assert "immutable" in answer.headers["cache-control"]
        if span.level == 0:
            first = span.index * 256
            assert answer.content == b"".join(map(leaf_hash, entries[first : first + span.width]))


def test_at_most_a_thousand_entries_come_at_once(
    client: TestClient, log: LogService, entry: Callable[[int], bytes]
) -> None:
    """The caller goes on from where the answer ended."""
    log.append_many([entry(number) for number in range(600, 1500)])
    answer = client.get("/v1/log/entries", params={"start": 100, "end": 1500}).json()
    assert answer["start"] == 100
    assert len(answer["entries"]) == 1000


@pytest.mark.parametrize(
    "address",
    [
        "entries?start=0&end=601",
        "entries?start=5&end=4",
        "proof/inclusion?index=600&size=600",
        "proof/inclusion?index=0&size=601",
        "proof/consistency?old=601&new=600",
        "proof/consistency?old=0&new=601",
        "tile/0/002",
        "tile/0/000.p/256",
        "tile/0/2",
        "tile/9/000.p/1",
        "tile/entries/002.p/89",
        "tile/entries/../../x",
        "tile/64/000",
        "tile/00/000",
    ],
)
def test_what_is_not_there_is_a_problem_with_a_cause(client: TestClient, address: str) -> None:
    """Never a server error."""
    answer = client.get(f"/v1/log/{address}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] in ("LOG_REFUSED", "NOT_FOUND")
    assert answer.json()["cause"]


@pytest.mark.parametrize("address", ["entries", "entries?start=-1&end=2", "proof/inclusion?index=a&size=1"])
def test_a_wrong_number_is_named(client: TestClient, address: str) -> None:
    """Missing, negative, no number."""
    answer = client.get(f"/v1/log/{address}")
    assert answer.status_code == 422
    assert answer.json()["errors"]
