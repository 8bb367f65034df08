"""Stand between the SuperLink and Flower's client loop: policy, record, prompt polling, patience.

Flower's loop opens its connection through one function and receives a tuple of eight callables.
``guarded`` wraps that function, so that nothing reaches the loop (and the application behind it)
that the partner's policy does not accept.

Guarantees: a message of another type, or of a run whose bundle is not approved, is answered with an
error and never handed on; the bundle's bytes are checked against the approved hash; each passage is
recorded first.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import Run, RunNotRunningException

from convoy_node.flower.errors import ActivationRefused
from convoy_node.flower.passages import PassageLog
from convoy_node.flower.policy import Policy

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_RUNS_KEPT: Final = 64


class RunStopped(Exception):
    """The run of a message was stopped before the message had arrived."""


class Fleet(NamedTuple):
    """The eight callables that Flower's connection yields, in its order."""

    node_id: int
    receive: Callable[[], tuple[Message, Any] | None]
    send: Callable[[Message, Any, float], tuple[set[str], str]]
    get_run: Callable[[int], Run]
    get_fab: Callable[[str, int], Fab]
    pull_object: Callable[[int, str], bytes]
    push_object: Callable[[int, str, str, bytes], None]
    confirm: Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How a node waits.

    ``poll_s``: least time between two polls that brought nothing. ``backoff_s``: after a refused
    activation, in turn, the last one repeated; a killed node is refused until its old session
    lapses, half a minute. ``give_up_s``: end after being refused for so long; None waits for ever.
    """

    poll_s: float = 0.1
    backoff_s: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0)
    give_up_s: float | None = None


@dataclass(slots=True)
class Guard:
    """One node's side of the connection."""

    policy: Policy
    record: PassageLog
    patience: Patience
    on_delivered: Callable[[], None]
    _runs: OrderedDict[int, tuple[Run, Fab]] = field(default_factory=OrderedDict)

    def wrap(
        self, connect: Callable[..., AbstractContextManager[tuple[Any, ...]]]
    ) -> Callable[..., AbstractContextManager[Fleet]]:
        """Return Flower's connection function behind this guard."""

        @contextmanager
        def guarded(*args: Any, **named: Any) -> Iterator[Fleet]:
            with self._activated(lambda: connect(*args, **named)) as fleet:
                _LOG.info("connected as Flower node %s", fleet.node_id)
                yield fleet._replace(
                    receive=lambda: self._receive(fleet),
                    send=lambda message, tree, runtime_s: self._send(fleet, message, tree, runtime_s),
                    get_run=lambda run_id: self._run(fleet, run_id)[0],
                    get_fab=lambda _, run_id: self._run(fleet, run_id)[1],
                    pull_object=lambda run_id, object_id: _ending_plainly(lambda: fleet.pull_object(run_id, object_id)),
                    confirm=lambda run_id, message_id: self._confirm(fleet, run_id, message_id),
                )

        return guarded

    @contextmanager
    def _activated(self, connect: Callable[[], AbstractContextManager[tuple[Any, ...]]]) -> Iterator[Fleet]:
        started, attempt = time.monotonic(), 0
        while True:
            with ExitStack() as stack:
                try:
                    fleet = Fleet(*stack.enter_context(connect()))
                except ActivationRefused as refusal:
                    waited = time.monotonic() - started
                    limit = self.patience.give_up_s
                    if limit is not None and waited >= limit:
                        raise
                    _LOG.warning("%s (after %.0f s)", refusal, waited)
                else:
                    yield fleet
                    return
            backoff = self.patience.backoff_s
            time.sleep(backoff[min(attempt, len(backoff) - 1)])
            attempt += 1

    def _receive(self, fleet: Fleet) -> tuple[Message, Any] | None:
        asked = time.monotonic()
        received = fleet.receive()
        if received is None:
            # Our SuperLink holds the request until there is something; a stock one answers at once.
            time.sleep(max(0.0, self.patience.poll_s - (time.monotonic() - asked)))
            return None
        message, _ = received
        about = message.metadata
        refusal = self._refusal(fleet, about)
        if refusal is None:
            self.record.write("received", about, sender=str(about.src_node_id))
            return received
        self.record.write("refused", about, reason=refusal)
        self._refuse(fleet, message, refusal)
        return None

    def _refusal(self, fleet: Fleet, about: Any) -> str | None:
        run, bundle = self._run(fleet, about.run_id)
        if hashlib.sha256(bundle.content).hexdigest() != run.fab_hash:
            return "policy: the app bundle does not have the hash of its run"
        return self.policy.refusal(about.message_type, run.fab_hash)

    def _run(self, fleet: Fleet, run_id: int) -> tuple[Run, Fab]:
        """Return a run and its bundle; asked once, because neither ever changes."""
        if run_id not in self._runs:
            run = fleet.get_run(run_id)
            self._runs[run_id] = (run, fleet.get_fab(run.fab_hash, run_id))
            while len(self._runs) > _RUNS_KEPT:
                self._runs.popitem(last=False)
        return self._runs[run_id]

    def _refuse(self, fleet: Fleet, message: Message, reason: str) -> None:
        """Answer with an error. The message is not confirmed: its objects may still be on their way
        to the SuperLink, and confirming would end that upload, and with it the whole push."""
        reply = Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)
        run_id = reply.metadata.run_id
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            missing, session = fleet.send(reply, get_object_tree(reply), 0.0)
            for object_id, nested in get_all_nested_objects(reply).items():
                if object_id in missing:
                    fleet.push_object(run_id, session, object_id, nested.deflate())

    def _send(self, fleet: Fleet, message: Message, tree: Any, runtime_s: float) -> tuple[set[str], str]:
        self.record.write("answered", message.metadata, error=message.has_error(), seconds=round(runtime_s, 3))
        return fleet.send(message, tree, runtime_s)

    def _confirm(self, fleet: Fleet, run_id: int, message_id: str) -> None:
        """Confirm a message whose objects have all arrived, and wake the worker for it."""
        _ending_plainly(lambda: fleet.confirm(run_id, message_id))
        self.on_delivered()


def _ending_plainly(step: Callable[[], _T]) -> _T:
    """Take one step of receiving a message; a run that was stopped meanwhile is a plain failure.

    Flower's loop forgets a half-received message after an ordinary error only. After its own
    ``RunNotRunningException`` the message and its task would stay, and keep the worker waiting.
    """
    try:
        return step()
    except RunNotRunningException as stopped:
        raise RunStopped from stopped
