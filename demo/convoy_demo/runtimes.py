"""The two runtimes: everything in this process, or real Flower processes on the loopback. The same ServerApp and ClientApps."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import uvicorn
from flwr.app import Context, RecordDict

from convoy_contracts.operations.serving import KEEP_ALIVE_S
from convoy_coordinator.app import create_app
from convoy_coordinator.federation.flower.deployment import Deployment, NodeLaunch, deployed
from convoy_coordinator.federation.flower.link_home import LinkHome
from convoy_coordinator.federation.flower.local_grid import LocalGrid
from convoy_coordinator.federation.server_app import app as server_app
from convoy_coordinator.settings import read_settings
from convoy_demo.places import MEMBERS, Places
from convoy_models.noise import NoiseSource
from convoy_node.client_app import make_client_app
from convoy_node.runtime import NodeRuntime
from convoy_node.setup import read_card

SERVER_APP = "convoy_coordinator.federation.server_app:app"
CLIENT_APP = "convoy_node.client_app:create"
STOP_S = 10.0
SERVE = "from convoy_coordinator.cli import main; main()"


class Runtime(Protocol):
    """A running federation."""

    def start(self, run: str) -> None:
        """Have the ServerApp take the next queued run; returns at once."""


@contextlib.contextmanager
def coordinator_thread(home: Path) -> Iterator[str]:
    """Serve the coordinator from a thread of this process; yields its address."""
    settings = read_settings(home)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    )
    thread = threading.Thread(target=server.run, name="coordinator", daemon=True)
    thread.start()
    try:
        yield f"http://{settings.host}:{settings.port}"
    finally:
        server.should_exit = True
        thread.join(STOP_S)


@contextlib.contextmanager
def coordinator_process(home: Path) -> Iterator[str]:
    """Serve the coordinator from a process of its own; yields its address."""
    settings = read_settings(home)
    (home / "log").mkdir(exist_ok=True)
    with (home / "log" / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--home", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield f"http://{settings.host}:{settings.port}"
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Embedded:
    def __init__(self, grid: LocalGrid, settings: Mapping[str, str]) -> None:
        self._grid = grid
        self._settings = settings
        self._threads: list[threading.Thread] = []

    def start(self, run: str) -> None:
        context = Context(
            run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={**self._settings, "run": run}
        )
        thread = threading.Thread(target=server_app, args=(self._grid, context), name=run, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(STOP_S)


@contextlib.contextmanager
def embedded(places: Places, url: str, *, noise: Callable[[str], NoiseSource] | None = None) -> Iterator[Runtime]:
    """Run every node in this process, each with its own folder, keys and ledger.

    Args:
        places: of a federation that was founded.
        url: the coordinator's address.
        noise: another source of noise by party, for tests; production never passes it.
    """
    nodes = {
        member.id: NodeRuntime(places.node(member.short), noise=noise(member.id) if noise else None)
        for member in MEMBERS
    }
    grid = LocalGrid({party: make_client_app(node) for party, node in nodes.items()})
    runtime = _Embedded(grid, server_settings(places, url))
    try:
        yield runtime
    finally:
        runtime.join()
        grid.close()
        for node in nodes.values():
            node.close()


class Deployed:
    """A federation of real processes; ``deployment`` is what was started."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def start(self, run: str) -> None:
        """Have the ServerApp worker take the next queued run."""
        self.deployment.control.start_run(self.deployment.app_hash, run=run)


@contextlib.contextmanager
def superlink(places: Places, url: str, *, client_app: str = CLIENT_APP) -> Iterator[Deployed]:
    """Start a real SuperLink, a ServerApp worker and a SuperNode with a warm worker for every party.

    Args:
        places: of a federation that was founded.
        url: the coordinator's address.
        client_app: the application installed at every node, ``module:factory``; tests pass another.
    """
    launches = [
        NodeLaunch(
            party=member.id,
            home=places.node(member.short),
            key_file=places.node(member.short) / "keys" / "supernode.pem",
            public_key=read_card(places.node(member.short)).supernode_key.encode(),
            client_app=client_app,
        )
        for member in MEMBERS
    ]
    settings = server_settings(places, url)
    with deployed(LinkHome(places.link), launches, SERVER_APP, settings=settings) as deployment:
        yield Deployed(deployment)


def server_settings(places: Places, url: str) -> dict[str, str]:
    """Return what the ServerApp needs: where the coordinator is, and which file holds the token."""
    return {
        "coordinator-url": url,
        "token-file": str((places.coordinator / "keys" / "internal.token").resolve()),
    }
