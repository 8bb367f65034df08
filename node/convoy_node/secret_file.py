"""Read a file that only its owner may read: a private key, a token, a database's address."""

from __future__ import annotations

import stat
from pathlib import Path

from convoy_node.errors import KeyRefused


def read_secret(path: Path, party: str = "") -> bytes:
    """Return the content of a secret file.

    Raises:
        KeyRefused: it is missing, or others than its owner may read it.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise KeyRefused(f"{path.name} cannot be read.", party=party) from error
    if stat.S_IMODE(mode) & 0o077:
        raise KeyRefused(f"{path.name} can be read by others than its owner.", party=party)
    return content
