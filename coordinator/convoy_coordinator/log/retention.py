"""Archive what is sealed every day, and never go below the floors.

    archive(log, folder) -> Archived                 sealed tiles and bundles under the last witnessed checkpoint, as files
    removable(log, archived, now, plan) -> int       the entries below this index are archived and older than their retention
    RetentionJob(log, journal, folder, plan, clock)  .once() -> facts   .start()   .stop()

A bundle is sealed when it is full and a witnessed checkpoint covers it: its bytes never change again. The archive is a folder
in tlog-tiles layout (``checkpoint``, ``tile/…``): a mirror that ``convoy-audit fsck`` checks alone. That something was archived
is an entry of the log, with the digest of the bundles' bytes one after another. Archiving deletes nothing: the log's database
role may not, and hashes are kept for ever. ``RetentionPlan`` refuses days below the floors (six months for logs, three years
for decisions and assessments); one decision in a bundle keeps the whole bundle.
LIMIT: what ``removable`` names is removed by the owner of the database, by hand, or never. The log reads every entry when it
starts, so after that it starts from the archive, restored.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from convoy_audit.checkpoint import peek
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import TilesArchived
from convoy_audit.merkle import leaf_hash
from convoy_audit.retention import Kind, RetentionPlan
from convoy_audit.statement import Statement
from convoy_audit.tiles import WIDTH, Span, decode_bundle, encode_bundle, entries_path, tile_path, tile_spans
from convoy_audit.witness_store import write_atomically
from convoy_coordinator.errors import CoordinatorError, Problem
from convoy_coordinator.journal import Journal
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.repeating import Repeating
from convoy_coordinator.log.service import LogService

DAY_S: Final = 86_400.0
MERE_LOGS: Final = frozenset(
    {"coordinator:access:refused", "coordinator:signature:refused", "coordinator:log:archived"}
)
"""Kinds under the floor for logs; every other kind is a decision, an assessment, or what they rest on."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Archived:
    """What an archive holds: entries 0 to ``sealed`` in full bundles, under a checkpoint of ``size``.

    ``first`` is where the last archiving began, and ``digest`` is of the bundles from there to ``sealed``.
    """

    folder: Path
    size: int
    first: int
    sealed: int
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "folder": str(self.folder),
            "size": self.size,
            "first": self.first,
            "sealed": self.sealed,
            "archive": self.digest,
        }


