"""Copy a node's folder into one sealed file while the node works, and put such a copy back.

    make_backup(home, target, passphrase, now) -> Backup      restore_backup(source, home, passphrase) -> Backup

What is in it: settings, pins, keys, signed contracts, the witness's memory, the node's own log, and each database as a copy of
one instant (SQLite's backup interface). The memory is copied first and the ledger last, so that the copy of the ledger is never
the older one. What is not: the party's own rows (``data/``), lock files, write-ahead logs. ``manifest.json`` comes first and has
size and SHA-256 of every file; a restore checks each of them before the folder appears under its name.
A restored folder is marked (``standing``): it works on nothing until it has caught up.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from convoy_audit.canonical import parse_canonical
from convoy_audit.statement import statement_from_json
from convoy_contracts.instants import timestamp
from convoy_node.backup.sealed import BackupRefused, SealedReader, SealedWriter
from convoy_node.backup.standing import RESTORED, mark_restored
from convoy_node.consent.watermark import Watermark
from convoy_node.errors import HomeRefused
from convoy_node.memory import Memory
from convoy_node.settings import Settings

SCHEMA: Final = "convoy-node-backup/1"
MANIFEST: Final = "manifest.json"
MEMORY: Final = "node.db"
_FIRST, _LAST = MEMORY, "ledger.db"
_LEFT_OUT: Final = frozenset({"data", RESTORED})
_SUFFIXES: Final = (".lock", "-wal", "-shm", "-journal", ".part", ".tmp")
_MAX_FILES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup is: whose, when, up to which of the party's statements, and how many files and bytes."""

    party: str
    taken_at: str
    statement: int
    files: int
    size_bytes: int
    place: str

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return asdict(self)


def make_backup(home: Path, target: Path, passphrase: bytes, now: datetime) -> Backup:
    """Write a sealed copy of a node's folder; the node may be running.

    Args:
        home: the node's folder.
        target: the file to write, or a folder for it.
        passphrase: what opens it again; keep it apart from the backup.
        now: aware.

    Raises:
        NodeError: the folder cannot be read, or the file is there already.
    """
    settings = Settings.load(home)
    if target.is_dir():
        short = settings.party.removeprefix("did:web:").replace(":", "-")
        target = target / f"{short}-{now:%Y%m%dT%H%M%SZ}.convoy"
    if target.exists():
        raise BackupRefused(
            f"{target.name} is there already.",
            code="FILE_EXISTS",
            fix="Name another file; backups are not replaced.",
            fix_zh="请指定其他文件；备份不会被替换。",
        )
    with _beside(target, ".backup-") as folder:
        copy = Path(folder)
        copy.chmod(0o700)
        files = _copy(home, copy)
        taken = {
            "schema": SCHEMA,
            "party": settings.party,
            "takenAt": timestamp(now),
            "statement": _last_statement(copy / MEMORY),
            "files": {name: _facts(copy / name) for name in files},
        }
        (copy / MANIFEST).write_text(json.dumps(taken, indent=1))
        part = copy / "sealed.part"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            sealed = SealedWriter(file, passphrase)
            with tarfile.open(fileobj=cast(Any, sealed), mode="w|") as archive:
                for name in (MANIFEST, *files):
                    archive.add(copy / name, arcname=name, filter=_plain)
            sealed.close()
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)  # fails where another backup was faster
    return _backup(taken, target)


