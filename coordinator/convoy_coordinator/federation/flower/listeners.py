"""Two doors to one SuperLink: fleet and health for partners, a token for control at home.

Flower serves fleet, control and runtime on one port, and its control API has no authentication of
its own: whoever reaches it can start runs and register nodes. ``Public`` answers 404 to everything
else before Flower sees it; ``Internal`` asks for the bearer token of the link's folder at the
control API. The runtime API is guarded by Flower itself (super-exec secret, then a token per task).
"""

from __future__ import annotations

import hmac
import json
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

PUBLIC_PREFIX: Final = "/v1/fleet/"
PUBLIC_PATHS: Final = frozenset({"/health"})
GUARDED_PREFIX: Final = "/v1/control/"
_CLOSED: Final = frozenset({"/docs", "/openapi.json"})


class Public:
    """The listener for partners: fleet and health, and nothing else exists."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass fleet and health on; answer 404 to the rest."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX):
            await self._app(scope, receive, send)
        else:
            await _answer(send, 404, "Not Found")


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


async def _answer(send: Send, status: int, detail: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": detail}).encode()})