def archive(log: LogService, folder: Path) -> Archived:
    """Write every sealed tile and bundle that is not there yet; what is there is compared with the log first.

    The ``checkpoint`` file is left to ``vouch``, so that until then the archive says what it said before.

    Raises:
        Problem: LOG_NOT_WITNESSED, nothing is sealed by a quorum yet; LOG_UNAVAILABLE, a file of the archive is not what was
            logged; nothing is written over it.
    """
    log.level_of(0)
    note = log.latest()
    if note is None or not log.levels.size(Level.WITNESSED):
        raise Problem("LOG_NOT_WITNESSED", "no checkpoint has the quorum, so nothing is sealed")
    size = peek(note.encode()).size
    sealed, first = size // WIDTH * WIDTH, _vouched(folder)
    content = hashlib.sha256()
    for index in range(sealed // WIDTH):
        data = encode_bundle(log.bundle(Span(0, index, WIDTH)))
        _keep(folder / entries_path(index), data)
        if index * WIDTH >= first:
            content.update(data)
    for span in tile_spans(size):
        if span.width == WIDTH:
            _keep(folder / tile_path(span.level, span.index), log.tile(span))
    return Archived(folder, size, first, sealed, f"sha256:{content.hexdigest()}")


def vouch(log: LogService, archived: Archived) -> None:
    """Put the checkpoint that covers the archive beside it, with partial tiles and the entries up to its size.

    If we die before the last file: the archive vouches for what it vouched for before, and the next turn goes on.
    """
    folder, size = archived.folder, archived.size
    if size % WIDTH:
        span = Span(0, size // WIDTH, size % WIDTH)
        _keep(folder / entries_path(span.index, span.width), encode_bundle(log.bundle(span)))
    for span in tile_spans(size):
        if span.width < WIDTH:
            _keep(folder / tile_path(span.level, span.index, span.width), log.tile(span))
    note = log.at(size)
    if note is None:
        raise Problem("LOG_UNAVAILABLE", f"the checkpoint of {size} is not stored any more")
    write_atomically(folder / "checkpoint", note.encode())


def removable(log: LogService, archived: Archived, now: datetime, plan: RetentionPlan) -> int:
    """Return the index below which every entry is in the archive, is what was logged, and is older than its retention."""
    for index in range(archived.sealed // WIDTH):
        path = archived.folder / entries_path(index)
        try:
            entries = decode_bundle(path.read_bytes(), WIDTH)
        except (OSError, AuditError):
            return index * WIDTH
        for offset, raw in enumerate(entries):
            if leaf_hash(raw) != log.leaf(index * WIDTH + offset) or _kept_until(raw, plan) > now:
                return index * WIDTH
    return archived.sealed


class RetentionJob:
    """Archives once a day, in a thread of its own.

    Args:
        log: the log.
        journal: where it is written that something was archived.
        folder: the archive.
        plan: how long each kind is kept; built, so not below the floors.
        clock: the present instant.
    """

    def __init__(
        self,
        log: LogService,
        journal: Journal,
        folder: Path,
        plan: RetentionPlan,
        clock: Callable[[], datetime],
        *,
        interval_s: float = DAY_S,
    ) -> None:
        self._log = log
        self._journal = journal
        self._folder = folder
        self._plan = plan
        self._clock = clock
        self._turn = threading.Lock()
        self._repeating = Repeating("log-retention", interval_s, self._archive)

    def once(self) -> dict[str, Any]:
        """Archive what is sealed; return what the archive holds and what might be removed.

        Raises:
            CoordinatorError: nothing is sealed, the archive is not what was logged, or the log cannot be written.
        """
        with self._turn:
            archived = archive(self._log, self._folder)
            if archived.sealed > archived.first:
                at, first, end, digest = self._clock(), archived.first, archived.sealed, archived.digest
                self._journal.record(lambda _now: TilesArchived(at=at, first=first, end=end, archive=digest))
                # If we die here: the next turn archives and records the same again.
            vouch(self._log, archived)
            cut = removable(self._log, archived, self._clock(), self._plan)
            return {**archived.as_json(), "removable": cut}

    def start(self) -> None:
        """Begin; the first turn is one interval away."""
        self._repeating.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._repeating.stop()

    def _archive(self) -> None:
        try:
            facts = self.once()
            _log.info("archived up to entry %d", facts["sealed"])
        except (CoordinatorError, AuditError, OSError) as error:
            _log.error(
                "nothing was archived: %s", error if isinstance(error, CoordinatorError) else type(error).__name__
            )


def kind_of(raw: bytes) -> Kind:
    """Return under which retention an entry falls."""
    content = parse_entry(raw)
    type_name = content.event.TYPE if isinstance(content, Statement) else content.TYPE
    return "log" if type_name in MERE_LOGS else "contract" if ":contract:" in type_name else "decision"


def _kept_until(raw: bytes, plan: RetentionPlan) -> datetime:
    return plan.kept_until(kind_of(raw), parse_entry(raw).at)


def _vouched(folder: Path) -> int:
    """Return up to where the archive was vouched for before."""
    path = folder / "checkpoint"
    return peek(path.read_bytes()).size // WIDTH * WIDTH if path.is_file() else 0


def _keep(path: Path, data: bytes) -> None:
    """Write a file once; compare if it is there."""
    if path.is_file():
        if path.read_bytes() != data:
            raise Problem("LOG_UNAVAILABLE", f"the archive's {path.name} is not what was logged; keep both and look")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
