"""Serve each path with the middleware that acts on it, and no more.

Flower puts nine layers around every request; most of them look at the path and pass it on, at some
0.3 ms each.

Guarantees: only layers that are listed here by name are left out, and only where they do nothing; a
layer that Flower adds or renames stays. Node authentication and the event log are never left out of
a fleet path.
"""

from __future__ import annotations

import copy
from collections.abc import Set as AbstractSet
from typing import Final

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

CONTROL_ONLY: Final = frozenset(
    {
        "ControlSensitiveResponseMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "ControlEventLogMiddleware",
    }
)
"""Each of them passes on at once what is not under ``/v1/control/``."""
TRACING: Final = frozenset({"RuntimeTracingMiddleware"})
"""In Flower 1.41; 1.42 has no such layer."""
FLEET_ONLY: Final = frozenset({"NodeAuthMiddleware", "FleetEventLogMiddleware"})
"""Each of them passes on at once what is not under ``/v1/fleet/``."""


class LeanPaths:
    """Flower's application with a middleware stack for each kind of path.

    Args:
        app: Flower's application; its routes and state are shared by all stacks.
    """

    def __init__(self, app: FastAPI) -> None:
        self._all = app
        self._runtime = _without(app, CONTROL_ONLY | TRACING | FLEET_ONLY)
        self._fleet = _without(app, CONTROL_ONLY | TRACING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the stack of its path."""
        await self._stack(scope)(scope, receive, send)

    def _stack(self, scope: Scope) -> FastAPI:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.startswith("/v1/runtime/"):
            return self._runtime
        if path.startswith("/v1/fleet/"):
            return self._fleet
        return self._all


def _without(app: FastAPI, names: AbstractSet[str]) -> FastAPI:
    lean = copy.copy(app)
    lean.user_middleware = [layer for layer in app.user_middleware if getattr(layer.cls, "__name__", "") not in names]
    lean.middleware_stack = None
    return lean
