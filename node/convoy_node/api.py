"""The node's local HTTP API: the consent register and the rights desk for the party's own app (docs/consent.md lists it).

    create_app(home, clock) -> FastAPI        health_app(home, clock) -> FastAPI        serve(app, host, port, ready)

Guarantees: it listens on 127.0.0.1 only, answers only for that host name (no DNS rebinding), and only to who shows the token of
``api.token`` (mode 0600, made at the first start). Bodies are strict JSON (``convoy_contracts.canonical``), at most 64 KiB. Every
refusal is a problem document (``api_problems``), in English and Chinese; none holds a person's id. There is no access
log, because paths hold ids. ``/livez``, ``/readyz`` and ``/metrics`` need no token and tell no person's data; ``health_app`` has
nothing else and may listen where a monitor can reach it. What the API writes is what the command line writes: both use ``ConsentOffice``.
Does not: reach other parties. The app hands ``linkId`` to the other holder's app.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from convoy_contracts.canonical import parse_json
from convoy_contracts.consent import notice
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.operations.metrics import RequestMetrics
from convoy_contracts.operations.serving import KEEP_ALIVE_S
from convoy_contracts.problems import PROBLEMS
from convoy_node import desk as index
from convoy_node.api_problems import Answers
from convoy_node.consent.kept_open import Kept
from convoy_node.duties import is_working_day
from convoy_node.errors import NodeError
from convoy_node.listening import listen
from convoy_node.observability.folder import routes
from convoy_node.settings import Settings

TOKEN_FILE: Final = "api.token"  # noqa: S105 - the name of the file
MAX_BODY: Final = 65_536
_CELLS: Final = {
    "given": str, "until": str, "notice": str, "purpose": str, "recipients": list, "separate": bool, "age": int,
    "guardian": bool, "refused": bool, "counterpart": str, "linkId": str,
}  # fmt: skip
OPEN: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""What is answered without a token."""


