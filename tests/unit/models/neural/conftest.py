"""Networks start from the same weights in whatever order the tests run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch, which draws the weights of every new layer."""
    torch.manual_seed(1)
