"""``convoy-node backup | restore | catch-up``: copies of a node, and how a restored one comes back to work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from convoy_node.terminal import AsJson, Home, show

Passphrase = Annotated[
    Path,
    typer.Option(
        "--passphrase-file",
        envvar="CONVOY_BACKUP_PASSPHRASE_FILE",
        help="File (0600) with the passphrase; the backup holds private keys. Make one: openssl rand -base64 32",
    ),
]


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.command()(backup)
    app.command()(restore)
    app.command("catch-up")(catch_up)


def backup(
    target: Annotated[Path, typer.Argument(help="File to write, or a folder for it.")],
    home: Home,
    passphrase_file: Passphrase,
    as_json: AsJson = False,
) -> None:
    """Copy keys, contracts, ledger, register and memory into one sealed file; the node may be running. Not your rows."""
    from convoy_node.backup.folder import make_backup
    from convoy_node.backup.sealed import read_passphrase

    made = make_backup(home, target, read_passphrase(passphrase_file), datetime.now(UTC))
    lines = [
        f"{made.place}: {made.files} files, {made.size_bytes:,} bytes, up to statement {made.statement}.",
        "Keep the passphrase somewhere else: without it nobody opens this file, you included.",
    ]
    show(made.as_json(), as_json, lines, f"convoy-node restore {made.place} --home NEW-FOLDER   (rehearse it)")


def restore(
    source: Annotated[Path, typer.Argument(help="The backup.")],
    home: Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="A new folder.")],
    passphrase_file: Passphrase,
    as_json: AsJson = False,
) -> None:
    """Put a backup back into a new folder. It works on nothing until it has caught up with the log."""
    from convoy_node.backup.folder import restore_backup
    from convoy_node.backup.sealed import read_passphrase

    made = restore_backup(source, home, read_passphrase(passphrase_file))
    lines = [
        f"{made.party} as of {made.taken_at}, statement {made.statement}, in {home}.",
        "It may have forgotten what persons have paid and who withdrew since: it works on nothing until it has caught up.",
        "Stop the old node for good first: two copies of a node look like one that lies.",
        "Copy your rows (data/) yourself; they are in no backup.",
    ]
    show(made.as_json(), as_json, lines, f"convoy-node catch-up --home {home} --coordinator ADDRESS")


def catch_up(
    home: Home,
    coordinator: Annotated[str, typer.Option(help="Address of the coordinator, or of a mirror of its log.")],
    as_json: AsJson = False,
) -> None:
    """After a restore: read own statements and every authorisation back from the log; what may be spent counts in full."""
    from convoy_node.backup.catch_up import catch_up as do
    from convoy_node.log_reader import LogReader

    with LogReader(coordinator) as reader:
        done = do(home, reader, lambda: datetime.now(UTC))
    lines = [
        f"{done.entries} entries read, {done.statements} own statements taken back, {len(done.runs)} runs counted in full."
    ]
    lines += [f"  counted in full: {run}" for run in done.runs]
    lines += [f"Sign contract {digest} again: convoy-node sign TEXT" for digest in done.contracts]
    lines += ["Next is the register: what was said since the copy comes from your app or CRM."]
    show(done.as_json(), as_json, lines, f"convoy-node consent catch-up --home {home} --table SAID-SINCE.csv")
