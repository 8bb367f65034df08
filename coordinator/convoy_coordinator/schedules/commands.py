"""The operator's commands for schedules: add, list, pause, resume, remove."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from convoy_coordinator.operator import AsJson, Home, ask, show
from convoy_coordinator.runs.commands import Algorithm, Digest, Narrowing, Purpose, Requester, order

Uid = Annotated[str, typer.Argument(metavar="SCHEDULE", help="A schedule's uid, as `schedule list` shows it.")]
LIST = "convoy-coordinator schedule list"
commands = typer.Typer(help="Runs that repeat, by cron expression.", no_args_is_help=True)


@commands.command()
def add(
    cron: Annotated[str, typer.Argument(help="Five fields as in crontab(5), such as '0 2 * * 1'.")],
    contract: Digest,
    algorithm: Algorithm,
    requester: Requester,
    purpose: Purpose,
    zone: Annotated[str, typer.Option(help="IANA time zone of the expression.")] = "Asia/Shanghai",
    request: Narrowing = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Have a run queued at every time of a cron expression. The order is checked now."""
    asked = order(contract, algorithm, requester, purpose, request) | {"cron": cron, "zone": zone}
    made = ask(home, "POST", "/v1/schedules", asked)
    show(made, as_json, [_line(made)], LIST)


@commands.command("list")
def list_schedules(home: Home = None, as_json: AsJson = False) -> None:
    """List the schedules, the one due first at the front."""
    found = ask(home, "GET", "/v1/schedules")["schedules"]
    show(found, as_json, [_line(schedule) for schedule in found] or ["No schedules."], "convoy-coordinator runs")


@commands.command()
def pause(schedule: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Queue nothing more until it is resumed."""
    done = ask(home, "PUT", f"/v1/schedules/{quote(schedule)}/pause")
    show(done, as_json, [_line(done)], f"convoy-coordinator schedule resume {schedule}")


@commands.command()
def resume(schedule: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Go on at the next time from now."""
    done = ask(home, "PUT", f"/v1/schedules/{quote(schedule)}/resumption")
    show(done, as_json, [_line(done)], LIST)


@commands.command()
def remove(schedule: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Delete a schedule; runs that it queued stay."""
    ask(home, "DELETE", f"/v1/schedules/{quote(schedule)}")
    show({"removed": schedule}, as_json, [f"{schedule} is removed."], LIST)


def _line(schedule: dict[str, Any]) -> str:
    when = "paused" if schedule["paused"] else f"next {schedule['nextAt']}"
    last = schedule["lastProblem"] or schedule["lastRun"] or "never ran"
    return f"{schedule['uid']}  {schedule['cron']} ({schedule['zone']})  {schedule['algorithm']}  {when}  last: {last}"
