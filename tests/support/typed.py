"""Type a command inside this process: the installed entry point with its own arguments and exit code, without a new interpreter.

Two or three seconds a command are its imports; tests that type many of them, and are not about processes, type them here.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from unittest.mock import patch


def typed(main: Callable[[], int | None], *words: object) -> subprocess.CompletedProcess[str]:
    """Run ``main`` as ``words`` on a line would; return exit code, standard output and standard error."""
    line = [main.__module__, *map(str, words)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", line), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())
