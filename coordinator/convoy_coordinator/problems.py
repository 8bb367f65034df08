"""Answer refusals as RFC 9457 problem documents: code, party, cause, fix; in zh or en.

``CATALOGUE`` is the list of everything this service can refuse. Codes never change their meaning.
``title``, ``meaning`` and ``fix`` are sentences for people, in the language the caller accepts; ``cause`` is
English and says what happened to this request. The diagnostic of an unforeseen error goes to the
log; the caller gets ``INTERNAL`` and a trace id, never exception text.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from convoy_contracts.problems import PROBLEMS
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.language import Language, choose_language

MEDIA_TYPE: Final = "application/problem+json"
PAGES: Final = "/problems"
"""Where a problem's type leads: a page with cause and fix (``problem_pages``), relative to this service (RFC 9457 §3.1.1)."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem: its status and its sentences."""

    status: int
    title: Mapping[Language, str]
    meaning: Mapping[Language, str]
    fix: Mapping[Language, str]


CATALOGUE: Final[Mapping[str, Kind]] = {
    code: Kind(
        entry.status,
        {"en": entry.title, "zh": entry.title_zh},
        {"en": entry.cause, "zh": entry.cause_zh},
        {"en": entry.fix, "zh": entry.fix_zh},
    )
    for code, entry in PROBLEMS.items()
    if entry.status is not None
}
"""What may be told over HTTP and gRPC, of the one catalogue in ``convoy_contracts.problems``; add new codes there."""


def problem_document(problem: Problem, language: Language = "en") -> dict[str, Any]:
    """Return the RFC 9457 members of a problem."""
    kind = CATALOGUE[problem.code]
    return {
        "type": f"{PAGES}/{problem.code}",
        "title": kind.title[language],
        "status": kind.status,
        "detail": problem.cause,
        "code": problem.code,
        "party": problem.party,
        "cause": problem.cause,
        "meaning": kind.meaning[language],
        "fix": (problem.fix or kind.fix["en"]) if language == "en" else kind.fix["zh"],
        "errors": [fault.as_json() for fault in problem.faults],
    }


def install_problems(app: FastAPI) -> None:
    """Make every error of the application leave it as a problem document."""
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(Exception, _answer_unforeseen)


def problem_response(request: Request, problem: Problem, **members: object) -> JSONResponse:
    """Answer a request with a problem, in its language."""
    document = problem_document(problem, choose_language(request)) | members
    headers = {"WWW-Authenticate": "Bearer"} if document["status"] == 401 else None
    return JSONResponse(document, status_code=document["status"], media_type=MEDIA_TYPE, headers=headers)


def _answer_problem(request: Request, error: Exception) -> Response:
    if not isinstance(error, Problem):  # registered for Problem only
        return _answer_unforeseen(request, error)
    return problem_response(request, error)


def _answer_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(status, "INPUT_INVALID")
    return problem_response(request, Problem(code, f"{request.method} {request.url.path} answers {status}"))


def _answer_validation(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [Fault("/" + "/".join(map(str, e["loc"])), str(e["msg"])) for e in found]
    return problem_response(request, Problem("INPUT_INVALID", f"{len(faults)} member(s) are wrong", faults=faults))


def _answer_unforeseen(request: Request, error: Exception) -> Response:
    trace_id = secrets.token_hex(8)
    _log.error("trace %s: %s %s failed", trace_id, request.method, request.url.path, exc_info=error)
    return problem_response(request, Problem("INTERNAL", "an unforeseen error; it is in the log"), trace_id=trace_id)
