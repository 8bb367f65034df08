"""Open streams of events: one waiting place each, woken when the log grows or a party's access changes.

Streams read the log themselves, so a slow reader holds nothing up and misses nothing: it goes on from its own position.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TICK_S: Final = 0.5
"""How long a stream sleeps at most before it asks again who its caller is and how long the log is."""
MAX_PER_PARTY: Final = 4


class Streams:
    """Wakes the open streams; everything but ``wake`` runs in the channel's loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[asyncio.Event, str] = {}

    def bind(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Say which loop the streams run in; None when it ends."""
        self._loop = loop

    def wake(self, _party: str = "") -> None:
        """Wake every stream; from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._set)

    @contextmanager
    def place(self, party: str) -> Iterator[asyncio.Event]:
        """Return what a stream waits at, until the block ends."""
        event = asyncio.Event()
        self._open[event] = party
        try:
            yield event
        finally:
            del self._open[event]

    def count(self, party: str) -> int:
        """Return how many streams a party has open."""
        return sum(1 for owner in self._open.values() if owner == party)

    def _set(self) -> None:
        for event in self._open:
            event.set()


async def pause(event: asyncio.Event) -> None:
    """Sleep until woken, ``TICK_S`` at most."""
    try:
        await asyncio.wait_for(event.wait(), TICK_S)
    except TimeoutError:
        return
    event.clear()
