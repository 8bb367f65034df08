"""``convoy-node consent``: the consent register from the command line; the same as over the local HTTP API (``api``).

Ids of persons are this party's own and never leave the node. ``--contract`` takes a uid or its short name in node.toml.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from convoy_node.errors import NodeError
from convoy_node.terminal import check_new, write_new

if TYPE_CHECKING:
    from convoy_node.consent.office import ConsentOffice

consent = typer.Typer(help="The consent register: who agreed to what. It never leaves this node.", no_args_is_help=True)
out = Console()
Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Person = Annotated[str, typer.Argument(help="This party's own id of the person.")]
ContractName = Annotated[str, typer.Option("--contract", help="Uid of the contract, or its short name in node.toml.")]
Channel = Annotated[str, typer.Option(help="How the person said it: app, car, hotline, desk ...")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the JSON to this file (mode 0600), which must be new.")]


@consent.command()
def record(
    person: Person,
    contract: ContractName,
    home: Home,
    until: Annotated[str, typer.Option(help="End of the consent, a timestamp with an offset, or open-ended.")] = "",
    notice: Annotated[str, typer.Option(help="Id of the notice that the person was shown.")] = "",
    purpose: Annotated[str, typer.Option(help="Purpose that the person agreed to.")] = "",
    recipient: Annotated[list[str] | None, typer.Option(help="Who may receive what comes out; repeat.")] = None,
    age: Annotated[int | None, typer.Option(help="Age; left out means unknown, and the person counts nowhere.")] = None,
    separate: Annotated[bool, typer.Option(help="Separate consent to sensitive data.")] = False,
    guardian: Annotated[bool, typer.Option(help="A guardian has consented.")] = False,
    refused: Annotated[bool, typer.Option(help="The person said no; nobody asks again soon.")] = False,
    given: Annotated[str, typer.Option(help="When it was given, if not now.")] = "",
    counterpart: Annotated[str, typer.Option(help="The other holder; '*' for any. Issues a random link id.")] = "",
    link_id: Annotated[str, typer.Option(help="Link id that the other holder issued, 32 hex digits.")] = "",
    unasked: Annotated[bool, typer.Option(help="The person came by themselves after an earlier refusal.")] = False,
    evidence: Annotated[str, typer.Option(help="Digest of what shows the person's act.")] = "",
    channel: Channel = "desk",
    as_json: AsJson = False,
) -> None:
    """Record what one person said: a consent with its term, or a refusal."""
    cells: dict[str, Any] = {
        "until": until,
        "notice": notice,
        "purpose": purpose,
        "recipients": list(recipient or ()),
        "separate": separate,
        "age": age,
        "guardian": guardian,
        "refused": refused,
        "given": given,
        "counterpart": counterpart,
        "link_id": link_id,
    }
    told = {name: value for name, value in cells.items() if value not in ("", [])}
    with _office(home) as office:
        made = office.record(person, contract, told, channel=channel, unasked=unasked, evidence=evidence or None)
    lines = [f"Recorded as {made['record']['recordId']}: {made['record']['event']['state']}."]
    if made["linkId"]:
        lines.append(f"Link id for the other holder: {made['linkId']}")
    _show(made, as_json, lines, f"convoy-node consent receipt {person} --contract {contract} --home {home}")


@consent.command()
def withdraw(
    person: Person,
    contract: ContractName,
    home: Home,
    out: Out = None,
    channel: Channel = "desk",
    as_json: AsJson = False,
) -> None:
    """Record a withdrawal, durably and for good: no run authorised from now on uses the person. Prints the signed receipt."""
    from convoy_node.duties import DutyDesk

    check_new(out)
    with _office(home) as office:
        receipt = office.withdraw(person, contract, channel=channel)
        with DutyDesk.open(home, office) as desk:
            desk.on_withdrawal(person, receipt)
    try:
        _written(out, receipt)
    except NodeError as error:
        raise NodeError(
            f"the withdrawal is recorded at {receipt['at']}; only its receipt was not written: {error.cause}",
            party=receipt["party"],
            code=error.code,
            fix="Do not withdraw again: convoy-node consent receipt PERSON --contract CONTRACT --out FILE writes the same receipt.",
            fix_zh="无须再次撤回：convoy-node consent receipt PERSON --contract CONTRACT --out FILE 可写出同一回执。",
        ) from error
    lines = [f"Withdrawn at {receipt['at']}.", "Receipt, for the person:", json.dumps(receipt, ensure_ascii=False)]
    _show(receipt, as_json, lines, f"convoy-node consent epoch --contract {contract} --home {home}")


@consent.command()
def show(person: Person, contract: ContractName, home: Home, as_json: AsJson = False) -> None:
    """Show every record about a person under a contract (ISO/IEC TS 27560), oldest first."""
    with _office(home) as office:
        found = office.show(person, contract)
    lines = [
        f"{r['event']['recordedAt']}  {r['event']['state']:<9}  until {r['event']['validUntil']}  by {r['event']['channel']}"
        for r in found["records"]
    ]
    _show(found, as_json, lines, f"convoy-node consent prove {person} --contract {contract} --home {home}")


@consent.command()
def receipt(person: Person, contract: ContractName, home: Home, out: Out = None, as_json: AsJson = False) -> None:
    """Print the signed receipt of the last thing that a person said."""
    check_new(out)
    with _office(home) as office:
        found = office.receipt(person, contract)
    _written(out, found)
    _show(
        found,
        as_json,
        [json.dumps(found, ensure_ascii=False)],
        f"convoy-node consent prove {person} --contract {contract} --home {home}",
    )


@consent.command()
def prove(
    person: Person,
    contract: ContractName,
    home: Home,
    epoch: Annotated[int | None, typer.Option(help="Number of the epoch; the last one if not given.")] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Prove a person's state in an epoch, or that nothing stood there, for anybody to check offline."""
    check_new(out)
    with _office(home) as office:
        proof = office.prove(person, contract, epoch)
    _written(out, proof)
    shown = "absent" if proof["found"] is None else proof["found"]["state"]["state"]
    _show(
        proof,
        as_json or out is None,
        [f"Epoch {proof['epoch']}: {shown}.", f"Written to {out}."],
        f"convoy-audit consent {out} --card {home}/card.json",
    )


