"""The embedded runtime behaves as the deployed one does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from convoy_coordinator.federation.flower.gated_grid import GatedGrid, Passage, grid_nodes
from convoy_coordinator.federation.flower.local_grid import LocalGrid
from convoy_coordinator.federation.flower.records import from_record, to_record
from convoy_models.messages import Payload

OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"


def client_app(answer: Callable[[Payload], Payload]) -> ClientApp:
    """Return a ClientApp that answers ``query.ask`` through ``answer``."""
    app = ClientApp()

    @app.query("ask")
    def ask(message: Message, context: Context) -> Message:
        del context
        return Message(to_record(answer(from_record(message.content))), reply_to=message)

    return app


def echo(payload: Payload) -> Payload:
    return payload


def question(node: int, payload: Payload | None = None) -> Message:
    return Message(to_record(payload or Payload()), node, "query.ask", group_id="run-1")


def test_a_reply_carries_what_the_application_said() -> None:
    """JSON, blobs and ring arrays come back as they were, through Flower's own serialisation."""
    grid = LocalGrid({OEM: client_app(echo)})
    sent = Payload(
        {"步骤": [1, 2.5, None]},
        {"to|x|tag": b"\x00\xff", "to|x|empty": b""},
        {"q1": np.array([0, 2**64 - 1], np.uint64), "q0": np.zeros(0, np.uint64)},
    )
    (reply,) = grid.send_and_receive([question(grid_nodes(grid)[OEM], sent)])
    received = from_record(reply.content)
    assert (received.data, received.blobs) == (sent.data, sent.blobs)
    assert list(received.arrays) == ["q1", "q0"]
    np.testing.assert_array_equal(received.arrays["q1"], sent.arrays["q1"])


def test_a_node_never_shares_an_object_with_the_server() -> None:
    """What a node does to its message does not reach the server's copy."""
    app = ClientApp()

    @app.query("ask")
    def ask(message: Message, context: Context) -> Message:
        del context
        message.content["c"]["json"] = '{"changed":true}'
        return Message(RecordDict(), reply_to=message)

    grid = LocalGrid({OEM: app})
    mine = question(grid_nodes(grid)[OEM], Payload({"changed": False}))
    grid.send_and_receive([mine])
    assert from_record(mine.content).data == {"changed": False}


def test_nodes_are_named_after_their_parties() -> None:
    """A party's node is found by the party's id, and no node has the server's number."""
    nodes = grid_nodes(LocalGrid({OEM: client_app(echo), INSURER: client_app(echo)}))
    assert set(nodes) == {OEM, INSURER}
    assert min(nodes.values()) > 1


def test_bytes_and_messages_are_counted_by_party() -> None:
    """A message of a hundred thousand bytes is counted once each way, at its own party only."""
    grid = LocalGrid({OEM: client_app(echo), INSURER: client_app(echo)})
    blob = bytes(100_000)
    grid.send_and_receive([question(grid_nodes(grid)[OEM], Payload({}, {"to|x|t": blob}))])
    oem, insurer = grid.traffic[OEM], grid.traffic[INSURER]
    assert (oem.messages_sent, oem.messages_received) == (1, 1)
    assert 100_000 < oem.bytes_sent < 102_000
    assert 100_000 < oem.bytes_received < 102_000
    assert (insurer.messages_sent, insurer.bytes_sent) == (0, 0)


def test_the_text_of_an_exception_never_reaches_the_server() -> None:
    """An application's failure arrives as an error reply that names the type and nothing else."""

    def fail(payload: Payload) -> Payload:
        raise ValueError("premium of driver 4711 is 812.50")

    grid = LocalGrid({OEM: client_app(fail)})
    (reply,) = grid.send_and_receive([question(grid_nodes(grid)[OEM])])
    assert reply.has_error()
    assert reply.error.reason == "the application at the node failed (ValueError)"


