"""Handshakes that fail at the channel's doors: each is told with its reason, counted, and stands in the audit log, not once too often."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from channel_site import Site, site_in, until
from prometheus_client import generate_latest

from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_coordinator.channel import door, server
from convoy_coordinator.channel.handshake import (
    CERTIFICATE_REFUSED,
    COORDINATOR_REFUSED,
    NO_CERTIFICATE,
    NOT_TLS,
    UNFINISHED,
    Handshake,
)
from convoy_coordinator.enrolment.ca import Authority
from convoy_coordinator.enrolment.refusals import Refusals
from convoy_coordinator.observability.metrics import new_registry
from convoy_node.channel import ChannelUnreachable, CoordinatorUntrusted, Door, Line
from convoy_node.channel_home import certificate_request, new_tls_key

SUPPORT = Path(__file__).resolve().parents[2] / "support"

HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")


def with_certificate(site: Site, folder: Path, authority: Authority, issued_at: datetime) -> ssl.SSLContext:
    key, party = new_tls_key(), "did:web:someone.example"
    pem = authority.issue(certificate_request(key, party), party, issued_at).pem
    pair = folder / f"{issued_at:%s}.pem"
    pair.write_bytes(key + pem)
    context = trusting(site)
    context.load_cert_chain(pair)
    return context


def trusting(site: Site) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=(site.home / "tls" / "ca.pem").read_text())
    context.set_alpn_protocols(["h2"])
    return context


def own_authority(site: Site) -> Authority:
    settings = site.parts.settings
    return Authority.open(settings.keys_folder, settings.tls_folder, "x", datetime.now(UTC))


def other_authority(folder: Path) -> Authority:
    (folder / "other").mkdir()
    return Authority.open(folder / "other", folder / "other" / "tls", "Other", datetime.now(UTC))


def shake(port: int, context: ssl.SSLContext) -> None:
    """Shake hands and read until the end, as a client does that has nothing to say."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        while tls.recv(4096):
            pass


def say(port: int, content: bytes) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(content)
        while plain.recv(4096):
            pass


def describe(at: str, ca: bytes) -> None:
    """Ask as a node does that joins."""
    request = partner_pb2.DescribeRequest(ticket="t-x", protocols=PROTOCOLS)
    with Line.enrolment(Door(at, ca, ""), "x") as line, contextlib.suppress(CoordinatorUntrusted, ChannelUnreachable):
        line.ask(line.enrol.Describe, request, deadline_s=5)


