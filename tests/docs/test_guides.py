"""Guides are run as they stand: every ``sh`` block of a page in one shell, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ["docs/contracts/authoring.md"]


@pytest.mark.parametrize("page", GUIDES)
def test_the_commands_of_a_guide_run(page: str, tmp_path: Path) -> None:
    """No block fails, and what the page promises to write is written."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in re.findall(r"> ([\w.-]+\.(?:json|txt|jsonld))", "\n".join(blocks)):
        assert (tmp_path / name).stat().st_size > 0, name
