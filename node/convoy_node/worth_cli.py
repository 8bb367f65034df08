"""``convoy-node value`` and ``convoy-node veto``: what joining is worth to this party, before and after; and its no."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from convoy_node.errors import NodeError
from convoy_node.terminal import AsJson, Home, show

veto = typer.Typer(
    help="This node's no to releases of a contract; every candidate is also tried on own customers.",
    no_args_is_help=True,
)
Contract = Annotated[str, typer.Argument(help="Digest of a contract that this node has signed.")]


def add(app: typer.Typer) -> None:
    """Add these commands to ``convoy-node``."""
    app.command("value")(value)
    app.add_typer(veto, name="veto")


def value(
    home: Home,
    contract: Annotated[
        Path | None, typer.Argument(help="Contract document (JSON), not necessarily signed; without it: past runs.")
    ] = None,
    book: Annotated[int, typer.Option(help="Own customers; by default those with a consent in the register.")] = 0,
    cohort: Annotated[
        int, typer.Option(help="Persons with data at the carmaker and at an insurer; by default the contract's floor.")
    ] = 0,
    cohort_sd: Annotated[float, typer.Option(help="Noise of that count, where it is private.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Say what joining is worth: a forecast for a contract before signing, or what past runs brought.

    A forecast rests on public priors and counts and asks nobody for anything. Past runs are figures of own held-out customers;
    they are computed and kept here.
    """
    if contract is None:
        _past(home, as_json)
        return
    from convoy_contracts.document import Contract as Document
    from convoy_contracts.roles import roles_of
    from convoy_models.gates import floor_of
    from convoy_models.value import ValueUnknown, forecast

    try:
        document = Document.parse(contract.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(
            f"{contract.name} cannot be read.",
            code="FILE_UNREADABLE",
            fix="Name the contract's JSON document.",
            fix_zh="请指定合约的 JSON 文档。",
        ) from error
    spec = document.algorithms[0].specification
    if spec is None:
        raise ValueUnknown("the contract pins no specification.")
    own = book or _book(home)
    found = forecast(spec, len(roles_of(document).get("insurer", ())), own, cohort or floor_of(spec), cohort_sd)
    facts = asdict(found) | {"statement": found.statement}
    lines = [
        found.statement,
        f"Gain {found.gain.middle:+.1f} points ({found.gain.low:+.1f} to {found.gain.high:+.1f}, 80 %).",
        f"Below a joint cohort of about {found.floor:,} persons noise eats the gain ({found.terms} terms at this epsilon).",
        *([] if cohort else ["The joint cohort is taken to be at the contract's floor; name a count with --cohort."]),
        "From public priors (generated drivers), not from anybody's data: docs/value.md.",
    ]
    show(facts, as_json, lines, f"convoy-node sign {contract} --home {home}")


def _book(home: Path) -> int:
    from convoy_node.register import Register
    from convoy_node.settings import Settings

    with Register(home / "register.db", party=Settings.load(home).party) as register:
        count = int(register.db.execute("SELECT COUNT(DISTINCT local_id) FROM consent").fetchone()[0])
    if count < 1:
        raise NodeError(
            "the register knows nobody yet.",
            code="COHORT_EMPTY",
            fix="Say the size of your book with --book.",
            fix_zh="请用 --book 给出贵方客户数。",
        )
    return count


def _past(home: Path, as_json: bool) -> None:
    from convoy_node.worth import kept

    found = kept(home)
    lines = [
        f"{facts['run']}: {facts.get('statement') or 'not compared with the own model'}"
        f" Said: {facts['said'].get('word', '-')}, veto: {_yes_or_no(facts['said'].get('veto'))},"
        f" membership attack: {facts['said'].get('attack', 'not run')}."
        for facts in found
    ]
    show(found, as_json, lines or ["No candidate has been tried here yet."], f"convoy-node ledger --home {home}")


@veto.command("set")
def set_(
    contract: Contract,
    home: Home,
    reason: Annotated[str, typer.Option(help="Why, in one sentence; the run's page shows it.")],
    as_json: AsJson = False,
) -> None:
    """Want nothing released under a contract until cleared; running runs end without a release."""
    from convoy_node.worth import set_veto

    _check_signed(home, contract)
    if not 0 < len(reason.strip()) <= 200:
        raise NodeError(
            "a veto needs a reason of 1 to 200 characters.", code="REASON_MISSING", fix="Say why in a sentence."
        )
    set_veto(home, contract, reason.strip())
    show(
        {"contract": contract, "veto": reason.strip()}, as_json,
        [f"Nothing will be released under {contract} with this node's word."], f"convoy-node veto clear {contract} --home {home}",
    )  # fmt: skip


@veto.command()
def clear(contract: Contract, home: Home, as_json: AsJson = False) -> None:
    """Take a veto back; candidates are tried on own customers as before."""
    from convoy_node.worth import set_veto, vetoes

    stood = contract in vetoes(home)
    if stood:
        set_veto(home, contract, None)
    else:
        _check_signed(home, contract)
    line = "The veto is cleared." if stood else "No veto stood under this contract; nothing was changed."
    show({"contract": contract, "veto": None}, as_json, [line], f"convoy-node value --home {home}")


def _check_signed(home: Path, contract: str) -> None:
    from convoy_node.setup import contracts

    if contract not in contracts(home):
        raise NodeError(
            "this node has signed no contract of this digest.",
            code="CONTRACT_UNKNOWN",
            fix="Name a whole digest, sha256:…; convoy-node status shows them.",
            fix_zh="请给出完整摘要 sha256:…；convoy-node status 会列出。",
        )


def _yes_or_no(said: bool | None) -> str:
    return "-" if said is None else "yes" if said else "no"


@veto.command("list")
def list_(home: Home, as_json: AsJson = False) -> None:
    """Show standing vetoes, and what was said about past candidates."""
    from convoy_node.worth import kept, vetoes

    standing, said = vetoes(home), kept(home)
    lines = [f"{contract}: {reason}" for contract, reason in sorted(standing.items())] or ["No standing veto."]
    lines += [
        f"{f['run']}: veto: {_yes_or_no(f['said'].get('veto'))} {f['said'].get('cause', '')}".rstrip() for f in said
    ]
    show({"standing": standing, "said": said}, as_json, lines, f"convoy-node value --home {home}")
