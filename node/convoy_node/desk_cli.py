"""``convoy-node duties | desk | fields | api | metrics``: what the party owes, what persons may ask, and what operators watch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from convoy_node.errors import NodeError

duties = typer.Typer(
    help="Duties with their due dates; evidence closes them, and what is overdue becomes an event.",
    invoke_without_command=True,
)
out = Console()
Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ContractName = Annotated[str, typer.Option("--contract", help="Uid of the contract, or its short name in node.toml.")]
NO_HOME = Path()


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.add_typer(duties, name="duties")
    app.command()(desk)
    app.command()(fields)
    app.command()(api)
    app.command()(metrics)


@duties.callback()
def due_list(
    context: typer.Context,
    home: Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")] = NO_HOME,
    lang: Annotated[str, typer.Option(help="Language of the titles: en or zh.")] = "en",
    open_only: Annotated[bool, typer.Option("--open", help="Leave out what is fulfilled.")] = False,
    as_json: AsJson = False,
) -> None:
    """List every duty, the next due first; newly overdue ones are stated to the log."""
    if context.invoked_subcommand is not None:
        return
    if lang not in ("en", "zh"):
        raise NodeError(
            f"there are no titles in {lang[:20]!r}.",
            code="LANGUAGE_UNKNOWN",
            fix="Use en or zh.",
            fix_zh="请使用 en 或 zh。",
        )
    if home == NO_HOME:
        raise NodeError(
            "--home is missing.",
            code="HOME_REFUSED",
            fix="convoy-node duties --home FOLDER",
            fix_zh="请运行 convoy-node duties --home FOLDER",
        )
    from convoy_contracts.duties import KINDS
    from convoy_node.consent.office import ConsentOffice
    from convoy_node.duties import DutyDesk

    now = datetime.now(UTC)
    with ConsentOffice.open(home) as office, DutyDesk.open(home, office) as shown:
        shown.state_overdue(now)
        found = [duty for duty in shown.due_list(now) if not (open_only and duty.is_fulfilled)]
    facts = [
        {
            "id": duty.id,
            "kind": duty.kind,
            "title": KINDS[duty.kind].titles[1 if lang == "zh" else 0],
            "basis": KINDS[duty.kind].basis,
            "contract": duty.contract,
            "due": duty.due.isoformat(),
            "blocking": duty.is_blocking,
            "state": "fulfilled" if duty.is_fulfilled else "overdue" if duty.is_overdue(now) else "open",
        }
        for duty in found
    ]
    lines = [
        f"{d['due']}  {d['state']:<9}  {'blocks runs  ' if d['blocking'] else '             '}{d['title']}  ({d['id']})"
        for d in facts
    ]
    _show(
        {"duties": facts},
        as_json,
        lines or ["No duties."],
        f"convoy-node duties fulfil ID --evidence FILE --home {home}",
    )


@duties.command("raise")
def raise_duty(
    kind: Annotated[str, typer.Argument(help="explain, delete, notify or delete-at-end.")],
    contract: ContractName,
    home: Home,
    person: Annotated[str, typer.Option(help="Whom it is about; stays in this node.")] = "",
    since: Annotated[
        str, typer.Option(help="When it was triggered, a timestamp with an offset; now if not given.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Raise a duty that something triggered: a request to explain, a deletion, an incident."""
    from convoy_contracts.instants import instant
    from convoy_node.consent.office import ConsentOffice
    from convoy_node.duties import DutyDesk

    if since and instant(since) is None:
        raise NodeError("--since is no timestamp with an offset.", code="TIME_REFUSED", fix="2026-11-25T09:00:00+08:00")
    with ConsentOffice.open(home) as office, DutyDesk.open(home, office) as opened:
        begun = datetime.fromisoformat(since) if since else datetime.now(UTC)
        opened.check_request(kind, contract, begun, person)
        duty = opened.raise_duty(kind, contract, begun, subject=person)
    facts = {"id": duty.id, "due": duty.due.isoformat(), "blocking": duty.is_blocking}
    _show(facts, as_json, [f"{duty.id}, due {duty.due.isoformat()}."], f"convoy-node duties --home {home}")


