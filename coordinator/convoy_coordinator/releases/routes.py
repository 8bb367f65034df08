"""HTTP of the releases: list and download them; the ServerApp process uploads."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field, StringConstraints
from starlette.responses import FileResponse

from convoy_coordinator.body import Input, body, described
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.parties.routes import instant_json
from convoy_coordinator.releases.service import MANIFEST, Bundle, ReleaseService
from convoy_coordinator.releases.store import Release


class NewRelease(Input):
    """The body of an upload: files in base64, ``manifest.json`` among them or apart as
    ``manifest``.
    """

    run: Annotated[str, StringConstraints(min_length=1, max_length=80)]
    files: dict[str, str] = Field(min_length=1)
    manifest: str | None = None
    summary: dict[str, Any] | None = None

    def bundle(self) -> Bundle:
        """Decode every file; all that cannot be decoded are named at once."""
        texts = dict(self.files)
        if self.manifest is not None:
            texts[MANIFEST] = self.manifest
        files, faults = {}, []
        for name, text in texts.items():
            try:
                files[name] = b64decode(text, validate=True)
            except (Base64Error, ValueError):
                faults.append(Fault(f"/files/{name[:128]}", "is not base64"))
        if faults:
            raise Problem("RELEASE_MALFORMED", f"{len(faults)} file(s) are not base64", faults=faults)
        return Bundle(run=self.run, files=files, summary=self.summary)


class NewSummary(Input):
    """Figures of a release: ``joint`` and ``alone`` by measure, or ``hr10`` and ``popularity``."""

    summary: dict[str, Any]


def release_json(release: Release) -> dict[str, Any]:
    """Return a release as the API shows it."""
    return {
        "run": release.run,
        "manifestDigest": release.manifest_digest,
        "files": release.files,
        "summary": release.summary,
        "publishedAt": instant_json(release.published_at),
        "logIndex": release.log_index,
    }


def router(service: ReleaseService) -> APIRouter:
    """Return the routes under ``/v1/releases``."""
    routes = APIRouter(prefix="/v1/releases", tags=["releases"])

    @routes.get("")
    def list_releases() -> dict[str, Any]:
        """List every release, newest first."""
        return {"releases": [release_json(release) for release in service.all()]}

    @routes.get("/{uid}")
    def show(uid: str) -> dict[str, Any]:
        """Show a release with its files and their digests."""
        return release_json(service.get(uid))

    @routes.get("/{uid}/{name}", response_class=FileResponse)
    def download(uid: str, name: str) -> FileResponse:
        """Download one file of a release."""
        path = service.for_download(uid, name)
        return FileResponse(path, filename=name, media_type="application/octet-stream")

    return routes


def internal_router(service: ReleaseService) -> APIRouter:
    """Return the routes under ``/internal/releases``; the caller guards them with the internal
    token.
    """
    routes = APIRouter(prefix="/internal/releases", tags=["internal"])

    @routes.post("", status_code=201, openapi_extra=described(NewRelease))
    def publish(new: Annotated[NewRelease, Depends(body(NewRelease))]) -> dict[str, Any]:
        """Publish a bundle: its manifest is logged and signed first."""
        release, path = service.publish(new.bundle())
        return release_json(release) | {"path": str(path)}

    @routes.post("/{uid}/summary", openapi_extra=described(NewSummary))
    def add_summary(uid: str, new: Annotated[NewSummary, Depends(body(NewSummary))]) -> dict[str, Any]:
        """Add figures that were measured after the release."""
        return release_json(service.add_summary(uid, new.summary))

    return routes