def create_app(home: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> FastAPI:
    """Return the API of one node's folder; the token is made here where there is none.

    Raises:
        NodeError: settings, keys or files that cannot be used.
    """
    token = _token(home)
    kept = Kept(home, clock)
    is_working_day(clock().date())  # the calendar is read now, not within the first withdrawal

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        kept.close()

    app = FastAPI(
        title="Convoy node: consents and rights", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json",
        lifespan=lifespan,
    )  # fmt: skip
    registry = CollectorRegistry()
    app.add_middleware(RequestMetrics, registry=registry)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.include_router(routes(home, clock, registry))
    answers = Answers(home)
    answers.install(app)
    # Handlers wait for it in threads of the pool only, so that /livez and /readyz answer while a proof over a million persons is made.
    opened = kept.opened

    @app.middleware("http")
    async def _only_with_token(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path in OPEN:
            return await call_next(request)
        shown = request.headers.get("authorization", "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {token}".encode()):
            return answers.problem(
                "TOKEN_MISSING", "the request shows no valid token.", f"Send the content of {TOKEN_FILE} as bearer."
            )
        if int(request.headers.get("content-length") or 0) > MAX_BODY:
            return answers.problem(
                "BODY_TOO_LARGE", "the body is larger than 64 KiB.", "Import tables with the command line."
            )
        return await call_next(request)

    @app.get("/problems/{code}")
    async def problem(code: str) -> Response:
        """Say what a refusal means and what to do, in English and Chinese; the ``type`` of a refusal leads here."""
        if code not in PROBLEMS:
            return answers.problem("NOT_FOUND", "no problem has this code.", "See convoy-contracts problem --list.")
        return JSONResponse({"code": code, **PROBLEMS[code].facts()})

    @app.post("/v1/consents", status_code=201)
    async def record(request: Request) -> dict[str, Any]:
        """Record a consent or a refusal; ``linkId`` of the answer is for the other holder."""
        body = await _body(
            request, {"person": str, "contract": str}, {**_CELLS, "channel": str, "unasked": bool, "evidence": str}
        )
        cells = {("link_id" if name == "linkId" else name): body[name] for name in _CELLS if name in body}

        def made() -> dict[str, Any]:
            with opened() as (office, _):
                return office.record(
                    body["person"],
                    body["contract"],
                    cells,
                    channel=body.get("channel", "app"),
                    unasked=body.get("unasked", False),
                    evidence=body.get("evidence"),
                )

        return await run_in_threadpool(made)

    @app.post("/v1/consents/withdraw")
    async def withdraw(request: Request) -> dict[str, Any]:
        """Withdraw; the answer is the signed receipt."""
        body = await _body(request, {"person": str, "contract": str}, {"channel": str})

        def made() -> dict[str, Any]:
            with opened() as (office, duties):
                receipt = office.withdraw(body["person"], body["contract"], channel=body.get("channel", "app"))
                duties.on_withdrawal(body["person"], receipt)
                return receipt

        return await run_in_threadpool(made)

    @app.get("/v1/persons/{person}/consents/{contract}")
    def show(person: str, contract: str) -> dict[str, Any]:
        """Every record of a person under a contract."""
        with opened() as (office, _):
            return office.show(person, contract)

    @app.get("/v1/persons/{person}/consents/{contract}/receipt")
    def receipt(person: str, contract: str) -> dict[str, Any]:
        """The signed receipt of the last thing that the person said."""
        with opened() as (office, _):
            return office.receipt(person, contract)

    @app.get("/v1/persons/{person}/consents/{contract}/proof")
    def prove(person: str, contract: str, epoch: int | None = None) -> dict[str, Any]:
        """A proof for ``convoy-audit consent``."""
        with opened() as (office, _):
            return office.prove(person, contract, epoch)

    @app.get("/v1/persons/{person}/consents/{contract}/may-ask")
    def may_ask(person: str, contract: str) -> dict[str, Any]:
        """Whether the app may ask this person now."""
        with opened() as (office, _):
            return office.may_ask(person, contract)

    @app.get("/v1/persons/{person}/influence")
    def influence(person: str) -> dict[str, Any]:
        """Which contracts, runs and model versions used this person's data."""
        with opened() as (office, _):
            kept = index.Influence(home / index.FILE)
            try:
                return index.answer(kept, office.memory, person, index.gaps(home))
            finally:
                kept.close()

    @app.get("/v1/contracts/{contract}/notice")
    def show_notice(contract: str) -> dict[str, Any]:
        """The notice, from the contract's own schedule, by language."""
        with opened() as (office, _):
            found = office.contract(office.uid(contract))
            if found is None:
                raise NodeError(
                    "this node has signed no such contract.",
                    code="CONTRACT_UNKNOWN",
                    fix="convoy-node status lists them.",
                    fix_zh="convoy-node status 会列出。",
                )
            made = notice(found, office.party)
            return {"contract": made.contract, "version": made.version, "digest": made.digest, "texts": made.texts}

    @app.post("/v1/contracts/{contract}/epochs")
    def epoch(contract: str) -> dict[str, Any]:
        """Sign the root of all consents as of now, if anything changed."""
        with opened() as (office, _):
            made = office.epoch(contract)
            return (
                {"epoch": made.number, "root": "sha256:" + made.root.hex(), "persons": made.persons}
                if made
                else {"epoch": None}
            )

    @app.get("/v1/duties")
    def due_list() -> dict[str, Any]:
        """Every duty, the next due first."""
        now = clock()
        with opened() as (_, duties):
            duties.state_overdue(now)
            return {
                "duties": [
                    {
                        "id": duty.id,
                        "kind": duty.kind,
                        "contract": duty.contract,
                        "due": duty.due.isoformat(),
                        "blocking": duty.is_blocking,
                        "state": "fulfilled" if duty.is_fulfilled else "overdue" if duty.is_overdue(now) else "open",
                    }
                    for duty in duties.due_list(now)
                ]
            }

    return app


def health_app(home: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> FastAPI:
    """Return ``/livez``, ``/readyz`` and ``/metrics`` alone.

    Raises:
        NodeError: this is no node's folder.
    """
    Settings.load(home)
    app = FastAPI(title="Convoy node: health", docs_url=None, redoc_url=None, openapi_url=None)
    Answers(home).install(app)
    app.include_router(routes(home, clock))
    return app


def serve(app: FastAPI, port: int, ready: Callable[[int], None], host: str = "127.0.0.1") -> None:
    """Serve an application until the process is stopped.

    Args:
        app: ``create_app`` for this machine only, or ``health_app``.
        port: 0 chooses a free one.
        ready: is told the port when requests are accepted.
        host: address to listen on.

    Raises:
        NodeError: PORT_TAKEN, or INPUT_INVALID for an address or a port that this machine does not have.
    """
    with listen(host, port) as listener:
        ready(int(listener.getsockname()[1]))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE_S
        )
        uvicorn.Server(config).run(sockets=[listener])


def _token(home: Path) -> str:
    path = home / TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise NodeError(
            f"{TOKEN_FILE} cannot be written.",
            code="HOME_REFUSED",
            fix="Name a node's folder.",
            fix_zh="请指定节点文件夹。",
        ) from error
    if path.stat().st_mode & 0o077:
        raise NodeError(
            f"{TOKEN_FILE} can be read by others than its owner.",
            code="TOKEN_OPEN",
            fix=f"Remove {TOKEN_FILE}; a new one is made at the next start.",
        )
    token = path.read_text(encoding="ascii").strip()
    if len(token) < 32:
        raise NodeError(f"{TOKEN_FILE} holds no token.", code="TOKEN_OPEN", fix=f"Remove {TOKEN_FILE}.")
    return token


async def _body(request: Request, needed: Mapping[str, type], optional: Mapping[str, type]) -> dict[str, Any]:
    raw = await request.body()
    try:
        value = parse_json(raw, max_bytes=MAX_BODY)
    except DocumentMalformed as error:
        raise NodeError("the body is not strict JSON.", code="BODY_MALFORMED", fix=error.fix) from error
    if not isinstance(value, dict):
        raise NodeError("the body is no JSON object.", code="INPUT_INVALID", fix="Send one object.")
    known = {**needed, **optional}
    faults = [f"{name}: missing" for name in needed if name not in value]
    faults += [f"{name[:40]}: unknown member" for name in value if name not in known]
    faults += [
        f"{name}: not {kind.__name__}"
        for name, kind in known.items()
        if name in value and type(value[name]) is not kind
    ]
    faults += [f"{name}: empty" for name in needed if value.get(name) == ""]
    if faults:
        raise NodeError("the body has faults.", code="INPUT_INVALID", fix="Mend every named member.", reasons=faults)
    return value
