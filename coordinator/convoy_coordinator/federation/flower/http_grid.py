"""Flower's Grid over a real SuperLink, without its fixed three-second sleeps.

Guarantees: every question ends in one reply, an error reply, or the deadline; an error reply names
the node that was asked (Flower's own name the server); a message that the SuperLink would not
store, and one whose node was lost or restarted before it answered, are answered with an error at
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

import httpx
from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from convoy_coordinator.federation.flower.errors import LinkRefused
from convoy_coordinator.federation.flower.traffic import Traffic, content_bytes

POLL_S: Final = 0.05
"""Between two pulls that brought nothing; our SuperLink holds the second one."""

LOOK_S: Final = 2.0
"""While replies are missing, looks so often whether the nodes are still those that were asked."""

FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 1.0
"""Times 500 tries: longer than the 180 s for which Flower keeps an unfinished upload."""


def quicken_pulls() -> None:
    """Retry an object that is still being uploaded after 50 ms, then up to every second."""
    for function in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        function.__kwdefaults__["initial_backoff"] = FIRST_BACKOFF_S
        function.__kwdefaults__["backoff_cap"] = LAST_BACKOFF_S


class SessionWatch:
    """Says which of the nodes that were asked have lost the question since.

    Flower hands a message out once. A node that was restarted never heard of it, and Flower itself
    answers only for nodes that are away, not for those that came back.

    Args:
        sessions: returns the connected nodes and when each was let in; called now, and at most every
            ``look_s`` from then on.
    """

    def __init__(self, sessions: Callable[[], Mapping[int, str]], look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self.asked: set[int] = set()
        self._sessions = sessions
        self._before = sessions()
        self._now = self._before
        self._looked_at = time.monotonic()

    def lost(self) -> set[int]:
        """Return the nodes that were asked, have not answered, and are gone or restarted."""
        if time.monotonic() - self._looked_at > self._look_s:
            self._now = self._sessions()
            self._looked_at = time.monotonic()
        return {
            node
            for node in self.asked
            if node not in self._now or self._now[node] != self._before.get(node, self._now[node])
        }


class PromptGrid(HttpGrid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Flower's ``HttpGrid`` with prompt replies, and a count of what was moved by node id."""

    def __init__(self, address: str, ca_certificate: bytes, *, token: str) -> None:
        super().__init__(address, False, ca_certificate, token=token)
        self._traffic: dict[int, Traffic] = {}
        self._watch: SessionWatch | None = None
        patient = self._retry_invoker.should_giveup
        self._retry_invoker.should_giveup = lambda error: _is_final(error) or patient(error)

    @property
    def client(self) -> RuntimeHttpClient:
        """Return the client of the runtime API, with this task's token."""
        return self._runtime_client

    def give_up_at_once(self) -> None:
        """Retry nothing from now on: the task ends."""
        self._retry_invoker.max_tries = 1

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """Return what was moved so far; bytes are those of the contents."""
        return MappingProxyType(self._traffic)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push the messages and return the replies that come within ``timeout`` seconds.

        Raises:
            LinkRefused: the run was stopped.
        """
        try:
            return self._exchange(messages, timeout)
        except httpx.HTTPStatusError as error:
            raise LinkRefused(
                f"the SuperLink withdrew the run (HTTP {error.response.status_code})",
                fix="It was stopped, or gave no sign of life for 30 s; start a new run.",
            ) from error

    def _exchange(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        batch = list(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        watch = SessionWatch(self._sessions)
        self._watch = watch
        identifiers = list(self.push_messages(batch))
        replies: list[Message] = []
        waiting: dict[str, Message] = {}
        for message, identifier in zip(batch, identifiers, strict=True):
            if identifier:
                waiting[identifier] = message
                watch.asked.add(message.metadata.dst_node_id)
                self._of(message).sent(content_bytes(message))
            else:
                replies.append(_unavailable(message, "its node is not in the federation now"))
        while waiting:
            for reply in self.pull_messages(set(waiting)):
                question = waiting.pop(reply.metadata.reply_to_message_id, None)
                if question is not None:
                    watch.asked.discard(question.metadata.dst_node_id)
                    replies.append(self._attributed(reply, question))
            if not waiting or (deadline is not None and time.monotonic() > deadline):
                break
            for identifier, question in list(waiting.items()):
                if question.metadata.dst_node_id in watch.lost():
                    del waiting[identifier]
                    replies.append(_unavailable(question, "its node was lost or restarted"))
            time.sleep(POLL_S)
        return replies

    def _connect(self) -> None:
        super()._connect()
        pull = self._client.PullObject

        def pull_unless_lost(request: PullObjectRequest) -> PullObjectResponse:
            """Stop waiting for an object whose node ended in the middle of its upload."""
            response: PullObjectResponse = pull(request)
            if not response.object_available and self._watch and self._watch.lost():
                raise ObjectPullError(request.object_id, "its node was lost or restarted")
            return response

        self._client.PullObject = pull_unless_lost

    def _sessions(self) -> dict[int, str]:
        """Return when each connected node was let in: a new time is a new session."""
        return {int(node.node_id): node.last_activated_at for node in self.get_nodes()}

    def _of(self, message: Message) -> Traffic:
        return self._traffic.setdefault(message.metadata.dst_node_id, Traffic())

    def _attributed(self, reply: Message, question: Message) -> Message:
        if reply.metadata.src_node_id in (0, SUPERLINK_NODE_ID):
            reply.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
        self._of(question).received(content_bytes(reply))
        return reply


def _is_final(error: Exception) -> bool:
    """Say whether the SuperLink withdrew the task: Flower would end the whole process here."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403)


def _unavailable(message: Message, reason: str) -> Message:
    reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply
