"""The command ``convoy-node``.

Starts fast: duckdb, torch and flwr are imported only by the commands that need them. Every command takes ``--home`` (or the
variable CONVOY_NODE_HOME), every human output has ``--json``, and every command ends with the next one. Exit codes: 0 done,
1 could not be done (the message names cause and fix), 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from convoy_node import desk_cli, join_cli, offers_cli, papers_cli, release_cli, worth_cli
from convoy_node.alignment.cli import psi
from convoy_node.backup import cli as backup_cli
from convoy_node.cli_data import data
from convoy_node.cli_witness import statements, witness
from convoy_node.consent.cli import consent
from convoy_node.errors import NodeError, of_file

app = typer.Typer(
    name="convoy-node",
    help="The application inside each partner: the root of trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(consent, name="consent")
desk_cli.add(app)
worth_cli.add(app)
release_cli.add(app)
papers_cli.add(app)
offers_cli.add(app)
backup_cli.add(app)
app.add_typer(psi, name="psi")
app.add_typer(witness, name="witness")
app.command("statements")(statements)
app.add_typer(data, name="data")
out = Console()
Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.command()
def init(
    home: Home,
    party: Annotated[str, typer.Option(help="Id of this party, such as did:web:oem.example.")],
    role: Annotated[str, typer.Option(help="oem, insurer, charging, trustee or auditor.")],
    log_keys: Annotated[Path, typer.Option(help="File of the coordinator's log keys, one a line.")],
    region: Annotated[str, typer.Option(help="Where the node runs, such as CN-SH.")] = "CN-SH",
    name: Annotated[str, typer.Option(help="Name of the organisation.")] = "",
    data: Annotated[str, typer.Option(help="File with the rows, relative to the folder.")] = "data/data.parquet",
    asset: Annotated[str, typer.Option(help="Uid of the asset that the rows are.")] = "",
    cap: Annotated[float, typer.Option(help="Epsilon that one year may cost a person, over all contracts.")] = 6.0,
    as_json: AsJson = False,
) -> None:
    """Make a node's folder; its keys are born there. Never overwrites."""
    from convoy_node.setup import create_home, fingerprint, micro

    holds = role not in ("trustee", "auditor")
    keys = [line.strip() for line in _text(log_keys).splitlines() if line.strip() and not line.startswith("#")]
    short = party.removeprefix("did:web:").removesuffix(".example")
    card = create_home(
        home,
        party=party,
        role=role,
        region=region,
        name=name,
        log_keys=keys,
        data_source=data if holds else "",
        asset=(asset or f"urn:convoy:asset:{short}:1") if holds else "",
        asset_year_cap_micro=micro(cap) if holds else 0,
    )
    _show(
        {"home": str(home), "card": str(home / "card.json"), "fingerprint": fingerprint(card)},
        as_json,
        [
            f"Home         {home}",
            f"Card         {home / 'card.json'}   (public: send it to the coordinator and the partners)",
            f"Fingerprint  {fingerprint(card)}   (read it to them by telephone)",
            "",
            "Grade your fields under [asset.fields] in node.toml before you sign a contract.",
        ],
        f"convoy-node pin --home {home} PARTNER-CARD.json",
    )


@app.command()
def pin(
    cards: Annotated[list[Path], typer.Argument(help="Cards of partners.")], home: Home, as_json: AsJson = False
) -> None:
    """Believe the keys on these cards. Compare the fingerprints by telephone first."""
    from convoy_node import setup
    from convoy_node.identity import Card

    read = [Card.read(_json(path)) for path in cards]
    setup.pin(home, read)
    prints = {card.id: setup.fingerprint(card) for card in read}
    _show(
        {"pinned": prints}, as_json, [f"{p}  {text}" for p, text in prints.items()], f"convoy-node doctor --home {home}"
    )


@app.command()
def sign(
    contract: Annotated[Path, typer.Argument(help="The contract's text, as the coordinator gives it.")],
    home: Home,
    as_json: AsJson = False,
) -> None:
    """Sign a contract as this party; from then on the node may take part in its runs."""
    from convoy_node.setup import sign_contract

    entry = sign_contract(home, _text(contract), datetime.now(UTC))
    _show(
        entry,
        as_json,
        [
            f"Signed as {entry['kid']}.",
            "Give this entry to the coordinator (convoy-node contract send DIGEST does, once joined):",
            json.dumps(entry),
        ],
        f"convoy-node preview --home {home}",
    )


