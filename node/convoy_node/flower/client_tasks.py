"""Take tasks from the SuperNode and answer them with the partner's installed ClientApp.

Guarantees: the application is built once, here, from what is installed; a bundle's code is never
looked at; what the application raises leaves as the name of its type, the place of the error goes
to this node's log, its text goes nowhere. The application lives in one thread of its own, so that
it may hold resources that belong to a thread.
"""

from __future__ import annotations

import logging
import os
import select
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
from flwr.app import Context, Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto, message_to_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from convoy_node.flower.errors import WorkerEnded
from convoy_node.flower.private_files import read_private

_LOG = logging.getLogger(__name__)
_HEARTBEAT_S: Final = 8.0
"""A task's token lapses 30 s after its last heartbeat."""
_LOOK_S: Final = 2.0
"""Looks for a task so often even if nobody rings."""
_PULL_S: Final = 180.0
_BACKOFF_S: Final = 0.05
_NO_TASK: Final = ""


class ClientTasks:
    """The ClientApp tasks of one SuperNode.

    Args:
        home: the node's folder; ``flower/runtime.key`` in it lets this worker take tasks.
        factory: builds the ClientApp; called once with ``home``, in the application's thread.
        runtime: ``host:port`` of the SuperNode's runtime API on the loopback.

    Raises:
        WorkerEnded: the application could not be built.
    """

    def __init__(self, home: Path, factory: Callable[[Path], Any], runtime: str) -> None:
        self._token = _TaskToken()
        secret = SuperExecAuthHttpInterceptor(
            master_secret=read_private(home / "flower" / "runtime.key"),
            protected_methods={"/flwr.proto.Runtime/AcquireTask"},
        )
        self._client = RuntimeHttpClient.from_server_address(
            runtime,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
                secret,
                self._token,
            ],
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ClientApp")
        built = self._thread.submit(factory, home)
        fault = built.exception()
        if fault is not None:
            raise WorkerEnded(
                f"the application could not be built ({describe(fault)}).",
                fix="Mend the node's folder: convoy-node doctor names what is wrong.",
            ) from fault
        self._app = built.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def work_until_line_ends(self, line: int) -> None:
        """Answer tasks whenever a byte arrives on ``line``; return when it is closed.

        Raises:
            WorkerEnded: the SuperNode's runtime API does not answer.
        """
        while True:
            rung, _, _ = select.select([line], [], [], _LOOK_S)
            if rung and not os.read(line, 4096):
                return
            try:
                if token := self._acquire():
                    self._answer(token)
            except (httpx.HTTPStatusError, ObjectPushError, ObjectPullError) as error:
                # The run was stopped, or the SuperNode has given the task up meanwhile.
                _LOG.warning("a task was withdrawn (%s)", type(error).__name__)
            except httpx.TransportError as error:
                raise WorkerEnded(
                    f"the SuperNode does not answer ({type(error).__name__}).",
                    fix="Nothing: the SuperNode starts another worker.",
                ) from error

    def _acquire(self) -> str:
        self._token.value = _NO_TASK
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        return str(self._client.AcquireTask(request).token)

    def _answer(self, token: str) -> None:
        self._token.value = token
        task = self._client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id = task.task_id
        TaskIdentity.run_id = task.run.run_id
        TaskIdentity.node_id = task.context.node_id
        context = context_from_proto(task.context)
        message = self._pull(context)
        call = self._thread.submit(self._app, message, context)
        while not wait([call], timeout=_HEARTBEAT_S).done:
            self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        reply, outcome, details = _reply(call, message)
        self._push(reply, context)
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=details))

    def _pull(self, context: Context) -> Message:
        (tree,) = self._client.PullMessages(PullAppMessagesRequest()).message_object_trees
        node = Node(node_id=context.node_id)
        message: Message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(self._client.PullObject, node, context.run_id),
            make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, node, context.run_id),
            return_type=Message,
            max_time=_PULL_S,
            initial_backoff=_BACKOFF_S,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def _push(self, reply: Message, context: Context) -> None:
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            tree = get_object_tree(reply)
            objects = get_all_nested_objects(reply)
            head = message_to_proto(remove_content_from_message(reply))
            pushed = self._client.PushMessages(
                PushAppMessagesRequest(messages_list=[head], message_object_trees=[tree])
            )
            push_objects(
                objects,
                make_push_object_fn_protobuf(
                    self._client.PushObject,
                    Node(node_id=context.node_id),
                    run_id=context.run_id,
                    session_id=pushed.session_id,
                ),
                object_ids_to_push=set(pushed.objects_to_push),
            )


def describe(fault: BaseException) -> str:
    """Say what kind of error it was and where, without its text: that may hold a row's value."""
    frames = traceback.extract_tb(fault.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(fault).__name__}{where}"


class _TaskToken:
    """Adds the token of the current task, if there is one, to each request."""

    def __init__(self) -> None:
        self.value = _NO_TASK

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        if self.value:
            context.request.headers[TASK_TOKEN_HEADER] = self.value
        return call_next(context)


def _reply(call: Future[Message], message: Message) -> tuple[Message, str, str]:
    fault = call.exception()
    if fault is None:
        answer = call.result()
        if isinstance(answer, Message):
            return answer, SubStatus.COMPLETED, ""
        fault = TypeError("the application did not return a Message")
    name = type(fault).__name__
    _LOG.error("the application failed: %s", describe(fault))
    reason = f"the application at the node failed ({name})"
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
    return Message(error, reply_to=message), SubStatus.FAILED, name
