"""The regulator's verifier installs alone, is small, and answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_MB = 40


@pytest.mark.slow
def test_the_verifier_installs_alone_and_small(tmp_path: Path) -> None:
    """``pip install ./audit`` in an empty environment: the command runs, at most 40 MB were added."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    before = sum(f.stat().st_size for f in site.rglob("*") if f.is_file())
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(ROOT / "audit")],
        check=True,
    )
    added = sum(f.stat().st_size for f in site.rglob("*") if f.is_file()) - before
    assert added <= LIMIT_MB * 1e6
    done = subprocess.run(
        [str(tmp_path / "venv/bin/convoy-audit"), "--help"], capture_output=True, text=True, check=True
    )
    assert "verify" in done.stdout
    absent = subprocess.run([str(python), "-c", "import convoy_contracts"], capture_output=True, check=False)
    assert absent.returncode != 0
