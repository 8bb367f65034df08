"""A real coordinator with its partner channel on loopback ports, and nodes that joined it with tickets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from channel_site import Site, site_in


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A fresh federation."""
    with site_in(tmp_path) as running:
        yield running
