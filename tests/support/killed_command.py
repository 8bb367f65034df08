"""Run a command of the node that dies, as by a power cut, at its n-th lasting step: a file put in place, or a call answered.

    python killed_command.py N COMMAND...       exit code 9 if it died; otherwise that of the command

Steps: every ``os.replace``, ``os.rename``, ``os.fsync`` and each call of the channel, counted before and after it happens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

DIED = 9


STEPS = ("replace", "rename", "fsync")
"""Of ``os``; a call of the channel (``Line.ask``) is one as well."""


def counting(left: int, die: Callable[[], None]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper of lasting steps that dies before or after the n-th of them all.

    Args:
        left: how many pass.
        die: ends the work.
    """

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            die()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            step()
            answer = function(*arguments, **named)
            step()
            return answer

        return call

    return counted


def main() -> None:
    """Count down, and go out without a word."""
    counted = counting(int(sys.argv[1]), lambda: os._exit(DIED))
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    from convoy_node.channel import Line
    from convoy_node.cli import main as command

    Line.ask = counted(Line.ask)  # type: ignore[method-assign]
    sys.argv = ["convoy-node", *sys.argv[2:]]
    command()


if __name__ == "__main__":
    main()
