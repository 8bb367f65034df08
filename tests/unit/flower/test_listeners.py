"""What each door of the SuperLink lets through."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

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