@duties.command()
def fulfil(
    duty: Annotated[str, typer.Argument(help="Id of the duty.")],
    home: Home,
    evidence: Annotated[Path, typer.Option(help="File that shows it; only its digest leaves the node.")],
    as_json: AsJson = False,
) -> None:
    """Record that a duty was done, with evidence."""
    from convoy_node.consent.office import ConsentOffice
    from convoy_node.duties import DutyDesk

    try:
        shown = evidence.read_bytes()
    except OSError as error:
        raise NodeError(f"{evidence.name} cannot be read.", code="FILE_UNREADABLE", fix="Name another file.") from error
    with ConsentOffice.open(home) as office, DutyDesk.open(home, office) as opened:
        done = opened.fulfil(duty, shown)
    _show(
        {"id": done.id, "fulfilled": True}, as_json, [f"{done.id} is fulfilled."], f"convoy-node duties --home {home}"
    )


def desk(
    person: Annotated[str, typer.Argument(help="This party's own id of the person.")],
    home: Home,
    as_json: AsJson = False,
) -> None:
    """Answer "which contracts, runs and model versions used my data" for a person."""
    from convoy_node import desk as index
    from convoy_node.consent.office import ConsentOffice

    with ConsentOffice.open(home) as office:
        influence = index.Influence(home / index.FILE)
        try:
            found = index.answer(influence, office.memory, person, index.gaps(home))
        finally:
            influence.close()
        found["consents"] = {uid: office.show(person, uid)["state"] for uid in office.register.contracts_of(person)}
    lines = [f"Consent   {uid}: {state}" for uid, state in found["consents"].items()]
    lines += [
        f"Run       {run['run']} on {run['at']} under {run['contract']} v{run['version']} for {run['purpose']}: "
        f"{run['outcome']}{', model ' + run['model'][:23] + '…' if run['model'] else ''}"
        for run in found["runs"]
    ]
    lines += [f"UNKNOWN   this index was lost from {gap['from']} until {gap['until']}" for gap in found["gaps"]]
    lines += [] if found["runs"] else ["No run used this person's data."]
    _show(found, as_json, lines, f"convoy-node consent withdraw {person} --contract CONTRACT --home {home}")


def fields(
    home: Home,
    year: Annotated[int, typer.Option(help="Year (UTC); this one if not given.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Report the fields that are offered or scheduled and that no run of the year has read (over-collection)."""
    from convoy_node import desk as index
    from convoy_node.consent.office import ConsentOffice
    from convoy_node.settings import Settings

    settings = Settings.load(home)
    with ConsentOffice.open(home) as office:
        influence = index.Influence(home / index.FILE)
        try:
            report = index.unused_fields(
                influence, settings.asset, list(settings.asset_fields), office.signed(), year or datetime.now(UTC).year
            )
        finally:
            influence.close()
    lines = [f"{report['asset']}, {report['year']}"]
    lines += [f"  {name}: read by {count} runs" for name, count in report["read"].items()]
    lines += [f"  {name}: NEVER READ" for name in report["neverRead"]]
    lines += [f"  {name}: in no contract" for name in report["neverScheduled"]]
    _show(report, as_json, lines, f"convoy-node duties --home {home}")


def api(
    home: Home,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 chooses a free one.")] = 8790,
) -> None:
    """Serve the node's local HTTP API for the party's own app: this machine only, with the token in api.token."""
    from convoy_contracts.operations.logs import start_logs
    from convoy_contracts.operations.traces import start_traces
    from convoy_node.api import TOKEN_FILE, create_app, serve

    start_logs("api")
    start_traces("convoy-node-api")
    app = create_app(home)
    out.print(f"Token     {home / TOKEN_FILE}", soft_wrap=True, highlight=False, markup=False)
    serve(app, port, lambda bound: print(f"Serving on http://127.0.0.1:{bound}", flush=True))


def metrics(
    home: Home,
    host: Annotated[
        str, typer.Option(help="Address to listen on; choose one that only your monitor reaches.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 chooses a free one.")] = 9464,
) -> None:
    """Serve /livez, /readyz and /metrics of this node, for Prometheus and health checks. No person's data, no token."""
    from convoy_contracts.operations.logs import start_logs
    from convoy_node.api import health_app, serve

    start_logs("metrics")
    serve(health_app(home), port, lambda bound: print(f"Serving on http://{host}:{bound}/metrics", flush=True), host)


def _show(facts: Any, as_json: bool, lines: Sequence[str], following: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2, default=str))
        return
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    out.print(f"\nNext: {following}", soft_wrap=True, highlight=False, markup=False)
