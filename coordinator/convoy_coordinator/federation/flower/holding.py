"""Answer a poll when there is something to say: long polling without a change of Flower's protocol.

Flower's nodes and workers ask again and again. Who was told "nothing yet" and asks once more is
kept until something was stored that may concern it, and is passed on then. A caller that knows
nothing of this just sees a slower answer.

Guarantees: no wake-up is lost, because the count of rings is read before Flower is asked; only
those whom Flower has answered with 200 are remembered; a request is passed on once; a caller that
hung up is never handed a message; nobody is kept longer than ``hold_s``, well within Flower's 30 s
timeout.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, TASK_TOKEN_HEADER
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy_coordinator.federation.flower.object_lane import read_body

HOLD_S: Final = 5.0
QUIET_S: Final = 0.008
"""A sender is done when nothing of it came for so long: a message is several requests."""
LATEST_S: Final = 0.06
REMEMBERED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Poll:
    """A polled path: the bell that ends the wait, the header that tells callers apart."""

    bell: str
    caller: str | None


POLLS: Final[Mapping[str, Poll]] = {
    "/v1/fleet/pull-messages": Poll("questions", FLEET_HTTP_PUBLIC_KEY_HEADER),
    "/v1/runtime/pull-messages": Poll("answers", TASK_TOKEN_HEADER),
    "/v1/runtime/acquire-task": Poll("tasks", None),
}
RINGS: Final[Mapping[str, str]] = {
    "/v1/runtime/push-messages": "questions",
    "/v1/runtime/push-object": "questions",
    "/v1/fleet/push-messages": "answers",
    "/v1/fleet/push-object": "answers",
    "/v1/control/start-run": "tasks",
}


class Bell:
    """Counts rings and wakes those who wait; rings that follow each other closely are one."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._first_at = 0.0

    def ring(self) -> None:
        """Ring when it was quiet for ``QUIET_S``, or ``LATEST_S`` after the first of a series."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is None:
            self._first_at = now
        else:
            self._timer.cancel()
        at = min(now + QUIET_S, self._first_at + LATEST_S)
        self._timer = loop.call_at(at, self.ring_now)

    def ring_now(self) -> None:
        """Wake everybody who waits."""
        self._timer = None
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait_beyond(self, count: int) -> None:
        """Return once there were more than ``count`` rings."""
        while self.count <= count:
            await self._rung.wait()


class Holding:
    """An ASGI application that keeps repeated polls until there is something to say."""

    def __init__(self, app: ASGIApp, hold_s: float = HOLD_S) -> None:
        self._app = app
        self._hold_s = hold_s
        self._bells = {name: Bell() for name in sorted(set(RINGS.values()))}
        self._told_nothing: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._closed = False

    def close(self) -> None:
        """Let everybody go, now and from now on."""
        self._closed = True
        for bell in self._bells.values():
            bell.ring_now()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, a repeated poll when it is time; ring where something was stored."""
        path = scope["path"] if scope["type"] == "http" else ""
        if path in POLLS and not self._closed:
            await self._hold(path, POLLS[path], scope, receive, send)
        else:
            await self._app(scope, receive, send)
        if path in RINGS:
            self._bells[RINGS[path]].ring()

    async def _hold(self, path: str, poll: Poll, scope: Scope, receive: Receive, send: Send) -> None:
        bell, key = self._bells[poll.bell], (path, _caller(scope, poll))
        body = await read_body(receive)
        if self._told_nothing.get(key) == bell.count and not await self._wait(bell, receive):
            return
        count = bell.count
        answer = _Answer(body, send)
        await self._app(scope, answer.receive, answer.send)
        self._told_nothing.pop(key, None)
        if answer.is_nothing_yet:
            self._told_nothing[key] = count
            while len(self._told_nothing) > REMEMBERED:
                self._told_nothing.popitem(last=False)

    async def _wait(self, bell: Bell, receive: Receive) -> bool:
        """Wait for the bell or the time; return False if the caller hung up meanwhile."""
        rung = asyncio.create_task(bell.wait_beyond(bell.count))
        gone = asyncio.create_task(_hung_up(receive))
        try:
            done, _ = await asyncio.wait({rung, gone}, timeout=self._hold_s, return_when=asyncio.FIRST_COMPLETED)
            return gone not in done
        finally:
            rung.cancel()
            gone.cancel()


class _Answer:
    """Replays the body of a request, passes the answer on, and notes whether it says anything."""

    def __init__(self, body: bytes, send: Send) -> None:
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._send = send
        self._sent = asyncio.Event()
        self.is_nothing_yet = False
        """True for 200 without a body: an empty protobuf message."""

    async def receive(self) -> Message:
        if self._unread:
            return self._unread.pop()
        await self._sent.wait()
        return {"type": "http.disconnect"}

    async def send(self, part: Message) -> None:
        if part["type"] == "http.response.start":
            self.is_nothing_yet = part["status"] == 200
        elif part["type"] == "http.response.body":
            self.is_nothing_yet = self.is_nothing_yet and not part.get("body")
            if not part.get("more_body"):
                self._sent.set()
        await self._send(part)


def _caller(scope: Scope, poll: Poll) -> str:
    if poll.caller is None:
        return ""
    name = poll.caller.lower().encode()
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
