"""Run a command of the node that dies, as by a power cut, at its n-th lasting step: a file put in place, or a call answered.

    python killed_command.py N COMMAND...       exit code 9 if it died; otherwise that of the command

Steps: every ``os.replace``, ``os.rename``, ``os.fsync`` and each call of the channel, counted before and after it happens.
"""

from __future__ import annotations

import os
import sys
from typing import Any

DIED = 9


def main() -> None:
    """Count down, and go out without a word."""
    left = int(sys.argv[1])

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os._exit(DIED)

    def counted(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            step()
            answer = function(*arguments, **named)
            step()
            return answer

        return call

    for name in ("replace", "rename", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    from convoy_node.channel import Line
    from convoy_node.cli import main as command

    Line.ask = counted(Line.ask)  # type: ignore[method-assign]
    sys.argv = ["convoy-node", *sys.argv[2:]]
    command()


if __name__ == "__main__":
    main()
