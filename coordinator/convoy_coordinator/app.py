"""Join the parts of the coordinator to one web application. Nothing else joins them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from convoy_coordinator import health, internal, problem_pages
from convoy_coordinator.access import requires
from convoy_coordinator.body import BodyLimit
from convoy_coordinator.catalogue import routes as catalogue
from convoy_coordinator.console import routes as console
from convoy_coordinator.console.pages import Overview, overview
from convoy_coordinator.console.wording import Say
from convoy_coordinator.contracts import change_routes as changes
from convoy_coordinator.contracts import routes as contracts
from convoy_coordinator.enrolment import routes as enrolment
from convoy_coordinator.errors import SetupError
from convoy_coordinator.evidence import routes as evidence
from convoy_coordinator.journal import Clock, now_utc
from convoy_coordinator.log import care_routes, question_routes
from convoy_coordinator.log import routes as log
from convoy_coordinator.log.outside import ask_before_start
from convoy_coordinator.log.questions import Questions
from convoy_coordinator.observability import metrics
from convoy_coordinator.parties import routes as parties
from convoy_coordinator.problems import install_problems
from convoy_coordinator.releases import routes as releases
from convoy_coordinator.runs import routes as runs
from convoy_coordinator.schedules import routes as schedules
from convoy_coordinator.settings import Settings
from convoy_coordinator.wiring import Parts, wire

VERSION = version("convoy-coordinator")


def create_app(settings: Settings, *, clock: Clock = now_utc) -> FastAPI:
    """Return the coordinator's web application.

    The parts are at ``app.state.parts`` for programs that run it embedded, such as the demo.

    Args:
        settings: where it keeps its things; the home must have been made by ``init``.
        clock: the present instant, aware and in UTC.

    Raises:
        SetupError: keys are missing, the database is of another version, or a witness has seen more of the log.
    """
    parts = wire(settings, clock)
    try:
        ask_before_start(parts.log, parts.witnesses)
    except SetupError:
        parts.close()
        raise
    app = FastAPI(
        title="Convoy coordinator",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(parts),
    )
    app.state.parts = parts
    registry = metrics.new_registry(parts)
    app.add_middleware(metrics.RequestMetrics, registry=registry)
    app.add_middleware(
        BodyLimit,
        limit=settings.max_body_bytes,
        larger={"/internal/releases": settings.max_release_bytes},
    )
    install_problems(app)

    operator = requires(parts.keys.operator_token)
    app.include_router(parties.router(parts.parties, parts.log.witness_size, operator))
    app.include_router(
        enrolment.router(parts.enrolment, parts.access, parts.succession, parts.parties.standing, operator)
    )
    app.include_router(contracts.router(parts.contracts, operator))
    app.include_router(changes.router(parts.changes))
    app.include_router(catalogue.router(parts.catalogue))
    app.include_router(runs.router(parts.runs, operator))
    app.include_router(schedules.router(parts.schedules, operator))
    app.include_router(releases.router(parts.releases))
    questions = Questions(parts.log)
    app.include_router(log.router(parts.log))
    app.include_router(care_routes.router(parts.retention, parts.stamping, operator))
    app.include_router(question_routes.router(parts.log, questions))
    app.include_router(evidence.router(parts.evidence, parts.log, questions, clock))

    inside = APIRouter(dependencies=[Depends(requires(parts.keys.internal_token))])
    inside.include_router(internal.router(parts.log, parts.intake, parts.parties))
    inside.include_router(runs.internal_router(parts.runs, parts.parties.key_ring))
    inside.include_router(releases.internal_router(parts.releases))
    app.include_router(inside)

    app.include_router(health.router(parts.checks()))
    app.include_router(metrics.router(registry))
    app.include_router(problem_pages.router())
    app.include_router(console.router(lambda say, url: _overview(parts, say, url)))
    app.mount("/static", console.static_files(), name="static")
    return app


def _overview(parts: Parts, say: Say, url: str) -> Overview:
    return overview(
        name=parts.settings.name,
        version=VERSION,
        url=url,
        now=parts.clock(),
        say=say,
        parties=parts.parties.all(),
        contracts=parts.contracts.all(),
        runs=parts.runs.latest(),
        releases=parts.releases.all(),
        ledgers=parts.ledgers.all(),
        log=parts.log_view(),
    )


def _lifespan(parts: Parts):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        parts.publisher.start()
        parts.retention.start()
        parts.stamping.start()
        parts.schedules.start()
        yield
        parts.close()

    return lifespan
