"""Can this node reach its coordinator, and is it the right one? The part of ``doctor`` that opens connections.

    line_checks(home, settings, now) -> checks      none where the node has not joined by ticket

Sends nothing but what ``up`` sends first: a TLS handshake, *Describe* and *Hello*. Each check runs whatever the others find,
but what stands on a broken one is left out: no TLS where there is no connection.
"""

from __future__ import annotations

import platform
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_node.channel import Line, proxy_of
from convoy_node.channel_home import CHANNEL, LINK_CA, TLS, Connection, Credentials
from convoy_node.channel_keys import open_line
from convoy_node.errors import KeyRefused, NodeError
from convoy_node.findings import Finding, found, of_error
from convoy_node.flower.approved import approved_apps
from convoy_node.settings import Settings
from convoy_node.setup import contracts

WAIT_S: Final = 5.0
MOST_DRIFT_S: Final = 30.0
"""Cosignatures, terms and consents are judged by clocks; keys are born five minutes early."""
VERSIONS: Final = {"flwr": ((1, 41), (1, 43)), "grpcio": ((1, 81), (2, 0)), "cryptography": ((46, 0), (51, 0))}


class Unreachable(Exception):
    """No connection came about; the finding says where it ended."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(finding.code)


def line_checks(home: Path, settings: Settings, now: datetime) -> Iterator[tuple[str, tuple[Finding, ...]]]:
    """Run every check of the connection; yields name and findings."""
    yield "versions", tuple(_versions())
    if not (home / CHANNEL).exists():
        return
    connection = Connection.load(home)
    reachable: list[str] = []
    places = [at for at in (connection.enrolment, connection.channel, connection.link) if at]
    proxy: list[Finding] = []
    network: list[Finding] = []
    for at in places:
        try:
            _connect(at, proxy_of(at, connection.proxy)).close()
            reachable.append(at)
        except Unreachable as failed:
            (proxy if failed.finding.code.startswith("PROXY") else network).append(failed.finding)
    yield "proxy", tuple(dict.fromkeys(proxy))
    yield "reachability", tuple(network)
    yield "TLS", tuple(_tls(home, connection, reachable, settings, now))
    if connection.enrolment in reachable:
        yield "clock", tuple(_clock(home, connection, settings, now))
    if connection.channel in reachable:
        yield "coordinator", tuple(_hello(home, settings))


def _versions() -> Iterator[Finding]:
    if platform.python_version_tuple() < ("3", "11"):
        yield found("PYTHON_OLD", version=platform.python_version())
    for package, (least, below) in VERSIONS.items():
        wanted = f">={'.'.join(map(str, least))},<{'.'.join(map(str, below))}"
        try:
            have = version(package)
        except PackageNotFoundError:
            yield found("PACKAGE_WRONG", package=package, version="none", wanted=wanted)
            continue
        numbers = tuple(int(part) for part in have.split(".")[:2] if part.isdigit())
        if not least <= numbers < below:
            yield found("PACKAGE_WRONG", package=package, version=have, wanted=wanted)


def _connect(at: str, proxy: str) -> socket.socket:
    """Return a TCP connection to ``at``, through the proxy if there is one.

    Raises:
        Unreachable: and where it ended.
    """
    parts = urlsplit(f"//{at}")
    if not proxy:
        try:
            return socket.create_connection((parts.hostname or "", parts.port or 0), WAIT_S)
        except OSError as error:
            raise Unreachable(found("UNREACHABLE", at=at, why=_why(error))) from None
    given = urlsplit(proxy)
    with suppress(ValueError):
        if given.scheme == "http" and given.hostname and given.port:
            return _through(given, at)
    raise Unreachable(found("PROXY_MALFORMED", proxy=f"{given.scheme}://{given.hostname or ''}"))


def _through(proxy: SplitResult, at: str) -> socket.socket:
    host, port = proxy.hostname or "", proxy.port or 0
    try:
        connection = socket.create_connection((host, port), WAIT_S)
    except OSError as error:
        raise Unreachable(found("PROXY_UNREACHABLE", proxy=f"{host}:{port}", why=_why(error))) from None
    pair = f"{unquote(proxy.username or '')}:{unquote(proxy.password or '')}"
    login = f"Proxy-Authorization: Basic {b64encode(pair.encode()).decode()}\r\n" if proxy.username else ""
    try:
        connection.sendall(f"CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{login}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head and len(head) < 8192 and (more := connection.recv(1024)):
            head += more
        said = head.split(b"\r\n", 1)[0].decode("latin-1")[:60]
        if said.split(" ")[1:2] == ["200"]:
            return connection
    except OSError as error:
        said = _why(error)
    connection.close()
    raise Unreachable(found("PROXY_REFUSES", proxy=f"{host}:{port}", at=at, why=said or "no answer"))


def _tls(
    home: Path, connection: Connection, reachable: list[str], settings: Settings, now: datetime
) -> Iterator[Finding]:
    try:
        days = Credentials.load(home, settings.party).days_left(now)
    except KeyRefused:
        days = None
        yield found("CERTIFICATE_MISSING")
    if days is not None and days <= 0:
        yield found("CERTIFICATE_OVER", days=int(-days))
    elif days is not None and days < 14:
        yield found("CERTIFICATE_OLD", days=int(days))
    for at in reachable:
        try:
            ca = (home / LINK_CA).read_bytes() if at == connection.link else connection.door(home, at).ca
            context = ssl.create_default_context(cadata=ca.decode("ascii"))
            if at == connection.channel and days is not None:
                context.load_cert_chain(home / TLS)
        except (NodeError, OSError, ValueError, ssl.SSLError) as error:
            yield found("TLS_FAILED", at=at, why=f"the CA's file: {type(error).__name__}")
            continue
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        try:
            plain = _connect(at, proxy_of(at, connection.proxy))
        except Unreachable as failed:
            yield failed.finding
            continue
        with plain:
            try:
                context.wrap_socket(plain, server_hostname=urlsplit(f"//{at}").hostname).close()
            except ssl.SSLCertVerificationError as error:
                yield found("TLS_INTERCEPTED", at=at, why=error.verify_message)
            except OSError as error:
                yield found("TLS_FAILED", at=at, why=_why(error))


def _clock(home: Path, connection: Connection, settings: Settings, now: datetime) -> Iterator[Finding]:
    try:
        with Line.enrolment(connection.door(home, connection.enrolment), settings.party) as line:
            about = line.ask(line.enrol.Describe, partner_pb2.DescribeRequest(protocols=PROTOCOLS), deadline_s=WAIT_S)
    except NodeError:
        return  # TLS and reachability say why
    ahead = now.timestamp() - datetime.fromisoformat(about.time).timestamp()
    if abs(ahead) > MOST_DRIFT_S:
        way, way_zh = ("ahead of", "快") if ahead > 0 else ("behind", "慢")
        yield found("CLOCK_WRONG", seconds=round(abs(ahead)), way=way, way_zh=way_zh)


def _hello(home: Path, settings: Settings) -> Iterator[Finding]:
    request = partner_pb2.HelloRequest(
        protocols=PROTOCOLS, role=settings.role, software=f"convoy-node {version('convoy-node')}"
    )
    try:
        with open_line(home, settings.party) as line:
            reply: Any = line.ask(line.partner.Hello, request, deadline_s=WAIT_S)
    except KeyRefused:
        return  # TLS says so
    except NodeError as error:
        yield from of_error(error)
        return
    offered = frozenset(reply.endpoints.app_hashes)
    if offered and not offered & approved_apps(contracts(home).values()):
        yield found("APP_NOT_APPROVED", app=", ".join(sorted(offered))[:140])


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {WAIT_S:.0f} s"
    return (error.strerror or type(error).__name__)[:80]
