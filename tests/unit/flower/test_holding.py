"""A poll is kept until there is something to say, and never longer, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from starlette.types import Message, Receive, Scope, Send

from convoy_coordinator.federation.flower.holding import Holding

PULL, PUSH = "/v1/fleet/pull-messages", "/v1/runtime/push-object"


class Mailbox:
    """Stands where Flower's application does: a push stores a letter, a pull takes one or says nothing."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
        self.pulls = 0
        self.status = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        answer = b""
        if scope["path"] == PUSH:
            self.letters.append(body)
        elif self.status == 200:
            self.pulls += 1
            answer = self.letters.pop(0) if self.letters else b""
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


class Caller:
    """One connection: sends a request and collects the answer; ``hang_up`` closes it."""

    def __init__(self, app: Callable[..., Awaitable[None]], path: str, who: str = "node") -> None:
        header = (FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode(), who.encode())
        self._scope = {"type": "http", "method": "POST", "path": path, "headers": [header]}
        self._app = app
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self.parts: list[Message] = []

    async def ask(self, body: bytes = b"?") -> bytes:
        self._inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})
        await self._app(self._scope, self._inbox.get, self._keep)
        return b"".join(part.get("body", b"") for part in self.parts)

    def hang_up(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def _keep(self, part: Message) -> None:
        self.parts.append(part)


def test_a_repeated_poll_is_answered_as_soon_as_something_is_stored() -> None:
    """The second poll waits, and the letter that comes meanwhile is its answer."""

    async def scene() -> None:
        box = Mailbox()
        app = Holding(box, hold_s=5)
        assert await Caller(app, PULL).ask() == b""
        waiting = asyncio.create_task(Caller(app, PULL).ask())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await Caller(app, PUSH).ask(b"letter")
        assert await asyncio.wait_for(waiting, 1) == b"letter"
        assert box.pulls == 2

    asyncio.run(scene())


def test_a_first_poll_and_one_after_a_letter_are_never_kept() -> None:
    """Who was not told "nothing yet" is asked about at once: there may be more."""

    async def scene() -> None:
        box = Mailbox()
        box.letters = [b"one", b"two"]
        app = Holding(box, hold_s=60)
        assert await asyncio.wait_for(Caller(app, PULL).ask(), 1) == b"one"
        assert await asyncio.wait_for(Caller(app, PULL).ask(), 1) == b"two"
        assert await asyncio.wait_for(Caller(app, PULL).ask(), 1) == b""

    asyncio.run(scene())


def test_a_letter_between_two_polls_is_not_missed() -> None:
    """What is stored after "nothing yet" and before the next poll is handed out without a wait."""

    async def scene() -> None:
        app = Holding(Mailbox(), hold_s=60)
        assert await Caller(app, PULL).ask() == b""
        await Caller(app, PUSH).ask(b"letter")
        assert await asyncio.wait_for(Caller(app, PULL).ask(), 1) == b"letter"

    asyncio.run(scene())


def test_a_poll_is_passed_on_after_the_longest_hold() -> None:
    """Nobody is kept for ever."""

    async def scene() -> None:
        box = Mailbox()
        app = Holding(box, hold_s=0.05)
        await Caller(app, PULL).ask()
        assert await asyncio.wait_for(Caller(app, PULL).ask(), 1) == b""
        assert box.pulls == 2

    asyncio.run(scene())


def test_a_caller_who_hung_up_takes_no_letter() -> None:
    """A letter for a node that died while it waited stays for the one that comes back."""

    async def scene() -> None:
        box = Mailbox()
        app = Holding(box, hold_s=5)
        await Caller(app, PULL).ask()
        gone = Caller(app, PULL)
        waiting = asyncio.create_task(gone.ask())
        await asyncio.sleep(0.02)
        gone.hang_up()
        await asyncio.wait_for(waiting, 1)
        await Caller(app, PUSH).ask(b"letter")
        assert gone.parts == []
        assert box.letters == [b"letter"]

    asyncio.run(scene())


def test_one_node_waits_without_keeping_another() -> None:
    """Callers are told apart by the key that they show."""

    async def scene() -> None:
        app = Holding(Mailbox(), hold_s=60)
        await Caller(app, PULL, "one").ask()
        assert await asyncio.wait_for(Caller(app, PULL, "two").ask(), 1) == b""

    asyncio.run(scene())


def test_who_is_refused_is_not_remembered() -> None:
    """Only callers whom Flower answered with 200 take room here."""

    async def scene() -> None:
        box = Mailbox()
        box.status = 401
        app = Holding(box, hold_s=60)
        for _ in range(2):
            caller = Caller(app, PULL)
            await asyncio.wait_for(caller.ask(), 1)
            assert caller.parts[0]["status"] == 401

    asyncio.run(scene())


def test_everybody_is_let_go_at_the_end() -> None:
    """A stopping SuperLink keeps no request."""

    async def scene() -> None:
        app = Holding(Mailbox(), hold_s=60)
        await Caller(app, PULL).ask()
        waiting = asyncio.create_task(Caller(app, PULL).ask())
        await asyncio.sleep(0.02)
        app.close()
        assert await asyncio.wait_for(waiting, 1) == b""

    asyncio.run(scene())
