"""The embedded runtime: Flower's Grid in one process, real ClientApps, real serialisation.

Guarantees: every message and every reply is deflated to Flower's object bytes and inflated again,
so that what works here works over a wire; a party handles one message at a time, in order, as a
SuperNode does; an application's error reaches the server as its type name only.
Does not promise: time-to-live is not enforced, and parties share one address space, so this is no
isolation.
LIMIT: Flower keeps the identity of a task in one place per process; one ``LocalGrid`` is used at a
time.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import traceback
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import MappingProxyType

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from convoy_coordinator.federation.flower.traffic import Traffic

_LOG = logging.getLogger(__name__)
_SERVER_NODE_ID = 1


def party_node_id(party: str) -> int:
    """Return the Flower node id of a party: stable here, and never the server's."""
    return int.from_bytes(hashlib.sha256(party.encode()).digest()[:7], "big") + 2


def wire_copy(message: Message) -> tuple[Message, int]:
    """Serialise a message to Flower's objects, inflate it again; return the copy and its bytes."""
    with no_object_id_recompute():
        message_id = message.object_id
        contents = {object_id: nested.deflate() for object_id, nested in get_all_nested_objects(message).items()}
    size_bytes = sum(map(len, contents.values()))
    copy: Message = inflate_object_from_contents(message_id, contents)
    copy.metadata.__dict__["_message_id"] = message_id
    return copy, size_bytes


@dataclass(frozen=True, slots=True)
class _Pending:
    message: Message
    future: Future[Message]


class LocalGrid(Grid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Flower's Grid over ClientApps in this process.

    Args:
        client_apps: the installed ClientApp of each party, by party id; a party's node name is its
            id.
        run_id: Flower's number of the run; any positive number.
        workers: how many parties compute at the same time.
    """

    def __init__(self, client_apps: Mapping[str, ClientApp], *, run_id: int = 1, workers: int = 2) -> None:
        self._apps = {party_node_id(party): app for party, app in client_apps.items()}
        self._names = {party_node_id(party): party for party in client_apps}
        self._lost: set[int] = set()
        self._seats = threading.BoundedSemaphore(workers)
        self._lanes = {
            node: ThreadPoolExecutor(1, thread_name_prefix=f"node {name}") for node, name in self._names.items()
        }
        self._waiting: dict[str, _Pending] = {}
        self._counting = threading.Lock()
        self._traffic = {party: Traffic() for party in client_apps}
        self.set_run(Run.create_empty(run_id))

    # What Flower asks of a Grid

    def set_run(self, run: Run) -> None:
        """Begin a run: a fresh Context for every party, and the identity of new messages."""
        self._run = run
        self._contexts = {
            node: Context(
                run_id=run.run_id,
                node_id=node,
                node_config={"party": name},
                state=RecordDict(),
                run_config={},
            )
            for node, name in self._names.items()
        }
        TaskIdentity.run_id = run.run_id
        TaskIdentity.node_id = _SERVER_NODE_ID
        TaskIdentity.task_id = run.run_id

    @property
    def run(self) -> Run:
        """Return the run this grid is in."""
        return Run(**vars(self._run))

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
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> list[NodeInfo]:
        """Return the connected nodes; ``name`` is the party id, as with registered SuperNodes."""
        return [
            NodeInfo(node_id=node, name=name, status="online")
            for node, name in self._names.items()
            if node not in self._lost
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand each message to its party's thread and return the message ids."""
        identifiers = []
        for message in messages:
            message.metadata.__dict__["_run_id"] = self._run.run_id
            with no_object_id_recompute():
                message.metadata.__dict__["_message_id"] = message.object_id
            self._waiting[message.metadata.message_id] = _Pending(message, self._submit(message))
            identifiers.append(message.metadata.message_id)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there, for the given questions."""
        known = [key for key in message_ids if key in self._waiting]
        ready = [key for key in known if self._waiting[key].future.done()]
        return [self._reply(self._waiting.pop(key)) for key in ready]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push the messages; return the replies that come within ``timeout`` seconds, as asked."""
        identifiers = self.push_messages(messages)
        wait([self._waiting[key].future for key in identifiers], timeout=timeout)
        return self.pull_messages(identifiers)

    # What Convoy adds

    @property
    def traffic(self) -> Mapping[str, Traffic]:
        """Return what was moved so far, by party; bytes are those of the serialised messages."""
        return MappingProxyType(self._traffic)

    def disconnect(self, party: str) -> None:
        """Make a party's node unreachable, as if its machine had stopped."""
        self._lost.add(party_node_id(party))

    def reconnect(self, party: str) -> None:
        """Make a party's node reachable again."""
        self._lost.discard(party_node_id(party))

    def close(self) -> None:
        """Stop the threads; replies that nobody fetched are dropped."""
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)
        self._waiting.clear()

    # Inside

    def _submit(self, message: Message) -> Future[Message]:
        node = message.metadata.dst_node_id
        if node in self._apps and node not in self._lost:
            return self._lanes[node].submit(self._deliver, node, message)
        absent: Future[Message] = Future()
        absent.set_result(_unreachable(message))
        return absent

    def _deliver(self, node: int, message: Message) -> Message:
        """Run in the party's own thread; what is raised stays in the Future for ``_reply``."""
        question, sent = wire_copy(message)
        with self._seats:
            answer = self._apps[node](question, self._contexts[node])
        if node in self._lost:  # stopped while it computed: its answer never left
            return _unreachable(message)
        reply, received = wire_copy(answer)
        with self._counting:
            self._traffic[self._names[node]].sent(sent)
            self._traffic[self._names[node]].received(received)
        return reply

    def _reply(self, pending: _Pending) -> Message:
        fault = pending.future.exception()
        if fault is None:
            return pending.future.result()
        party = self._names[pending.message.metadata.dst_node_id]
        last = traceback.extract_tb(fault.__traceback__)[-1]
        _LOG.error("%s: %s at %s:%s", party, type(fault).__name__, last.filename, last.lineno)
        reason = f"the application at the node failed ({type(fault).__name__})"
        return _error_reply(pending.message, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)


def _unreachable(message: Message) -> Message:
    return _error_reply(message, ErrorCode.NODE_UNAVAILABLE, "the node is not connected")


def _error_reply(message: Message, code: int, reason: str) -> Message:
    reply = Message(Error(code=code, reason=reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply
