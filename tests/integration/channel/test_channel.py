"""The partner channel as it is on the wire: post-quantum key exchange, proxies, health, deadlines, reasons."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from channel_site import Site, alarm, site_in, until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from node_process import listening, node_process
from tap import tapped

from convoy_audit.statement import sign_statement
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_contracts.wire.statuses import unpack
from convoy_coordinator.problems import CATALOGUE
from convoy_node import join
from convoy_node.channel import ChannelRefused, ChannelUnreachable, Door, Line
from convoy_node.channel_home import CA, Connection, Credentials
from convoy_node.identity import Identity
from convoy_node.join import Wishes
from convoy_node.memory import Memory
from convoy_node.up import Node

ROOT = Path(__file__).resolve().parents[3]
X25519MLKEM768 = 0x11EC
KEY_SHARE, SERVER_HELLO = 51, 2
HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")


def negotiated_group(said: bytes) -> int:
    """Return the group of the key_share in a ServerHello (RFC 8446 §4.1.3, §4.2.8)."""
    kind, _, length = struct.unpack(">BHH", said[:5])
    assert kind == 22, "a handshake record comes first"
    hello = said[5 : 5 + length]
    assert hello[0] == SERVER_HELLO
    at = 4 + 2 + 32
    at += 1 + hello[at]  # session id
    at += 2 + 1  # cipher suite, compression
    end = at + 2 + struct.unpack(">H", hello[at : at + 2])[0]
    at += 2
    while at < end:
        extension, size = struct.unpack(">HH", hello[at : at + 4])
        if extension == KEY_SHARE:
            return int(struct.unpack(">H", hello[at + 4 : at + 6])[0])
        at += 4 + size
    raise AssertionError("no key_share in the ServerHello")


@pytest.mark.parametrize("which", ["channel", "enrolment"])
def test_x25519mlkem768_is_negotiated_on_both_listeners(site: Site, which: str) -> None:
    """The handshake on the wire says so: group 0x11ec in the server's key share, so recorded traffic stays closed."""
    home = site.joined("Quantum Insurer")
    connection = Connection.load(home)
    ca = (home / CA).read_bytes()
    port = site.channel_port if which == "channel" else site.enrolment_port
    with tapped(port) as tap:
        door = Door(f"localhost:{tap.port}", ca)
        credentials = Credentials.load(home, "x")
        if which == "channel":
            with Line.mutual(door, "x", credentials.key, credentials.certificate) as line:
                line.ask(line.partner.Hello, HELLO)
        else:
            with Line.enrolment(door, "x") as line:
                line.ask(line.enrol.Describe, partner_pb2.DescribeRequest(protocols=PROTOCOLS))
        assert negotiated_group(tap.from_server) == X25519MLKEM768
    assert connection.channel


def test_a_node_joins_and_works_through_an_https_proxy(site: Site) -> None:
    """Joining and the channel use CONNECT to the coordinator's name and nothing else; no port is opened at the partner."""
    with tapped(0, is_proxy=True) as proxy:
        home = site.folder / "proxied"
        wishes = Wishes(proxy=f"http://127.0.0.1:{proxy.port}")
        standing = join.join(home, site.ticket("Proxied Insurer"), wishes)
        site.parts.enrolment.approve(standing.fingerprint)
        assert join.ask(home).state == "enrolled"
        site.up(home)
        until(lambda: site.parts.log.witness_size(standing.party), "its witness has cosigned")
        assert set(proxy.asked) == {f"localhost:{site.enrolment_port}", f"localhost:{site.channel_port}"}


def test_the_proxy_of_the_environment_counts_unless_no_proxy_names_the_host(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY and NO_PROXY mean what they mean everywhere."""
    home = site.joined("Usual Insurer")
    with tapped(0, is_proxy=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with site.line(home) as line:
            line.ask(line.partner.Hello, HELLO)
        assert proxy.asked == [f"localhost:{site.channel_port}"]
        monkeypatch.setenv("NO_PROXY", "localhost")
        with site.line(home) as line:
            line.ask(line.partner.Hello, HELLO)
        assert len(proxy.asked) == 1


def test_a_partner_needs_no_inbound_port(site: Site) -> None:
    """A running node listens nowhere."""

    home = site.joined("Outbound Insurer")
    with node_process(home) as process:
        until(lambda: site.parts.log.witness_size(site.party(home)), "its witness has cosigned", 30)
        assert listening(process.pid) == []


def test_both_listeners_answer_grpc_health(site: Site) -> None:
    """As load balancers and operators ask; the partner's listener wants a certificate also for that."""
    home = site.joined("Healthy Insurer")
    credentials = Credentials.load(home, "x")
    ca = (home / CA).read_bytes()
    pairs = (
        (site.enrolment_port, grpc.ssl_channel_credentials(ca), "convoy.partner.v1.Enrolment"),
        (
            site.channel_port,
            grpc.ssl_channel_credentials(ca, credentials.key, credentials.certificate),
            "convoy.partner.v1.Partner",
        ),
    )
    for port, with_credentials, service in pairs:
        with grpc.secure_channel(f"localhost:{port}", with_credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert next(iter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=10))).status == answer.status