def test_an_exception_is_logged_at_the_node_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The node's own log says which line failed, and holds no row's value."""

    def fail(payload: Payload) -> Payload:
        raise ValueError("premium of driver 4711 is 812.50")

    grid = LocalGrid({OEM: client_app(fail)})
    grid.send_and_receive([question(grid_nodes(grid)[OEM])])
    assert "ValueError at" in caplog.text
    assert "4711" not in caplog.text


def test_a_slow_node_is_left_out_at_the_deadline_and_the_others_answer() -> None:
    """After ``timeout`` the replies that are there are returned; a late one can still be pulled."""
    gate = threading.Event()

    def wait(payload: Payload) -> Payload:
        gate.wait(5)
        return payload

    grid = LocalGrid({OEM: client_app(wait), INSURER: client_app(echo)})
    nodes = grid_nodes(grid)
    slow, quick = question(nodes[OEM]), question(nodes[INSURER])
    replies = grid.send_and_receive([slow, quick], timeout=0.1)
    assert [reply.metadata.src_node_id for reply in replies] == [nodes[INSURER]]
    gate.set()
    deadline = time.monotonic() + 5
    late: list[Message] = []
    while not late and time.monotonic() < deadline:
        late = grid.pull_messages([slow.metadata.message_id])
    assert late[0].metadata.reply_to_message_id == slow.metadata.message_id


def test_one_node_handles_its_messages_one_at_a_time_and_in_order() -> None:
    """Two messages to one party never overlap, however many workers there are."""
    seen: list[str] = []

    def slowly(payload: Payload) -> Payload:
        seen.append(f"in {payload.data['n']}")
        time.sleep(0.02)
        seen.append(f"out {payload.data['n']}")
        return payload

    grid = LocalGrid({OEM: client_app(slowly)}, workers=4)
    node = grid_nodes(grid)[OEM]
    grid.send_and_receive([question(node, Payload({"n": n})) for n in range(3)])
    assert seen == [f"{word} {n}" for n in range(3) for word in ("in", "out")]


def test_a_disconnected_node_answers_with_an_error_and_is_not_listed() -> None:
    """A stopped machine looks as with a real SuperLink: not among the nodes, and unavailable."""
    grid = LocalGrid({OEM: client_app(echo), INSURER: client_app(echo)})
    node = grid_nodes(grid)[OEM]
    grid.disconnect(OEM)
    assert set(grid_nodes(grid)) == {INSURER}
    (reply,) = grid.send_and_receive([question(node)])
    assert reply.has_error()
    grid.reconnect(OEM)
    assert grid.send_and_receive([question(node)])[0].has_content()


def test_a_node_that_stops_while_it_computes_never_answers() -> None:
    """The reply of a node that was lost in the middle is not used."""
    grid: LocalGrid

    def stop_then_answer(payload: Payload) -> Payload:
        grid.disconnect(OEM)
        return payload

    grid = LocalGrid({OEM: client_app(stop_then_answer)})
    (reply,) = grid.send_and_receive([question(grid_nodes(grid)[OEM])])
    assert reply.has_error()


class Denied(Exception):
    """What the gate of a test raises."""


def test_nothing_of_a_batch_leaves_when_the_gate_refuses_one_message() -> None:
    """The gate is asked for every message before the first is pushed."""
    reached: list[str] = []

    def note(payload: Payload) -> Payload:
        reached.append("here")
        return payload

    def gate(passage: Passage) -> None:
        if passage.party == INSURER:
            raise Denied

    inner = LocalGrid({OEM: client_app(note), INSURER: client_app(note)})
    grid = GatedGrid(inner, gate=gate)
    nodes = grid_nodes(grid)
    with pytest.raises(Denied):
        grid.send_and_receive([question(nodes[OEM]), question(nodes[INSURER])])
    assert reached == []
    assert inner.traffic[OEM].messages_sent == 0


def test_the_observer_hears_of_a_delivery_before_it_and_of_its_reply() -> None:
    """Both passages name party, type and content hash; the reply names the question's hash."""
    order: list[object] = []

    def note(payload: Payload) -> Payload:
        order.append("computed")
        return payload

    grid = GatedGrid(LocalGrid({OEM: client_app(note)}), observer=order.append)
    (reply,) = grid.send_and_receive([question(grid_nodes(grid)[OEM])])
    delivery, computed, answer = order
    assert computed == "computed"
    assert isinstance(delivery, Passage)
    assert isinstance(answer, Passage)
    assert (delivery.direction, delivery.party, delivery.message_type) == (
        "deliver",
        OEM,
        "query.ask",
    )
    assert (answer.direction, answer.party, answer.reply_to) == ("reply", OEM, delivery.message_id)
    assert answer.message_id == reply.metadata.message_id
    assert len(delivery.message_id) == 64
