"""A listener with the channel's own credentials under a storm of unfinished handshakes: ``python handshake_storm.py HOME SECONDS``.

In a process of its own, because what it looks for ends the process. Prints how many handshakes were begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc

from convoy_coordinator.channel.papers import Papers
from convoy_coordinator.enrolment.authorities import Authorities
from convoy_coordinator.enrolment.ca import Authority


async def stand(path: str, papers: Papers, seconds: float) -> int:
    """Serve for some seconds while three threads begin handshakes; return how many."""
    server = grpc.aio.server(options=[("grpc.server_handshake_timeout_ms", 300)])
    server.add_secure_port(f"unix:{path}", papers.credentials(of_partners=True))
    await server.start()
    end, begun = time.monotonic() + seconds, [0, 0, 0]

    def storm(number: int) -> None:
        waiting: list[socket.socket] = []
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                client = socket.socket(socket.AF_UNIX)
                client.connect(path)
                client.send(b"\x16\x03\x01\x02")
                waiting.append(client)
                begun[number] += 1
            if len(waiting) > 50:
                waiting.pop(0).close()

    threads = [threading.Thread(target=storm, args=(number,)) for number in range(len(begun))]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.05)
    await server.stop(0)
    return sum(begun)


def main() -> None:
    """Make an authority and stand."""
    home = Path(sys.argv[1])
    authority = Authority.open(home / "keys", home / "tls", "Storm", datetime.now(UTC))
    papers = Papers(lambda: Authorities(authority), ["localhost"])
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(stand(f"{folder}/s", papers, float(sys.argv[2]))))


if __name__ == "__main__":
    main()