def test_a_refusal_carries_code_party_cause_and_fix_in_both_languages(site: Site) -> None:
    """google.rpc.Status with an ErrorInfo, the same words as the problem catalogue on HTTP."""
    home = site.joined("Curious Insurer")
    with site.line(home) as line, pytest.raises(grpc.RpcError) as raised:
        line.partner.Hello(partner_pb2.HelloRequest(protocols=PROTOCOLS, role="oem"), timeout=10)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    told = unpack(raised.value.trailing_metadata())
    assert told is not None
    kind = CATALOGUE["ROLE_NOT_ENROLLED"]
    assert told.code == "ROLE_NOT_ENROLLED"
    assert told.facts["party"] == site.party(home)
    assert "insurer" in told.facts["cause"]
    assert (told.facts["fix_en"], told.facts["fix_zh"]) == (kind.fix["en"], kind.fix["zh"])
    assert (told.facts["title_en"], told.facts["title_zh"]) == (kind.title["en"], kind.title["zh"])


def test_faults_arrive_all_at_once(site: Site) -> None:
    """An invitation with three faults names three."""
    with pytest.raises(Exception, match="INVITATION_REFUSED") as refused:
        site.parts.enrolment.invite(" ", "king", party="DID:web:X")
    assert [fault.pointer for fault in refused.value.faults] == ["/role", "/name", "/party"]  # type: ignore[attr-defined]


def test_a_call_needs_a_deadline(site: Site) -> None:
    """Without one, or with one that is too far away, a call is refused."""
    home = site.joined("Patient Insurer")
    with site.line(home) as line:
        for timeout in (None, 3600):
            with pytest.raises(grpc.RpcError) as raised:
                line.partner.Hello(HELLO, timeout=timeout)
            told = unpack(raised.value.trailing_metadata())
            assert told is not None
            assert told.code == "DEADLINE_MISSING"


def test_versions_are_negotiated_and_a_stranger_is_told_both(site: Site) -> None:
    """The newest common version; none, and the cause lists what each side speaks."""
    home = site.joined("Modern Insurer")
    with site.line(home) as line:
        hello = partner_pb2.HelloRequest(protocols=[1, 7, 9], role="insurer")
        assert line.ask(line.partner.Hello, hello).protocol == 1
        with pytest.raises(ChannelRefused) as refused:
            line.ask(line.partner.Hello, partner_pb2.HelloRequest(protocols=[7, 9], role="insurer"))
        assert refused.value.code == "PROTOCOL_UNSUPPORTED"
        assert "[7, 9]" in refused.value.cause
        assert "[1]" in refused.value.cause


def test_the_stream_tells_of_partners_and_checkpoints_from_any_position(site: Site) -> None:
    """A node that was away hears what it missed, in order, and then what happens."""
    home = site.joined("Listening Insurer")
    with site.line(home) as line:
        stream = line.partner.Events(partner_pb2.EventsRequest(after=0), timeout=30)
        first = [next(stream) for _ in range(2)]
        assert [event.kind for event in first] == [
            partner_pb2.PartnerEvent.LOG_ENTRY,
            partner_pb2.PartnerEvent.CHECKPOINT,
        ]
        site.joined("Newcomer")
        heard = []
        while not heard or heard[-1].kind != partner_pb2.PartnerEvent.LOG_ENTRY:
            heard.append(next(stream))
        assert b"coordinator:party:enrolled" in heard[-1].entry
        assert b"newcomer" in heard[-1].entry
        stream.cancel()


def test_a_coordinator_that_is_away_is_unreachable_and_the_node_says_what_to_check(site: Site) -> None:
    """Nothing listens there: not a refusal, and no certificate is blamed."""
    home = site.joined("Loyal Insurer")
    credentials = Credentials.load(home, "x")
    door = Connection.load(home).door(home, "localhost:9")
    with (
        Line.mutual(door, "x", credentials.key, credentials.certificate) as line,
        pytest.raises(ChannelUnreachable) as gone,
    ):
        line.ask(line.partner.Hello, HELLO, deadline_s=5)
    assert "doctor" in gone.value.fix


def test_a_coordinator_that_comes_back_is_met_again_without_loss(tmp_path: Path) -> None:
    """The running node goes on trying; what it stated meanwhile is brought, and its witness cosigns again."""
    with site_in(tmp_path) as site:
        home = site.joined("Steady Insurer")
        party = site.party(home)
    seed = Identity.load(home / "keys", party).identity_seed
    told: list[str] = []
    node = Node(home, tell=told.append)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    try:
        with site_in(tmp_path) as site:
            until(lambda: site.parts.log.witness_size(party), "its witness has cosigned", 60)
        until(lambda: any("Trying again" in line for line in told), f"it noticed: {told}", 60)
        memory = Memory(home / "node.db")
        raw = memory.state(lambda n, previous: sign_statement(alarm(party), number=n, previous=previous, seed=seed))
        memory.close()
        with site_in(tmp_path) as site:
            until(lambda: raw in site.parts.log.entries(0, site.parts.log.size()), f"brought: {told}", 60)
            until(lambda: site.parts.log.witness_size(party) == site.parts.log.size(), "cosigned again", 60)
            site.check_log()
    finally:
        node.stop()
        thread.join(20)


def test_the_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    """Generating it again changes no byte."""
    place = "convoy_contracts/wire/partner.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", place]
    outs = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    subprocess.run([*command, *outs], check=True, cwd=ROOT / "contracts", timeout=60)
    for name in ("partner_pb2.py", "partner_pb2.pyi", "partner_pb2_grpc.py"):
        assert (tmp_path / "convoy_contracts/wire" / name).read_text() == (
            ROOT / "contracts/convoy_contracts/wire" / name
        ).read_text()
