"""The administrator's commands: invite, requests, approve, deny, revoke, authority.

They ask the coordinator that serves this home, over HTTP with the operator's token from its keys folder; where none is
running they act on the home themselves, because the log has one writer. A ticket is printed once, to standard output.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from convoy_coordinator.operator import AsJson, Home, ask, show

Fingerprint = Annotated[str, typer.Argument(help="What the partner read out: eight groups of four hex digits.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (invite, requests, approve, deny, revoke, authority):
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
    made = ask(home, "POST", "/v1/invitations", {"name": name, "role": role, "party": party, "hours": hours})
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
    show(made, as_json, lines, "convoy-coordinator requests")


def requests(
    home: Home = None,
    all_: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the nodes that ask to be enrolled."""
    found = ask(home, "GET", "/v1/enrolment-requests" + ("" if all_ else "?state=pending"))["requests"]
    lines = [f"{r['state']:<9} {r['party']}  {r['fingerprint']}  since {r['requestedAt']}" for r in found]
    show({"requests": found}, as_json, lines or ["Nobody waits."], "convoy-coordinator approve FINGERPRINT")


def approve(fingerprint: Fingerprint, home: Home = None, as_json: AsJson = False) -> None:
    """Enrol the party whose fingerprint was read to you and is the same here. Compare all of it."""
    done = ask(home, "PUT", f"/v1/enrolment-requests/{quote(fingerprint)}/approval")
    show(done, as_json, [f"{done['party']} is enrolled and has a certificate."], "convoy-coordinator parties")


def deny(fingerprint: Fingerprint, home: Home = None, as_json: AsJson = False) -> None:
    """Refuse a request for good; its ticket is used up."""
    done = ask(home, "PUT", f"/v1/enrolment-requests/{quote(fingerprint)}/denial")
    show(done, as_json, [f"The request of {done['party']} is denied."], "convoy-coordinator requests")


def revoke(
    party: Annotated[str, typer.Argument(help="Id of the party.")],
    home: Home = None,
    reason: Annotated[
        str, typer.Option(help="key-compromise, contract-ended, cessation or administrative.")
    ] = "administrative",
    as_json: AsJson = False,
) -> None:
    """Shut a party out at once: its certificates, open streams, statements, and its node at Flower."""
    done = ask(home, "PUT", f"/v1/parties/{quote(party, safe=':')}/revocation", {"reason": reason})
    lines = [f"{done['party']} is {done['state']} ({done['reason']}) since {done['since']}."]
    show(done, as_json, lines, f"convoy-coordinator invite NAME --role ROLE --party {party}   (to let it in again)")


def authority(
    home: Home = None,
    announce: Annotated[bool, typer.Option("--announce", help="Make another one, and let it follow.")] = False,
    lead_days: Annotated[float, typer.Option(help="Until the next one issues certificates.")] = 7.0,
    overlap_days: Annotated[float, typer.Option(help="From then on, until the present one counts no more.")] = 90.0,
    as_json: AsJson = False,
) -> None:
    """Show the certificate authority; with --announce let another one follow it, without new tickets."""
    body = {"leadDays": lead_days, "overlapDays": overlap_days}
    found = ask(home, "PUT", "/v1/authority/next", body) if announce else ask(home, "GET", "/v1/authority")
    lines = [f"CA fingerprint  {_grouped(found['fingerprint'][:32])}   good until {found['notAfter']}"]
    if coming := found["coming"]:
        lines += [
            f"Next            {_grouped(coming['fingerprint'][:32])}   announced in entry {coming['logIndex']} of the log",
            f"                issues certificates from {coming['begins']}, and is alone from {coming['ends']}",
            "Nodes that connect in between follow by themselves; whoever does not needs a new ticket.",
        ]
    show(found, as_json, lines, "convoy-coordinator parties")


def _grouped(digits: str) -> str:
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))
