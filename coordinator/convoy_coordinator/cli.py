"""The command ``convoy-coordinator``.

Starts fast: the web stack is imported only by ``serve``. Every command takes ``--home`` (or the
variable CONVOY_COORDINATOR_HOME), every human output has ``--json``, and every command ends with
the next one. Exit codes: 0 done, 1 could not be done (the message names cause and fix), 2 wrong
usage.
"""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from convoy_coordinator import log_commands
from convoy_coordinator.enrolment import commands as enrolment_commands
from convoy_coordinator.errors import CoordinatorError, SetupError
from convoy_coordinator.runs import commands as run_commands
from convoy_coordinator.schedules import commands as schedule_commands

if TYPE_CHECKING:
    from convoy_coordinator.wiring import Parts

app = typer.Typer(
    name="convoy-coordinator",
    help="The application in the middle: contracts, runs, releases and the log.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="CONVOY_COORDINATOR_HOME", help="The coordinator's folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def init(
    home: Home = None,
    name: Annotated[str, typer.Option(help="Name of the federation.")] = "Convoy",
    origin: Annotated[str, typer.Option(help="Origin line of the log; can never change.")] = "convoy.example/log",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    channel_port: Annotated[
        int | None, typer.Option(help="Port of the partner channel; the next one takes nodes that join.")
    ] = None,
    channel_host: Annotated[str, typer.Option(help="Address that the channel listens on.")] = "127.0.0.1",
    channel_name: Annotated[str, typer.Option(help="DNS name under which partners reach the channel.")] = "localhost",
    as_json: AsJson = False,
) -> None:
    """Make a home folder: keys, settings and an empty database. Never overwrites."""
    from convoy_coordinator.setup import create_home

    channel: dict[str, object] = {}
    if channel_port is not None:
        channel = {"channel_port": channel_port, "channel_host": channel_host, "channel_name": channel_name}
    facts = create_home(_home(home), name=name, origin=origin, port=port, **channel)
    show(
        facts,
        as_json,
        [
            f"Home          {facts['home']}",
            f"Log origin    {facts['origin']}",
            f"Log keys      {facts['logKeysFile']}",
            *(f"              {_short(key)}" for key in facts["logKeys"]),
            f"Release key   {facts['releaseKey']}",
            "",
            "Give the file of log keys to every partner by another way; their nodes pin them.",
        ],
        f"convoy-coordinator serve --home {facts['home']}",
    )


@app.command()
def migrate(home: Home = None, as_json: AsJson = False) -> None:
    """Bring the database to this version. Make a backup first."""
    from convoy_coordinator.db import migrate as migrations
    from convoy_coordinator.db.session import open_engine
    from convoy_coordinator.settings import read_settings

    engine = open_engine(read_settings(home).url)
    before = migrations.current_revision(engine)
    after = migrations.migrate(engine)
    engine.dispose()
    facts = {"before": before, "after": after}
    show(
        facts,
        as_json,
        [f"Database at revision {after} (was {before or 'empty'})."],
        "convoy-coordinator serve",
    )


@app.command()
def serve(
    home: Home = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
) -> None:
    """Run the service until Ctrl-C."""
    import uvicorn

    from convoy_contracts.operations.logs import start_logs
    from convoy_contracts.operations.serving import KEEP_ALIVE_S
    from convoy_contracts.operations.traces import start_traces
    from convoy_coordinator.app import create_app
    from convoy_coordinator.settings import read_settings

    start_logs("coordinator")
    start_traces("convoy-coordinator")
    settings = read_settings(home, host=host, port=port)
    application = create_app(settings)
    try:
        listener = socket.create_server((settings.host, settings.port), backlog=128)
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise SetupError(
            "ADDRESS_UNUSABLE",
            f"{settings.host}:{settings.port} cannot be listened at: {cause}",
            fix="Choose another with --port or --host, or stop the program that listens there.",
        ) from None
    real_port = listener.getsockname()[1]
    server = uvicorn.Server(
        uvicorn.Config(
            application,
            log_level="warning",
            log_config=None,
            ws="none",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            h11_max_incomplete_event_size=32_768,
        )
    )
    from convoy_coordinator.channel.server import open_channel
    from convoy_coordinator.operator import serving

    parts = application.state.parts
    with open_channel(parts) as channel, contextlib.suppress(KeyboardInterrupt):
        facts = {"url": f"http://{settings.host}:{real_port}", **channel.addresses}
        out.print(f"Overview: {facts['url']}/   (Ctrl-C stops)", soft_wrap=True)
        for name, address in channel.addresses.items():
            out.print(f"{name.capitalize()}: {address}", soft_wrap=True, highlight=False)
        # What was made until now lives as long as the process: no collection shall visit it in the middle of an append.
        gc.collect()
        gc.freeze()
        with serving(settings.home, facts):
            server.run(sockets=[listener])


