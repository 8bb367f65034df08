"""A Grid that asks before each message leaves and tells of everything that passed.

Guarantees: the gate sees every message before anything is pushed, and one refusal stops the whole
push, so that nothing of a batch leaves; the observer is told of each delivery before it happens
(the audit write comes before the effect) and of each reply before the server reads it. The same
class wraps the embedded and the deployed runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.run import Run

from convoy_coordinator.federation.flower.traffic import content_bytes


@dataclass(frozen=True, slots=True)
class Passage:
    """One message that passes the server.

    ``message_id`` is Flower's content hash (SHA-256 over the message and its records): the node's
    own log names the same. ``error`` is Flower's error code, or None for a message with content.
    """

    direction: Literal["deliver", "reply"]
    party: str
    node_id: int
    message_type: str
    message_id: str
    reply_to: str
    group_id: str
    size_bytes: int
    error: int | None


Gate: TypeAlias = Callable[[Passage], None]
"""Raises to keep a message, and every other message pushed with it, from leaving."""

Observer: TypeAlias = Callable[[Passage], None]
"""Told of each passage; what it raises stops the push as well."""


class UnknownNodeError(LookupError):
    """A message is addressed to, or comes from, a node that is not in this federation."""


def grid_nodes(grid: Grid) -> dict[str, int]:
    """Return the Flower node id of every connected party, by party id.

    The name of a node is given by whoever registered its public key, never by the node itself.
    Nodes without a name are left out.
    """
    return {node.name: int(node.node_id) for node in grid.get_nodes() if node.name}


def _nothing(_: Passage) -> None:
    return


class GatedGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Another Grid behind a gate and an observer.

    Args:
        grid: the Grid that does the work.
        gate: called for every message of a push before the first one leaves.
        observer: called for every message just before the push, and for every reply.
    """

    def __init__(self, grid: Grid, *, gate: Gate = _nothing, observer: Observer = _nothing) -> None:
        self._grid = grid
        self._gate = gate
        self._observer = observer
        self._names: dict[int, str] = {}

    def set_run(self, run: Run) -> None:
        """Set the run of the inner grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Return the run of the inner grid."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message; Flower keeps this beside the constructor of ``Message``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the ids of the connected nodes."""
        return list(self._grid.get_node_ids())

    def get_nodes(self) -> list[NodeInfo]:
        """Return the connected nodes, and remember their names for the passages to come."""
        nodes = list(self._grid.get_nodes())
        self._names |= {int(node.node_id): node.name for node in nodes if node.name}
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Ask the gate, tell the observer, then push."""
        return list(self._grid.push_messages(self._cleared(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Pull what is there and tell the observer of it."""
        return self._noted(self._grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Ask the gate, tell the observer, exchange, tell the observer of the replies."""
        cleared = self._cleared(messages)
        return self._noted(self._grid.send_and_receive(cleared, timeout=timeout))

    def _cleared(self, messages: Iterable[Message]) -> list[Message]:
        batch = list(messages)
        passages = [self._passage("deliver", message) for message in batch]
        for passage in passages:
            self._gate(passage)
        for passage in passages:
            self._observer(passage)
        return batch

    def _noted(self, replies: Iterable[Message]) -> list[Message]:
        batch = list(replies)
        for reply in batch:
            self._observer(self._passage("reply", reply))
        return batch

    def _passage(self, direction: Literal["deliver", "reply"], message: Message) -> Passage:
        about = message.metadata
        node = int(about.dst_node_id if direction == "deliver" else about.src_node_id)
        message_id = about.message_id
        if direction == "deliver":
            with no_object_id_recompute():
                message_id = message.object_id
        return Passage(
            direction=direction,
            party=self._party(node),
            node_id=node,
            message_type=about.message_type,
            message_id=message_id,
            reply_to=about.reply_to_message_id,
            group_id=about.group_id,
            size_bytes=content_bytes(message),
            error=message.error.code if message.has_error() else None,
        )

    def _party(self, node: int) -> str:
        if node not in self._names:
            self.get_nodes()
        if node not in self._names:
            raise UnknownNodeError(f"no connected party has the Flower node {node}")
        return self._names[node]
