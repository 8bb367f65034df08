"""HTTP of the schedules; all of it is the operator's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from convoy_coordinator.body import body, described
from convoy_coordinator.parties.routes import instant_json
from convoy_coordinator.runs.routes import NewRun
from convoy_coordinator.runs.service import RunRequest
from convoy_coordinator.schedules.service import ScheduleService
from convoy_coordinator.schedules.store import Schedule


class NewSchedule(NewRun):
    """The body of a new schedule: a run's order and when."""

    cron: Annotated[str, StringConstraints(min_length=9, max_length=120)]
    zone: Annotated[str, StringConstraints(min_length=2, max_length=60)] = Field(default="Asia/Shanghai")

    def run_request(self) -> RunRequest:
        """Return the order alone, without when."""
        order = super().run_request()
        kept = {name: value for name, value in order.request.items() if name not in ("cron", "zone")}
        return replace(order, request=kept)


def schedule_json(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as the API shows it."""
    return {
        "uid": schedule.uid,
        "cron": schedule.cron,
        "zone": schedule.zone,
        "contractDigest": schedule.contract_digest,
        "algorithm": schedule.algorithm,
        "requester": schedule.requester,
        "purpose": schedule.purpose,
        "request": schedule.request,
        "paused": schedule.is_paused,
        "nextAt": instant_json(schedule.next_at),
        "lastRun": schedule.last_run,
        "lastProblem": schedule.last_problem,
    }


def router(service: ScheduleService, operator: Callable[[Request], None]) -> APIRouter:
    """Return the routes under ``/v1/schedules``."""
    routes = APIRouter(prefix="/v1/schedules", tags=["runs"], dependencies=[Depends(operator)])

    @routes.post("", status_code=201, openapi_extra=described(NewSchedule))
    def add(new: Annotated[NewSchedule, Depends(body(NewSchedule))]) -> dict[str, Any]:
        """Make a schedule."""
        return schedule_json(service.add(new.run_request(), new.cron, new.zone))

    @routes.get("")
    def list_schedules() -> dict[str, Any]:
        """List the schedules, the one due first at the front."""
        return {"schedules": [schedule_json(schedule) for schedule in service.all()]}

    @routes.get("/{uid}")
    def show(uid: str) -> dict[str, Any]:
        """Show one schedule."""
        return schedule_json(service.get(uid))

    @routes.put("/{uid}/pause")
    def pause(uid: str) -> dict[str, Any]:
        """Queue nothing more until it is resumed."""
        return schedule_json(service.pause(uid))

    @routes.put("/{uid}/resumption")
    def resume(uid: str) -> dict[str, Any]:
        """Go on at the next time from now."""
        return schedule_json(service.resume(uid))

    @routes.delete("/{uid}", status_code=204)
    def remove(uid: str) -> Response:
        """Delete a schedule; runs that it queued stay."""
        service.remove(uid)
        return Response(status_code=204)

    return routes
