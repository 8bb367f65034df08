"""HTTP of a witness: c2sp.org/tlog-witness, so that logs can push to it and others can read what it saw.

    POST /add-checkpoint               200 cosignature lines; 400, 403, 404, 409 (text/x.tlog.size), 422 as specified
    GET  /<origin hash>/checkpoint     the last cosigned checkpoint of a log; hash: lower-case hex SHA-256 of the origin
    GET  /alarms                       {"alarms": [...]}: pairs of notes that convict a log; anybody can verify them

``WitnessService(witness, clock)`` is an ASGI application. Guarantees: what is answered with 200 is on disk before; a request
cannot raise anything but one of the statuses above, 405, 413, or 503 where the store cannot be written. There is no
authentication: a checkpoint proves itself by the log's signature. LIMIT: no rate limit; put it behind one if it is public.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from convoy_audit.errors import AuditError, StoreError, WitnessRefusal
from convoy_audit.witness import Witness

MAX_REQUEST_BYTES: Final = 1024 * 1024
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT: Final = "text/plain; charset=utf-8"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[int, str, bytes]


class WitnessService:
    """The ASGI application of one witness.

    Args:
        witness: what it may cosign and what it remembers.
        clock: POSIX seconds; never 0 in a cosignature.
    """

    def __init__(self, witness: Witness, clock: Callable[[], float]) -> None:
        self._witness = witness
        self._clock = clock
        self._origins = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in witness.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body is None:
            answer: Answer = (413, TEXT, b"the request is too large\n")
        else:
            # Checking and storing wait for the disk, so not in the loop that serves the others.
            answer = await asyncio.to_thread(self.answer, scope["method"], scope["path"], body)
        status, kind, content = answer
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(content))]
        if status == 405:
            headers.append((b"allow", b"POST" if scope["path"] == "/add-checkpoint" else b"GET, HEAD"))
        headers.append((b"cache-control", b"no-store"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Return status, content type and content for a request."""
        try:
            if path == "/add-checkpoint":
                return self.add_checkpoint(body) if method == "POST" else (405, TEXT, b"POST a checkpoint\n")
            if method not in ("GET", "HEAD"):
                return 405, TEXT, b"only GET\n"
            if path == "/alarms":
                alarms = [json.loads(alarm.to_bytes()) for alarm in self._witness.alarms()]
                return 200, "application/json", json.dumps({"alarms": alarms}).encode()
            origin = self._origins.get(path.removeprefix("/").removesuffix("/checkpoint"))
            note = self._witness.latest(origin) if origin is not None and path.endswith("/checkpoint") else None
            return (404, TEXT, b"nothing here\n") if note is None else (200, TEXT, note)
        except StoreError as error:
            return 503, TEXT, f"{error.code}: {error.cause}\n".encode()

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer ``add-checkpoint``.

        Raises:
            StoreError: nothing was cosigned.
        """
        try:
            return 200, TEXT, self._witness.answer(body, max(1, int(self._clock())))
        except WitnessRefusal as refusal:
            if refusal.status == 409:
                return 409, SIZE_TYPE, b"%d\n" % refusal.size
            return refusal.status, TEXT, f"{refusal.code}: {refusal.cause}\n".encode()
        except StoreError:
            raise
        except AuditError as error:
            return 400, TEXT, f"{error.code}: {error.cause}\n".encode()


async def _body(receive: Receive) -> bytes | None:
    """Return the body, None if it is too large."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        length += len(part)
        if length > MAX_REQUEST_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
