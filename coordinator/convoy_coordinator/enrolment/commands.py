"""The administrator's commands: invite, requests, approve, deny, revoke.

They ask the coordinator that serves this home, over HTTP with the operator's token from its keys folder; where none is
running they act on the home themselves, because the log has one writer. A ticket is printed once, to standard output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from convoy_coordinator.errors import CoordinatorError, SetupError

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVING: str = "serving.json"
"""Where a running coordinator says its address; removed when it stops."""
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="CONVOY_COORDINATOR_HOME", help="The coordinator's folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Fingerprint = Annotated[str, typer.Argument(help="What the partner read out: eight groups of four hex digits.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (invite, requests, approve, deny, revoke):
        app.command()(command)


def invite(
    name: Annotated[str, typer.Argument(help='Name of the organisation, such as "Insurer A".')],
    role: Annotated[str, typer.Option(help="oem, insurer, charging, trustee or auditor.")],
    home: Home = None,
    party: Annotated[str | None, typer.Option(help="Id of the party; made of name and domain if not given.")] = None,
    hours: Annotated[float, typer.Option(help="How long the ticket is good.")] = 48.0,
    as_json: AsJson = False,
) -> None:
    """Make a one-time ticket for an organisation. It is shown once and kept nowhere."""
    made = _ask(home, "POST", "/v1/invitations", {"name": name, "role": role, "party": party, "hours": hours})
    lines = [
        f"Ticket for {made['name']} ({made['party']}, {made['role']}), good until {made['until']}:",
        "",
        made["text"],
        "",
        f"CA fingerprint  {_grouped(made['caFingerprint'][:32])}",
        "Send the ticket by a channel that only they read. They run:",
        f"  convoy-node join TICKET --home FOLDER    (asks {made['at']})",
        "and read you a fingerprint by telephone.",
    ]
    _show(made, as_json, lines, "convoy-coordinator requests")


def requests(
    home: Home = None,
    all_: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the nodes that ask to be enrolled."""
    found = _ask(home, "GET", "/v1/enrolment-requests" + ("" if all_ else "?state=pending"))["requests"]
    lines = [f"{r['state']:<9} {r['party']}  {r['fingerprint']}  since {r['requestedAt']}" for r in found]
    _show({"requests": found}, as_json, lines or ["Nobody waits."], "convoy-coordinator approve FINGERPRINT")


def approve(fingerprint: Fingerprint, home: Home = None, as_json: AsJson = False) -> None:
    """Enrol the party whose fingerprint was read to you and is the same here. Compare all of it."""
    done = _ask(home, "PUT", f"/v1/enrolment-requests/{quote(fingerprint)}/approval")
    _show(done, as_json, [f"{done['party']} is enrolled and has a certificate."], "convoy-coordinator parties")


def deny(fingerprint: Fingerprint, home: Home = None, as_json: AsJson = False) -> None:
    """Refuse a request for good; its ticket is used up."""
    done = _ask(home, "PUT", f"/v1/enrolment-requests/{quote(fingerprint)}/denial")
    _show(done, as_json, [f"The request of {done['party']} is denied."], "convoy-coordinator requests")


def revoke(
    party: Annotated[str, typer.Argument(help="Id of the party.")],
    home: Home = None,
    reason: Annotated[
        str, typer.Option(help="key-compromise, contract-ended, cessation or administrative.")
    ] = "administrative",
    as_json: AsJson = False,
) -> None:
    """Shut a party out at once: its certificates, open streams, statements, and its node at Flower."""
    done = _ask(home, "PUT", f"/v1/parties/{quote(party, safe=':')}/revocation", {"reason": reason})
    lines = [f"{done['party']} is {done['state']} ({done['reason']}) since {done['since']}."]
    _show(done, as_json, lines, f"convoy-coordinator invite NAME --role ROLE --party {party}   (to let it in again)")


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


def _ask(home: Path | None, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
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
        return response.json()
    try:
        told = response.json()
        code, cause, fix = str(told["code"]), str(told["cause"]), str(told["fix"])
        faults = "".join(f" {e['pointer']}: {e['cause']}." for e in told.get("errors", ()))
    except (ValueError, KeyError, TypeError):
        raise SetupError("ANSWER_UNREADABLE", f"the coordinator answered {response.status_code}") from None
    raise CoordinatorError(code, cause + faults, party=told.get("party"), fix=fix)


def _grouped(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _show(facts: Any, as_json: bool, lines: list[str], following: str) -> None:
    from convoy_coordinator import cli

    cli.show(facts, as_json, list(lines), following)
