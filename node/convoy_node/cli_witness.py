"""The commands ``convoy-node witness …`` and ``convoy-node statements``: this node's eye on the log.

    witness serve      listen for checkpoints that logs push (c2sp.org/tlog-witness)
    witness follow     fetch and cosign every second; compare with peers; demand receipts; keep a mirror
    witness alarms     pairs of notes that do not fit together; exit code 1 if there are any
    statements         own statements with their receipts; exit code 1 if the log omits one

The node itself may run at the same time: all of these share the witness's folder safely.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from convoy_audit.errors import WitnessRefusal

witness = typer.Typer(help="This node's witness of the log: serve, follow, alarms.", no_args_is_help=True)
Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@witness.command()
def serve(
    home: Home,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 7380,
) -> None:
    """Serve add-checkpoint, the last cosigned checkpoints and the alarms until Ctrl-C."""
    import contextlib

    import uvicorn

    from convoy_contracts.operations.serving import KEEP_ALIVE_S
    from convoy_node.listening import listen
    from convoy_node.witness_home import open_witness
    from convoy_node.witness_service import WitnessService

    opened = open_witness(home)
    listener = listen(host, port, backlog=128)
    for verifier in opened.verifiers:
        print(f"Key     {verifier.vkey[:80]}")
    print(f"Witness http://{host}:{listener.getsockname()[1]}/   (Ctrl-C stops)", flush=True)
    config = uvicorn.Config(
        WitnessService(opened, time.time),
        log_level="warning",
        ws="none",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


@witness.command()
def follow(
    home: Home,
    coordinator: Annotated[str, typer.Option(help="Address of the coordinator.")],
    peer: Annotated[list[str] | None, typer.Option(help="Address of another witness; may be repeated.")] = None,
    mirror: Annotated[Path | None, typer.Option(help="Folder to keep a verified copy of the log in.")] = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two turns.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Do one turn and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cosign what extends the log, turn by turn; a log that was rewritten or rolled back ends it with exit code 1."""
    from convoy_audit.checkpoint import Checkpoint, peek
    from convoy_audit.witness_store import FileWitnessStore
    from convoy_node.follow import Follower
    from convoy_node.log_reader import LogReader, LogUnreachable
    from convoy_node.mirror import Mirror
    from convoy_node.receipts import Receipts
    from convoy_node.settings import Settings
    from convoy_node.witness_home import FOLDER, contracts_policy, open_witness

    settings, opened = Settings.load(home), open_witness(home)

    def accepted(note: bytes) -> Checkpoint:
        return peek(opened.check_signed(settings.log_origin, note))

    with LogReader(coordinator) as reader:
        follower = Follower(
            opened,
            FileWitnessStore.open(home / FOLDER),
            reader,
            settings.log_origin,
            time.time,
            peers=peer or (),
            receipts=Receipts(
                home, settings.party, lambda: contracts_policy(home, settings), lambda: datetime.now(UTC)
            ),
            mirror=Mirror(mirror, accepted) if mirror is not None else None,
        )
        while True:
            try:
                done = follower.once()
            except LogUnreachable as error:
                if once:
                    raise
                print(str(error), flush=True)
                time.sleep(interval)
                continue
            except WitnessRefusal as error:
                print(f"ALARM  {error}", flush=True)
                raise typer.Exit(1) from None
            if as_json:
                print(json.dumps(asdict(done), ensure_ascii=False), flush=True)
            elif once or done.overdue or done.trouble or done.receipts:
                print(
                    f"{done.size} entries cosigned, quorum {'met' if done.quorum else 'not met'}, {done.receipts} new "
                    f"receipts, {done.overdue} statements omitted, {done.alarms} alarms",
                    *done.trouble,
                    sep="\n  ",
                    flush=True,
                )
            if once:
                print("" if as_json else f"\nNext: convoy-node statements --home {home}", end="" if as_json else "\n")
                return
            time.sleep(interval)


@witness.command()
def alarms(home: Home, as_json: AsJson = False) -> None:
    """Show every pair of notes that do not fit together; each is proof that anybody can verify."""
    from convoy_audit.checkpoint import peek
    from convoy_audit.witness_store import FileWitnessStore
    from convoy_node.witness_home import FOLDER

    found = FileWitnessStore.open(home / FOLDER).alarms()
    if as_json:
        print(json.dumps([json.loads(alarm.to_bytes()) for alarm in found], ensure_ascii=False, indent=2))
    for alarm in () if as_json else found:
        known, offered = peek(alarm.known), peek(alarm.offered)
        print(f"{alarm.finding}   {alarm.origin}   {known.size} entries known, {offered.size} offered")
        print(f"  known    {known.root.hex()}\n  offered  {offered.root.hex()}")
    if not as_json:
        print(f"{len(found)} alarms.\n\nNext: convoy-node statements --home {home}")
    if found:
        raise typer.Exit(1)


def statements(home: Home, as_json: AsJson = False) -> None:
    """List this party's statements with their receipts; exit code 1 if the log omits one."""
    from convoy_node.receipts import Receipts
    from convoy_node.settings import Settings
    from convoy_node.witness_home import contracts_policy

    settings = Settings.load(home)
    receipts = Receipts(home, settings.party, lambda: contracts_policy(home, settings), lambda: datetime.now(UTC))
    kept, waiting = receipts.all(), receipts.outstanding()
    omitted = [one for one in waiting if one.is_overdue]
    facts: dict[str, Any] = {
        "party": settings.party,
        "receipts": [{"number": number, "index": index} for number, index in kept.items()],
        "outstanding": [one.as_json() for one in waiting],
        "omitted": len(omitted),
    }
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        print(f"{settings.party}: {len(kept)} statements with a receipt, {len(waiting)} without")
        for one in waiting:
            state = "OMITTED" if one.is_overdue else "waiting"
            since = f"since {one.since}, passed over by {one.passed} checkpoints" if one.since else "not asked for yet"
            print(f"  {state}  statement {one.number}  {since}")
        print(f"\nNext: convoy-node witness follow --home {home} --coordinator URL")
    if omitted:
        raise typer.Exit(1)
