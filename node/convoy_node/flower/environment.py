"""What Flower must find in the environment at its first import: no calls home, no installs.

Flower reads these when its modules are imported, so a process calls ``settle`` first and imports
flwr after.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FIXED: Final[Mapping[str, str]] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Not for configuration: a partner's process calls nobody but its SuperLink."""

_LOUD: Final = ("flwr", "alembic", "httpx")

DEFAULT: Final[Mapping[str, str]] = {"FLWR_LOG_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"}


def settle(flower_home: Path) -> None:
    """Set Flower's environment for this process and the processes that it starts.

    Args:
        flower_home: where Flower may write; never the user's home.
    """
    os.environ.update(FIXED)
    os.environ["FLWR_HOME"] = str(flower_home)
    for name, value in DEFAULT.items():
        os.environ.setdefault(name, value)
    hush()


def hush() -> None:
    """Keep the libraries' chatter out of the log; once more after Flower's import resets it."""
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.WARNING)
