"""Placeholder: evidence packs (being written)."""

from __future__ import annotations

from pathlib import Path


def write_pack(folder: Path) -> None:
    """Write an evidence pack."""
    raise NotImplementedError


def verify_pack(folder: Path) -> None:
    """Verify an evidence pack."""
    raise NotImplementedError
