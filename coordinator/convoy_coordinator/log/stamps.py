"""Time from outside: once a day a time-stamping authority (RFC 3161) stamps the last witnessed checkpoint.

    StampJob(log, folder, authority, clock)   .once() -> facts   .start()   .stop()
    StampAuthority(url, roots: path of PEM certificates)
    stamps(folder) -> {size of a checkpoint: response}          what evidence packs carry

What is sent is a SHA-256 of the checkpoint's text, nothing of the log. A response is verified against the operator's root
certificates before it is kept as ``<size>.tsr``, beside the log and never in its way: an authority that is silent delays
nothing, and is asked again an hour later. What a stamp shows: the checkpoint, and so every entry under it, existed at that time,
if the authority is honest.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx

from convoy_audit import timestamps
from convoy_audit.errors import AuditError
from convoy_audit.note import split_note
from convoy_audit.witness_store import write_atomically
from convoy_coordinator.errors import CoordinatorError, Problem
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.repeating import Repeating
from convoy_coordinator.log.service import LogService

DAY_S: Final = 86_400.0
LOOK_S: Final = 3600.0
TIMEOUT_S: Final = 20.0
MAX_ANSWER: Final = 256 * 1024
QUERY: Final = "application/timestamp-query"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StampAuthority:
    """Whom to ask, and what its signatures are verified against."""

    url: str
    roots: Path
    client: httpx.Client | None = None

    def ask(self, query: bytes) -> bytes:
        """Send a request and return the response, not verified.

        Raises:
            Problem: TIMESTAMP_FAILED, no usable answer.
        """
        send = self.client.post if self.client is not None else httpx.post
        try:
            answer = send(self.url, content=query, headers={"Content-Type": QUERY}, timeout=TIMEOUT_S)
        except httpx.HTTPError as error:
            raise _failed(f"the authority did not answer ({type(error).__name__})") from None
        if answer.status_code != 200 or len(answer.content) > MAX_ANSWER:
            raise _failed(f"the authority answered with status {answer.status_code}, {len(answer.content)} bytes")
        return answer.content

    def trusted(self) -> bytes:
        """Return the root certificates.

        Raises:
            Problem: TIMESTAMP_FAILED, the file cannot be read.
        """
        try:
            return self.roots.read_bytes()
        except OSError as error:
            raise _failed(f"the authority's root certificates cannot be read: {error.strerror}") from None


def stamps(folder: Path) -> dict[int, bytes]:
    """Return every response that was kept, by the size of its checkpoint."""
    return {int(path.stem): path.read_bytes() for path in sorted(folder.glob("*.tsr")) if path.stem.isdecimal()}


class StampJob:
    """Has the last witnessed checkpoint stamped once a day, in a thread of its own.

    Args:
        log: the log.
        folder: where responses are kept.
        authority: whom to ask; without one nothing is asked.
        clock: the present instant.
    """

    def __init__(
        self,
        log: LogService,
        folder: Path,
        authority: StampAuthority | None,
        clock: Callable[[], datetime],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._log = log
        self._folder = folder
        self._authority = authority
        self._clock = clock
        self._turn = threading.Lock()
        self._repeating = Repeating("log-stamps", look_s, self._look)

    def once(self) -> dict[str, Any]:
        """Have the last witnessed checkpoint stamped, unless it is already; return what the stamp says.

        Raises:
            Problem: LOG_NOT_WITNESSED; TIMESTAMP_FAILED, no authority is set, it does not answer, or what it answers does not
                hold - then nothing is kept.
        """
        if self._authority is None:
            raise _failed("no time-stamping authority is set (tsa_url and tsa_root_file)")
        with self._turn:
            self._log.level_of(0)
            size = self._log.levels.size(Level.WITNESSED)
            note = self._log.at(size) if size else None
            if note is None:
                raise Problem("LOG_NOT_WITNESSED", "no checkpoint has the quorum, so none is stamped")
            text, path = split_note(note.encode())[0], self._folder / f"{size}.tsr"
            try:
                response = path.read_bytes() if path.is_file() else self._authority.ask(timestamps.request(text))
                stamp = timestamps.verify(response, text, [self._authority.trusted()])
            except AuditError as error:
                raise _failed(error.cause) from None
            if not path.is_file():
                self._folder.mkdir(parents=True, exist_ok=True)
                # If we die before this: the authority has made a stamp that nobody keeps, and the next turn asks again.
                write_atomically(path, response)
            return {"size": size, "at": stamp.at.isoformat(), "serial": str(stamp.serial), "file": str(path)}

    def start(self) -> None:
        """Begin, if an authority is set; a second call changes nothing."""
        if self._authority is not None:
            self._repeating.start()

    def stop(self) -> None:
        """End after the turn that is under way."""
        self._repeating.stop()

    def is_due(self) -> bool:
        """Tell whether the newest stamp is a day old, by the file's time."""
        newest = max((path.stat().st_mtime for path in self._folder.glob("*.tsr")), default=0.0)
        return self._clock().timestamp() - newest >= DAY_S

    def _look(self) -> None:
        if not self.is_due():
            return
        try:
            facts = self.once()
            _log.info("checkpoint %d was stamped", facts["size"])
        except (CoordinatorError, AuditError, OSError) as error:
            _log.error("no time-stamp: %s", error if isinstance(error, CoordinatorError) else type(error).__name__)


def _failed(cause: str) -> Problem:
    return Problem("TIMESTAMP_FAILED", cause)
