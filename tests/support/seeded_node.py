"""A node with repeatable noise, for the tests that compare runtimes. No setting can name it; a test passes it by code."""

from __future__ import annotations

import zlib
from pathlib import Path

from flwr.clientapp import ClientApp

from convoy_models.testing import SeededNoise
from convoy_node.client_app import make_client_app
from convoy_node.runtime import NodeRuntime


def noise_of(party: str) -> SeededNoise:
    """Return a party's repeatable noise; the seed follows from its id."""
    return SeededNoise(zlib.crc32(party.encode()))


def create(home: Path) -> ClientApp:
    """Open a node with its repeatable noise."""
    short = home.name
    return make_client_app(NodeRuntime(home, noise=noise_of(f"did:web:{short}.example")))
