"""Build Flower's SuperLink application the way Convoy runs it, and serve it on two listeners.

Process isolation (nothing of a bundle is executed here), SuperNode authentication on, TLS on,
runtime installation of dependencies off, a federation manager that asks the live membership, an
event log, and the one app bundle of this release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import flwr.superlink.main as flower
import uvicorn
from fastapi import FastAPI
from flwr.common.constant import ISOLATION_MODE_PROCESS, NOOP_FLWR_AID, TRANSPORT_TYPE_GRPC_RERE
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, TaskType
from flwr.supercore.fab import Fab
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.federation import FederationManager

from convoy_coordinator.federation.flower.app_bundle import APP_ID, AppBundle
from convoy_coordinator.federation.flower.door_limits import (
    Limits,
    Turned,
    prompt_head,
    signed_by_a_node,
    watch_handshakes,
)
from convoy_coordinator.federation.flower.event_log import JsonLines
from convoy_coordinator.federation.flower.holding import Holding
from convoy_coordinator.federation.flower.lean_paths import LeanPaths
from convoy_coordinator.federation.flower.link_home import LinkHome, Ready
from convoy_coordinator.federation.flower.listeners import Internal, Public
from convoy_coordinator.federation.flower.membership import Membership, PartyFederations
from convoy_coordinator.federation.flower.object_lane import ObjectLane

LOOPBACK = "127.0.0.1"
_GRACE_S = 1
_TELL_S = 1.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How one SuperLink is run; a port of 0 takes a free one.

    ``in_memory``: keep Flower's state in memory. Faster, but nodes must be registered again after a
    restart. ``limits``: what may come through the public door.
    """

    internal_port: int = 0
    public_host: str = LOOPBACK
    public_port: int = 0
    in_memory: bool = False
    limits: Limits = field(default_factory=Limits)


def build(home: LinkHome, settings: LinkSettings, membership: Membership) -> FastAPI:
    """Return Flower's application, wired as this module's docstring says."""
    events = JsonLines(home.events_file)
    files = (home.ca_file, home.certificate_file, home.key_file)
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=LOOPBACK,
        port=settings.internal_port,
        insecure=False,
        certificates=tuple(file.read_bytes() for file in files),
        superexec_auth_secret=home.superexec_secret(),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=events,
        fleet_event_log_plugin=events,
        enable_event_log=True,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(home.ca_file),
        ssl_certfile=str(home.certificate_file),
        ssl_keyfile=str(home.key_file),
        database=FLWR_IN_MEMORY_DB_NAME if settings.in_memory else str(home.database_file),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    with _federation_manager(PartyFederations(membership)):
        app: FastAPI = flower.create_app(config, SuperLinkLifespan)
        return app


def seed(app: FastAPI, bundle: AppBundle, federation: str) -> None:
    """Store the bundle, so that a run of the federation can be started by its hash."""
    app.state.linkstate_factory.state().store_app(
        fab=Fab(bundle.sha256, bundle.content, dict(bundle.verifications)),
        federation_id=federation,
        app_id=APP_ID,
        app_type=TaskType.SERVER_APP,
        added_by=NOOP_FLWR_AID,
    )


def serve(
    app: FastAPI,
    home: LinkHome,
    settings: LinkSettings,
    bundle: AppBundle,
    stop_requested: Callable[[Callable[[], None]], None],
) -> None:
    """Serve until SIGTERM, SIGINT or ``stop_requested`` says so.

    Args:
        stop_requested: is given a function that stops the server from any thread.
    """
    holding = Holding(ObjectLane(LeanPaths(app), app))
    turned = Turned()
    is_known = signed_by_a_node(lambda: app.state.linkstate_factory.state())
    public = Public(holding, is_known, settings.limits, turned)
    doors = (
        (Internal(holding, home.control_token()), LOOPBACK, settings.internal_port, "on", "auto"),
        (public, settings.public_host, settings.public_port, "off", prompt_head(settings.limits.head_s, turned)),
    )
    sockets = [_listen(host, port) for _, host, port, *_ in doors]
    servers = [
        _Quiet(
            uvicorn.Config(
                door,
                lifespan=lifespan,
                http=protocol,
                ssl_certfile=home.certificate_file,
                ssl_keyfile=home.key_file,
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        for door, _, _, lifespan, protocol in doors
    ]

    public_config = servers[1].config
    public_config.load()
    watch_handshakes(public_config.ssl, settings.limits.head_s, turned)
    home.write_turned({})

    async def tell_turned() -> None:
        told: dict[str, int] = {}
        while True:
            await asyncio.sleep(_TELL_S)
            if told != turned.totals:
                told = dict(turned.totals)
                home.write_turned(told)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            holding.close()
            for server in servers:
                server.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        stop_requested(partial(_from_a_thread, loop, stop))
        serving = [
            asyncio.create_task(server.serve(sockets=[listener]))
            for server, listener in zip(servers, sockets, strict=True)
        ]
        while not all(server.started for server in servers) and not any(task.done() for task in serving):
            await asyncio.sleep(0.01)
        inside, outside = ("{}:{}".format(*listener.getsockname()[:2]) for listener in sockets)
        home.write_ready(Ready(os.getpid(), inside, outside, bundle.sha256))
        telling = asyncio.create_task(tell_turned())
        await asyncio.gather(*serving)
        telling.cancel()

    try:
        with asyncio.Runner(loop_factory=servers[0].config.get_loop_factory()) as runner:
            runner.run(run())
    finally:
        home.ready_file.unlink(missing_ok=True)


def _from_a_thread(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    loop.call_soon_threadsafe(stop)


class _Quiet(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not followed by mypy
    """A uvicorn server that leaves the signals to us: two of them share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


@contextlib.contextmanager
def _federation_manager(manager: FederationManager) -> Iterator[None]:
    """Have Flower use our manager while it builds its application; it has no parameter for it."""
    original = flower.get_federation_manager
    flower.get_federation_manager = lambda is_simulation=False: manager
    try:
        yield
    finally:
        flower.get_federation_manager = original