@app.command()
def status(home: Home, as_json: AsJson = False) -> None:
    """Show what this node is, what it has signed, and what is left of its budgets."""
    from convoy_audit.witness_store import FileWitnessStore
    from convoy_contracts.document import Contract
    from convoy_models.accounting import shown
    from convoy_node import setup
    from convoy_node.ledger_view import LedgerView
    from convoy_node.settings import Settings

    settings = Settings.load(home)
    store = FileWitnessStore.open(home / "witness")
    seen = store.load(settings.log_origin)
    with LedgerView(home / setup.LEDGER) as ledger:
        totals = [total for total in ledger.totals() if total.contract is not None]
    signed = [Contract.parse(text) for text in setup.contracts(home).values()]
    facts: dict[str, Any] = {
        "party": settings.party,
        "role": settings.role,
        "log": {
            "origin": settings.log_origin,
            "size": seen.checkpoint.size if seen else 0,
            "alarms": len(store.alarms()),
        },
        "contracts": [
            {"uid": c.uid, "version": c.version, "digest": c.digest, "until": c.term.notAfter} for c in signed
        ],
        "budget": [
            {"asset": t.asset, "contract": t.contract, "epsilon": t.epsilon, "cap": t.cap_micro / 1e6} for t in totals
        ],
    }
    lines = [
        f"{settings.party}   {settings.role}   {settings.region}",
        f"Log        {settings.log_origin}, {facts['log']['size']} entries cosigned, {facts['log']['alarms']} alarms",
        *(f"Contract   {c.uid} version {c.version} until {c.term.notAfter}\n           {c.digest}" for c in signed),
        *(
            f"Budget     {t.contract}: epsilon {shown(t.epsilon)} of {t.cap_micro / 1e6:g}, {_meant(t.delta)}"
            for t in totals
        ),
    ]
    _show(facts, as_json, lines, f"convoy-node {'preview' if signed else 'sign'} --home {home}")


def _meant(delta: float) -> str:
    """Return what an epsilon is about: unit, delta and adversary."""
    return f"per person, delta {delta:g}, towards the coordinator and every recipient"


def _runs_left(count: int) -> str:
    return f"{count} {'run' if count == 1 else 'runs'} left, this one included" if count else "no run left"


