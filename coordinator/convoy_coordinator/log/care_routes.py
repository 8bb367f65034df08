"""HTTP for the log's care, for the operator only.

POST /v1/log/archive        {"folder", "size", "first", "sealed", "archive", "removable"}: archives what is sealed
POST /v1/log/timestamp      {"size", "at", "serial", "file"}: has the last witnessed checkpoint stamped (RFC 3161)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

from convoy_coordinator.log.retention import RetentionJob
from convoy_coordinator.log.stamps import StampJob


def router(job: RetentionJob, stamping: StampJob, operator: Callable[[Request], None]) -> APIRouter:
    """Return the routes; ``operator`` lets only the operator pass."""
    routes = APIRouter(prefix="/v1/log", tags=["log"], dependencies=[Depends(operator)])

    @routes.post("/archive")
    def archive() -> dict[str, Any]:
        """Archive sealed tiles and bundles; deletes nothing."""
        return job.once()

    @routes.post("/timestamp")
    def timestamp() -> dict[str, Any]:
        """Have the last witnessed checkpoint stamped by the time-stamping authority."""
        return stamping.once()

    return routes
