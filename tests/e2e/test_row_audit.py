"""Commit and audit through the real apps: honest runs are released, a node that boosts one driver's factor is caught."""

from __future__ import annotations

import contextlib
import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy_contracts.specification import RowAudit
from convoy_demo import agreements
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_node import rounds

TERMS = RowAudit(rowsMilli=20, blockRows=20)
AUDITED = Scenario(
    drivers=6_000,
    seed=5,
    risk=risk_specification().model_copy(update={"cohortFloor": 1_000, "rowAudit": TERMS}),
    offers=recommend_specification().model_copy(update={"cohortFloor": 100, "rowAudit": TERMS}),
    min_subjects=50,
    cap_micro=12_000_000,
    year_cap_micro=20_000_000,
)
Found = Callable[[Path, Scenario], contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, found_small: Found) -> Iterator[Any]:
    """A federation whose contracts ask for audited rows."""
    with found_small(tmp_path_factory.mktemp("audited"), AUDITED) as federation:
        yield federation


def entries(federation: Any, run: str, kind: str, least: int) -> list[dict[str, Any]]:
    """Return the events of one type that nodes stated about a run; waits until the log's checkpoint covers ``least``."""
    url = f"{federation.api.url}/v1/log"
    deadline = time.monotonic() + 60
    while True:
        size = int(httpx.get(f"{url}/checkpoint?which=newest").text.splitlines()[1])
        rows: list[str] = []
        while len(rows) < size:
            rows += httpx.get(f"{url}/entries?start={len(rows)}&end={size}").json()["entries"]
        texts = [b64decode(row).decode() for row in rows]
        found = [json.loads(text) for text in texts if kind in text and run in text]
        if len(found) >= least or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_audited_runs_finish_and_the_log_holds_commitments_and_verdict(audited: Any) -> None:
    """Risk and recommendation: every holder commits to its rows towards each peer, the trustee states that all is well."""
    with audited.embedded() as runtime:
        risk = audited.train(runtime)
        offers = audited.train(runtime, agreements.RECOMMENDATION)
    for run in (risk, offers):
        assert run["state"] == "finished", (run["party"], run["reasons"], run["cause"], run["fix"])
    assert len(entries(audited, risk["uid"], "node:rows:committed", 6)) == 6  # three pairs, both ends
    assert len(entries(audited, offers["uid"], "node:rows:committed", 2)) == 2
    for run in (risk, offers):
        (verdict,) = entries(audited, run["uid"], "node:rows:audited", 1)
        assert '"outcome":"allow"' in json.dumps(verdict, separators=(",", ":"))


def test_a_node_that_boosts_one_driver_is_caught_logged_and_nothing_is_released(
    audited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One insurer's software sends a factor of 50 for one driver (cap 0.25): no release, and the log names it."""
    honest, liars = rounds._Insurer.factors, []

    def lying(self: Any, query: Any, weights: object) -> Any:
        made, cap = honest(self, query, weights)
        if not liars:
            liars.append(self)
        if self is liars[0] and query.purpose == "model":
            for peer in made:
                made[peer] = made[peer].copy()
                made[peer][7] = 50.0
            return made, 100.0
        return made, cap

    monkeypatch.setattr(rounds._Insurer, "factors", lying)
    with audited.embedded() as runtime:
        run = audited.train(runtime)
    assert run["state"] == "failed"
    assert run["reason"] == "ROW_AUDIT_FAILED"
    assert "BLOCK_TOO_LARGE" in run["cause"]
    (verdict,) = entries(audited, run["uid"], "node:rows:audited", 1)
    text = json.dumps(verdict)
    assert all(word in text for word in ('"deny"', "BLOCK_TOO_LARGE", "insurer"))
    assert entries(audited, run["uid"], "release:published", 0) == []
