"""The operator's commands for the log's care: archive, backup, restore, recover, grants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoy_coordinator.operator import AsJson, Home, ask, show

UrlFile = Annotated[
    Path | None, typer.Option("--database-url-file", help="File (0600) with the URL, if not the one of the settings.")
]


def archive(home: Home = None, as_json: AsJson = False) -> None:
    """Archive sealed tiles now; the running service does it once a day. Deletes nothing."""
    facts = ask(home, "POST", "/v1/log/archive")
    lines = [
        f"Archive     {facts['folder']}",
        f"Sealed      entries 0 to {facts['sealed']}, under the witnessed checkpoint of {facts['size']}",
        f"Old enough  the first {facts['removable']} entries are older than their retention",
    ]
    show(facts, as_json, lines, f"convoy-audit fsck {facts['folder']}")


def timestamp(home: Home = None, as_json: AsJson = False) -> None:
    """Have the last witnessed checkpoint stamped by the time-stamping authority; the service does it once a day."""
    facts = ask(home, "POST", "/v1/log/timestamp")
    lines = [
        f"Stamped     the checkpoint of {facts['size']} entries existed at {facts['at']}",
        f"Kept        {facts['file']}",
    ]
    show(
        facts, as_json, lines, "convoy-audit verify PACK --tsa-root ROOT.pem   (the stamp is in every pack from now on)"
    )


def backup(
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    home: Home = None,
    with_keys: Annotated[bool, typer.Option("--with-keys", help="Also copy the private keys.")] = False,
    as_json: AsJson = False,
) -> None:
    """Back up database, releases and settings, and derive the log of the copy again. The service may run."""
    from convoy_coordinator.backup import DATABASES
    from convoy_coordinator.backup import backup as make
    from convoy_coordinator.journal import now_utc
    from convoy_coordinator.settings import read_settings

    facts = make(read_settings(home), target, now=now_utc(), with_keys=with_keys)
    lines = [
        f"Backup   {facts['backup']}",
        f"Log      {facts['size']} entries, {facts['checkpoints']} checkpoints, root {facts['root']}",
        f"Keys     {'in the backup: keep it as safe as they are' if with_keys else 'not in it: back up keys/ elsewhere'}",
    ]
    show(facts, as_json, lines, f"convoy-audit fsck {target / DATABASES[facts['database']]}")


def restore(
    source: Annotated[Path, typer.Argument(help="The folder that backup made.")],
    home: Home = None,
    database_url_file: UrlFile = None,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into a home without a database. Never overwrites."""
    from convoy_coordinator.backup import restore as put_back

    if home is None:
        raise typer.BadParameter("name the home folder with --home or CONVOY_COORDINATOR_HOME")
    facts = put_back(source, home, database_url_file=database_url_file)
    lines = [
        f"Home     {facts['home']}",
        f"Log      {facts['size']} entries, as of {facts['madeAt']}",
        "If the witnesses have seen more, 'serve' refuses with LOG_BEHIND_WITNESS: then recover from a node's mirror.",
    ]
    show(facts, as_json, lines, f"convoy-coordinator serve --home {facts['home']}")


def recover(
    source: Annotated[
        Path, typer.Argument(help="A copy of this log: a node's mirror, an archive, a pack, a database.")
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Append to a restored log what a partner's copy has under this log's own signatures. Stop the service first."""
    from convoy_coordinator.log.recovery import catch_up
    from convoy_coordinator.settings import read_settings
    from convoy_coordinator.wiring import wire

    parts = wire(read_settings(home))
    try:
        facts = catch_up(parts.log, source).as_json()
    finally:
        parts.close()
    lines = [f"Log      {facts['before']} entries before, {facts['after']} now"]
    lines += [f"         {count} of {kind}: look at what it told of" for kind, count in sorted(facts["kinds"].items())]
    show(facts, as_json, lines, "convoy-coordinator serve")


def grants(
    role: Annotated[
        str | None, typer.Argument(help="The role the service runs as; none: check the connected one.")
    ] = None,
    home: Home = None,
    database_url_file: UrlFile = None,
    dry: Annotated[bool, typer.Option("--print", help="Print the SQL and run nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """On PostgreSQL, give the service's role SELECT and INSERT on the log, and nothing else there. Run as the owner."""
    from convoy_coordinator.db.session import open_engine
    from convoy_coordinator.errors import SetupError
    from convoy_coordinator.log.grants import excess, grant, has_roles, statements
    from convoy_coordinator.settings import read_settings

    if dry:
        if role is None:
            raise typer.BadParameter("name the role")
        print("".join(f"{statement};\n" for statement in statements(role)), end="")
        return
    engine = open_engine(read_settings(home, database_url_file=database_url_file).url)
    try:
        if role is not None:
            run = grant(engine, role)
            show({"role": role, "statements": run}, as_json, run, "convoy-coordinator grants   (as that role)")
            return
        is_checked, found = has_roles(engine), excess(engine)
    finally:
        engine.dispose()
    if found:
        raise SetupError(
            "LOG_ROLE_TOO_STRONG",
            f"the connected role may do more to the log than SELECT and INSERT: {', '.join(found)}",
            fix="Let the service connect as a role of its own: 'convoy-coordinator grants ROLE', run as the owner.",
        )
    told = (
        "The connected role may SELECT and INSERT in the log, nothing else."
        if is_checked
        else "This database has no roles, so nothing was checked: whoever can write the file can write the log. Use PostgreSQL for roles."
    )
    show({"excess": [], "checked": is_checked}, as_json, [told], "convoy-coordinator serve")


def register(app: typer.Typer) -> None:
    """Add the commands to ``convoy-coordinator``."""
    for command in (archive, timestamp, backup, restore, recover, grants):
        app.command()(command)
