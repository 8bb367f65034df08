"""``convoy-node data``: look at the rows, map the columns, check everything before the first round.

Nothing of this leaves the node. Every fault is told at once, by column and number of rows, never by value.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convoy_node.errors import NodeError
from convoy_node.terminal import AsJson, Home, show, table

if TYPE_CHECKING:
    from convoy_node.columns import Column
    from convoy_node.connectors import Source
    from convoy_node.settings import Settings

data = typer.Typer(help="This party's rows: profile, map, check. Nothing leaves the node.", no_args_is_help=True)
Contract = Annotated[
    list[Path] | None,
    typer.Option("--contract", help="Contract text; left out: every contract that this node has signed."),
]
SourcePlace = Annotated[
    str,
    typer.Option("--source", help="File with the rows; left out: what node.toml names. Databases: see docs/data.md."),
]


@data.command("profile")
def show_profile(home: Home, source: SourcePlace = "", as_json: AsJson = False) -> None:
    """Show every column with type, empty cells and, for numbers, bounds. Stays on this screen."""
    from convoy_node.data_map import profile
    from convoy_node.settings import Settings

    found = profile(_open(Settings.load(home), source, is_raw=True))
    if not as_json:
        table(
            ("column", "type", "rows", "empty", "least", "most"),
            [(p.name, p.kind, f"{p.rows:,}", f"{p.empty:,}", _number(p.low), _number(p.high)) for p in found],
        )
    show([asdict(p) for p in found], as_json, [], f"convoy-node data map --home {home}")


@data.command("map")
def make_map(
    home: Home,
    contract: Contract = None,
    source: SourcePlace = "",
    to: Annotated[
        Path | None, typer.Option("--to", help="Where the mapping goes; left out: mapping.toml at home.")
    ] = None,
    table_name: Annotated[str, typer.Option("--table", help="Table or view; 'rows' is the file itself.")] = "",
    grouped: Annotated[bool, typer.Option(help="The table has several rows for a person.")] = False,
    as_json: AsJson = False,
) -> None:
    """Propose which of your columns are the contract's fields; writes a mapping to confirm. Never overwrites."""
    from convoy_node.data_map import mapping_text, propose
    from convoy_node.settings import Settings

    settings = Settings.load(home)
    wanted = _wanted(home, settings, contract)
    opened = _open(settings, source, is_raw=True)
    present = list(opened.describe())
    person, *fields = propose(present, ["person_id", *wanted])
    place = to or home / "mapping.toml"
    named = table_name or (settings.data.table if settings.data is not None and not source else "") or "rows"
    text = mapping_text(named, person, fields, wanted, grouped=grouped)
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise NodeError(
            f"{place.name} is there already.",
            code="FILE_EXISTS",
            fix="Move it away, or name another with --to.",
            fix_zh="请移走该文件，或用 --to 指定其他文件。",
        ) from error
    doubtful = [p for p in (person, *fields) if not p.is_sure]
    lines = [f"{place}: {len(fields) + 1 - len(doubtful)} of {len(fields) + 1} lines are sure."]
    lines += [f"  look at: {p.field} = {p.column or '?'}" for p in doubtful]
    lines += ["", f'Name it under [data] in node.toml: mapping = "{place.name}"']
    show(
        {"mapping": str(place), "proposals": [asdict(p) for p in (person, *fields)]},
        as_json,
        lines,
        f"convoy-node data check --home {home}",
    )


@data.command("check")
def check(home: Home, contract: Contract = None, source: SourcePlace = "", as_json: AsJson = False) -> None:
    """Check every row against every contract, streaming; tells every fault at once. Exit code 1 where there are faults."""
    from convoy_node.dataset import survey
    from convoy_node.settings import Settings

    settings = Settings.load(home)
    wanted = _wanted(home, settings, contract)
    found = survey(
        _open(settings, source), tuple(wanted.values()), settings.party, person_column=settings.person_column
    )
    lines = [f"{found.rows:,} rows, {len(wanted)} fields, {len(found.faults)} faults."]
    lines += [f"  {fault}" for fault in found.faults]
    following = f"convoy-node preview --home {home}" if not found.faults else f"convoy-node data check --home {home}"
    facts = {"rows": found.rows, "fields": sorted(wanted), "faults": [asdict(fault) for fault in found.faults]}
    show(facts, as_json, lines, following)
    if found.faults:
        raise typer.Exit(1)


@data.command("schema")
def show_schema(home: Home, contract: Contract = None, as_json: AsJson = False) -> None:
    """Show what the contracts expect of each column; the same pandera schema judges the rows (convoy_node.schemas)."""
    from convoy_node.settings import Settings

    wanted = _wanted(home, Settings.load(home), contract)
    if not as_json:
        table(("field", "kind", "levels"), [(c.name, c.kind, ", ".join(c.levels[:6])) for c in wanted.values()])
    show([asdict(column) for column in wanted.values()], as_json, [], f"convoy-node data map --home {home}")


def _wanted(home: Path, settings: Settings, texts: list[Path] | None) -> dict[str, Column]:
    """Return the columns that the contracts expect of this party, by name."""
    from convoy_contracts.document import Contract as Document
    from convoy_node.columns import expected_columns
    from convoy_node.setup import contracts

    given = [path.read_text(encoding="utf-8") for path in texts] if texts else list(contracts(home).values())
    wanted: dict[str, Column] = {}
    for text in given:
        for algorithm in Document.parse(text).algorithms:
            if algorithm.specification is not None:
                for column in expected_columns(algorithm.specification, settings.role):
                    wanted.setdefault(column.name, column)
    if not wanted:
        raise NodeError(
            "no contract expects anything of this party.",
            party=settings.party,
            code="CONTRACT_UNKNOWN",
            fix="Sign a contract first, or name its text with --contract.",
            fix_zh="请先签署合约，或用 --contract 指定其文本。",
        )
    return wanted


def _open(settings: Settings, place: str, *, is_raw: bool = False) -> Source:
    """Return the source named, or that of node.toml; ``is_raw`` leaves the mapping out."""
    from dataclasses import replace

    from convoy_node.connectors import open_source

    if place:
        return open_source(Path(place), person=settings.person_column, party=settings.party)
    if settings.data is None:
        raise NodeError(
            "node.toml names no data.",
            party=settings.party,
            code="DATA_MISSING",
            fix="Set data.source.",
            fix_zh="请设置 data.source。",
        )
    chosen = replace(settings.data, mapping=None) if is_raw else settings.data
    return chosen.open(settings.party)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
