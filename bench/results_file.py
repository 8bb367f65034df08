"""Where a benchmark writes its result."""

from __future__ import annotations

from pathlib import Path


def unwritable(file: Path) -> str | None:
    """Return why a result could not be written there, before it is trained for; None if it can. Makes the folder, leaves no file."""
    try:
        was_there = file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a", encoding="utf-8").close()
        if not was_there:
            file.unlink()
    except OSError as error:
        return str(error.strerror)
    return None
