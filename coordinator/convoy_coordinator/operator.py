"""Ask the coordinator that serves a home, for the operator's commands.

Over HTTP with the operator's token from its keys folder; where none is running, the application in this very process with the
same routes and checks, because the log has one writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from convoy_coordinator.errors import CoordinatorError, SetupError

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVING: Final = "serving.json"
"""Where a running coordinator says its address; removed when it stops."""
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="CONVOY_COORDINATOR_HOME", help="The coordinator's folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextmanager
def serving(home: Path, facts: dict[str, Any]) -> Iterator[None]:
    """Say in the home where this process serves, until the block ends."""
    path = home / SERVING
    beside = home / f".{SERVING}.{os.getpid()}"
    beside.write_text(json.dumps(facts | {"pid": os.getpid()}), encoding="utf-8")
    beside.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def ask(home: Path | None, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
    """Return the JSON of an answer; None where it has no body.

    Raises:
        CoordinatorError: the problem that the coordinator names, all of its faults.
    """
    if home is None:
        raise typer.BadParameter("name the home folder with --home or CONVOY_COORDINATOR_HOME")
    import httpx

    from convoy_coordinator.keys import OPERATOR_TOKEN, read_token
    from convoy_coordinator.settings import read_settings

    settings = read_settings(home)
    headers = {"Authorization": f"Bearer {read_token(settings.keys_folder, OPERATOR_TOKEN)}"}
    url = _serving(settings.home)
    if url is not None:
        try:
            with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
                return _answer(client.request(method, path, json=content, headers=headers))
        except httpx.ConnectError:
            pass  # a file that a killed process left behind
    return _answer(_embedded(settings.home, method, path, content, headers))


def _embedded(home: Path, method: str, path: str, content: Any, headers: dict[str, str]) -> Any:
    """Ask an application of this very process: the same routes and checks, no listener."""
    import asyncio

    import httpx

    from convoy_coordinator.app import create_app
    from convoy_coordinator.settings import read_settings

    application: FastAPI = create_app(read_settings(home))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
            return await client.request(method, path, json=content, headers=headers)

    try:
        return asyncio.run(ask())
    finally:
        application.state.parts.close()


def _serving(home: Path) -> str | None:
    try:
        return str(json.loads((home / SERVING).read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _answer(response: Any) -> Any:
    if response.is_success:
        return response.json() if response.content else None
    try:
        told = response.json()
        code, cause, fix = str(told["code"]), str(told["cause"]), str(told["fix"])
        faults = "".join(f" {e['pointer']}: {e['cause']}." for e in told.get("errors", ()))
    except (ValueError, KeyError, TypeError):
        raise SetupError("ANSWER_UNREADABLE", f"the coordinator answered {response.status_code}") from None
    raise CoordinatorError(code, cause + faults, party=told.get("party"), fix=fix)


def show(facts: Any, as_json: bool, lines: list[str], following: str) -> None:
    """Print facts as JSON, or lines for people and the next command."""
    from convoy_coordinator import cli

    cli.show(facts, as_json, list(lines), following)
