"""A real coordinator in a folder of its own; the PostgreSQL server is the whole suite's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from convoy_coordinator.app import create_app
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.testing import Federation, SetClock

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))


@pytest.fixture
def clock() -> SetClock:
    """A clock that stands at a moment in the term of the test contract."""
    return SetClock(datetime(2027, 3, 1, 2, 0, tzinfo=UTC))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh coordinator's home."""
    folder = tmp_path / "coordinator"
    create_home(folder, name="Test federation", origin="test.example/log")
    return folder


@pytest.fixture
def federation(home: Path, clock: SetClock) -> Iterator[Federation]:
    """A running coordinator on SQLite and three parties with real keys."""
    app = create_app(read_settings(home), clock=clock)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Federation(client, home, clock)
