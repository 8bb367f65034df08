"""Say whether the process lives and whether it can work.

``/livez`` answers as long as the process does. ``/readyz`` asks the database, its revision and
the log; it names what fails, never why in detail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from convoy_coordinator.errors import CoordinatorError

Check = Callable[[], None]
"""Raises if what it looks at does not work."""


def router(checks: Mapping[str, Check]) -> APIRouter:
    """Return ``/livez`` and ``/readyz``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez")
    def livez() -> dict[str, str]:
        """Answer that the process runs."""
        return {"status": "ok"}

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        """Answer 200 if every check passes, 503 if one does not."""
        results = {name: _passes(check) for name, check in checks.items()}
        ready = all(results.values())
        return JSONResponse(
            {
                "status": "ok" if ready else "failing",
                "checks": {name: "ok" if good else "failing" for name, good in results.items()},
            },
            status_code=200 if ready else 503,
        )

    return routes


def _passes(check: Check) -> bool:
    try:
        check()
    except (CoordinatorError, SQLAlchemyError, OSError):
        return False
    return True
