"""Ports of the loopback for what a demonstration, a bench or a test starts."""

from __future__ import annotations

import secrets
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_RANGE: Final = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32,768 and above): none of those takes one between the choice and
the use, or while a server that was killed starts again."""


def free_ports(count: int) -> list[int]:
    """Return different ports that are free now."""
    probes: list[socket.socket] = []
    while len(probes) < count:
        probe = socket.socket()
        try:
            probe.bind((LOOPBACK, secrets.choice(_RANGE)))
        except OSError:
            probe.close()
        else:
            probes.append(probe)
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def free_port() -> int:
    """Return one of them."""
    return free_ports(1)[0]
