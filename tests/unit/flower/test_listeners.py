"""What each door of the SuperLink lets through."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from convoy_coordinator.federation.flower.door_limits import Limits, Turned
from convoy_coordinator.federation.flower.listeners import Internal, Public

PASSED = 299


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": PASSED, "headers": []})


def status(door: Public | Internal, path: str, *authorizations: str) -> int:
    headers = [(b"authorization", value.encode()) for value in authorizations]
    parts: list[Message] = []

    async def send(part: Message) -> None:
        parts.append(part)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(door(scope, receive, send))
    return int(parts[0]["status"])


@pytest.mark.parametrize("path", ["/health", "/v1/fleet/pull-messages", "/v1/fleet/activate-node"])
def test_partners_reach_fleet_and_health(path: str) -> None:
    """The public door passes these on."""
    assert status(Public(application), path) == PASSED


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/health/",
        "/v1/fleet",
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/V1/FLEET/pull-messages",
        "//v1/fleet/pull-messages",
    ],
)
def test_nothing_else_exists_for_partners(path: str) -> None:
    """Control, runtime, documentation and look-alikes are 404 at the public door."""
    assert status(Public(application), path) == 404


def test_the_control_api_needs_its_token_even_on_the_loopback() -> None:
    """No token, a wrong one, or two of them: 401; the right one passes."""
    door = Internal(application, "secret")
    assert status(door, "/v1/control/start-run") == 401
    assert status(door, "/v1/control/start-run", "Bearer other") == 401
    assert status(door, "/v1/control/start-run", "Bearer secret", "Bearer secret") == 401
    assert status(door, "/v1/control/start-run", "Bearer secret") == PASSED


def test_the_internal_door_passes_runtime_and_fleet() -> None:
    """Flower guards these itself, with the super-exec secret, task tokens and node keys."""
    door = Internal(application, "secret")
    assert status(door, "/v1/runtime/acquire-task") == PASSED
    assert status(door, "/v1/fleet/pull-messages") == PASSED


class Line:
    """What arrives of a body, part by part; then nothing more."""

    def __init__(self, *parts: bytes, ends: bool = True) -> None:
        self._parts = list(parts)
        self._ends = ends

    async def receive(self) -> Message:
        if not self._parts:
            await asyncio.Event().wait()
        part = self._parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self._parts) or not self._ends}


LIMITS = Limits(stranger_bytes=10, node_bytes=100, slow_s=0.05, least_rate=1_000_000)


def sent(line: Line, *, is_known: bool = False, declared: int | None = None) -> tuple[int, bytes | None]:
    """Send a body to the public door; return its answer and what the application got."""
    got: list[bytes] = []
    parts: list[Message] = []

    async def reading(scope: Scope, receive: Receive, send: Send) -> None:
        part = await receive()
        got.append(part["body"])
        await application(scope, receive, send)

    async def send(part: Message) -> None:
        parts.append(part)

    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    scope = {"type": "http", "path": "/v1/fleet/push-object", "headers": headers, "client": ("192.0.2.1", 1)}
    door = Public(reading, lambda _: is_known, LIMITS)
    asyncio.run(asyncio.wait_for(door(scope, line.receive, send), 20))
    return int(parts[0]["status"]), got[0] if got else None


def test_a_body_reaches_flower_whole() -> None:
    """In however many parts it came; up to the limit, and not one byte more."""
    assert sent(Line(b"12345", b"67890")) == (PASSED, b"1234567890")
    assert sent(Line(b"12345", b"67890", b"1")) == (413, None)
    assert sent(Line(b"1" * 60, b"2" * 40), is_known=True) == (PASSED, b"1" * 60 + b"2" * 40)
    assert sent(Line(b"1" * 101), is_known=True) == (413, None)


def test_a_long_body_is_turned_away_before_it_is_read() -> None:
    """A stranger's by what it declares; a node's at a node's limit."""
    assert sent(Line(ends=False), declared=11) == (413, None)
    assert sent(Line(ends=False), declared=101, is_known=True) == (413, None)


def test_a_body_that_stops_coming_is_turned_away() -> None:
    """Slow-loris: a byte, and then nothing."""
    assert sent(Line(b"1", ends=False)) == (408, None)


def test_those_turned_away_are_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once with its address, repeats as a number a minute later."""
    now = [0.0]
    turned = Turned(lambda: now[0])
    for _ in range(1_000):
        turned.note("too long", "192.0.2.1")
    now[0] = 61.0
    turned.note("too long", "192.0.2.2")
    assert [record.getMessage() for record in caplog.records] == [
        "turned away at the public door: too long, from 192.0.2.1",
        "turned away at the public door: too long, from 192.0.2.2, 999 more in the minute before",
    ]
