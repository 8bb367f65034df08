"""The table of a run's states."""

from __future__ import annotations

from convoy_coordinator.runs.states import MOVES, RunState


def test_every_state_is_in_the_table() -> None:
    """No state is without its line of moves."""
    assert set(MOVES) == set(RunState)


def test_every_state_can_be_reached_from_the_queue() -> None:
    """A state that no run can come to would be a mistake in the table."""
    reached, frontier = {RunState.QUEUED}, [RunState.QUEUED]
    while frontier:
        for state in MOVES[frontier.pop()] - reached:
            reached.add(state)
            frontier.append(state)
    assert reached == set(RunState)


def test_a_run_that_has_ended_stays_as_it_ended() -> None:
    """Four states have no way out, and every other state can be stopped."""
    final = {state for state in RunState if state.is_final}
    assert final == {RunState.FINISHED, RunState.FAILED, RunState.REFUSED, RunState.CANCELLED}
    for state in set(RunState) - final:
        assert {RunState.FAILED, RunState.REFUSED, RunState.CANCELLED} <= MOVES[state]


def test_nothing_finishes_without_having_been_authorised() -> None:
    """The only way to finished leads through authorised and running."""
    assert {s for s in RunState if RunState.FINISHED in MOVES[s]} == {RunState.RUNNING}
    assert {s for s in RunState if RunState.RUNNING in MOVES[s]} == {RunState.AUTHORISED}
