"""How the node's local API refuses: every failure leaves it as a problem document (RFC 9457) of the catalogue.

    Answers(home).install(app)                     for what handlers raise, for addresses, methods and parameters that are wrong
    Answers(home).problem(code, cause, ...)        for what a middleware answers itself

A document has ``type``, ``title``, ``status``, ``detail``, and ``code``, ``party``, ``cause``, ``meaning``, ``fix``, ``reasons``;
``titleZh``, ``meaningZh`` and ``fixZh`` say the same in Chinese. Paths and bodies hold persons' ids, so none of them is repeated, not
even in the log: an unforeseen error is logged under its trace id with the address's pattern.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from convoy_audit.errors import AuditError
from convoy_contracts.errors import ContractsError
from convoy_contracts.problems import PROBLEMS
from convoy_node.errors import NodeError
from convoy_node.settings import Settings

MEDIA_TYPE: Final = "application/problem+json"
UNLISTED: Final = 422
"""Status of a code that the catalogue tells on command lines only."""
_BY_STATUS: Final = {404: ("NOT_FOUND", "nothing is at this address."), 405: ("METHOD_NOT_ALLOWED", "not this method.")}
_log = logging.getLogger(__name__)


class Answers:
    """The refusals of one node's API.

    Args:
        home: the node's folder; its party stands in every document, because all of them concern this node.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def install(self, app: FastAPI) -> None:
        """Make every error of the application leave it as a problem document."""
        for kind in (NodeError, ContractsError, AuditError):
            app.add_exception_handler(kind, self._refused)
        app.add_exception_handler(HTTPException, self._http)
        app.add_exception_handler(RequestValidationError, self._parameters)
        app.add_exception_handler(Exception, self._unforeseen)

    def problem(
        self, code: str, cause: str, fix: str = "", reasons: Sequence[str] = (), fix_zh: str = "", **members: str
    ) -> JSONResponse:
        """Return the problem document of a code; a fix of its own goes before the catalogue's."""
        known = PROBLEMS.get(code)
        status = (known.status if known else None) or UNLISTED
        facts: dict[str, object] = dict(known.facts()) if known else {"fix": NodeError.fix, "fixZh": NodeError.fix_zh}
        own = {name: text for name, text in (("fix", fix), ("fixZh", fix_zh)) if text}
        told = {"code": code, "party": self._party(), "cause": cause, "reasons": list(reasons), **members}
        content = {"type": f"/problems/{code}", "status": status, "detail": cause, **facts, **told, **own}
        return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE)

    def _party(self) -> str:
        with suppress(NodeError):  # a folder whose settings are wrong still answers /livez and says what is wrong
            return Settings.load(self._home).party
        return ""

    def _refused(self, _: Request, error: Exception) -> Response:
        reasons = [str(one) for one in getattr(error, "reasons", ()) or getattr(error, "problems", ())]
        fix_zh = str(vars(error).get("fix_zh", ""))  # given at the raise; that of a class may belong to another code
        return self.problem(
            str(getattr(error, "code", "NODE")),
            str(getattr(error, "cause", "")),
            str(getattr(error, "fix", "")),
            reasons,
            fix_zh,
        )

    def _http(self, _: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return self.problem(*_BY_STATUS.get(status, ("INPUT_INVALID", f"the request answers {status}.")))

    def _parameters(self, _: Request, error: Exception) -> Response:
        found = error.errors() if isinstance(error, RequestValidationError) else []
        faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in found]
        return self.problem("INPUT_INVALID", "parameters are wrong.", reasons=faults)

    def _unforeseen(self, request: Request, error: Exception) -> Response:
        trace_id, route = secrets.token_hex(8), request.scope.get("route")
        _log.error("trace %s: %s %s failed", trace_id, request.method, getattr(route, "path", "?"), exc_info=error)
        return self.problem("INTERNAL", "an unforeseen error; it is in the node's log.", traceId=trace_id)
