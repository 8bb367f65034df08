"""``convoy-node psi``: the one-time match of consents that have no link ids yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoy_node.terminal import AsJson, Home, show

if TYPE_CHECKING:
    from convoy_node.alignment.bootstrap import Bootstrap, Step

psi = typer.Typer(
    no_args_is_help=True,
    help="Match consents of before, once: five sealed files between two holders (extra psi). It discloses to BOTH holders which"
    " consented persons they have in common, and list lengths in fifties; a dishonest holder can probe made-up identifiers, and a"
    " withdrawal does not undo it. Link ids issued with the consent disclose none of this.",
)
ContractName = Annotated[str, typer.Option("--contract", help="Uid of the contract, or its short name in node.toml.")]
Ids = Annotated[Path, typer.Option("--ids", help="CSV or Parquet: person_id, identifier (the same at both holders).")]
Out = Annotated[Path, typer.Option("--out", help="The sealed file for the other holder.")]
File = Annotated[Path, typer.Argument(help="The other holder's file.")]


@psi.command()
def offer(
    peer: Annotated[str, typer.Argument(help="Id of the other holder.")],
    contract: ContractName,
    ids: Ids,
    out: Out,
    home: Home,
    as_json: AsJson = False,
) -> None:
    """Step 1, holder A: offer the own consented identifiers, masked."""
    with _steps(home, contract, ids) as steps:
        _told(
            steps.offer(peer, out),
            as_json,
            f"At {peer}: convoy-node psi ask {out} --contract C --ids FILE --out ask.psi",
        )


@psi.command()
def ask(file: File, contract: ContractName, ids: Ids, out: Out, home: Home, as_json: AsJson = False) -> None:
    """Step 2, holder B: answer an offer with the own list, masked."""
    with _steps(home, contract, ids) as steps:
        _told(steps.ask(file, out), as_json, f"There: convoy-node psi answer {out} --contract C --out answer.psi")


@psi.command()
def answer(file: File, contract: ContractName, out: Out, home: Home, as_json: AsJson = False) -> None:
    """Step 3, holder A: mask the other's list with the own key; once for each offer."""
    with _steps(home, contract) as steps:
        _told(
            steps.answer(file, out),
            as_json,
            f"There: convoy-node psi match {out} --contract C --ids FILE --out links.psi",
        )


@psi.command()
def match(file: File, contract: ContractName, ids: Ids, out: Out, home: Home, as_json: AsJson = False) -> None:
    """Step 4, holder B: find the common persons and give each a random link id."""
    from convoy_node.alignment.bootstrap import utc_now

    with _steps(home, contract, ids) as steps:
        _told(
            steps.match(file, out, utc_now()), as_json, f"There: convoy-node psi accept {out} --contract C --ids FILE"
        )


@psi.command()
def accept(file: File, contract: ContractName, ids: Ids, home: Home, as_json: AsJson = False) -> None:
    """Step 5, holder A: keep the link ids."""
    from convoy_node.alignment.bootstrap import utc_now

    with _steps(home, contract, ids) as steps:
        _told(steps.accept(file, utc_now()), as_json, f"convoy-node preview --home {home}")


@contextmanager
def _steps(home: Path, contract: str, ids: Path | None = None) -> Iterator[Bootstrap]:
    from convoy_node.alignment.bootstrap import Bootstrap
    from convoy_node.consent.office import ConsentOffice

    with ConsentOffice.open(home) as office:
        yield Bootstrap(home, office, contract, ids)


def _told(step: Step, as_json: bool, following: str) -> None:
    from convoy_node.alignment.bootstrap import LEAKAGE

    lines = [f"Session {step.session[:8]} with {step.peer}: about {step.listed} persons listed."]
    lines += [f"{step.linked} persons have a link id now."] if step.linked else []
    lines += ["", "What this discloses:", *(f"  - {line}" for line in LEAKAGE)]
    show(asdict(step) | {"leakage": list(LEAKAGE)}, as_json, lines, following)
