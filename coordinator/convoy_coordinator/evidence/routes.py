"""HTTP of the evidence: downloads, open to everybody who may read the log.

GET /v1/evidence.zip                                   the whole log under the last cosigned checkpoint
GET /v1/evidence.zip?contract&party&run&model&since&until&reason&kind      chosen entries, each with its proof
GET /v1/evidence.zip?sample=N&seed=S                   a random sample; the seed is in the pack
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from convoy_audit.errors import AuditError
from convoy_coordinator.errors import Problem
from convoy_coordinator.evidence.selection import MAX_ENTRIES, write_selection
from convoy_coordinator.evidence.service import EvidenceService
from convoy_coordinator.journal import Clock
from convoy_coordinator.log import LogService
from convoy_coordinator.log.question_routes import Seed, Text, read_filter
from convoy_coordinator.log.questions import Questions


def router(service: EvidenceService, log: LogService, questions: Questions, clock: Clock) -> APIRouter:
    """Return the route ``/v1/evidence.zip``."""
    routes = APIRouter(prefix="/v1", tags=["evidence"])

    @routes.get("/evidence.zip", response_class=FileResponse)
    def download(
        contract: Text = None,
        party: Text = None,
        run: Text = None,
        model: Text = None,
        since: Text = None,
        until: Text = None,
        reason: Text = None,
        kind: Text = None,
        sample: Annotated[int | None, Query(ge=1, le=MAX_ENTRIES)] = None,
        seed: Seed = None,
    ) -> FileResponse:
        """Download evidence under the last cosigned checkpoint; check it with convoy-audit."""
        given = {"contract": contract, "party": party, "run": run, "model": model}
        given |= {"since": since, "until": until, "reason": reason, "kind": kind}
        if sample is None and not any(given.values()):
            return _file(service.write, "evidence.zip")
        if sample is not None:
            asked: dict[str, object] = {"sample": sample, "seed": seed or secrets.token_hex(8)}
            indices = _refused(lambda: questions.sample(min(sample, questions.sample_size()), str(asked["seed"])))
        else:
            asked = dict(given)
            fitting = read_filter(contract, party, run, model, since, until, reason, kind)
            indices = _refused(lambda: [hit.index for hit in questions.search(fitting, 0, MAX_ENTRIES + 1)[0]])
        return _file(lambda path: write_selection(path, log, indices, asked, clock()), "evidence-selection.zip")

    return routes


def _refused(answer: Callable[[], list[int]]) -> list[int]:
    try:
        return answer()
    except AuditError as error:
        raise Problem("LOG_REFUSED", error.cause, party=error.party) from None


def _file(write: Callable[[Path], Path], name: str) -> FileResponse:
    folder = Path(tempfile.mkdtemp(prefix="convoy-evidence-"))
    try:
        path = write(folder / name)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return FileResponse(
        path, filename=name, media_type="application/zip", background=BackgroundTask(shutil.rmtree, folder)
    )
