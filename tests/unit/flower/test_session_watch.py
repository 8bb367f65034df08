"""A node that was asked and has lost the question is noticed, and no other is blamed."""

from __future__ import annotations

from convoy_coordinator.federation.flower.http_grid import SessionWatch


def watch_over(*looks: dict[int, str]) -> SessionWatch:
    """Return a watch that sees these sessions, one look after the other; it asked 7 and 8."""
    seen = list(looks)
    watch = SessionWatch(lambda: seen.pop(0) if len(seen) > 1 else seen[0], look_s=0.0)
    watch.asked |= {7, 8}
    return watch


def test_a_node_that_stays_is_not_lost() -> None:
    """The same session before and after."""
    assert watch_over({7: "t1", 8: "t1"}).lost() == set()


def test_a_node_that_is_gone_is_lost() -> None:
    """It is no longer among the connected nodes."""
    assert watch_over({7: "t1", 8: "t1"}, {8: "t1"}).lost() == {7}


def test_a_node_that_came_back_has_lost_the_question() -> None:
    """It is connected, but let in anew since it was asked."""
    assert watch_over({7: "t1", 8: "t1"}, {7: "t2", 8: "t1"}).lost() == {7}


def test_a_node_that_has_answered_may_go() -> None:
    """Only those whose answer is missing are of interest."""
    watch = watch_over({7: "t1", 8: "t1"}, {8: "t1"})
    watch.asked.discard(7)
    assert watch.lost() == set()


def test_a_node_that_connects_later_is_not_lost() -> None:
    """A message can be stored for a registered node that is let in afterwards."""
    assert watch_over({7: "t1"}, {7: "t1", 8: "t5"}).lost() == set()


def test_the_superlink_is_not_asked_at_every_turn() -> None:
    """Between two looks the last answer holds."""
    looks = []
    watch = SessionWatch(lambda: looks.append(1) or {}, look_s=60.0)
    watch.lost()
    watch.lost()
    assert len(looks) == 1