@app.command()
def status(home: Home = None, as_json: AsJson = False) -> None:
    """Show how the federation stands, in five lines."""
    with _parts(home) as parts:
        contracts, runs = parts.contracts.all(), parts.runs.latest()
        facts = {
            "parties": len(parts.parties.all()),
            "contracts": len(contracts),
            "contractsActive": sum(view.standing.is_active for view in contracts),
            "runs": len(runs),
            "lastRun": None if not runs else {"uid": runs[0].uid, "state": runs[0].state.value},
            "logSize": parts.log.size(),
        }
    last = f"{runs[0].uid} is {runs[0].state.value}" if runs else "none"
    show(
        facts,
        as_json,
        [
            f"Parties    {facts['parties']}",
            f"Contracts  {facts['contracts']}, {facts['contractsActive']} active",
            f"Last run   {last}",
            f"Log        {facts['logSize']} entries",
        ],
        "convoy-coordinator runs" if runs else "convoy-coordinator parties",
    )


@app.command()
def parties(home: Home = None, as_json: AsJson = False) -> None:
    """List the enrolled parties with the fingerprints of their identity keys."""
    from convoy_coordinator.parties.routes import party_json

    with _parts(home) as parts:
        found = [(party, parts.log.witness_size(party.id)) for party in parts.parties.all()]
    table = _table("party", "role", "region", "fingerprint", "cosigned up to")
    for party, size in found:
        table.add_row(party.id, party.role, party.region, party.fingerprint, str(size) if size else "never")
    show([party_json(p, size) for p, size in found], as_json, [table], "convoy-coordinator runs")


@app.command()
def runs(home: Home = None, as_json: AsJson = False) -> None:
    """List the last runs, newest first, and why they stopped."""
    from convoy_coordinator.runs.routes import run_json

    with _parts(home) as parts:
        found = parts.runs.latest()
    table = _table("run", "algorithm", "state", "progress", "party", "cause", "what to do")
    for run in found:
        done, total = run.progress.get("done"), run.progress.get("total")
        progress = f"{done}/{total}" if total else ""
        cause = " ".join(filter(None, (run.reason, run.cause)))
        table.add_row(run.uid, run.algorithm, run.state.value, progress, run.party or "", cause, run.fix or "")
    show([run_json(r) for r in found], as_json, [table], "convoy-coordinator log")


@app.command()
def log(
    home: Home = None,
    last: Annotated[int, typer.Option(min=1, max=1000, help="How many entries.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the last entries of the log and its latest checkpoint."""
    with _parts(home) as parts:
        size = parts.log.size()
        first = max(0, size - last)
        entries = [_entry(first + i, raw) for i, raw in enumerate(parts.log.entries(first, size))]
        checkpoint = parts.log.latest()
    lines: list[Any] = [f"{e['index']:>6}  {e['text']}" for e in entries]
    show(
        {"size": size, "entries": entries, "checkpoint": checkpoint},
        as_json,
        [*lines, "", checkpoint or "No checkpoint yet."],
        "convoy-audit --help",
    )


enrolment_commands.register(app)
log_commands.register(app)
app.add_typer(run_commands.commands, name="run")
app.add_typer(schedule_commands.commands, name="schedule")


def main() -> None:
    """Run the command; errors of ours, and files that cannot be used, become one clear message and exit code 1."""
    try:
        app()
    except (CoordinatorError, OSError) as raised:
        error = raised if isinstance(raised, CoordinatorError) else _of_place(raised)
        problem = {"code": error.code, "party": error.party, "cause": error.cause, "fix": error.fix}
        if "--json" in sys.argv:
            print(json.dumps({"error": problem}, ensure_ascii=False))
        else:
            from convoy_contracts.problems.telling import told

            Console(stderr=True).print(told(error), soft_wrap=True, highlight=False, markup=False)
        sys.exit(1)


def _of_place(error: OSError) -> SetupError:
    place = f"{error.filename}: " if error.filename is not None else ""
    return SetupError(
        "PLACE_UNUSABLE",
        f"{place}{error.strerror or type(error).__name__}",
        fix="Name another place, or give this user the right to it.",
    )


def _home(home: Path | None) -> Path:
    if home is None:
        raise typer.BadParameter("name the home folder with --home or CONVOY_COORDINATOR_HOME")
    return home


def _parts(home: Path | None) -> closing[Parts]:
    from convoy_coordinator.settings import read_settings
    from convoy_coordinator.wiring import wire

    return closing(wire(read_settings(home)))


def _short(vkey: str) -> str:
    """Return name, key id and the beginning of a verifier key: enough to compare by telephone."""
    return vkey if len(vkey) <= 90 else f"{vkey[:60]}… ({len(vkey)} characters)"


def _entry(index: int, raw: bytes) -> dict[str, Any]:
    return {"index": index, "text": raw.decode("utf-8", errors="backslashreplace")}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(facts: Any, as_json: bool, lines: list[Any], following: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for line in lines:
        if isinstance(line, str):
            out.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            out.print(line)
    out.print(f"\nNext: {following}", highlight=False, markup=False, soft_wrap=True)
