"""Two doors to one SuperLink: fleet and health for partners, a token for control at home.

Flower serves fleet, control and runtime on one port, and its control API has no authentication of its own: whoever reaches it can
start runs and register nodes. ``Public`` answers 404 to everything else before Flower sees it, and turns away bodies that are too
long or too slow (``door_limits``); ``Internal`` asks for the bearer token of the link's folder at the control API. The runtime API
is guarded by Flower itself (super-exec secret, then a token per task).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy_coordinator.federation.flower.door_limits import Limits, Turned, TurnedAway, read_whole

PUBLIC_PREFIX: Final = "/v1/fleet/"
PUBLIC_PATHS: Final = frozenset({"/health"})
GUARDED_PREFIX: Final = "/v1/control/"
_CLOSED: Final = frozenset({"/docs", "/openapi.json"})


def nobody(_: Scope) -> bool:
    """No node is registered."""
    return False


class Public:
    """The listener for partners: fleet and health, and nothing else exists.

    Args:
        app: where they go, each with its whole body.
        is_known: tells whether a request is signed by a registered node.
        limits: of everybody else, and of nodes.
        turned: logs who is turned away.
    """

    def __init__(
        self,
        app: ASGIApp,
        is_known: Callable[[Scope], bool] = nobody,
        limits: Limits | None = None,
        turned: Turned | None = None,
    ) -> None:
        self._app = app
        self._is_known = is_known
        self._limits = limits or Limits()
        self._turned = turned or Turned()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass fleet and health on; answer 404 to the rest, 413 or 408 to what is too long or too slow."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path not in PUBLIC_PATHS and not path.startswith(PUBLIC_PREFIX):
            await _answer(send, 404, "Not Found")
            return
        try:
            body = await read_whole(scope, receive, self._limits, self._is_known)
        except TurnedAway as refusal:
            self._turned.note(refusal.reason, (scope.get("client") or ("",))[0])
            await _answer(send, refusal.status, refusal.reason, (b"connection", b"close"))
            return
        await self._app(scope, replayed(body, receive), send)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives a body which was read already, and then what comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


class Internal:
    """The listener on the loopback: everything, with a token at the control API."""

    def __init__(self, app: ASGIApp, control_token: str) -> None:
        self._app = app
        self._expected = f"Bearer {control_token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a control request without the token; pass the rest on."""
        if scope["type"] == "http":
            path = scope["path"]
            if path in _CLOSED:
                await _answer(send, 404, "Not Found")
                return
            if path.startswith(GUARDED_PREFIX) and not self._has_token(scope):
                await _answer(send, 401, "The control API needs the token of the link's folder")
                return
        await self._app(scope, receive, send)

    def _has_token(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _answer(send: Send, status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", b"application/json"), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})
