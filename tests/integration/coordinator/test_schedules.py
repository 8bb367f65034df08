"""Runs that repeat, that are cancelled, that are run again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from typed import typed

from convoy_coordinator.app import create_app
from convoy_coordinator.cli import main
from convoy_coordinator.errors import Problem
from convoy_coordinator.schedules.service import ScheduleService, next_time
from convoy_coordinator.settings import read_settings
from convoy_coordinator.testing import Federation, SetClock


@pytest.fixture
def order(federation: Federation) -> dict[str, Any]:
    """An order under an active contract."""
    return {
        "contractDigest": federation.agree(),
        "algorithm": "risk",
        "requester": federation.insurer.id,
        "purpose": "convoy:RiskModelTraining",
    }


def operate(federation: Federation, method: str, path: str, content: Any = None) -> httpx.Response:
    """Ask as the operator does."""
    return federation.client.request(method, path, json=content, headers=federation.operator)


def schedules(federation: Federation) -> ScheduleService:
    """The service behind the routes: its clock is set by hand here, so a test looks at it itself."""
    found: ScheduleService = federation.client.app.state.parts.schedules  # type: ignore[attr-defined]
    found.stop()
    return found


def test_a_run_is_queued_once_at_each_time(federation: Federation, clock: SetClock, order: dict[str, Any]) -> None:
    """At 02:00 Shanghai on Mondays: not before, once then, and once however long the coordinator was away."""
    made = operate(federation, "POST", "/v1/schedules", order | {"cron": "0 2 * * 1"}).json()
    assert made["zone"] == "Asia/Shanghai"
    service = schedules(federation)
    due = datetime.fromisoformat(made["nextAt"].replace("Z", "+00:00"))
    assert (due.astimezone(UTC).hour, due.weekday()) == (18, 6)
    clock.now = due - timedelta(seconds=1)
    assert service.carry_out() == 0
    clock.now = due
    assert service.carry_out() == 1
    assert service.carry_out() == 0
    clock.now = due + timedelta(weeks=5, days=1)
    assert service.carry_out() == 1
    shown = operate(federation, "GET", f"/v1/schedules/{made['uid']}").json()
    assert shown["lastRun"] == federation.client.get("/v1/runs").json()["runs"][0]["uid"]
    assert shown["lastProblem"] is None


def test_a_paused_schedule_queues_nothing_and_goes_on_from_now(
    federation: Federation, clock: SetClock, order: dict[str, Any]
) -> None:
    """Times in the pause are not made up for."""
    made = operate(federation, "POST", "/v1/schedules", order | {"cron": "*/10 * * * *", "zone": "UTC"}).json()
    service = schedules(federation)
    assert operate(federation, "PUT", f"/v1/schedules/{made['uid']}/pause").json()["paused"]
    clock.pass_by(timedelta(hours=3))
    assert service.carry_out() == 0
    resumed = operate(federation, "PUT", f"/v1/schedules/{made['uid']}/resumption").json()
    assert datetime.fromisoformat(resumed["nextAt"].replace("Z", "+00:00")) > clock()
    assert service.carry_out() == 0
    assert operate(federation, "DELETE", f"/v1/schedules/{made['uid']}").status_code == 204
    assert operate(federation, "GET", f"/v1/schedules/{made['uid']}").json()["code"] == "SCHEDULE_UNKNOWN"


def test_every_fault_of_a_schedule_is_told_at_once(federation: Federation, order: dict[str, Any]) -> None:
    """A wrong expression and a wrong zone; and an order outside the contract is told now, not at night."""
    told = operate(federation, "POST", "/v1/schedules", order | {"cron": "61 2 * * 1", "zone": "Mars/Base"}).json()
    assert {fault["pointer"] for fault in told["errors"]} == {"/cron", "/zone"}
    told = operate(federation, "POST", "/v1/schedules", order | {"cron": "0 2 * * 1", "algorithm": "other"}).json()
    assert told["code"] == "REQUEST_OUTSIDE_CONTRACT"
    assert operate(federation, "GET", "/v1/schedules").json() == {"schedules": []}


def test_a_time_that_never_comes_is_refused() -> None:
    """30 February."""
    with pytest.raises(Problem):
        next_time("0 0 30 2 *", "UTC", datetime(2027, 1, 1, tzinfo=UTC))


def test_a_cancelled_run_says_so_to_everybody_and_can_be_run_again(
    federation: Federation, order: dict[str, Any]
) -> None:
    """Cancelling is logged; the ServerApp's next report is told; the order can be queued once more, as a run of its own."""
    uid = operate(federation, "POST", "/v1/runs", order).json()["uid"]
    cancelled = operate(federation, "PUT", f"/v1/runs/{uid}/cancellation").json()
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "RUN_CANCELLED")
    told = federation.post(f"/internal/runs/{uid}/progress", {"step": "x"}, **federation.internal).json()
    assert told["code"] == "RUN_STATE_WRONG"
    again = operate(federation, "POST", f"/v1/runs/{uid}/again").json()
    assert again["uid"] != uid
    assert (again["state"], again["contractDigest"]) == ("queued", cancelled["contractDigest"])
    assert operate(federation, "POST", f"/v1/runs/{again['uid']}/again").json()["code"] == "RUN_STATE_WRONG"
    assert federation.client.put(f"/v1/runs/{again['uid']}/cancellation").status_code in (401, 403)


def test_the_operator_does_all_of_it_from_the_command_line(home: Path, clock: SetClock) -> None:
    """Pause, resume, remove, cancel, again; each prints JSON and what it refuses ends with code, cause and fix."""
    with TestClient(create_app(read_settings(home), clock=clock), raise_server_exceptions=False) as client:
        federation = Federation(client, home, clock)
        digest = federation.agree()
        order = {"algorithm": "risk", "requester": federation.insurer.id, "purpose": "convoy:RiskModelTraining"}
        made = operate(federation, "POST", "/v1/schedules", order | {"contractDigest": digest, "cron": "0 2 1 * *"})
        schedule, run = made.json()["uid"], federation.ask(digest).json()["uid"]
    told = command(home, "schedule", "list")
    assert [entry["uid"] for entry in told] == [schedule]
    assert command(home, "schedule", "pause", schedule)["paused"] is True
    assert command(home, "schedule", "resume", schedule)["paused"] is False
    assert command(home, "schedule", "remove", schedule) == {"removed": schedule}
    assert command(home, "run", "cancel", run)["reason"] == "RUN_CANCELLED"
    assert command(home, "run", "show", run)["state"] == "cancelled"
    wanted = ["--contract", digest, "--algorithm", "risk", "--requester", "did:web:nobody", "--purpose", "x"]
    assert command(home, "run", "queue", *wanted)["error"]["code"] == "CONTRACT_NOT_ACTIVE"  # its term is next year
    assert command(home, "run", "show", "run-none")["error"]["code"] == "RUN_UNKNOWN"


def command(home: Path, *words: str) -> Any:
    """Type the command; return the JSON that it prints."""
    done = typed(main, *words, "--home", home, "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)
