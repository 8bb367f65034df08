"""A real coordinator with its partner channel on loopback ports, and nodes that joined it with tickets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from convoy_audit.entry import parse_entry
from convoy_audit.events import WitnessAlarm
from convoy_audit.statement import Statement
from convoy_audit.trail import Trail
from convoy_coordinator.channel.server import open_channel
from convoy_coordinator.enrolment.gate import LinkEndpoint
from convoy_coordinator.journal import now_utc
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home
from convoy_coordinator.wiring import Parts, wire
from convoy_demo.ports import free_ports
from convoy_node import join
from convoy_node.channel import Line
from convoy_node.channel_keys import open_line
from convoy_node.up import Node


def until(true: Callable[[], Any], what: str, seconds: float = 60.0) -> float:
    """Wait until something is true; return how long it took."""
    begun = time.monotonic()
    while not true():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


def alarm(party: str) -> WitnessAlarm:
    """Return an event that a node may state at any time."""
    nothing = f"sha256:{'0' * 64}"
    return WitnessAlarm(
        at=datetime.now(UTC), party=party, origin="test.example/log", finding="rollback", known_size=2,
        known_note=nothing, offered_size=1, offered_note=nothing,
    )  # fmt: skip


class RecordingGate:
    """The door of a runtime, as a list of who was let in, with the instants of the changes."""

    def __init__(self) -> None:
        self.admitted: dict[str, str] = {}
        self.changes: list[tuple[float, frozenset[str]]] = []
        self.turned: dict[str, int] = {}

    def incarnation(self) -> str:
        """It is started once."""
        return "1"

    def settle(self, parties: Any) -> None:
        """Remember who may pass."""
        self.admitted = dict(parties)
        self.changes.append((time.monotonic(), frozenset(parties)))

    def endpoint(self) -> LinkEndpoint | None:
        """There is no SuperLink behind it."""
        return None

    def turned_away(self) -> dict[str, int]:
        """Return what the test says."""
        return dict(self.turned)

    def begin(self, run: str) -> None:
        """There is no ServerApp behind it."""


@dataclass
class Site:
    """A running coordinator and the folders of the partners."""

    home: Path
    folder: Path
    parts: Parts
    channel_port: int
    enrolment_port: int
    gate: RecordingGate
    ahead: timedelta = timedelta(0)
    running: list[tuple[Node, threading.Thread, list[str]]] = field(default_factory=list)

    def ticket(self, name: str, role: str = "insurer", **more: Any) -> str:
        """Invite an organisation."""
        ticket, _ = self.parts.enrolment.invite(name, role, **more)
        return ticket.text()

    def asked(self, name: str, role: str = "insurer") -> Path:
        """Return the folder of a node that has asked."""
        home = self.folder / name.replace(" ", "-").lower()
        join.join(home, self.ticket(name, role))
        return home

    def joined(self, name: str, role: str = "insurer") -> Path:
        """Return the folder of a node that is enrolled."""
        home = self.asked(name, role)
        standing = join.ask(home)
        self.parts.enrolment.approve(standing.fingerprint)
        assert join.ask(home).state == "enrolled"
        return home

    def line(self, home: Path) -> Line:
        """Connect as a node."""
        return open_line(home, self.party(home))

    def party(self, home: Path) -> str:
        """Return a node's party."""
        return join.setup.read_card(home).id

    def up(self, home: Path) -> tuple[Node, threading.Thread, list[str]]:
        """Run a node in a thread; the list gets what it tells and the code with which it ends."""
        told: list[str] = []
        node = Node(home, tell=told.append)

        def run() -> None:
            try:
                node.run()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                told.append(f"ended {getattr(error, 'code', error)}")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.running.append((node, thread, told))
        until(lambda: any("Connected" in line for line in told), f"{home.name} is connected: {told}")
        return node, thread, told

    def events(self) -> list[str]:
        """Return the types of everything in the log."""
        found = []
        for raw in self.parts.log.entries(0, self.parts.log.size()):
            content = parse_entry(raw)
            found.append(content.event.TYPE if isinstance(content, Statement) else content.TYPE)
        return found

    def refusals(self) -> list[tuple[str | None, str]]:
        """Return (party, code) of every refusal in the log."""
        found = [parse_entry(raw) for raw in self.parts.log.entries(0, self.parts.log.size())]
        return [(e.party, e.code) for e in found if getattr(e, "TYPE", "") == "coordinator:access:refused"]

    def check_log(self) -> None:
        """Read the whole log as an auditor does; nothing may be wrong with it."""
        trail = Trail()
        for index, raw in enumerate(self.parts.log.entries(0, self.parts.log.size())):
            trail.take(index, raw)
        assert trail.faults == []


@contextmanager
def site_in(folder: Path, **settings: Any) -> Iterator[Site]:
    """Run a coordinator in a folder; again in the same folder goes on with it."""
    home = folder / "coordinator"
    if not home.exists():
        channel_port, enrolment_port = free_ports(2)
        create_home(
            home,
            name="Test federation",
            origin="test.example/log",
            channel_port=channel_port,
            enrolment_port=enrolment_port,
            **settings,
        )
    read = read_settings(home)
    gate = RecordingGate()
    held: list[Site] = []

    def clock() -> Any:
        return now_utc() + (held[0].ahead if held else timedelta(0))

    parts = wire(read, clock)
    try:
        with open_channel(parts, gate):
            site = Site(home, folder, parts, int(read.channel_port or 0), int(read.enrolment_port or 0), gate)
            held.append(site)
            try:
                yield site
            finally:
                for node, thread, _ in site.running:
                    node.stop()
                    thread.join(10)
    finally:
        parts.close()
