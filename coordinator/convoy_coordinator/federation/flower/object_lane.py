"""Serve the transfer of small objects without the web framework: most requests are of this kind.

A message is three objects and each travels by itself, so an exchange with six nodes is some ninety
requests for objects of a few hundred bytes. This lane reads the request, authenticates it and calls
Flower's handler, all with Flower's own functions, and leaves everything else - large objects,
refusals, whatever raises - to Flower's full application.

Guarantees: the same authentication and the same handlers as Flower's routes; any doubt goes the
long way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, HTTPException
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.error import FlowerError
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SMALL_BYTES: Final = 65_536
"""Larger bodies are hashed in a worker thread, by Flower's full application."""


@dataclass(frozen=True, slots=True)
class _Route:
    request: Callable[[], Any]
    answer: Callable[[Request, Any, Any], Any]


def _fleet(handler: Callable[..., Any], with_store: bool = False) -> Callable[..., Any]:
    def answer(http: Request, question: Any, state: Any) -> Any:
        http.state.protobuf_request = question
        authenticate_node(http)
        return handler(question, state, state.object_store) if with_store else handler(question, state)

    return answer


def _runtime(handler: Callable[..., Any]) -> Callable[..., Any]:
    def answer(http: Request, question: Any, state: Any) -> Any:
        task = authenticate_task(http, http.headers.get(TASK_TOKEN_HEADER), state)
        return handler(question, state, task)

    return answer


_ROUTES: Final[Mapping[str, _Route]] = {
    "/v1/fleet/pull-object": _Route(PullObjectRequest, _fleet(fleet_handlers.pull_object)),
    "/v1/fleet/push-object": _Route(PushObjectRequest, _fleet(fleet_handlers.push_object)),
    "/v1/fleet/confirm-message-received": _Route(
        ConfirmMessageReceivedRequest,
        _fleet(fleet_handlers.confirm_message_received, with_store=True),
    ),
    "/v1/runtime/pull-object": _Route(PullObjectRequest, _runtime(runtime_handlers.pull_object)),
    "/v1/runtime/push-object": _Route(PushObjectRequest, _runtime(runtime_handlers.push_object)),
    "/v1/runtime/confirm-message-received": _Route(
        ConfirmMessageReceivedRequest, _runtime(runtime_handlers.confirm_message_received)
    ),
}


class ObjectLane:
    """An ASGI application that answers small object requests itself and passes on the rest.

    Args:
        app: where the rest goes.
        flower: Flower's application, for its state.
    """

    def __init__(self, app: ASGIApp, flower: FastAPI) -> None:
        self._app = app
        self._flower = flower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a small object request, or pass it on as it came."""
        route = _ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or not _is_small(scope):
            await self._app(scope, receive, send)
            return
        body = await read_body(receive)
        answer = self._answer(route, scope, body)
        if answer is None:
            await self._app(scope, _again(body, receive), send)
            return
        headers = [
            (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _answer(self, route: _Route, scope: Scope, body: bytes) -> bytes | None:
        http = Request({**scope, "app": self._flower, "state": {}})
        question = route.request()
        try:
            question.ParseFromString(body)
            state = self._flower.state.linkstate_factory.state()
            return bytes(route.answer(http, question, state).SerializeToString())
        except (DecodeError, FlowerError, HTTPException):
            return None  # Flower's application says no in its own words


def _is_small(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    is_protobuf = headers.get(b"content-type", b"") == PROTOBUF_MEDIA_TYPE.encode()
    return is_protobuf and length.isdigit() and int(length) <= SMALL_BYTES


async def read_body(receive: Receive) -> bytes:
    """Read the whole body of a request."""
    body = bytearray()
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay
