"""What whoever reaches the public door can make the SuperLink hold: little, and not for long.

    read_whole(scope, receive, limits, is_known) -> body      a request's body, or TurnedAway
    prompt_head(seconds, turned) -> protocol class             for uvicorn: a request head must arrive in time
    watch_handshakes(context, seconds, turned)                 every TLS handshake that fails or is late is noted

A stranger's body is at most ``stranger_bytes``; a larger one is read only after the request's headers have been found to be signed
by a registered node's key. A body must keep coming (``slow_s`` and one second more for each ``least_rate`` bytes), and so must a
head; a TLS handshake has asyncio's minute. Refusals are logged, their repeats counted: nobody can fill the log.
LIMIT: connections are not counted; a flood from many addresses is for the network in front.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from starlette.datastructures import Headers
from starlette.types import Receive, Scope
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from convoy_coordinator.channel.handshake import COORDINATOR_REFUSED, NOT_TLS, UNFINISHED
from convoy_coordinator.federation.flower.link_home import REQUEST_TURNED_AWAY

WINDOW_S: Final = 60.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much and how slow a request may be; bytes, seconds, bytes a second."""

    stranger_bytes: int = 65_536
    node_bytes: int = 1 << 30
    head_s: float = 15.0
    slow_s: float = 20.0
    least_rate: int = 8_192


class TurnedAway(Exception):
    """A request that is not read to its end; ``status`` is what it is answered with."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class Turned:
    """Logs who was turned away: the first of a kind at once, its repeats counted once a minute; ``totals`` are since the start."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._seen: dict[str, tuple[float, int]] = {}
        self.totals: Counter[str] = Counter()

    def note(self, reason: str, address: str, code: str = REQUEST_TURNED_AWAY) -> None:
        """Note one; ``address`` is that of the first in a minute."""
        self.totals[code] += 1
        since, count = self._seen.get(reason, (-WINDOW_S, 0))
        if self._clock_s() - since < WINDOW_S:
            self._seen[reason] = (since, count + 1)
            return
        again = f", {count} more in the minute before" if count else ""
        _LOG.warning("turned away at the public door: %s, from %s%s", reason, address or "unknown", again)
        self._seen[reason] = (self._clock_s(), 0)


async def read_whole(scope: Scope, receive: Receive, limits: Limits, is_known: Callable[[Scope], bool]) -> bytes:
    """Return the whole body of a request.

    Args:
        is_known: tells whether the headers are signed by a registered node; asked only where more than a stranger's
            bytes come.

    Raises:
        TurnedAway: 413 too long, 408 too slow, 400 ended early.
    """
    declared = Headers(scope=scope).get("content-length", "")
    limit, seen, is_whole, begun = limits.stranger_bytes, 0, False, time.monotonic()
    coming = int(declared) if declared.isdigit() and len(declared) < 16 else 0
    parts: list[bytes] = []
    while True:
        if max(coming, seen) > limit and limit < limits.node_bytes and is_known(scope):
            limit = limits.node_bytes
        if max(coming, seen) > limit:
            raise TurnedAway(413, f"a body of more than {limit} bytes")
        if is_whole:
            return b"".join(parts)
        left = begun + limits.slow_s + seen / limits.least_rate - time.monotonic()
        try:
            async with asyncio.timeout(max(left, 0.0)):
                part = await receive()
        except TimeoutError:
            raise TurnedAway(408, "a body that comes too slowly") from None
        if part["type"] == "http.disconnect":
            raise TurnedAway(400, "a body that ended early")
        parts.append(part.get("body", b""))
        seen += len(parts[-1])
        is_whole = not part.get("more_body")


def signed_by_a_node(state: Callable[[], Any]) -> Callable[[Scope], bool]:
    """Return what tells whether a request's headers are signed, just now, by the key of a registered node.

    Args:
        state: returns Flower's link state.
    """

    def is_so(scope: Scope) -> bool:
        headers = Headers(scope=scope)
        try:
            public = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER], validate=True)
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER], validate=True)
            at = headers[TIMESTAMP_HEADER]
            age_s = (now() - datetime.fromisoformat(at)).total_seconds()
            if not -SYSTEM_TIME_TOLERANCE < age_s < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
                return False
            return bool(
                verify_signature(bytes_to_public_key(public), at.encode("ascii"), signature)
                and state().get_node_id_by_public_key(public) is not None
            )
        except (KeyError, ValueError, TypeError, UnsupportedAlgorithm):
            return False

    return is_so


def watch_handshakes(context: ssl.SSLContext, seconds: float, turned: Turned) -> None:
    """Have every handshake of a server's context that fails, or is not over after ``seconds``, noted with its reason."""

    class Watched(ssl.SSLObject):
        """One connection's TLS (``SSLContext.sslobject_class``)."""

        _due: asyncio.TimerHandle | None = None

        def do_handshake(self) -> None:
            """Go on with the handshake."""
            if self._due is None:
                self._due = asyncio.get_running_loop().call_later(seconds, _late)
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                self._due.cancel()
                reason = error.reason or "unknown"
                code = COORDINATOR_REFUSED if "ALERT" in reason else NOT_TLS
                turned.note(f"a TLS handshake that failed ({reason})", "", code)
                raise
            self._due.cancel()

    def _late() -> None:
        turned.note("a TLS handshake that is not finished", "", UNFINISHED)

    context.sslobject_class = Watched


def prompt_head(seconds: float, turned: Turned) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, ending connections whose request head does not arrive within ``seconds``."""

    class PromptHead(AutoHTTPProtocol):  # type: ignore[misc]  # uvicorn is not followed by mypy
        """One connection."""

        _due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, error: Exception | None) -> None:
            self._forget()
            super().connection_lost(error)

        def _waits_for_head(self) -> bool:
            return self.cycle is None or bool(self.cycle.response_complete)

        def _watch(self) -> None:
            if not self._waits_for_head():
                self._forget()
            elif self._due is None:
                self._due = self.loop.call_later(seconds, self._late)

        def _forget(self) -> None:
            if self._due is not None:
                self._due.cancel()
                self._due = None

        def _late(self) -> None:
            self._due = None
            if self._waits_for_head() and not self.transport.is_closing():
                turned.note("a request head that comes too slowly", self.client[0] if self.client else "")
                self.transport.close()

    return PromptHead
