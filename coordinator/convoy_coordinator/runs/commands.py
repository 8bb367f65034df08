"""The operator's commands for runs: queue, show, cancel, again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from convoy_coordinator.errors import SetupError
from convoy_coordinator.operator import AsJson, Home, ask, show

Uid = Annotated[str, typer.Argument(metavar="RUN", help="A run's uid, as `convoy-coordinator runs` lists it.")]
Digest = Annotated[str, typer.Option("--contract", metavar="DIGEST", help="Digest of the contract (sha256:…).")]
Algorithm = Annotated[str, typer.Option(help="One of the contract's algorithms.")]
Requester = Annotated[str, typer.Option(help="Id of the party that asks for the model.")]
Purpose = Annotated[str, typer.Option(help="One of the contract's purposes.")]
Narrowing = Annotated[
    Path | None,
    typer.Option("--request", help="JSON file with members that narrow the order: assets, fields, recipients, args, …"),
]
commands = typer.Typer(help="Queue, watch, cancel and repeat runs.", no_args_is_help=True)


def order(contract: str, algorithm: str, requester: str, purpose: str, narrowing: Path | None) -> dict[str, Any]:
    """Return the body of an order.

    Raises:
        SetupError: INPUT_INVALID for a file that is no JSON object.
    """
    asked: dict[str, Any] = {
        "contractDigest": contract,
        "algorithm": algorithm,
        "requester": requester,
        "purpose": purpose,
    }
    if narrowing is None:
        return asked
    try:
        members = json.loads(narrowing.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise SetupError(
            "INPUT_INVALID", f"--request {narrowing}: {why}", fix="Give a file with one JSON object."
        ) from why
    if not isinstance(members, dict):
        raise SetupError(
            "INPUT_INVALID", f"--request {narrowing} is no JSON object", fix="Give a file with one JSON object."
        )
    return members | asked


@commands.command()
def queue(
    contract: Digest,
    algorithm: Algorithm,
    requester: Requester,
    purpose: Purpose,
    request: Narrowing = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put a run in the queue."""
    run = ask(home, "POST", "/v1/runs", order(contract, algorithm, requester, purpose, request))
    show(run, as_json, lines(run), f"convoy-coordinator run show {run['uid']}")


@commands.command("show")
def show_run(run: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Show how a run stands: its step, what it costs each party, why it stopped."""
    found = ask(home, "GET", f"/v1/runs/{quote(run)}")
    show(found, as_json, lines(found), "convoy-coordinator runs")


@commands.command()
def cancel(run: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Stop a run. Nodes settle what they reserved by their own rule: what left them is spent."""
    done = ask(home, "PUT", f"/v1/runs/{quote(run)}/cancellation")
    show(done, as_json, lines(done), f"convoy-coordinator run again {run}")


@commands.command()
def again(run: Uid, home: Home = None, as_json: AsJson = False) -> None:
    """Queue the order of a stopped run once more, as a run of its own: its sums and its price are new."""
    made = ask(home, "POST", f"/v1/runs/{quote(run)}/again")
    show(made, as_json, lines(made), f"convoy-coordinator run show {made['uid']}")


def lines(run: dict[str, Any]) -> list[str]:
    """Return a run as people read it."""
    progress = run["progress"]
    told = [
        f"Run        {run['uid']}",
        f"State      {run['state']}",
        f"Algorithm  {run['algorithm']} for {run['requester']}",
    ]
    if progress.get("total"):
        told.append(f"Progress   {progress.get('step', '')} {progress.get('done', 0)}/{progress['total']}")
    for party, epsilon in sorted((progress.get("epsilon") or {}).items()):
        told.append(
            f"Epsilon    {party}: {epsilon['spent']} of {epsilon['allowed']} per person, at the contract's delta and over its runs,"
            " towards the coordinator and every recipient"
        )
    if progress.get("evaluation"):
        told += evaluated(progress["evaluation"])
    if progress.get("lists"):
        told += listed(progress["lists"])
    told += [
        f"Attack     {party}: membership inference {word}" for party, word in progress.get("membership", {}).items()
    ]
    if run.get("reason"):
        told += [f"Reason     {run['reason']}  {run.get('cause') or ''}", f"Fix        {run.get('fix') or ''}"]
    return told


def listed(found: dict[str, Any]) -> list[str]:
    """Return what the hold-out says about a recommender's lists, as people read it."""
    told = [
        f"Hold-out   hidden item in the personal list {found['personal']:.1%}, in the general list {found['general']:.1%}",
        f"Gain       {100 * found['gain']:+.1f} points (± {196 * found['gainSd']:.1f}, 95 %)",
    ]
    return told + [f"At home    {party}: {word} than its own model" for party, word in found["againstAlone"].items()]


def evaluated(found: dict[str, Any]) -> list[str]:
    """Return what the hold-out says about a run's model, as people read it."""
    gain = found["joiningCarmaker"]
    low, high = gain["d2Interval95"]
    told = [
        f"Hold-out   {found['d2Joint']} % of deviance explained jointly, {found['d2InsurersTogether']} % without the carmaker",
        f"Gain       {gain['d2Points']:+} points ({low:+} to {high:+}, 95 %)",
        "Brought    " + ", ".join(f"{role} {points:+}" for role, points in found["moduleShares"].items()),
    ]
    told += [f"At home    {party}: {word} than its own model" for party, word in found.get("againstAlone", {}).items()]
    told += [
        f"Without    {party}'s customers the gain is {less['d2Points']:+} points"
        f" ({less['d2Interval95'][0]:+} to {less['d2Interval95'][1]:+}, 95 %)"
        for party, less in found.get("withoutOneInsurer", {}).items()
    ]
    told += [
        f"O/E        {found['audited']} {row['level']}: {row['ratio']} ± {row['ratioSd']}"
        for row in found["levels"]
        if row["ratio"] is not None
    ]
    return told