def restore_backup(source: Path, home: Path, passphrase: bytes) -> Backup:
    """Put a backup back into a new folder and mark it as restored.

    Raises:
        HomeRefused: there is something under this name.
        BackupRefused: not a backup, another passphrase, or not whole; no folder is made then.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise HomeRefused(
            f"{home.name!r} is there already and not empty.",
            fix="Name a new folder; a node that works is never overwritten.",
            fix_zh="请指定新文件夹；正在工作的节点绝不会被覆盖。",
        )
    with _beside(home, ".restore-", is_made=True) as folder:
        fresh = Path(folder) / "home"
        fresh.mkdir(mode=0o700)
        taken = _unpack(source, fresh, passphrase)
        (fresh / MANIFEST).unlink()
        (fresh / "witness" / "alarms").mkdir(parents=True, exist_ok=True)
        # If we die above: nothing is there. The mark is in the folder before the folder has its name.
        mark_restored(fresh, "restored from a backup", party=taken["party"], takenAt=taken["takenAt"])
        with closing(Watermark(fresh / MEMORY)) as watermark:
            watermark.suspect()
        if home.exists():
            home.rmdir()
        fresh.rename(home)
    return _backup(taken, home)


def _copy(home: Path, copy: Path) -> list[str]:
    """Copy what belongs to a backup; return the names, the memory first and the ledger last."""
    names = sorted(_names(home), key=lambda name: (name != _FIRST, name == _LAST, name))
    if _LAST not in names and _FIRST not in names:
        raise HomeRefused(f"the folder {home.name!r} is no node's.")
    for name in names:
        place = copy / name
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if name.endswith(".db"):
            with (
                closing(sqlite3.connect(f"{(home / name).absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as db,
                closing(sqlite3.connect(place)) as kept,
            ):
                db.backup(kept)
            place.chmod(0o600)
        else:
            shutil.copy2(home / name, place)
    return names


def _names(home: Path) -> Iterator[str]:
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home)
        is_own = path.is_file() and not path.is_symlink() and name.parts[0] not in _LEFT_OUT
        if is_own and not str(name).endswith(_SUFFIXES):
            yield name.as_posix()


def _beside(place: Path, prefix: str, *, is_made: bool = False) -> tempfile.TemporaryDirectory[str]:
    """Open a working folder beside a place, so that what is made in it gets its name in one step.

    Args:
        place: of the file or folder to come.
        prefix: of the working folder's name.
        is_made: whether missing folders above are made.

    Raises:
        BackupRefused: FILE_UNWRITABLE.
    """
    try:
        if is_made:
            place.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=prefix, dir=place.parent)
    except OSError as error:
        raise BackupRefused(
            f"{place.name!r} cannot be made in the folder {place.parent.name!r} ({error.strerror}).",
            code="FILE_UNWRITABLE",
            fix="Name a place in a folder that is there and where you may write.",
            fix_zh="请指定已存在且可写文件夹中的位置。",
        ) from error


def _unpack(source: Path, fresh: Path, passphrase: bytes) -> dict[str, Any]:
    try:
        with source.open("rb") as file:
            sealed = SealedReader(file, passphrase)
            taken: dict[str, Any] = {}
            with tarfile.open(fileobj=cast(Any, sealed), mode="r|") as archive:
                for number, member in enumerate(archive):
                    _check_name(member, number)
                    archive.extract(member, fresh, filter="data", set_attrs=False)
                    (fresh / member.name).chmod(0o600)
                    if number == 0:
                        taken = _manifest(fresh / member.name)
            while sealed.read(1 << 20):
                pass  # the last chunk proves that nothing was cut
    except tarfile.TarError as error:
        raise BackupRefused("the backup is damaged.", code="BACKUP_DAMAGED", fix="Use another copy.") from error
    except OSError as error:
        raise BackupRefused(
            f"{source.name} cannot be read, or the folder cannot be written.",
            fix="See disk and rights.",
            fix_zh="请检查磁盘与权限。",
        ) from error
    _check_whole(fresh, taken)
    return taken


def _check_name(member: tarfile.TarInfo, number: int) -> None:
    place = PurePosixPath(member.name)
    if not member.isreg() or place.is_absolute() or ".." in place.parts or number >= _MAX_FILES:
        raise BackupRefused("the backup holds what no backup holds.", code="BACKUP_DAMAGED")
    if (number == 0) != (member.name == MANIFEST):
        raise BackupRefused("the backup's manifest is not its first file.", code="BACKUP_DAMAGED")


def _manifest(path: Path) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict) and value.get("schema") == SCHEMA and isinstance(value.get("files"), dict):
            return value
    raise BackupRefused("the backup has no manifest of this version.", code="BACKUP_DAMAGED")


def _check_whole(fresh: Path, taken: dict[str, Any]) -> None:
    there = {path.relative_to(fresh).as_posix() for path in fresh.rglob("*") if path.is_file()} - {MANIFEST}
    expected = taken.get("files", {})
    wrong = [name for name in sorted(there | set(expected)) if name not in there or name not in expected]
    wrong += [name for name in sorted(there & set(expected)) if _facts(fresh / name) != expected[name]]
    if wrong:
        raise BackupRefused(
            f"{len(wrong)} files of the backup are not what its manifest says.",
            code="BACKUP_DAMAGED",
            reasons=wrong[:20],
        )


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = stat.S_IRUSR | stat.S_IWUSR
    return member


def _last_statement(path: Path) -> int:
    with closing(Memory(path)) as memory:
        raw = memory.last_statement()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return statement_from_json(parse_canonical(raw), raw).number if raw is not None else 0


def _backup(taken: dict[str, Any], place: Path) -> Backup:
    size = sum(int(facts["size"]) for facts in taken["files"].values())
    return Backup(taken["party"], taken["takenAt"], int(taken["statement"]), len(taken["files"]), size, str(place))
