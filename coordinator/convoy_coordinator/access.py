"""Who may call what: two bearer tokens, compared in constant time.

Reading is open (the log and what it says are for everybody who is let in to the network). The
internal token belongs to the ServerApp process, the operator token to the person or program that
runs the coordinator. A party's signature on a contract needs no token: it proves itself.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from starlette.requests import Request

from convoy_coordinator.errors import Problem


def requires(token: str) -> Callable[[Request], None]:
    """Return the dependency that lets only callers with ``token`` pass."""
    expected = token.encode()

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise Problem("TOKEN_MISSING", f"{request.url.path} was asked without a bearer token")
        if not hmac.compare_digest(given.strip().encode(), expected):
            raise Problem("TOKEN_WRONG", f"{request.url.path} was asked with a wrong bearer token")

    return check
