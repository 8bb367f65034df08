"""``/livez`` and ``/readyz``: what is asked, and what the answer looks like.

    standing(checks, failures) -> (body, status)

``/livez`` answers as long as the process does. ``/readyz`` runs every check; the answer names what fails, never why in detail,
because whoever asks has shown no token. 200 where all pass, 503 where one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Check = Callable[[], None]
"""Raises if what it looks at does not work."""
ALIVE: Final = {"status": "ok"}


def standing(checks: Mapping[str, Check], failures: tuple[type[Exception], ...]) -> tuple[dict[str, Any], int]:
    """Run the checks.

    Args:
        checks: by name.
        failures: what a check may raise; anything else is a fault of the program and goes up.

    Returns:
        The body of the answer and its HTTP status.
    """
    results = {name: _passes(check, failures) for name, check in checks.items()}
    ready = all(results.values())
    told = {name: "ok" if good else "failing" for name, good in results.items()}
    return {"status": "ok" if ready else "failing", "checks": told}, 200 if ready else 503


def _passes(check: Check, failures: tuple[type[Exception], ...]) -> bool:
    try:
        check()
    except failures:
        return False
    return True
