"""A relay in front of a gRPC listener: passes bytes on, and tells which TLS handshakes failed and from where.

    async with Door(host, port, inner, refused) as door: door.port

gRPC listens on a socket in a private folder, so that everybody comes through here; TLS goes through unopened, its ends are the
node and gRPC. ``refused(code, address)`` hears of each connection that ended before its handshake did (``handshake``). Handshakes
that are under way are counted: over ``MAX_UNFINISHED`` a newcomer is sent away at once, so those who come slowly use up nothing
else. gRPC's own limits (ten seconds for a handshake) stay as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Self

from convoy_coordinator.channel.handshake import UNFINISHED, Handshake

PIECE: Final = 64 * 1024
MAX_UNFINISHED: Final = 1000
BACKLOG: Final = 512
Refused = Callable[[str, str], None]
_log = logging.getLogger(__name__)


class Door:
    """One listener.

    Args:
        host: address to listen at.
        port: port; 0 takes a free one.
        inner: path of the socket behind which gRPC listens.
        refused: hears code and address of a failed handshake; called in the loop, and must not wait.

    Raises:
        OSError: when entered: the port is taken.
    """

    def __init__(self, host: str, port: int, inner: str, refused: Refused) -> None:
        self._at = (host, port)
        self._inner = inner
        self._refused = refused
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._unfinished = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._enter, *self._at, limit=PIECE, backlog=BACKLOG)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _enter(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        address = str((to_client.get_extra_info("peername") or ("",))[0])
        if self._unfinished >= MAX_UNFINISHED:
            self._refused(UNFINISHED, address)
            to_client.close()
            return
        passage = _Passage(client, to_client)
        self._unfinished += 1
        try:
            await passage.relay(self._inner, self._done)
        except (OSError, asyncio.CancelledError):
            pass  # either side went away; whoever it was finds out by itself
        finally:
            if not passage.handshake.is_done:
                self._done()
                code = passage.handshake.outcome(is_ended_by_server=passage.is_ended_by_server)
                if code is not None:
                    self._refused(code, address)
            passage.close()

    def _done(self) -> None:
        self._unfinished -= 1


class Tally:
    """Counts failed handshakes of a listener: each in the process's log at once, their numbers once a second to who writes them down.

    However many there are, what waits to be told is one number for each code.
    """

    def __init__(self, listener: str) -> None:
        self._listener = listener
        self._counts: Counter[str] = Counter()

    def note(self, code: str, address: str) -> None:
        """Note one."""
        _log.warning("%s at %s from %s", code, self._listener, address or "unknown")
        self._counts[code] += 1

    async def tell(self, refused: Callable[[str, int], Awaitable[None]], every_s: float = 1.0) -> None:
        """Tell until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            counts, self._counts = self._counts, Counter()
            for code, count in sorted(counts.items()):
                await refused(code, count)


class _Passage:
    """One connection, both ways."""

    def __init__(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        self.handshake = Handshake()
        self.is_ended_by_server = False
        self._client, self._to_client = client, to_client
        self._to_server: asyncio.StreamWriter | None = None
        self._has_ended = False

    async def relay(self, inner: str, done: Callable[[], None]) -> None:
        """Pass everything on until both sides have ended; ``done`` is called once the handshake is over."""
        server, to_server = await asyncio.open_unix_connection(inner, limit=PIECE)
        self._to_server = to_server
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass(self._client, to_server, self.handshake.sent, done, is_server=False))
            both.create_task(self._pass(server, self._to_client, self.handshake.answered, done, is_server=True))

    async def _pass(
        self,
        source: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        watch: Callable[[bytes], None],
        done: Callable[[], None],
        *,
        is_server: bool,
    ) -> None:
        is_ended_by_server = is_server
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                if not self.handshake.is_done:
                    watch(data)
                    if self.handshake.is_done:
                        done()
                if not await _is_written(to, data):
                    is_ended_by_server = not is_server
                    break
        if not self._has_ended:
            self._has_ended, self.is_ended_by_server = True, is_ended_by_server
        # gRPC speaks no half-open connections: whoever ends one side ends both, after what is under way.
        with contextlib.suppress(OSError):
            to.close()
            await to.wait_closed()

    def close(self) -> None:
        """End both sides."""
        for writer in (self._to_client, self._to_server):
            if writer is not None:
                writer.close()


async def _is_written(to: asyncio.StreamWriter, data: bytes) -> bool:
    """Write; False where that side has gone, which a write may find before a read does."""
    try:
        to.write(data)
        await to.drain()
    except OSError:
        return False
    return True
