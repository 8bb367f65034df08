"""HTTP of the runs: ask for one (operator only), watch it; and what the ServerApp process says
about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from convoy_coordinator.body import Input, body, described
from convoy_coordinator.contracts.routes import contract_json
from convoy_coordinator.contracts.service import ContractView
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.parties.routes import instant_json
from convoy_coordinator.runs.service import RunRequest, RunService
from convoy_coordinator.runs.states import Ending, RunState
from convoy_coordinator.runs.store import Run

Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
MAX_PROGRESS_BYTES = 65_536
MAX_SENTENCE = 4000


class NewRun(Input):
    """The body of a new run; optional members narrow what the contract would allow."""

    contractDigest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    algorithm: Word
    requester: Word
    purpose: Word
    action: Word | None = None
    assets: tuple[Word, ...] | None = Field(default=None, min_length=1, max_length=100)
    fields: dict[Word, tuple[Word, ...]] | None = None
    output: Word | None = None
    recipients: tuple[Word, ...] | None = Field(default=None, min_length=1, max_length=100)
    args: dict[Word, int] | None = None
    precision: dict[Word, Word] | None = None

    def run_request(self) -> RunRequest:
        """Return the value that the service takes."""
        named = {"contractDigest", "algorithm", "requester", "purpose"}
        return RunRequest(
            contract_digest=self.contractDigest,
            algorithm=self.algorithm,
            requester=self.requester,
            purpose=self.purpose,
            request=self.model_dump(mode="json", exclude=named, exclude_none=True),
        )


class Progress(Input):
    """A report of the ServerApp: plain facts for the page.

    Known members: ``step``, ``done`` and ``total`` (queries), ``epsilon`` {party: {spent,
    allowed}} and ``delta``. Other members are kept as they are.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    step: str | None = None
    done: int | None = Field(default=None, ge=0)
    total: int | None = Field(default=None, ge=0)
    epsilon: dict[str, dict[str, Any]] | None = None
    delta: float | None = Field(default=None, gt=0, lt=1)


class NewState(Input):
    """The body of a move; ``reason`` (or ``code``) is needed for failed, refused and cancelled.

    How a run ended is never refused for its form: codes are brought to theirs and long sentences
    are cut.
    """

    state: Literal["authorised", "running", "finished", "failed", "refused", "cancelled"]
    reason: str | None = None
    code: str | None = None
    reasons: tuple[str, ...] = ()
    party: str | None = None
    cause: str | None = None
    fix: str | None = None

    def ending(self) -> Ending | None:
        """Return why the run stopped, if this says so; every code once, the main one first."""
        given = [_code(text) for text in (self.reason or self.code, *self.reasons) if text]
        if not given:
            return None
        return Ending(
            reasons=tuple(dict.fromkeys(given))[:60],
            party=_token(self.party),
            cause=(self.cause or "")[:MAX_SENTENCE] or None,
            fix=(self.fix or "")[:MAX_SENTENCE] or None,
        )


def _code(text: str) -> str:
    code = re.sub(r"[^A-Z0-9_]+", "_", text.upper())[:64].strip("_")
    return code if re.match(r"[A-Z][A-Z0-9_]", code) else "UNNAMED"


def _token(text: str | None) -> str | None:
    token = re.sub(r"[^!#-\[\]-~]+", "_", text or "")[:200]
    return token or None


def run_json(run: Run) -> dict[str, Any]:
    """Return a run as the API shows it."""
    return {
        "uid": run.uid,
        "state": run.state.value,
        "contractDigest": run.contract_digest,
        "contract": run.contract_uid,
        "round": run.round,
        "algorithm": run.algorithm,
        "requester": run.requester,
        "purpose": run.purpose,
        "request": run.request,
        "requestedAt": instant_json(run.requested_at),
        "claimedAt": instant_json(run.claimed_at),
        "endedAt": instant_json(run.ended_at),
        "progress": run.progress,
        "reason": run.reason,
        "reasons": run.reasons,
        "party": run.party,
        "cause": run.cause,
        "fix": run.fix,
        "logIndex": run.log_index,
    }


def order_json(run: Run, view: ContractView, keys: dict[str, Any]) -> dict[str, Any]:
    """Return a claimed run with everything that the ServerApp needs to start it."""
    contract = contract_json(view)
    return run_json(run) | {
        "contractText": contract["text"],
        "signatures": contract["signatures"],
        "events": contract["events"],
        "keys": keys,
    }


def router(service: RunService, operator: Callable[[Request], None]) -> APIRouter:
    """Return the routes under ``/v1/runs``."""
    routes = APIRouter(prefix="/v1/runs", tags=["runs"])

    @routes.post("", status_code=201, dependencies=[Depends(operator)], openapi_extra=described(NewRun))
    def queue(new: Annotated[NewRun, Depends(body(NewRun))]) -> dict[str, Any]:
        """Ask for a run; it waits in the queue until the ServerApp takes it."""
        return run_json(service.queue(new.run_request()))

    @routes.get("")
    def list_runs() -> dict[str, Any]:
        """List the last runs, newest first."""
        return {"runs": [run_json(run) for run in service.latest()]}

    @routes.get("/{uid}")
    def show(uid: str) -> dict[str, Any]:
        """Show one run with its progress, or why it ended."""
        return run_json(service.get(uid))

    @routes.put("/{uid}/cancellation", dependencies=[Depends(operator)])
    def cancel(uid: str) -> dict[str, Any]:
        """Stop a run that waits or is going."""
        return run_json(service.cancel(uid))

    @routes.post("/{uid}/again", status_code=201, dependencies=[Depends(operator)])
    def again(uid: str) -> dict[str, Any]:
        """Queue the order of a run that did not finish once more."""
        return run_json(service.again(uid))

    return routes


def internal_router(service: RunService, key_ring: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes under ``/internal/runs``; the caller guards them with its token."""
    routes = APIRouter(prefix="/internal/runs", tags=["internal"])

    @routes.get("/next")
    def next_run() -> Response:
        """Claim the next queued run; 204 if there is none."""
        claimed = service.claim()
        if claimed is None:
            return Response(status_code=204)
        return JSONResponse(order_json(*claimed, key_ring()))

    @routes.post("/{uid}/progress", openapi_extra=described(Progress))
    def report(uid: str, new: Annotated[Progress, Depends(body(Progress))]) -> dict[str, Any]:
        """Report how far a run is."""
        facts = new.model_dump(mode="json", exclude_none=True)
        size = len(json.dumps(facts))
        if size > MAX_PROGRESS_BYTES:
            raise Problem(
                "INPUT_INVALID",
                f"a report of {size} bytes; at most {MAX_PROGRESS_BYTES}",
                faults=[Fault("/", "too long")],
            )
        return run_json(service.report(uid, facts))

    @routes.post("/{uid}/state", openapi_extra=described(NewState))
    def move(uid: str, new: Annotated[NewState, Depends(body(NewState))]) -> dict[str, Any]:
        """Move a run to another state."""
        return run_json(service.move(uid, RunState(new.state), new.ending()))

    return routes
