"""A node as a process of its own, and the ports that a process listens on, read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAIN = "from convoy_node.cli import main; main()"


@contextmanager
def node_process(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``convoy-node up`` on a folder until the block ends."""
    process = subprocess.Popen([sys.executable, "-c", _MAIN, "up", "--home", str(home)], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def listening(pid: int) -> list[int]:
    """Return the TCP ports that a process listens on."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in inodes:
                ports.append(int(columns[1].rpartition(":")[2], 16))
    return ports
