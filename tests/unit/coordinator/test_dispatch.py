"""Queued runs are started at the runtime one at a time, and once more where a start got lost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from convoy_coordinator.channel import dispatch
from convoy_coordinator.channel.dispatch import Dispatcher, next_queued
from convoy_coordinator.enrolment.gate import LinkEndpoint
from convoy_coordinator.errors import SetupError
from convoy_coordinator.runs.states import RunState
from convoy_coordinator.runs.store import Run

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def run(number: int, state: RunState = RunState.QUEUED, *, claimed: bool = False) -> Run:
    """Return a run."""
    members: dict[str, Any] = dict.fromkeys(Run.__dataclass_fields__)
    members |= {"uid": f"run-{number}", "number": number, "state": state, "claimed_at": NOW if claimed else None}
    return Run(**members)


class Door:
    """A runtime's door that remembers what was begun; ``is_open`` says whether the runtime is there."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.is_open = True
        self.fails = False

    def settle(self, parties: Mapping[str, str]) -> None:
        """Not asked here."""

    def endpoint(self) -> LinkEndpoint | None:
        """Return where the runtime is."""
        return LinkEndpoint("localhost:1", b"", ("ab",)) if self.is_open else None

    def begin(self, run: str) -> None:
        """Remember a run."""
        if self.fails:
            raise SetupError("LINK_UNREACHABLE", "it does not answer")
        self.begun.append(run)


def test_the_oldest_queued_run_is_next_and_none_while_one_is_claimed() -> None:
    """The worker takes one at a time; ended runs count for nothing."""
    assert next_queued([]) is None
    assert next_queued([run(3), run(2), run(1, RunState.FINISHED, claimed=True)]) == "run-2"
    assert next_queued([run(3), run(2, RunState.RUNNING, claimed=True)]) is None
    assert next_queued([run(3), run(2, claimed=True)]) is None, "claimed, and not yet authorised"


def test_a_run_is_started_once_and_again_only_when_it_stayed_unclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start too many would find nothing to do; one too few would be silence."""
    door, runs = Door(), [run(1)]
    dispatcher = Dispatcher(door, lambda: runs)
    assert [dispatcher.look() for _ in range(3)] == ["run-1", None, None]
    monkeypatch.setattr(dispatch, "AGAIN_S", 0.0)
    assert dispatcher.look() == "run-1"
    runs[:] = [run(1, RunState.FINISHED, claimed=True), run(2)]
    assert dispatcher.look() == "run-2"
    assert door.begun == ["run-1", "run-1", "run-2"]


def test_nothing_is_started_while_the_runtime_is_down_and_a_failed_start_is_tried_again() -> None:
    """The queue is the database's; nothing is lost by waiting."""
    door = Door()
    dispatcher = Dispatcher(door, lambda: [run(1)])
    door.is_open = False
    assert dispatcher.look() is None
    door.is_open, door.fails = True, True
    with pytest.raises(SetupError):
        dispatcher.look()
    door.fails = False
    assert dispatcher.look() == "run-1"
