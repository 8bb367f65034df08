"""The pages about a node are true: every command in their ``sh`` blocks runs, in order, in a folder as they describe it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convoy_contracts.duties import KINDS

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["consent", "duties", "data", "node"])
def test_every_command_of_a_page_runs(prepared, tmp_path: Path, page: str) -> None:
    """One shell for the whole page; the first command that fails ends it."""
    home, place = tmp_path / "home", tmp_path / "place"
    shutil.copytree(prepared.folder / "insurer-a", home)
    place.mkdir()
    script = "\n".join(BLOCK.findall((DOCS / f"{page}.md").read_text(encoding="utf-8")))
    assert script.count("convoy-node ") >= 3
    environment = {
        **os.environ,
        "CONVOY_NODE_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    if page == "duties":
        script = f"{CONSENT}\n{script}"
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    if page == "consent":
        assert "VERIFIED" in done.stdout
        assert "核验通过" in done.stdout
    if page == "node":
        assert (place / "restored" / "restored.json").is_file()


CONSENT = (
    "convoy-node consent record D-1001 --contract risk --until 2027-06-30T00:00:00+08:00 --notice convoy-demo@1"
    " --purpose convoy:RiskModelTraining --recipient did:web:oem.example --age 30"
)


def test_the_page_about_duties_names_every_kind_in_both_languages() -> None:
    """Title, basis and whether it blocks, as the catalogue has them."""
    text = (DOCS / "duties.md").read_text(encoding="utf-8")
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `([a-z-]+)` .*$", text, re.MULTILINE)}
    assert set(rows) == set(KINDS)
    for name, kind in KINDS.items():
        assert kind.basis in rows[name]
        assert kind.titles[0].split(",")[0] in rows[name]
        assert kind.titles[1].split("（")[0] in rows[name]
        assert rows[name].rstrip().endswith(f"| {'yes' if kind.is_blocking else 'no'} |")