BAD: dict[str, tuple[str, Callable[[Site, Path], None]]] = {
    "an expired certificate": (
        CERTIFICATE_REFUSED,
        lambda site, folder: shake(
            site.channel_port,
            with_certificate(site, folder, own_authority(site), datetime.now(UTC) - timedelta(days=200)),
        ),
    ),
    "another authority's certificate": (
        CERTIFICATE_REFUSED,
        lambda site, folder: shake(
            site.channel_port, with_certificate(site, folder, other_authority(folder), datetime.now(UTC))
        ),
    ),
    "no certificate": (NO_CERTIFICATE, lambda site, _: shake(site.channel_port, trusting(site))),
    "a client that trusts others": (
        COORDINATOR_REFUSED,
        lambda site, _: shake(site.enrolment_port, ssl.create_default_context()),
    ),
    "a node whose ticket names another authority": (
        COORDINATOR_REFUSED,
        lambda site, folder: describe(f"localhost:{site.enrolment_port}", other_authority(folder).pem),
    ),
    "plain HTTP": (NOT_TLS, lambda site, _: say(site.channel_port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    "noise": (NOT_TLS, lambda site, _: say(site.enrolment_port, b"\x00" * 600)),
    "a connection and nothing else": (
        UNFINISHED,
        lambda site, _: socket.create_connection(("127.0.0.1", site.channel_port)).close(),
    ),
}


def test_a_handshake_that_fails_is_logged_counted_and_told_once(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them twice: a line each for the operator, all counted, one entry a kind in the audit log; honest nodes see nothing."""
    home = site.joined("Honest Insurer")
    expected: Counter[str] = Counter()
    with caplog.at_level(logging.WARNING, logger=door.__name__):
        for who, (code, act) in BAD.items():
            for again in ("first", "second"):
                (tmp_path / who / again).mkdir(parents=True)
                act(site, tmp_path / who / again)
                expected[code] += 1
        until(lambda: site.parts.refusals.totals == expected, f"{expected}: {site.parts.refusals.totals}")
    told = [record.getMessage() for record in caplog.records if record.name == door.__name__]
    assert Counter(line.split()[0] for line in told) == expected
    assert all(line.endswith("from 127.0.0.1") for line in told)
    metrics = generate_latest(new_registry(site.parts)).decode()
    for code, count in expected.items():
        assert f'convoy_access_refused_total{{code="{code}"}} {count}.0' in metrics
    with site.line(home) as line:
        assert line.ask(line.partner.Hello, HELLO).party == site.party(home)
    assert sorted(site.refusals(), key=str) == sorted(((None, code) for code in expected), key=str)
    site.check_log()


def test_handshakes_that_never_end_are_told_and_no_more_than_a_number_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty who come byte by byte: twenty wait until gRPC ends them, ten are sent away at once; an honest node is served then."""
    monkeypatch.setitem(server._LIMITS, "grpc.server_handshake_timeout_ms", 1_000)  # 10 s in service
    monkeypatch.setattr(door, "MAX_UNFINISHED", 20)
    with site_in(tmp_path) as site:
        home = site.joined("Honest Insurer")
        slow = [socket.create_connection(("127.0.0.1", site.channel_port), timeout=20) for _ in range(30)]
        for connection in slow:
            connection.send(b"\x16\x03\x01\x02")
        until(lambda: site.parts.refusals.totals.get(UNFINISHED) == 30, "all are told in the end", 20)
        with site.line(home) as line:
            assert line.ask(line.partner.Hello, HELLO).party == site.party(home)
        for connection in slow:
            connection.close()
        assert site.refusals() == [(None, UNFINISHED)]


def test_a_server_that_goes_while_the_client_still_writes_has_ended_the_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay may find a closed server by a write that fails, before it reads the end: that is no client who went away."""
    hello, flight, more = (
        b"\x16\x03\x01\x00\x01x",
        b"\x17\x03\x03\x01\x00" + bytes(256),
        b"\x17\x03\x03\x00\x20" + bytes(32),
    )
    told: list[tuple[str, str]] = []
    to_inner: list[asyncio.StreamWriter] = []
    connect = asyncio.open_unix_connection

    async def remembered(path: str, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await connect(path, limit=limit)
        to_inner.append(writer)
        return reader, writer

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "inner"))
            listening.listen()
            listening.setblocking(False)
            async with door.Door("127.0.0.1", 0, str(tmp_path / "inner"), lambda *what: told.append(what)) as relay:
                _, client = await asyncio.open_connection("127.0.0.1", relay.port)
                client.write(hello)
                inner, _ = await loop.sock_accept(listening)
                await loop.sock_recv(inner, 4096)
                await loop.sock_sendall(inner, hello)
                client.write(flight)
                await loop.sock_recv(inner, 4096)
                to_inner[0].transport.pause_reading()  # type: ignore[attr-defined]  # the end is there, and not read yet
                inner.close()
                client.write(more)
                async with asyncio.timeout(5):
                    while not told:
                        await asyncio.sleep(0.01)
                client.close()

    monkeypatch.setattr(asyncio, "open_unix_connection", remembered)
    asyncio.run(run())
    assert told == [(CERTIFICATE_REFUSED, "127.0.0.1")]


def test_a_storm_of_handshakes_does_not_end_the_process(tmp_path: Path) -> None:
    """Thousands within seconds, in a process of its own: given a configuration at each of them, grpcio 1.85.1 dies of it."""
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "tls").mkdir()
    command = [sys.executable, str(SUPPORT / "handshake_storm.py"), str(tmp_path), "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500


def test_what_the_superlink_turns_away_is_told_by_the_coordinator(site: Site) -> None:
    """Its counts are looked at each second; one that has started again counts from nothing."""
    site.gate.turned = {NOT_TLS: 3}
    until(lambda: site.parts.refusals.totals.get(NOT_TLS) == 3, "the first are told")
    site.gate.turned = {NOT_TLS: 1}
    until(lambda: site.parts.refusals.totals.get(NOT_TLS) == 4, "those of the next start too")
    assert site.refusals() == [(None, NOT_TLS)]


def test_strangers_make_two_entries_an_hour_at_most(site: Site) -> None:
    """Ten thousand failed handshakes in a minute are one entry, and one more with their number."""
    now = [0.0]
    refusals = Refusals(site.parts.journal, lambda: now[0])
    for _ in range(10_000):
        now[0] += 0.006
        refusals.note(NOT_TLS, None, "channel")
    assert site.refusals() == [(None, NOT_TLS)]
    refusals.flush()
    assert site.refusals() == [(None, NOT_TLS)] * 2
    assert refusals.totals == {NOT_TLS: 10_000}


def test_records_may_arrive_in_any_pieces(tmp_path: Path) -> None:
    """A whole handshake byte by byte, against OpenSSL; the outcome is that of the same bytes at once."""
    client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = other_authority(tmp_path)
    pair = tmp_path / "pair.pem"
    pair.write_bytes(b"".join(authority.serve(["localhost"], datetime.now(UTC))))
    server_side.load_cert_chain(pair)
    client = ssl.create_default_context(cadata=authority.pem.decode()).wrap_bio(
        client_in, client_out, server_hostname="localhost"
    )
    serving = server_side.wrap_bio(server_in, server_out, server_side=True)
    whole, pieces = Handshake(), Handshake()
    for _ in range(4):
        for end in (client, serving):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            for source, to, name in ((client_out, server_in, "sent"), (server_out, client_in, "answered")):
                data = source.read()
                to.write(data)
                getattr(whole, name)(data)
                for at in range(len(data)):
                    getattr(pieces, name)(data[at : at + 1])
    assert whole.is_done
    assert pieces.is_done
    assert whole.outcome(is_ended_by_server=True) is None
    assert Handshake().outcome(is_ended_by_server=False) == UNFINISHED
