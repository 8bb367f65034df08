"""``convoy-node offers``: a person's list, and the choice against personal ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from convoy_node.release_cli import Folder, Key, opened
from convoy_node.terminal import AsJson, Home, show

offers = typer.Typer(help="Offers for one person from a release, and the opt-out.", no_args_is_help=True)
Person = Annotated[str, typer.Option("--person", help="Id in the person column of this node's rows.")]


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.add_typer(offers, name="offers")


@offers.command("list")
def list_(
    folder: Folder,
    home: Home,
    key: Key,
    person: Person,
    context: Annotated[str, typer.Option(help="any, commute, family or business.")] = "any",
    catalogue: Annotated[
        Path | None, typer.Option(help="JSON list of {id, kind, group, contexts}; without it, kinds come from the ids.")
    ] = None,
    length: Annotated[int, typer.Option(help="Offers in the list.", min=1, max=1000)] = 10,
    variety: Annotated[float, typer.Option(help="0: best first; 1: as different as can be.", min=0.0, max=1.0)] = 0.3,
    as_json: AsJson = False,
) -> None:
    """Print what this person is offered and why: personal, or popular after an opt-out."""
    from convoy_node.errors import NodeError
    from convoy_node.offers import CONTEXTS, Asked, list_for, offer_of, read_catalogue

    chosen = next((known for known in CONTEXTS if known == context), None)
    if chosen is None:
        raise NodeError(
            f"context {context!r} is unknown.", code="OFFERS_UNKNOWN", fix=f"Use one of {', '.join(CONTEXTS)}."
        )
    known = read_catalogue(catalogue) if catalogue is not None else None
    made = list_for(opened(folder, home, key), home, known, Asked(person, chosen, length, variety))
    kinds = {offer.id: offer.kind for offer in known or [offer_of(row.id) for row in made]}
    facts = [{"id": row.id, "kind": kinds[row.id], "reason": row.reason} for row in made]
    lines = [f"{place:3}. {row['id']}  {row['kind']}  {row['reason']}" for place, row in enumerate(facts, 1)]
    show(
        facts,
        as_json,
        lines or ["Nothing fits this context."],
        f"convoy-node offers opt-out --person {person} --home {home}",
    )


@offers.command("opt-out")
def opt_out(home: Home, person: Person, as_json: AsJson = False) -> None:
    """Give this person the general list from now on."""
    _keep(home, person, True, as_json)


@offers.command("opt-in")
def opt_in(home: Home, person: Person, as_json: AsJson = False) -> None:
    """Give this person personal offers again."""
    _keep(home, person, False, as_json)


def _keep(home: Path, person: str, is_out: bool, as_json: bool) -> None:
    from convoy_node.offers import set_opt_out

    set_opt_out(home, person, is_out=is_out)
    said = "general offers only" if is_out else "personal offers"
    show(
        {"optedOut": is_out},
        as_json,
        [f"Kept: {said}."],
        f"convoy-node offers list RELEASE --person {person} --home {home}",
    )
