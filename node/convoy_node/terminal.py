"""What every ``convoy-node`` command shares: the folder option, JSON beside text, and the next command at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from convoy_node.errors import NodeError, of_file

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


def check_new(path: Path | None) -> None:
    """Check that a new file can be put somewhere, before anything is done whose result is to stand in it.

    Raises:
        NodeError: FILE_EXISTS, or FILE_UNWRITABLE: its folder is not there, or nobody may write in it.
    """
    if path is None:
        return
    if path.exists() or path.is_symlink():
        raise NodeError(
            f"{path.name!r} is there already; nothing was done.",
            code="FILE_EXISTS",
            fix="Name a file that does not exist; what is there is not replaced.",
            fix_zh="请指定尚不存在的文件；已有文件不会被替换。",
        )
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise NodeError(
            f"{path.name!r} cannot be written; nothing was done.",
            code="FILE_UNWRITABLE",
            fix=f"Name a file in a folder that is there and where you may write, not in {str(path.parent)!r}.",
            fix_zh=f"请指定已存在且可写文件夹中的文件，而非 {str(path.parent)!r} 中的文件。",
        )


def write_new(path: Path, text: str) -> None:
    """Write a new file for its owner only (0600).

    Raises:
        NodeError: FILE_EXISTS or FILE_UNWRITABLE.
    """
    check_new(path)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise of_file(error, is_written=True) from error


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    shown = Table(*names, box=None, pad_edge=False)
    for row in rows:
        shown.add_row(*row)
    out.print(shown)
