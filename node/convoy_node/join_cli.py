"""The commands of joining, running and leaving: join, up, alive, rotate, leave."""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from convoy_node.errors import NodeError

Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MAX_TICKET_BYTES = 20_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (join, up, alive, rotate, leave):
        app.command()(command)


def join(
    ticket: Annotated[str, typer.Argument(help="The ticket, a file that holds it, or - for standard input.")],
    home: Home,
    region: Annotated[str, typer.Option(help="Where the node runs, such as CN-SH.")] = "CN-SH",
    data: Annotated[str, typer.Option(help="File with the rows, relative to the folder.")] = "data/data.parquet",
    asset: Annotated[str, typer.Option(help="Uid of the asset that the rows are.")] = "",
    cap: Annotated[float, typer.Option(help="Epsilon that one year may cost a person, over all contracts.")] = 6.0,
    proxy: Annotated[str, typer.Option(help="HTTP proxy, http://host:port; HTTPS_PROXY counts if not given.")] = "",
    recover: Annotated[bool, typer.Option("--recover", help="New keys in a folder whose keys were revoked.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for the approval.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Join with a ticket: make all keys here, show the fingerprint, send the request. Repeat as often as you like."""
    from convoy_node import join as joining
    from convoy_node.setup import micro

    wishes = joining.Wishes(region=region, data=data, asset=asset, cap_micro=micro(cap), proxy=proxy)
    standing = joining.join(home, _ticket(ticket), wishes, recover=recover)
    deadline = time.monotonic() + wait_s
    while standing.state == "pending" and time.monotonic() < deadline:
        time.sleep(0.5)
        standing = joining.ask(home)
    lines = [
        f"Home         {home}",
        f"Party        {standing.party}   {standing.role}",
        f"Coordinator  {standing.coordinator}",
        f"Fingerprint  {standing.fingerprint}",
        "",
        "Read the fingerprint to the coordinator's administrator by telephone; they approve what is the same."
        if standing.state == "pending"
        else "Enrolled: the certificate is here.",
    ]
    _show({**joining.as_json(standing), "home": str(home)}, as_json, lines, f"convoy-node up --home {home}")


def up(home: Home, client_app: Annotated[str, typer.Option(hidden=True)] = "") -> None:
    """Run the node until Ctrl-C: channel, witness, and Flower's SuperNode where the coordinator has one."""
    from convoy_node.up import CLIENT_APP, Node

    node = Node(home.resolve(), tell=_tell, client_app=client_app or CLIENT_APP)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())
    node.run()


def alive(home: Home) -> None:
    """Exit with 0 if a node of this folder is up and its channel is open; for health checks."""
    from convoy_node.up import is_alive

    well = is_alive(home, datetime.now(UTC))
    print("The channel is open." if well else "No node of this folder has its channel open: see convoy-node doctor.")
    raise typer.Exit(0 if well else 1)


def rotate(
    home: Home,
    key: Annotated[
        str, typer.Option(help="identity; supernode, which Flower knows; or mask or witness, which contracts pin.")
    ] = "identity",
    compromised: Annotated[
        bool, typer.Option("--compromised", help="witness only: the old keys count for nothing any more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a new key follow: identity (old and new sign the change, and both count for a week), supernode, mask or witness."""
    from convoy_node import channel_keys

    if compromised and key != "witness":
        raise typer.BadParameter("for --key witness; with another key, have the party revoked and join with --recover")
    if key == "witness":
        index = channel_keys.rotate_witness(home, datetime.now(UTC), "compromised" if compromised else "planned")
        lines = [
            f"New witness keys; the log counts them from entry {index} on.",
            "Contracts that pin the old keys need a new version: send card.json to whoever writes it."
            if compromised
            else "Contracts in force go on with the keys that they pin; send card.json to whoever writes the next version.",
        ]
        _show({"key": key, "index": index}, as_json, lines, f"convoy-node doctor --home {home}")
        return
    if key == "supernode":
        index = channel_keys.rotate_supernode(home)
        lines = [f"New SuperNode key, in the log at {index}.", "A running node starts its SuperNode again with it."]
        _show({"key": key, "index": index}, as_json, lines, f"convoy-node doctor --home {home}")
        return
    if key == "mask":
        card = channel_keys.rotate_mask(home)
        lines = [
            f"New mask key {card.mask_key}, for the contracts to come; those in force go on with the key that they pin.",
            "Send card.json to whoever writes the next version.",
        ]
        _show({"key": key, "maskKey": card.mask_key}, as_json, lines, f"convoy-node contract list --home {home}")
        return
    if key != "identity":
        raise typer.BadParameter("identity, supernode, mask or witness", param_hint="--key")
    done = channel_keys.rotate(home, datetime.now(UTC))
    lines = [
        f"New key      {done.kid}, in the log at {done.index}",
        f"Old key      counts until {done.old_until}",
        "",
        "Send card.json to your partners; they pin the new key. Restart a running node at your leisure.",
    ]
    facts = {"kid": done.kid, "index": done.index, "oldUntil": done.old_until}
    _show(facts, as_json, lines, f"convoy-node doctor --home {home}")


def leave(
    home: Home,
    reason: Annotated[str, typer.Option(help="leaving, contract-ended or key-compromise.")] = "leaving",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Leave for good: budgets are frozen, a signed final statement goes into the log, certificates end."""
    from convoy_node.leave import as_json as receipt_json
    from convoy_node.leave import leave as end

    if reason not in ("leaving", "contract-ended", "key-compromise"):
        raise typer.BadParameter("leaving, contract-ended or key-compromise", param_hint="--reason")
    if not yes:
        typer.confirm("This node will answer nothing any more. Leave?", abort=True)
    receipt = end(home, datetime.now(UTC), reason)  # type: ignore[arg-type]
    lines = [
        f"{receipt.party} has left; the final statement is entry {receipt.index} of the log.",
        *(f"Paid by persons of {asset}: epsilon {micro / 1e6:.6f}" for asset, micro in receipt.total_micro.items()),
        "Released models keep what they have learned. Keep this folder: it is your side of the record.",
    ]
    _show(receipt_json(receipt), as_json, lines, f"convoy-node ledger --events --home {home}")


def _ticket(text: str) -> str:
    if text == "-":
        return sys.stdin.read(MAX_TICKET_BYTES)
    if text.strip().startswith("ticket_"):
        return text
    try:
        return Path(text).read_text(encoding="ascii")[:MAX_TICKET_BYTES]
    except (OSError, UnicodeDecodeError):
        raise NodeError(
            "no ticket, and no file of one.",
            code="TICKET_MALFORMED",
            fix="Copy the whole ticket, or name its file.",
            fix_zh="请复制完整票据，或指定其文件。",
        ) from None


def _tell(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def _show(facts: dict[str, Any], as_json: bool, lines: list[str], following: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    for line in lines:
        print(line)
    print(f"\nNext: {following}")
