"""HTTP of the evidence pack: one download, open to everybody who may read the log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from convoy_coordinator.evidence.service import EvidenceService


def router(service: EvidenceService) -> APIRouter:
    """Return the route ``/v1/evidence.zip``."""
    routes = APIRouter(prefix="/v1", tags=["evidence"])

    @routes.get("/evidence.zip", response_class=FileResponse)
    def download() -> FileResponse:
        """Download the evidence pack under the latest checkpoint; check it with convoy-audit."""
        folder = Path(tempfile.mkdtemp(prefix="convoy-evidence-"))
        try:
            path = service.write(folder / "evidence.zip")
        except BaseException:
            shutil.rmtree(folder)
            raise
        return FileResponse(
            path,
            filename="evidence.zip",
            media_type="application/zip",
            background=BackgroundTask(shutil.rmtree, folder),
        )

    return routes