@app.command()
def ledger(
    home: Home,
    events: Annotated[bool, typer.Option("--events", help="List every spent sum as well.")] = False,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Recompute every epsilon from the spent sums with dp-accounting.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the privacy ledger: what each asset's persons have paid, and every sum that was answered."""
    from dataclasses import asdict

    from convoy_models.accounting import shown
    from convoy_node.ledger_view import LedgerView
    from convoy_node.setup import LEDGER

    with LedgerView(home / LEDGER) as view:
        totals, spent = view.totals(), view.events()
        second = [
            view.independent_epsilon(t.delta, t.asset, t.contract, t.year) if cross_check else None for t in totals
        ]
    facts: dict[str, Any] = {
        "totals": [
            asdict(t) | ({"pldEpsilon": e} if e is not None else {}) for t, e in zip(totals, second, strict=True)
        ]
    }
    if events:
        facts["events"] = [asdict(event) for event in spent]
    if not as_json:
        _table(
            ("asset", "under", "epsilon", "cap", "delta", "mu^2 spent", "mu^2 held"),
            [
                (
                    t.asset, t.contract or f"all, {t.year}", shown(t.epsilon, 6), f"{t.cap_micro / 1e6:g}", f"{t.delta:g}",
                    f"{t.spent_mu2:.6f}", f"{t.mu2 - t.spent_mu2:.6f}",
                )
                for t in totals
            ],
        )  # fmt: skip
        if events:
            _table(
                ("run", "query", "cohort", "clip", "sigma", "mu^2", "at"),
                [
                    (e.run, e.query, e.cohort, f"{e.clip:.4g}", f"{e.sigma:.4g}", f"{e.mu2:.3g}", e.spent_at)
                    for e in spent
                ],
            )
    _show(
        facts,
        as_json,
        [
            "Epsilon is per person, at delta, over all runs of its line, towards the coordinator and every recipient.",
            "It is rounded up, and nothing ever lowers it.",
            *(
                f"  dp-accounting, {t.asset} {t.contract or t.year}: at most {shown(e, 6)} for all spent sums of all cohorts"
                for t, e in zip(totals, second, strict=True)
                if e is not None
            ),
        ],
        f"convoy-node preview --home {home}" if events else f"convoy-node ledger --events --home {home}",
    )


@app.command()
def preview(
    home: Home,
    purpose: Annotated[str, typer.Option(help="Purpose to count consents for; the contract's own if not given.")] = "",
    as_json: AsJson = False,
) -> None:
    """List every number that a run would send, with columns, clip, sigma and epsilon. Reads no row and sends nothing."""
    from convoy_contracts.document import Contract
    from convoy_models.accounting import shown
    from convoy_node import setup
    from convoy_node.ledger_view import LedgerView
    from convoy_node.preview import preview as dry_run
    from convoy_node.preview import usual_purpose
    from convoy_node.register import Register
    from convoy_node.settings import Settings

    settings, now = Settings.load(home), datetime.now(UTC)
    found = []
    with LedgerView(home / setup.LEDGER) as view, Register(home / setup.REGISTER, party=settings.party) as register:
        for text in setup.contracts(home).values():
            contract = Contract.parse(text)
            found += dry_run(settings, contract, purpose or usual_purpose(contract), view, register, now)
    lines: list[str] = []
    for run in found:
        lines += [
            f"{run.algorithm} under {run.contract[:23]}…",
            f"  one run costs epsilon {shown(run.epsilon)}, {_meant(run.delta)}",
            f"  then {shown(run.epsilon_after)} of {run.cap:g} are used under the contract; {_runs_left(run.runs_left)}",
            f"  {run.persons} persons consent to {run.purpose}",
        ]
    if not as_json:
        for run in found:
            _table(
                ("sum", "kind", "over", "columns", "numbers", "clip", "sigma", "mu^2", "epsilon alone"),
                [
                    (
                        line.query if line.answered else f"{line.query} (answered by others)", line.kind, line.cohort,
                        ", ".join(line.columns), str(line.numbers), f"{line.clip:.4g}", f"{line.sigma:.4g}", f"{line.mu2:.3g}",
                        shown(line.epsilon, 4),
                    )
                    for line in run.lines
                ],
            )  # fmt: skip
    nothing = ["No signed contract asks anything of this node's persons."]
    _show({"runs": [run.as_json() for run in found]}, as_json, lines or nothing, f"convoy-node doctor --home {home}")


@app.command()
def doctor(
    home: Home,
    language: Annotated[str, typer.Option("--language", help="en or zh.")] = "en",
    as_json: AsJson = False,
) -> None:
    """Check folder, keys, ledger, contracts, data, disk, randomness, versions, and the way to the coordinator; every fault at once."""
    from dataclasses import asdict

    from convoy_node.doctor import examine

    if language not in ("en", "zh"):
        raise typer.BadParameter("en or zh", param_hint="--language")
    checks = examine(home, datetime.now(UTC))
    fault = "FAULT" if language == "en" else "异常 "
    lines = []
    for check in checks:
        lines.append(f"{'ok   ' if check.is_well else fault}  {check.name}")
        lines += [f"       {finding.text if language == 'en' else finding.text_zh}" for finding in check.findings]
    well = all(check.is_well for check in checks)
    _show(
        {
            "ok": well,
            "checks": [
                {"name": c.name, "faults": list(c.faults), "findings": [asdict(finding) for finding in c.findings]}
                for c in checks
            ],
        },
        as_json,
        lines,
        f"convoy-node status --home {home}" if well else f"convoy-node doctor --home {home}   (after the fixes)",
    )
    if not well:
        raise typer.Exit(1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(
            f"{path.name} cannot be read.",
            code="FILE_UNREADABLE",
            fix="Name a readable text file.",
            fix_zh="请指定可读的文本文件。",
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise NodeError(
            f"{path.name} is no JSON.", code="FILE_UNREADABLE", fix="Name a card.json.", fix_zh="请指定 card.json。"
        ) from error
    return value if isinstance(value, dict) else {}


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*names, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _show(facts: Any, as_json: bool, lines: Sequence[str], following: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2, default=str))
        return
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    out.print(f"\nNext: {following}", soft_wrap=True, highlight=False, markup=False)


join_cli.register(app)


def main() -> None:
    """Run the command line; a refusal names cause and fix, with --json as JSON, and never shows a trace.

    A file or folder that cannot be used is such a refusal too, wherever a command meets it.
    """
    from convoy_audit.errors import AuditError
    from convoy_contracts.errors import ContractsError
    from convoy_models.errors import ModelsError

    try:
        app()
    except (NodeError, AuditError, ContractsError, ModelsError) as error:
        _refuse(error)
    except OSError as error:
        if error.filename is None:  # no file: a fault of the program or of the network that nobody foresaw
            raise
        _refuse(of_file(error))


def _refuse(error: Exception) -> NoReturn:
    if "--json" in sys.argv:
        print(json.dumps({"error": _facts(error)}, ensure_ascii=False))
    else:
        from convoy_contracts.problems.telling import told

        Console(stderr=True).print(told(error), soft_wrap=True, highlight=False, markup=False)
    sys.exit(1)


def _facts(error: Exception) -> dict[str, Any]:
    """Return a refusal of any of our packages as the coordinator's commands tell theirs."""
    facts: dict[str, Any] = {name: str(getattr(error, name, "")) for name in ("code", "party", "cause", "fix")}
    reasons = getattr(error, "reasons", ()) or getattr(error, "problems", ())
    return facts | ({"reasons": [str(reason) for reason in reasons]} if reasons else {})


if __name__ == "__main__":
    main()
