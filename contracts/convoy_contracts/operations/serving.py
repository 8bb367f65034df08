"""What every HTTP server of ours has in common."""

from __future__ import annotations

from typing import Final

KEEP_ALIVE_S: Final = 30
"""For how long an idle connection stays open: longer than clients keep it (5 s), so that one side closes it and never both at once."""
