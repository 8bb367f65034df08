"""A real PostgreSQL server for a while: of this machine's newest version, on a socket, as an unprivileged user."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Yield the URL of an empty database whose owner is ``convoy``; the server is gone afterwards.

    Raises:
        RuntimeError: no binaries; CI installs them.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise RuntimeError("no PostgreSQL binaries: apt-get install postgresql")
    binaries, folder = found[-1].parent, Path(tempfile.mkdtemp(prefix="convoy-pg-"))
    user = "postgres" if os.getuid() == 0 else ""  # the server refuses to run as root
    before = ["runuser", "-u", user, "--"] if user else []
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def run(tool: str, *arguments: str) -> None:
        command = [*before, str(binaries / tool), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120)

    run("initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-locale", "-U", "convoy")
    try:
        run("pg_ctl", "-D", str(data), "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -h ''", "start")
        yield f"postgresql+psycopg://convoy@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
