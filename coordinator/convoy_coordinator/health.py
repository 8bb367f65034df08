"""Say whether the process lives and whether it can work.

``/livez`` answers as long as the process does. ``/readyz`` asks the database, its revision and
the log; it names what fails, never why in detail.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse

from convoy_contracts.operations.health import ALIVE, Check, standing
from convoy_coordinator.errors import CoordinatorError

FAILURES = (CoordinatorError, SQLAlchemyError, OSError)


def router(checks: Mapping[str, Check]) -> APIRouter:
    """Return ``/livez`` and ``/readyz``."""
    routes = APIRouter(tags=["health"])

    @routes.get("/livez")
    def livez() -> dict[str, str]:
        """Answer that the process runs."""
        return dict(ALIVE)

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        """Answer 200 if every check passes, 503 if one does not."""
        body, status = standing(checks, FAILURES)
        return JSONResponse(body, status_code=status)

    return routes
