"""The public door over real sockets: those who come slowly or with too much are turned away, the others are served meanwhile."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from convoy_coordinator.channel.handshake import COORDINATOR_REFUSED, NOT_TLS, UNFINISHED
from convoy_coordinator.enrolment.ca import Authority
from convoy_coordinator.federation.flower.door_limits import Limits, Turned, prompt_head, watch_handshakes
from convoy_coordinator.federation.flower.link_home import LinkHome
from convoy_coordinator.federation.flower.listeners import Public

LIMITS = Limits(stranger_bytes=1_000, head_s=1.0, slow_s=1.0)
HONEST = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body."""
    body = (await receive())["body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port() -> Iterator[int]:
    """A door that is open."""
    turned = Turned()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Public(echo, limits=LIMITS, turned=turned),
        http=prompt_head(LIMITS.head_s, turned), lifespan="off", log_level="warning", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield int(listener.getsockname()[1])
    server.should_exit = True
    thread.join(20)


def opened(port: int, said: bytes) -> socket.socket:
    """Connect and say something."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(said)
    return connection


def heard(connection: socket.socket) -> bytes:
    """Return everything until the other side ends the connection."""
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


def answer(connection: socket.socket, end: bytes) -> bytes:
    """Return what is said up to ``end``."""
    found = b""
    while not found.endswith(end):
        part = connection.recv(65_536)
        assert part, found
        found += part
    return found


def test_slow_heads_and_bodies_are_ended_and_hold_up_nobody(port: int) -> None:
    """Before the first request, within a head, after an answer, and within a body."""
    silent = [opened(port, b"") for _ in range(50)]
    halting = [opened(port, b"POST /v1/fl") for _ in range(50)]
    again = opened(port, HONEST)
    assert answer(again, b"hi").startswith(b"HTTP/1.1 200")
    again.sendall(b"POST /v1")
    starving = opened(port, HONEST[:-1])
    with opened(port, HONEST) as honest:
        assert answer(honest, b"hi").startswith(b"HTTP/1.1 200")
    for connection in (*silent, *halting, again):
        assert heard(connection) == b""
        connection.close()
    with starving:
        assert heard(starving).startswith(b"HTTP/1.1 408")


def test_too_long_a_body_is_refused_and_the_connection_ended(port: int) -> None:
    """Declared or in pieces of unknown number."""
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n"
    with opened(port, head + b"Content-Length: 1001\r\n\r\n") as declared:
        assert heard(declared).startswith(b"HTTP/1.1 413")
    pieces = b"".join(b"1F4\r\n" + b"x" * 500 + b"\r\n" for _ in range(3))
    with opened(port, head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces) as chunked:
        assert heard(chunked).startswith(b"HTTP/1.1 413")
    with opened(port, HONEST) as honest:
        assert answer(honest, b"hi").startswith(b"HTTP/1.1 200")


def test_handshakes_that_fail_are_told_with_their_reason(tmp_path: Path) -> None:
    """No TLS, a client that trusts others, and one that stops half-way; who shakes hands is served and told of nowhere."""
    authority = Authority.open(tmp_path, tmp_path / "tls", "Test", datetime.now(UTC))
    pair = tmp_path / "pair.pem"
    pair.write_bytes(b"".join(authority.serve(["localhost"], datetime.now(UTC))))
    turned = Turned()
    config = uvicorn.Config(
        Public(echo, turned=turned),
        lifespan="off",
        log_level="critical",
        ssl_certfile=pair,
        timeout_graceful_shutdown=1,
    )
    config.load()
    watch_handshakes(config.ssl, 0.5, turned)
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    port = int(listener.getsockname()[1])
    with pytest.raises((ConnectionError, AssertionError)):
        answer(opened(port, b"GET / HTTP/1.1\r\n\r\n"), b"never")
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context().wrap_socket(opened(port, b""), server_hostname="localhost")
    slow = opened(port, b"\x16\x03\x01\x02")
    good = ssl.create_default_context(cadata=authority.pem.decode())
    with good.wrap_socket(opened(port, b""), server_hostname="localhost") as tls:
        tls.sendall(HONEST)
        assert answer(tls, b"hi").startswith(b"HTTP/1.1 200")
    begun = time.monotonic()
    while turned.totals.total() < 3 and time.monotonic() - begun < 10:
        time.sleep(0.02)
    slow.close()
    server.should_exit = True
    thread.join(20)
    assert turned.totals == {NOT_TLS: 1, COORDINATOR_REFUSED: 1, UNFINISHED: 1}


def test_what_a_folder_tells_of_those_turned_away_is_judged(tmp_path: Path) -> None:
    """Only known codes with whole numbers; a file that is none tells nothing."""
    home = LinkHome(tmp_path)
    assert home.read_turned() == {}
    home.write_turned({NOT_TLS: 2, "SOMETHING": 1})
    assert home.read_turned() == {NOT_TLS: 2}
    home.turned_file.write_text('{"HANDSHAKE_NOT_TLS": "2"}')
    assert home.read_turned() == {}
    home.turned_file.write_text("[")
    assert home.read_turned() == {}
