"""How long things are kept: floors that no configuration lowers, and what may be archived or forgotten.

    RetentionPlan(log_days=…, decision_days=…, assessment_days=…, contract_days=…)    raises RetentionError
      .kept_until(kind, at) -> datetime        .check_erasable(kind, at, now)         raises RetentionError
    sealed_end(dates, now, plan) -> int        entries [0, end) lie in sealed bundles that may be archived
    CommitmentKeys(folder): .new(value) -> commitment, .open(commitment) -> key, .erase(commitment)

Floors: logs six months (Cybersecurity Law of the PRC, art. 21); decisions, impact assessments and records
of processing three years (PIPL art. 56). A plan may keep longer, never shorter. The hash of an entry is
kept for ever; an entry's body may be archived, not changed. What must be forgettable is never in an entry:
it stands there as a commitment, and forgetting is erasing its key (``CommitmentKeys``) - then nobody, the
party included, can show any more what was committed, while every proof of the log still holds.
LIMIT: copies of a key on a backup or a flash cell that the file system moved are out of this module's reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from convoy_audit.canonical import is_digest
from convoy_audit.entry import COMMITMENT_KEY_BYTES, commit, new_commitment_key
from convoy_audit.errors import FormatError, RetentionError, StoreError
from convoy_audit.tiles import WIDTH
from convoy_audit.witness_store import sync_folder, write_atomically

Kind = Literal["log", "decision", "assessment", "contract"]
FLOOR_DAYS: Final[dict[Kind, int]] = {"log": 184, "decision": 1096, "assessment": 1096, "contract": 1096}
"""Six months and three years, each counted with its longest run of days."""


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """Days to keep each kind; refused when built if one is under its floor."""

    log_days: int = FLOOR_DAYS["log"]
    decision_days: int = FLOOR_DAYS["decision"]
    assessment_days: int = FLOOR_DAYS["assessment"]
    contract_days: int = FLOOR_DAYS["contract"]

    def __post_init__(self) -> None:
        low = [f"{kind}: {self.days(kind)} < {floor}" for kind, floor in FLOOR_DAYS.items() if self.days(kind) < floor]
        if low:
            raise RetentionError("fewer days than the law's floor: " + ", ".join(low))

    def days(self, kind: Kind) -> int:
        """Return the days to keep a kind."""
        if f"{kind}_days" not in {f.name for f in fields(self)}:
            raise FormatError(f"nothing is kept under the name {str(kind)[:20]!r}")
        days = getattr(self, f"{kind}_days")
        if type(days) is not int:
            raise FormatError(f"{kind}_days is not a whole number of days")
        return days

    def kept_until(self, kind: Kind, at: datetime) -> datetime:
        """Return the first instant at which something of this kind and date may be erased."""
        _aware(at)
        return at + timedelta(days=self.days(kind))

    def check_erasable(self, kind: Kind, at: datetime, now: datetime) -> None:
        """Check that something may be erased.

        Raises:
            RetentionError: not before the date that is named.
        """
        _aware(now)
        until = self.kept_until(kind, at)
        if now < until:
            raise RetentionError(f"{kind} of {at.date().isoformat()} is kept until {until.date().isoformat()}")


def sealed_end(dates: Iterable[datetime], now: datetime, plan: RetentionPlan) -> int:
    """Return the end of the entries that may be archived: whole bundles from the start, all old enough.

    Args:
        dates: the entries' instants in log order.
        now: the clock.
        plan: the floor for logs counts; an archive is still a record that must be kept.
    """
    end = 0
    for index, at in enumerate(dates):
        if plan.kept_until("log", at) > now:
            break
        end = index + 1
    return end // WIDTH * WIDTH


class CommitmentKeys:
    """The erasable side table: one file a commitment, mode 0600, in a folder outside the log and its backups."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self, value: bytes) -> str:
        """Commit to a value under a fresh key and keep the key; durable when it returns.

        Raises:
            StoreError: the key could not be stored; the commitment must not be used.
        """
        key = new_commitment_key()
        commitment = commit(key, value)
        try:
            # If we die before this: nobody knows the commitment. After it: it can be opened, and forgotten.
            write_atomically(self._path(commitment), key)
        except OSError as error:
            raise StoreError(f"a commitment key cannot be stored: {error.strerror}") from None
        return commitment

    def open(self, commitment: str) -> bytes:
        """Return the key of a commitment, to show beside the value.

        Raises:
            RetentionError: it was forgotten, or never was here.
        """
        try:
            key = self._path(commitment).read_bytes()
        except FileNotFoundError:
            raise RetentionError("the key of this commitment was erased, or never was here") from None
        if len(key) != COMMITMENT_KEY_BYTES:
            raise StoreError("a damaged commitment key")
        if not any(key):
            raise RetentionError("the key of this commitment was erased")
        return key

    def erase(self, commitment: str) -> None:
        """Forget: overwrite the key, remove it, make both durable; erasing twice changes nothing.

        Raises:
            StoreError: it could not be erased; it may still be there.
        """
        path = self._path(commitment)
        try:
            with path.open("r+b") as file:
                file.write(bytes(COMMITMENT_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # If we die here: the key is gone already, and a file of zeroes is left that opens nothing.
            path.unlink()
            sync_folder(self._folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"a commitment key cannot be erased: {error.strerror}") from None

    def _path(self, commitment: str) -> Path:
        if not is_digest(commitment):
            raise FormatError("not a commitment")
        return self._folder / commitment.removeprefix("sha256:")


def _aware(at: datetime) -> None:
    if at.tzinfo is None:
        raise FormatError("an instant without a time zone")
