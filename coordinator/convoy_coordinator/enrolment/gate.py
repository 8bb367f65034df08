"""Who may reach the federation's runtime: told to Flower by an adapter that is named in the settings.

The coordinator without Flower (``NoGate``) runs the channel alone. ``open_gate`` loads the adapter by name, so that
nothing here imports Flower.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from convoy_coordinator.errors import CoordinatorError

ADAPTER: Final = "convoy_coordinator.federation.flower.gate"
RETRY_S: Final = 1.0
LOOK_S: Final = 1.0
"""Seconds between two looks whether the runtime is still the one that was told."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkEndpoint:
    """Where partners reach the SuperLink: address, CA (PEM) and the hashes of approved app bundles."""

    address: str
    ca: bytes
    app_hashes: tuple[str, ...]


class Gate(Protocol):
    """The runtime's door."""

    def settle(self, parties: Mapping[str, str]) -> None:
        """Let in exactly these parties, by SuperNode key in PEM; everybody else is out when it returns.

        Raises:
            CoordinatorError: the runtime does not answer; the caller tries again.
        """

    def endpoint(self) -> LinkEndpoint | None:
        """Return where partners connect; None while the runtime is down or there is none."""

    def incarnation(self) -> str:
        """Return what tells one start of the runtime from the next; empty while it is down or there is none."""

    def turned_away(self) -> Mapping[str, int]:
        """Return how many the runtime's public door has turned away since it started, by code."""

    def begin(self, run: str) -> None:
        """Have the runtime's ServerApp take up a queued run.

        Raises:
            CoordinatorError: the runtime does not answer; the caller tries again.
        """


class NoGate:
    """No runtime is configured."""

    def settle(self, parties: Mapping[str, str]) -> None:
        """Do nothing."""

    def endpoint(self) -> LinkEndpoint | None:
        """Return that there is none."""
        return None

    def incarnation(self) -> str:
        """Return the empty text."""
        return ""

    def turned_away(self) -> Mapping[str, int]:
        """Return nobody."""
        return {}

    def begin(self, run: str) -> None:
        """Do nothing: whoever runs the ServerApp otherwise has it look at the queue."""


def open_gate(link_home: Path | None, link_address: str | None) -> Gate:
    """Return the gate of the SuperLink in a folder, or none."""
    if link_home is None:
        return NoGate()
    return cast("Gate", importlib.import_module(ADAPTER).LinkGate(link_home, link_address))


class Gatekeeper:
    """A thread that keeps the gate as the parties stand; it goes on trying while the runtime is down.

    The runtime keeps nothing over a restart, so a new one is told everything again.

    Args:
        gate: the door.
        admitted: returns who may pass, by SuperNode key.
        refused: hears code and number of those whom the gate has turned away since the last look.
    """

    def __init__(
        self, gate: Gate, admitted: Callable[[], Mapping[str, str]], refused: Callable[[str, int], None] | None = None
    ) -> None:
        self._gate = gate
        self._admitted = admitted
        self._refused = refused
        self._counted = dict(gate.turned_away())
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gatekeeper", daemon=True)

    def start(self) -> None:
        """Begin; the gate is settled at once."""
        self._changed.set()
        self._thread.start()

    def change(self) -> None:
        """Say that somebody came or went."""
        self._changed.set()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _count(self) -> None:
        """Tell of those who were turned away since the last look; a gate that has started again counts from nothing."""
        counts = dict(self._gate.turned_away())
        for code, count in sorted(counts.items()):
            before = self._counted.get(code, 0)
            more = count - before if count >= before else count
            if more and self._refused is not None:
                self._refused(code, more)
        self._counted = counts

    def _run(self) -> None:
        told, settled = "", ""
        while not self._stopped.is_set():
            is_changed = self._changed.wait(LOOK_S)
            self._count()
            if not is_changed and self._gate.incarnation() in ("", settled):
                continue
            self._changed.clear()
            while not self._stopped.is_set():
                try:
                    incarnation = self._gate.incarnation()
                    self._gate.settle(self._admitted())
                    told, settled = "", incarnation
                    break
                except (CoordinatorError, OSError) as error:
                    if str(error) != told:
                        told = str(error)
                        _log.warning("the federation's runtime was not told who takes part: %s", told)
                    self._stopped.wait(RETRY_S)
