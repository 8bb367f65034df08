"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from convoy_node.flower.errors import NodeHomeUnusable

_OWNER_ONLY = 0o600


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, in place of one that may be there."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_private(path: Path) -> bytes:
    """Read a secret and refuse one that others could have read.

    Raises:
        NodeHomeUnusable: it is missing, empty, or readable by group or others.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise NodeHomeUnusable(
            f"{path} cannot be read ({type(error).__name__}).",
            fix="Name the file that holds the key, readable by the node's user.",
        ) from error
    if stat.S_IMODE(mode) & 0o077 or not content:
        raise NodeHomeUnusable(
            f"{path} is empty or can be read by others.",
            fix=f"chmod 600 {path}; if it was exposed, make a new key and register it.",
        )
    return content
