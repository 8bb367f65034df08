"""The node's own log: one JSON object a line in ``log/node.jsonl``, for its operator.

    Journal(folder, clock).note("authorised", run=..., persons=...)      .failure(error) -> reference

Guarantees: a line holds names, codes, counts and times that the program itself wrote. An exception is described by the kinds
and places of its chain and never by its text, because a text may hold a row's value. The file is 0600 and rotated.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

FILE: Final = "node.jsonl"
MAX_BYTES: Final = 5_000_000
KEPT: Final = 3

Fact = str | int | float | bool | None | list[str]


class Journal:
    """The log of one node.

    Args:
        folder: made where absent.
        clock: returns the present instant, aware.
    """

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / FILE
        self._clock = clock
        self._guard = threading.Lock()

    def note(self, event: str, **facts: Fact) -> None:
        """Write a line; a full disk loses the line and stops nothing, since no promise rests on this file."""
        at = self._clock().astimezone(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, "event": event, **facts}, ensure_ascii=False) + "\n"
        with self._guard:
            try:
                self._rotate(len(line))
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                    file.write(line)
            except OSError:
                return

    def failure(self, event: str, error: BaseException, **facts: Fact) -> str:
        """Write where an error came from, without its text; return the reference under which it stands here."""
        reference = secrets.token_hex(4)
        chain: list[str] = []
        cause: BaseException | None = error
        while cause is not None and len(chain) < 8:
            frames = traceback.extract_tb(cause.__traceback__)[-6:]
            places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
            chain.append(f"{type(cause).__name__} at {places}")
            cause = cause.__cause__ or cause.__context__
        self.note(event, reference=reference, errors=chain, **facts)
        return reference

    def _rotate(self, more: int) -> None:
        if not self._path.exists() or self._path.stat().st_size + more <= MAX_BYTES:
            return
        for number in range(KEPT - 1, 0, -1):
            older = self._path.with_suffix(f".{number}.jsonl")
            if older.exists():
                older.replace(self._path.with_suffix(f".{number + 1}.jsonl"))
        self._path.replace(self._path.with_suffix(".1.jsonl"))
