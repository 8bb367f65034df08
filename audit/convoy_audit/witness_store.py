"""Keep a witness's memory in a folder: one file an origin, replaced atomically.

    FileWitnessStore.create(folder: Path) -> FileWitnessStore       refuses a folder that has one
    FileWitnessStore.open(folder: Path) -> FileWitnessStore         refuses a folder that has none
      .load, .replace, .keep_alarm, .alarms                         as witness.WitnessStore

With ``cli``, ``fsck`` and ``archive`` the only module of this library that opens files. Creating and
opening are two acts on purpose: a witness whose folder is lost must not start again from nothing
under its old key (SPEC.md W4).

Layout: ``witness.json`` marks the folder; ``<sha256 of origin>.checkpoint`` is the last cosigned
note; ``alarms/<digest>.json`` holds two notes. Each write: temporary file, fsync, rename, fsync of
the folder. A lock file (flock) keeps processes apart, a lock keeps threads apart.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from convoy_audit.errors import AuditError, FormatError, StoreConflict, StoreError
from convoy_audit.witness import Alarm, Remembered

MARK: Final = "witness.json"
_MARK_CONTENT: Final = b'{"v":1,"what":"convoy witness store"}'


class FileWitnessStore:
    """What a witness remembers, in one folder; safe for threads and processes of one machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mutex = threading.Lock()
        if not (folder / MARK).is_file():
            raise StoreError(f"no witness store in {folder.name!r}")

    @classmethod
    def open(cls, folder: Path) -> FileWitnessStore:
        """Open an existing store.

        Raises:
            StoreError: there is none.
        """
        return cls(folder)

    @classmethod
    def create(cls, folder: Path) -> FileWitnessStore:
        """Make a new, empty store.

        Raises:
            StoreError: there is one already, or the folder cannot be written.
        """
        if (folder / MARK).exists():
            raise StoreError(f"a witness store exists already in {folder.name!r}")
        try:
            (folder / "alarms").mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(folder / MARK, _MARK_CONTENT)
        except OSError as error:
            raise StoreError(f"the store cannot be made: {error.strerror}") from None
        return cls(folder)

    def load(self, origin: str) -> Remembered | None:
        """Return what is remembered of a log, None if nothing.

        Raises:
            StoreError: the file is damaged or of another log.
        """
        try:
            note = self._file(origin).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"the store cannot be read: {error.strerror}") from None
        remembered = Remembered(note)
        try:
            found = remembered.checkpoint.origin
        except AuditError as error:
            raise StoreError(f"the remembered checkpoint is damaged: {error.cause}") from None
        if found != origin:
            raise StoreError("the remembered checkpoint is of another log")
        return remembered

    def replace(self, origin: str, old: Remembered | None, new: Remembered) -> None:
        """Put ``new`` in the place of ``old``; durable when it returns.

        Raises:
            StoreConflict: something else than ``old`` is there.
            StoreError: it could not be written; what was there is there still, or ``new`` is.
        """
        with self._exclusive():
            if self.load(origin) != old:
                raise StoreConflict("the remembered checkpoint has changed")
            try:
                write_atomically(self._file(origin), new.note)
            except OSError as error:
                raise StoreError(f"the checkpoint cannot be stored: {error.strerror}") from None

    def keep_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm; the same one again changes nothing.

        Raises:
            StoreError: it could not be written.
        """
        data = alarm.to_bytes()
        path = self._folder / "alarms" / f"{alarm.identity.removeprefix('sha256:')}.json"
        with self._exclusive():
            try:
                if not path.exists():
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    write_atomically(path, data)
            except OSError as error:
                raise StoreError(f"the alarm cannot be stored: {error.strerror}") from None

    def alarms(self) -> tuple[Alarm, ...]:
        """Return every alarm, in no particular order.

        Raises:
            StoreError: one of them cannot be read.
        """
        found = []
        for path in sorted((self._folder / "alarms").glob("*.json")):
            try:
                found.append(Alarm.from_bytes(path.read_bytes()))
            except OSError as error:
                raise StoreError(f"an alarm cannot be read: {error.strerror}") from None
            except FormatError as error:
                raise StoreError(f"a damaged alarm: {error.cause}") from None
        return tuple(found)

    def _file(self, origin: str) -> Path:
        return self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._mutex:
            try:
                lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise StoreError(f"the store cannot be locked: {error.strerror}") from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
            finally:
                os.close(lock)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or not there, and durable when this returns."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # If we die here: the old file is whole, and a temporary file lies about that nobody reads.
        os.rename(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    # If we die here: after a power cut either the old or the new file is there, each whole.
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on disk: a file that was renamed or removed in it stays so after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