@consent.command()
def epoch(
    contract: ContractName,
    home: Home,
    always: Annotated[bool, typer.Option(help="Also if nothing has changed since the last one.")] = False,
    recount: Annotated[bool, typer.Option(help="Derive the last root again, for an auditor on site.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sign the root of all consents of a contract for the log; a run does it as well. Numbers are bucketed."""
    with _office(home) as office:
        if recount:
            number, holds = office.recount(contract)
            _show(
                {"epoch": number, "holds": holds},
                as_json,
                [f"Epoch {number}: the register {'gives' if holds else 'DOES NOT give'} the signed root."],
                f"convoy-node consent prove PERSON --contract {contract} --home {home}",
            )
            if not holds:
                raise typer.Exit(1)
            return
        made = office.epoch(contract, only_if_changed=not always)
    facts: dict[str, Any] = {"epoch": None}
    lines = ["Nothing has changed since the last epoch."]
    if made is not None:
        facts = {"epoch": made.number, "root": "sha256:" + made.root.hex(), "persons": made.persons}
        lines = [f"Epoch {made.number}: {facts['root']}, about {made.persons} persons."]
    _show(facts, as_json, lines, f"convoy-node consent prove PERSON --contract {contract} --home {home}")


@consent.command()
def ask(person: Person, contract: ContractName, home: Home, as_json: AsJson = False) -> None:
    """Tell whether the app may ask a person now; not within the contract's time after a refusal."""
    with _office(home) as office:
        found = office.may_ask(person, contract)
    line = "Yes, ask." if found["mayAsk"] else f"No: the person refused. Not before {found['notBefore']}."
    _show(found, as_json, [line], f"convoy-node consent notice --contract {contract} --home {home}")


@consent.command()
def notice(
    contract: ContractName,
    home: Home,
    lang: Annotated[str, typer.Option(help="zh-CN or en.")] = "zh-CN",
    as_json: AsJson = False,
) -> None:
    """Write the notice of a contract from its own schedule, in Chinese or English."""
    from convoy_contracts.consent import notice as make

    with _office(home) as office:
        found = office.contract(office.uid(contract))
        if found is None:
            raise NodeError(
                "this node has signed no such contract.",
                code="CONTRACT_UNKNOWN",
                fix="convoy-node status lists them.",
                fix_zh="convoy-node status 会列出。",
            )
        made = make(found, office.party)
    if lang not in made.texts:
        raise NodeError(
            f"there is no notice in {lang!r}.", code="LANGUAGE_UNKNOWN", fix=f"Use {' or '.join(made.texts)}."
        )
    facts = {"contract": made.contract, "version": made.version, "digest": made.digest, "texts": made.texts}
    lines = [made.texts[lang], f"digest {made.digest}"]
    _show(facts, as_json, lines, f"convoy-node consent record PERSON --contract {contract} --home {home}")


@consent.command("import")
def import_consents(
    home: Home,
    source: Annotated[Path | None, typer.Argument(help="Parquet or CSV; columns: convoy_node.consent_table.")] = None,
    sql: Annotated[
        str, typer.Option(envvar="CONVOY_CONSENT_URL", help="duckdb:///FILE or a SQLAlchemy URL, instead of a file.")
    ] = "",
    query: Annotated[str, typer.Option(help="Query whose columns are those of the table.")] = "SELECT * FROM consents",
    as_json: AsJson = False,
) -> None:
    """Import a consent table from a file or a database, all or nothing; every fault at once."""
    if (source is None) == (not sql):
        raise NodeError(
            "name a file or --sql, one of them.",
            code="SOURCE_REFUSED",
            fix="convoy-node consent import FILE",
            fix_zh="请运行 convoy-node consent import FILE",
        )
    from convoy_node.consent.against import lines as sentences

    with _office(home) as office:
        made = office.import_table(source) if source is not None else office.import_sql(sql, query)
    lines = [f"{made.rows} {'consent' if made.rows == 1 else 'consents'} imported.", *sentences(made.counts)]
    _show({"rows": made.rows} | made.counts, as_json, lines, f"convoy-node preview --home {home}")


@consent.command("catch-up")
def catch_up(
    home: Home,
    table: Annotated[
        Path | None, typer.Option(help="Table of what was said since the copy was made, withdrawals included.")
    ] = None,
    nothing_since: Annotated[
        bool, typer.Option("--nothing-since", help="Nobody consented or withdrew since; you answer for it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """After a restore of an older register: make every withdrawal again and begin a new life of the register."""
    with _office(home) as office:
        made = office.catch_up(table, nothing_since=nothing_since)
    lines = [
        f"{made['withdrawalsAgain']} withdrawals made again, {made['rows']} rows imported.",
        "Runs are let in again.",
    ]
    _show(made, as_json, lines, f"convoy-node consent epoch --contract CONTRACT --always --home {home}")


def _office(home: Path) -> ConsentOffice:
    from convoy_node.consent.office import ConsentOffice

    return ConsentOffice.open(home)


def _written(path: Path | None, facts: Any) -> None:
    if path is not None:
        write_new(path, json.dumps(facts, ensure_ascii=False, indent=2))


def _show(facts: Any, as_json: bool, lines: Sequence[str], following: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2, default=str))
        return
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    out.print(f"\nNext: {following}", soft_wrap=True, highlight=False, markup=False)
