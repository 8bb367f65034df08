"""Serve the partner channel: two gRPC listeners in one loop, in a thread beside the web application.

    enrolment   TLS, no client certificate; few streams, short connections: all that a stranger can reach
    channel     mutual TLS; everything else

TLS is BoringSSL's in grpcio: TLS 1.3 with X25519MLKEM768 preferred (a test looks at the handshake). Limits, against
strangers and against broken nodes: what does not even shake hands is told by a relay in front (``door``), a handshake has 10 s,
a message 4 MiB (and 2 MiB at our own check, which answers with a reason), metadata 16 KiB, a connection of a stranger one
minute, concurrent calls are counted, idle connections end, dead ones are found by keep-alive. A stopped server drains for two
seconds.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from convoy_contracts.wire import partner_pb2, partner_pb2_grpc
from convoy_coordinator.channel.calls import Calls
from convoy_coordinator.channel.dispatch import Dispatcher
from convoy_coordinator.channel.door import Door, Tally
from convoy_coordinator.channel.enrolling import About, EnrolmentServicer
from convoy_coordinator.channel.papers import Papers
from convoy_coordinator.channel.partner import PartnerServicer, Services
from convoy_coordinator.channel.streams import Streams
from convoy_coordinator.enrolment.gate import Gate, Gatekeeper, open_gate
from convoy_coordinator.errors import SetupError
from convoy_coordinator.settings import Settings
from convoy_coordinator.wiring import Parts

SERVICES: Final = ("convoy.partner.v1.Partner", "convoy.partner.v1.Enrolment")
WIRE_LIMIT: Final = 4 * 1024 * 1024
GRACE_S: Final = 2.0
START_S: Final = 20.0
_LIMITS: Final[Mapping[str, int]] = {
    "grpc.max_receive_message_length": WIRE_LIMIT,
    "grpc.max_send_message_length": WIRE_LIMIT,
    "grpc.max_metadata_size": 16 * 1024,
    "grpc.server_handshake_timeout_ms": 10_000,
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.http2.min_ping_interval_without_data_ms": 5_000,
    "grpc.so_reuseport": 0,
}
_STRANGERS: Final[Mapping[str, int]] = {
    "grpc.max_concurrent_streams": 4,
    "grpc.max_connection_age_ms": 60_000,
    "grpc.max_connection_age_grace_ms": 5_000,
    "grpc.max_connection_idle_ms": 20_000,
}
_PARTNERS: Final[Mapping[str, int]] = {"grpc.max_concurrent_streams": 32, "grpc.max_connection_idle_ms": 600_000}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Channel:
    """A running channel; ``addresses`` are ``host:port`` by listener, empty while it is off."""

    addresses: Mapping[str, str]
    streams: Streams


@contextmanager
def open_channel(parts: Parts, gate: Gate | None = None) -> Iterator[Channel]:
    """Serve until the block ends; does nothing where no port is configured.

    Args:
        gate: the runtime's door; the SuperLink of the settings if not given.

    Raises:
        SetupError: a port is taken, or the CA cannot be used.
    """
    settings = parts.settings
    if settings.channel_port is None:
        yield Channel({}, Streams())
        return
    door = gate or open_gate(settings.link_home, settings.link_address)
    keeper = Gatekeeper(
        door,
        lambda: {p.id: p.supernode_key for p in parts.parties.active() if p.supernode_key},
        lambda code, count: parts.refusals.note(code, None, "superlink", count),
    )
    streams = Streams()
    parts.access.watch(streams.wake)
    parts.access.watch(lambda _party: keeper.change())
    running = _Running(parts, door, streams)
    thread = threading.Thread(target=running.run, name="channel", daemon=True)
    thread.start()
    running.started.wait(START_S)
    if running.failure is not None or not running.addresses:
        raise SetupError(
            "CHANNEL_CANNOT_LISTEN",
            f"the channel could not start ({running.failure})",
            fix="Free channel_port and enrolment_port, or name others in coordinator.toml.",
        )
    keeper.start()
    dispatcher = Dispatcher(door, parts.runs.latest)
    dispatcher.start()
    try:
        yield Channel(running.addresses, streams)
    finally:
        dispatcher.stop()
        keeper.stop()
        running.stop()
        thread.join(GRACE_S + 8)
        parts.refusals.flush()


@dataclass(frozen=True, slots=True)
class _Listener:
    grpc: Any
    credentials: Any


class _Running:
    """The loop of the channel, in its thread."""

    def __init__(self, parts: Parts, gate: Gate, streams: Streams) -> None:
        self._parts = parts
        self._gate = gate
        self._streams = streams
        self._calls = Calls(parts.access, parts.refusals)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.started = threading.Event()
        self.addresses: dict[str, str] = {}
        self.failure: str | None = None

    def run(self) -> None:
        """Serve until ``stop``."""
        try:
            asyncio.run(self._serve())
        except (OSError, RuntimeError, SetupError) as error:
            self.failure = f"{type(error).__name__}: {error}"
            _log.error("the channel ended: %s", self.failure)
        finally:
            self._calls.close()
            self.started.set()

    def stop(self) -> None:
        """End; from any thread."""
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        settings, clock = self._parts.settings, self._parts.clock
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._streams.bind(self._loop)
        hosts = list(dict.fromkeys([settings.channel_name, "localhost", "127.0.0.1"]))
        papers = Papers(lambda: self._parts.succession.authorities, hosts)
        strangers, partners = papers.credentials(of_partners=False), papers.credentials(of_partners=True)
        enrolment, channel = self._server(strangers, _STRANGERS, 64), self._server(partners, _PARTNERS, 1000)
        partner_pb2_grpc.add_EnrolmentServicer_to_server(  # type: ignore[no-untyped-call]
            EnrolmentServicer(
                self._calls,
                self._parts.enrolment,
                About(settings.name, self._parts.log.vkeys, _software()),
                self._endpoints,
                clock,
            ),
            enrolment.grpc,
        )
        services = Services(
            access=self._parts.access,
            succession=self._parts.succession,
            intake=self._parts.intake,
            log=self._parts.log,
            contracts=self._parts.contracts,
            releases=self._parts.releases,
            clock=clock,
            software=_software(),
        )
        partner_pb2_grpc.add_PartnerServicer_to_server(  # type: ignore[no-untyped-call]
            PartnerServicer(self._calls, services, self._streams, self._endpoints), channel.grpc
        )
        try:
            with tempfile.TemporaryDirectory(
                prefix="convoy-"
            ) as folder:  # mode 0700: everybody else comes through the doors
                async with (
                    self._open(enrolment, folder, "enrolment", _enrolment_port(settings)) as enrolment_port,
                    self._open(channel, folder, "channel", settings.channel_port or 0) as channel_port,
                ):
                    self.addresses = {
                        "channel": f"{settings.channel_name}:{channel_port}",
                        "enrolment": f"{settings.channel_name}:{enrolment_port}",
                    }
                    self.started.set()
                    await self._stop.wait()
                    self._streams.bind(None)
                    await asyncio.gather(channel.grpc.stop(GRACE_S), enrolment.grpc.stop(GRACE_S))
        finally:  # also where a listener could not open: gRPC complains of servers that outlive their loop
            await asyncio.gather(channel.grpc.stop(None), enrolment.grpc.stop(None))

    def _server(self, credentials: Any, limits: Mapping[str, int], calls: int) -> _Listener:
        server = grpc.aio.server(options=list({**_LIMITS, **limits}.items()), maximum_concurrent_rpcs=calls)
        watch = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(watch, server)
        for name in ("", *SERVICES):
            asyncio.get_running_loop().create_task(watch.set(name, health_pb2.HealthCheckResponse.SERVING))
        return _Listener(server, credentials)

    @asynccontextmanager
    async def _open(self, listener: _Listener, folder: str, name: str, port: int) -> AsyncIterator[int]:
        """Have a server answer behind a door that tells of failed handshakes; gives the door's port."""
        inner = f"{folder}/{name}"
        if not listener.grpc.add_secure_port(f"unix:{inner}", listener.credentials):
            raise OSError(f"no socket for the {name} listener")
        await listener.grpc.start()
        tally = Tally(name)
        telling = asyncio.create_task(tally.tell(lambda code, count: self._refused(code, name, count)))
        try:
            async with Door(self._parts.settings.channel_host, port, inner, tally.note) as door:
                yield door.port
        finally:
            telling.cancel()

    async def _refused(self, code: str, name: str, count: int) -> None:
        await self._calls.run(self._parts.refusals.note, code, None, name, count)

    def _endpoints(self) -> partner_pb2.Endpoints:
        found = partner_pb2.Endpoints(channel=self.addresses.get("channel", ""))
        link = self._gate.endpoint()
        if link is not None:
            found.link, found.link_ca = link.address, link.ca
            found.app_hashes.extend(link.app_hashes)
        return found


def _enrolment_port(settings: Settings) -> int:
    if settings.enrolment_port is not None:
        return settings.enrolment_port
    return settings.channel_port + 1 if settings.channel_port else 0


def _software() -> str:
    return f"convoy-coordinator {version('convoy-coordinator')}"
