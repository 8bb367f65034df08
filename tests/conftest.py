"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded: spinning threads cost more than they help

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of third-party data and vectors; a test that needs it is left out, by name, where it is absent."""
    folder = Path(os.environ.get("CONVOY_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"CONVOY_SHARED: no folder {folder}; set CONVOY_SHARED to the shared data and vectors")
    return folder
