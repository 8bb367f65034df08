"""Back up a coordinator into a folder that proves what it holds, and restore one from it.

    backup(settings, target, *, with_keys=False, now) -> facts       the service may go on running
    restore(source, home, *, database_url=None) -> facts             into a home that has no database yet; never over one

    backup.json                    version, origin, instant, kind of database, revision, size and root of the log
    database.sqlite | database.sql     a copy by SQLite's backup API, or a plain ``pg_dump``: ``convoy-audit fsck`` reads both
    files/…                        releases, certificates, time-stamps, settings and lists of the home
    keys/…                         private keys, only if asked for; else they are kept elsewhere
    SHA256SUMS                     of every other file

The database is copied first and the files after it, so that every release the database names is there. The copied log is derived
again before the backup counts as made, and again after a restore. A restored backup is older than what the witnesses have seen
unless nothing was logged since; then ``serve`` refuses with LOG_BEHIND_WITNESS, and what is missing comes from a node's mirror
(``catch_up``) or not at all. Passwords go to ``pg_dump`` and ``psql`` by PGPASSFILE, a file of this user, never by argument.
LIMIT: the check of a plain dump holds its entries in memory, about 1 GB a million.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import inspect, make_url

from convoy_audit.errors import AuditError
from convoy_audit.fsck import Findings, check_log
from convoy_coordinator.db.migrate import current_revision, head_revision
from convoy_coordinator.db.session import open_engine
from convoy_coordinator.errors import SetupError
from convoy_coordinator.settings import SETTINGS_FILE, Settings, read_settings

ABOUT: Final = "backup.json"
SUMS: Final = "SHA256SUMS"
VERSION: Final = 1
DATABASES: Final = {"sqlite": "database.sqlite", "postgresql": "database.sql"}
FILES: Final = (SETTINGS_FILE, "log-keys.txt", "witnesses.toml", "releases", "tls", "timestamps")


def backup(settings: Settings, target: Path, *, now: datetime, with_keys: bool = False) -> dict[str, Any]:
    """Make a backup.

    Args:
        settings: of the coordinator, which may be running.
        target: a folder that does not exist yet.
        now: the present instant.
        with_keys: also copy the private keys; the folder then is as secret as they are.

    Raises:
        SetupError: BACKUP_EXISTS, BACKUP_FAILED; nothing is left at ``target`` then.
    """
    if target.exists():
        raise SetupError("BACKUP_EXISTS", f"{target.name} exists already", fix="Name a folder that does not exist.")
    kind = make_url(settings.url).get_backend_name()
    if not (settings.home / SETTINGS_FILE).is_file():
        raise SetupError(
            "BACKUP_FAILED",
            f"{settings.home} is no coordinator's home: no {SETTINGS_FILE} in it",
            fix="Name it with --home.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))  # 0700
    try:
        revision = _copy_database(settings.url, kind, partial / DATABASES[kind])
        findings = _derive(partial / DATABASES[kind], "BACKUP_FAILED")
        for name in FILES:
            _copy(settings.home / name, partial / "files" / name)
        if with_keys:
            _copy(settings.keys_folder, partial / "keys")
        about = {
            "v": VERSION,
            "origin": settings.origin,
            "madeAt": now.isoformat(timespec="seconds"),
            "database": kind,
            "revision": revision,
            "size": findings.size,
            "root": findings.root.hex(),
            "checkpoints": findings.checkpoints,
            "keys": with_keys,
        }
        (partial / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        (partial / SUMS).write_text(_sums(partial), encoding="utf-8")
        # If we die before this: a hidden folder is left that nobody takes for a backup.
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return {"backup": str(target), **about}


def check(source: Path) -> dict[str, Any]:
    """Return what a backup says of itself, once every file is as it was and the log in it derives.

    Raises:
        SetupError: BACKUP_WRONG.
    """
    try:
        about = json.loads((source / ABOUT).read_text(encoding="utf-8"))
        stated = (source / SUMS).read_text(encoding="utf-8")
        kind = str(about["database"])
        size, root, origin, revision = (about[name] for name in ("size", "root", "origin", "revision"))
    except (OSError, ValueError, KeyError, TypeError):
        raise _wrong(f"{source.name} is no backup of a coordinator") from None
    if about.get("v") != VERSION or kind not in DATABASES:
        raise _wrong(f"a backup of version {str(about.get('v'))[:20]} and database {kind[:20]!r}")
    if stated != _sums(source):
        raise _wrong("the files are not those that were backed up (SHA256SUMS)")
    findings = _derive(source / DATABASES[kind], "BACKUP_WRONG")
    if (findings.size, findings.root.hex()) != (size, root):
        raise _wrong(f"its log has {findings.size} entries and another root than {ABOUT} says")
    if revision != head_revision():
        raise SetupError(
            "BACKUP_VERSION",
            f"the backup is of revision {revision}, this program needs {head_revision()}",
            fix="Restore with the version of the program that made it, then run 'convoy-coordinator migrate'.",
        )
    return {**about, "origin": str(origin), "size": int(size)}


def restore(source: Path, home: Path, *, database_url_file: Path | None = None) -> dict[str, Any]:
    """Restore a backup into a home.

    Args:
        source: the backup.
        home: a new folder, or one that holds the keys; it must not hold a database.
        database_url_file: where the URL of an empty database stands, if not where the settings say.

    Raises:
        SetupError: BACKUP_WRONG, BACKUP_VERSION, RESTORE_NOT_EMPTY, KEY_MISSING, RESTORE_FAILED.
    """
    about = check(source)
    home = home.expanduser().resolve()
    _refuse_others(source / "files", home)
    _refuse_others(source / "keys", home / "keys")
    if not (home / "keys").is_dir() and not (source / "keys").is_dir():
        raise SetupError(
            "KEY_MISSING",
            "the backup holds no private keys and the home has no keys folder",
            fix="Put the keys folder from its own safe place into the home first (0700, files 0600).",
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in FILES:
        _copy(source / "files" / name, home / name)
    _copy(source / "keys", home / "keys")
    settings = read_settings(home, database_url_file=database_url_file)
    kind = make_url(settings.url).get_backend_name()
    if kind != about["database"]:
        raise SetupError(
            "RESTORE_FAILED",
            f"the backup is of {about['database']}, the settings name {kind}",
            fix="Name a database of the same kind, by --database-url-file or in the settings.",
        )
    if kind == "sqlite":
        _restore_sqlite(settings.url, source / DATABASES[kind])
    else:
        _restore_postgresql(settings.url, source / DATABASES[kind])
    return {"home": str(home), **about}


# Databases -----------------------------------------------------------------------------------------------------------


def _copy_database(url: str, kind: str, target: Path) -> str:
    engine = open_engine(url)
    try:
        revision = current_revision(engine)
    finally:
        engine.dispose()
    if revision is None:
        raise SetupError("BACKUP_FAILED", "the database is empty", fix="Run 'convoy-coordinator init' first.")
    if kind == "sqlite":
        with closing(sqlite3.connect(_file_of(url))) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)  # one snapshot, also while the service writes
            copy.execute("PRAGMA journal_mode=DELETE")  # so that the copy is this one file
        target.chmod(0o600)
    else:
        _run("pg_dump", url, "--format=plain", "--no-owner", "--no-privileges", "--encoding=UTF8", f"--file={target}")
    return revision


def _restore_sqlite(url: str, source: Path) -> None:
    target = Path(_file_of(url))
    beside = [target, *(target.with_name(target.name + end) for end in ("-wal", "-shm", "-journal"))]
    if any(path.exists() for path in beside):
        raise _not_empty(target.name)
    partial = target.with_name(f".{target.name}.restored")
    shutil.copyfile(source, partial)
    partial.chmod(0o600)
    _sync(partial)
    # If we die before this: there is no database yet, and restoring again goes on.
    partial.rename(target)
    _sync(target.parent)


def _restore_postgresql(url: str, source: Path) -> None:
    engine = open_engine(url)
    try:
        tables = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables:
        raise _not_empty(f"the database with table {tables[0]!r}")
    _run("psql", url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", f"--file={source}")


def _run(tool: str, url: str, *arguments: str) -> None:
    """Run a tool of PostgreSQL on a database; its password goes by a file."""
    with _password_file(url) as environment:
        command = [tool, *arguments, "--no-password", f"--dbname={_conninfo(url)}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except FileNotFoundError:
            raise SetupError(
                "TOOL_MISSING",
                f"{tool} is not installed",
                fix="Install postgresql-client of the server's version or newer.",
            ) from None
    if done.returncode:
        cause = (done.stderr.strip().splitlines() or ["no message"])[0][:300]
        code = "BACKUP_FAILED" if tool == "pg_dump" else "RESTORE_FAILED"
        raise SetupError(code, f"{tool}: {cause}", fix="Correct what it names, and start again; nothing was changed.")


def _parameters(url: str) -> dict[str, Any]:
    read = make_url(url)
    _, parameters = read.get_dialect()().create_connect_args(read)
    return dict(parameters)


def _conninfo(url: str) -> str:
    from psycopg.conninfo import make_conninfo

    return make_conninfo(**{name: value for name, value in _parameters(url).items() if name != "password"})


@contextmanager
def _password_file(url: str) -> Iterator[dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if name != "PGPASSWORD"}
    password = _parameters(url).get("password")
    with tempfile.TemporaryDirectory(prefix="convoy-") as folder:
        if password is not None:
            path = Path(folder) / "pgpass"
            escaped = str(password).replace("\\", "\\\\").replace(":", "\\:")
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(f"*:*:*:*:{escaped}\n")
            environment["PGPASSFILE"] = str(path)
        yield environment


def _file_of(url: str) -> str:
    file = make_url(url).database
    if not file:
        raise SetupError("BACKUP_FAILED", "a database in memory cannot be backed up", fix="Use a file.")
    return file


def _derive(path: Path, code: str) -> Findings:
    """Derive the log of a copy again."""
    try:
        findings = check_log(path)
    except AuditError as error:
        raise SetupError(code, f"the log of the copy cannot be read: {error.cause}", fix=_LOOK) from None
    if findings.faults:
        raise SetupError(code, f"the log does not hold: {findings.faults[0]}", fix=_LOOK)
    return findings


# Files ---------------------------------------------------------------------------------------------------------------


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder if it is there; what is at the target already is the same (``_refuse_others``)."""
    if source.is_dir():
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(source.rglob("*")):
            if not path.relative_to(source).parts[0].startswith(".") and path.is_file():
                _copy(path, target / path.relative_to(source))
    elif source.is_file():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o600)


def _refuse_others(source: Path, target: Path) -> None:
    """Refuse to write over a file that says something else."""
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        there = target / path.relative_to(source)
        if path.is_file() and there.exists() and there.read_bytes() != path.read_bytes():
            raise _not_empty(str(path.relative_to(source)))


def _sums(folder: Path) -> str:
    lines = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise _wrong(f"a link in the backup: {name[:80]!r}")
        if path.is_file() and name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_empty(what: str) -> SetupError:
    return SetupError(
        "RESTORE_NOT_EMPTY",
        f"there is something else already: {what}",
        fix="Restoring never overwrites. Move the old home or database away, or restore into a new one.",
    )


def _wrong(cause: str) -> SetupError:
    return SetupError("BACKUP_WRONG", cause, fix="Take another backup; keep this one to find out what changed it.")


_LOOK: Final = (
    "Run 'convoy-audit fsck' on the database itself; if it is wrong too, keep it and restore an older backup."
)
