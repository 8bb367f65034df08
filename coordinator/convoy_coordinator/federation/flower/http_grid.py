"""Flower's Grid over a real SuperLink, without its fixed three-second sleeps.

Guarantees: every question ends in one reply, an error reply, or the deadline; an error reply names
the node that was asked (Flower's own error replies name the server); a message that the SuperLink
would not store is answered at once with an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import httpx
from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from convoy_coordinator.federation.flower.errors import LinkRefused
from convoy_coordinator.federation.flower.traffic import Traffic, content_bytes

POLL_S: Final = 0.05
"""Between two pulls that brought nothing; our SuperLink holds the second one."""

FIRST_BACKOFF_S: Final = 0.05


def quicken_pulls() -> None:
    """Retry an object that is still being uploaded after 50 ms instead of a second."""
    for function in (
        inflatable_utils.pull_objects,
        inflatable_utils.pull_and_inflate_object_from_tree,
    ):
        function.__kwdefaults__["initial_backoff"] = FIRST_BACKOFF_S


class PromptGrid(HttpGrid):  # type: ignore[misc]  # flwr is not followed by mypy
    """Flower's ``HttpGrid`` with prompt replies, and a count of what was moved by node id."""

    def __init__(self, address: str, ca_certificate: bytes, *, token: str) -> None:
        super().__init__(address, False, ca_certificate, token=token)
        self._traffic: dict[int, Traffic] = {}
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
        sizes = {message.metadata.dst_node_id: content_bytes(message) for message in batch}
        identifiers = list(self.push_messages(batch))
        replies: list[Message] = []
        open_questions: dict[str, Message] = {}
        for message, identifier in zip(batch, identifiers, strict=True):
            if identifier:
                node = message.metadata.dst_node_id
                self._traffic.setdefault(node, Traffic()).sent(sizes[node])
                open_questions[identifier] = message
            else:
                replies.append(_not_stored(message))
        while open_questions:
            for reply in self.pull_messages(set(open_questions)):
                question = open_questions.pop(reply.metadata.reply_to_message_id, None)
                if question is not None:
                    replies.append(self._attributed(reply, question))
            if not open_questions or (deadline is not None and time.monotonic() > deadline):
                break
            time.sleep(POLL_S)
        return replies

    def _attributed(self, reply: Message, question: Message) -> Message:
        node = question.metadata.dst_node_id
        if reply.metadata.src_node_id in (0, SUPERLINK_NODE_ID):
            reply.metadata.__dict__["_src_node_id"] = node
        self._traffic.setdefault(node, Traffic()).received(content_bytes(reply))
        return reply


def _is_final(error: Exception) -> bool:
    """Say whether the SuperLink withdrew the task: Flower would end the whole process here."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403)


def _not_stored(message: Message) -> Message:
    reason = "the SuperLink did not accept the message: its node is not in the federation now"
    reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply
