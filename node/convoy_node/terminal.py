"""What every ``convoy-node`` command shares: the folder option, JSON beside text, and the next command at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

out = Console()
Home = Annotated[Path, typer.Option("--home", envvar="CONVOY_NODE_HOME", help="The node's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def show(facts: Any, as_json: bool, lines: Sequence[str], following: str) -> None:
    """Print facts as JSON, or lines for people and the next command."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2, default=str))
        return
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    out.print(f"\nNext: {following}", soft_wrap=True, highlight=False, markup=False)


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    shown = Table(*names, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
