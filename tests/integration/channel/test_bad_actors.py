"""Bad actors at the channel: each is refused with a reason, it stands in the log, and nothing of anybody else is lost."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from channel_site import Site, alarm, site_in, until

from convoy_audit.statement import sign_statement
from convoy_contracts.canonical import b64u, canonical_bytes
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_contracts.wire.proof import enrolment_proof
from convoy_contracts.wire.ticket import Ticket
from convoy_coordinator.channel import server
from convoy_coordinator.enrolment.ca import Authority
from convoy_coordinator.keys import CA_KEY
from convoy_node import join, setup
from convoy_node.channel import ChannelRefused, ChannelUnreachable, CoordinatorUntrusted, Line
from convoy_node.channel_home import TLS, Connection, Credentials, certificate_request, new_tls_key
from convoy_node.identity import Identity
from convoy_node.memory import Memory

HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")


@contextmanager
def an_honest_node(site: Site) -> Iterator[tuple[Path, Memory]]:
    """Have an honest node state something before the attack; afterwards it works and has lost nothing."""
    home = site.joined("Honest Insurer")
    memory = Memory(home / "node.db")
    state(site, home, memory)
    try:
        yield home, memory
        state(site, home, memory)
        with site.line(home) as line:
            sent = memory.statements()
            reply = line.ask(line.partner.State, partner_pb2.StateRequest(statements=sent))
            raw = [site.parts.log.entries(i, i + 1)[0] for i in reply.indexes]
            assert raw == sent, "every statement of the honest node is in the log, once"
            assert line.ask(line.partner.Hello, HELLO).last_statement == len(sent)
        site.check_log()
    finally:
        memory.close()


def state(site: Site, home: Path, memory: Memory) -> bytes:
    """Have a node make a statement, and bring it to the log."""
    party, seed = site.party(home), Identity.load(home / "keys", site.party(home)).identity_seed
    raw = memory.state(lambda n, previous: sign_statement(alarm(party), number=n, previous=previous, seed=seed))
    with site.line(home) as line:
        line.ask(line.partner.State, partner_pb2.StateRequest(statements=[raw]))
    return raw


def enrol_with(ticket: Ticket, card: bytes, csr: bytes, proof: bytes) -> Any:
    """Send a request for enrolment that was made by hand."""
    from convoy_node.channel import Door

    with Line.enrolment(Door(ticket.at, join.pem_of(ticket.ca)), ticket.party) as line:
        request = partner_pb2.EnrolRequest(ticket=ticket.id, secret=ticket.secret, card=card, csr=csr, proof=proof)
        return line.ask(line.enrol.Enrol, request)


def test_a_stolen_ticket_lets_nobody_in_without_the_human_comparison(site: Site) -> None:
    """The thief is first, but shows another fingerprint; the owner is told that the ticket was used."""
    with an_honest_node(site):
        text = site.ticket("Victim Insurer")
        thief = join.join(site.folder / "thief", text)
        with pytest.raises(ChannelRefused) as refused:
            join.join(site.folder / "victim", text)
        assert refused.value.code == "TICKET_USED"
        assert "telephone" in refused.value.fix
        victim = setup.fingerprint(setup.read_card(site.folder / "victim"))
        assert victim != thief.fingerprint
        with pytest.raises(Exception, match="REQUEST_UNKNOWN"):
            site.parts.enrolment.approve(victim)
        site.parts.enrolment.deny(thief.fingerprint)
        with pytest.raises(ChannelRefused) as denied:
            join.ask(site.folder / "thief")
        assert denied.value.code == "REQUEST_DENIED"
        assert ("did:web:victim-insurer.test.example", "TICKET_USED") in site.refusals()
        assert not (site.folder / "thief" / TLS).read_bytes().count(b"CERTIFICATE")


def test_a_replayed_ticket_is_refused_before_and_after_the_approval(site: Site) -> None:
    """A ticket is used once; the same request again only hears how it stands."""
    with an_honest_node(site):
        text = site.ticket("Second Insurer")
        standing = join.join(site.folder / "second", text)
        assert join.join(site.folder / "second", text) == standing
        for when in ("before", "after"):
            with pytest.raises(ChannelRefused) as refused:
                join.join(site.folder / f"copy-{when}", text)
            assert refused.value.code == "TICKET_USED"
            site.parts.enrolment.approve(standing.fingerprint)
        assert site.events().count("coordinator:party:enrolled") == 2


@pytest.mark.parametrize("change", ["secret", "id", "expired", "withdrawn"])
def test_a_ticket_that_is_forged_or_over_is_refused(site: Site, change: str) -> None:
    """Guessing, an old ticket and one that was taken back lead to the same door: closed."""
    ticket = Ticket.read(site.ticket("Late Insurer", life=timedelta(hours=1)))
    members = {name: getattr(ticket, name) for name in Ticket.__dataclass_fields__}
    if change == "secret":
        members["secret"] = b64u(b"guess" * 6)
    elif change == "id":
        members["id"] = "t-0000000000000000"
    elif change == "expired":
        site.ahead = timedelta(hours=2)
    else:
        site.parts.enrolment.withdraw(ticket.id)
    with pytest.raises(ChannelRefused) as refused:
        join.join(site.folder / "late", Ticket(**members).text())
    code = "TICKET_UNKNOWN" if change in ("secret", "id") else "TICKET_EXPIRED"
    assert refused.value.code == code
    assert code in [found for _, found in site.refusals()]


def test_a_node_that_claims_another_role_or_party_is_refused_at_the_door(site: Site) -> None:
    """The role is the ticket's: an insurer cannot enrol itself as the trustee, nor as somebody else."""
    with an_honest_node(site):
        ticket = Ticket.read(site.ticket("Ambitious Insurer"))
        identity = Identity.create(site.folder / "ambitious", ticket.party, datetime.now(UTC))
        csr = certificate_request(new_tls_key(), ticket.party)
        card = identity.card(name="Ambitious", role="trustee", region="CN-SH").enrolment()
        other = card | {"role": "insurer", "id": "did:web:honest-insurer.test.example"}
        other["identityKid"] = f"{other['id']}#1"
        for claimed in (card, other):
            body = canonical_bytes(claimed)
            proof = identity.identity.sign(enrolment_proof(ticket.id, body, csr))
            with pytest.raises(ChannelRefused) as refused:
                enrol_with(ticket, body, csr, proof)
            assert refused.value.code == "ROLE_NOT_INVITED"
        assert (ticket.party, "ROLE_NOT_INVITED") in site.refusals()
        unsigned = canonical_bytes(card | {"role": "insurer"})
        with pytest.raises(ChannelRefused) as refused:
            enrol_with(ticket, unsigned, csr, bytes(64))
        assert refused.value.code == "PROOF_REFUSED"


def test_an_enrolled_node_that_claims_another_role_is_refused(site: Site) -> None:
    """What node.toml says counts for nothing; the enrolled role does."""
    with an_honest_node(site) as (home, _), site.line(home) as line:
        with pytest.raises(ChannelRefused) as refused:
            line.ask(line.partner.Hello, partner_pb2.HelloRequest(protocols=PROTOCOLS, role="trustee"))
        assert refused.value.code == "ROLE_NOT_ENROLLED"
        assert (site.party(home), "ROLE_NOT_ENROLLED") in site.refusals()


def test_a_node_with_its_own_certificate_cannot_speak_for_another_party(site: Site) -> None:
    """Statements and signatures of others are refused by whom the certificate names, whatever they contain."""
    with an_honest_node(site) as (honest, memory):
        rogue = site.joined("Rogue Insurer")
        raw = memory.statements()[0]
        with site.line(rogue) as line:
            with pytest.raises(ChannelRefused) as refused:
                line.ask(line.partner.State, partner_pb2.StateRequest(statements=[raw]))
            assert refused.value.code == "STATEMENT_NOT_YOURS"
            entry = {
                "party": site.party(honest),
                "role": "business",
                "act": "sign",
                "kid": "k",
                "sigT": "t",
                "jws": "j",
            }
            with pytest.raises(ChannelRefused) as signed:
                line.ask(line.partner.Sign, partner_pb2.SignRequest(digest="x", entry=json.dumps(entry).encode()))
            assert signed.value.code == "STATEMENT_NOT_YOURS"
            forged = sign_statement(
                alarm(site.party(rogue)), number=1, previous=None,
                seed=Identity.load(honest / "keys", site.party(honest)).identity_seed,
            )  # fmt: skip
            with pytest.raises(ChannelRefused) as wrong:
                line.ask(line.partner.State, partner_pb2.StateRequest(statements=[forged]))
            assert wrong.value.code == "LOG_REFUSED"
        assert (site.party(rogue), "STATEMENT_NOT_YOURS") in site.refusals()


def test_another_partys_certificate_is_worth_nothing_without_its_key(site: Site) -> None:
    """A certificate is public; the handshake proves the key, and gRPC never gets as far as a call."""
    with an_honest_node(site) as (honest, _):
        rogue = site.joined("Copying Insurer")
        theirs, mine = Credentials.load(honest, "x"), Credentials.load(rogue, "x")
        door = Connection.load(rogue).door(rogue, f"localhost:{site.channel_port}")
        events = site.events()
        with (
            Line.mutual(door, "rogue", mine.key, theirs.certificate) as line,
            pytest.raises((ChannelUnreachable, ChannelRefused)),
        ):
            line.ask(line.partner.Hello, HELLO, deadline_s=5)
        assert [event for event in site.events() if event != "coordinator:access:refused"] == events


@pytest.mark.parametrize("whose", ["another CA", "nobody", "forgotten"])
def test_a_certificate_that_was_not_issued_here_is_refused(site: Site, tmp_path: Path, whose: str) -> None:
    """Neither another CA's, nor none at all, nor one that our CA signed but the coordinator does not know."""
    with an_honest_node(site) as (home, _):
        key = new_tls_key()
        csr, party = certificate_request(key, site.party(home)), site.party(home)
        folder = tmp_path / "other"
        folder.mkdir()
        authority = Authority.open(folder, folder / "tls", "Other", datetime.now(UTC))
        if whose == "forgotten":
            settings = site.parts.settings
            authority = Authority.open(settings.keys_folder, settings.tls_folder, "x", datetime.now(UTC))
        door = Connection.load(home).door(home, f"localhost:{site.channel_port}")
        pem = authority.issue(csr, party, datetime.now(UTC)).pem
        line = Line.enrolment(door, party) if whose == "nobody" else Line.mutual(door, party, key, pem)
        with line, pytest.raises((ChannelUnreachable, ChannelRefused)) as refused:
            line.ask(line.partner.Hello, HELLO, deadline_s=5)
        if whose == "forgotten":
            assert refused.value.code == "CERTIFICATE_UNKNOWN"
            assert (None, "CERTIFICATE_UNKNOWN") in site.refusals()
        else:
            code = "HANDSHAKE_NO_CERTIFICATE" if whose == "nobody" else "HANDSHAKE_CERTIFICATE_REFUSED"
            until(lambda: (None, code) in site.refusals(), f"the handshake that failed is told: {site.refusals()}")


def test_an_expired_certificate_is_refused_with_its_reason(site: Site) -> None:
    """By our own clock, with a reason that the node shows; the audit log has it."""
    with an_honest_node(site) as (home, _):
        site.ahead = timedelta(days=91)
        with site.line(home) as line, pytest.raises(ChannelRefused) as refused:
            line.ask(line.partner.Hello, HELLO)
        assert refused.value.code == "CERTIFICATE_EXPIRED"
        assert "--recover" in refused.value.fix
        assert (site.party(home), "CERTIFICATE_EXPIRED") in site.refusals()
        site.ahead = timedelta(0)


def test_a_certificate_that_tls_finds_expired_never_gets_to_a_call(site: Site) -> None:
    """Also a node whose own certificate says that it is over is turned away in the handshake."""
    with an_honest_node(site) as (home, _):
        settings, key = site.parts.settings, new_tls_key()
        authority = Authority.open(settings.keys_folder, settings.tls_folder, "x", datetime.now(UTC))
        long_ago = datetime.now(UTC) - timedelta(days=200)
        pem = authority.issue(certificate_request(key, site.party(home)), site.party(home), long_ago).pem
        door = Connection.load(home).door(home, f"localhost:{site.channel_port}")
        with Line.mutual(door, "old", key, pem) as line, pytest.raises((ChannelUnreachable, ChannelRefused)):
            line.ask(line.partner.Hello, HELLO, deadline_s=5)
        until(lambda: (None, "HANDSHAKE_CERTIFICATE_REFUSED") in site.refusals(), "the handshake that failed is told")


def test_a_revoked_node_that_keeps_sending_is_refused_every_time(site: Site) -> None:
    """Its statements, its renewals and its streams; the repeats are counted, they do not fill the log."""
    with an_honest_node(site):
        rogue = site.joined("Revoked Insurer")
        party = site.party(rogue)
        memory = Memory(rogue / "node.db")
        state(site, rogue, memory)
        seed = Identity.load(rogue / "keys", party).identity_seed
        site.parts.access.revoke(party, "administrative")
        before = site.parts.log.size()
        raw = memory.state(lambda n, previous: sign_statement(alarm(party), number=n, previous=previous, seed=seed))
        with site.line(rogue) as line:
            for _ in range(20):
                with pytest.raises(ChannelRefused) as refused:
                    line.ask(line.partner.State, partner_pb2.StateRequest(statements=[raw]))
                assert refused.value.code == "PARTY_REVOKED"
            with pytest.raises(ChannelRefused):
                line.ask(line.partner.Renew, partner_pb2.RenewRequest(csr=certificate_request(new_tls_key(), party)))
            with pytest.raises(grpc.RpcError):
                next(iter(line.partner.Events(partner_pb2.EventsRequest(after=0), timeout=10)))
        with pytest.raises(Exception, match="LOG_REFUSED"):
            site.parts.intake.append([raw])  # nor by the other way, through the ServerApp
        assert site.parts.log.size() == before + 1, "one entry tells of all those refusals"
        assert (party, "PARTY_REVOKED") in site.refusals()
        memory.close()


def test_a_coordinator_with_a_new_certificate_authority_is_not_believed(tmp_path: Path) -> None:
    """Whoever took its place, or lost its key: the node sends nothing and says whom to call."""
    with site_in(tmp_path) as site:
        home = site.joined("Careful Insurer")
    keys = tmp_path / "coordinator"
    (keys / "keys" / CA_KEY).unlink()
    (keys / "tls" / "ca.pem").unlink()
    with site_in(tmp_path) as site:
        with site.line(home) as line, pytest.raises(CoordinatorUntrusted) as refused:
            line.ask(line.partner.Hello, HELLO)
        assert "administrator" in refused.value.fix


def test_a_coordinator_with_a_new_log_key_gets_no_cosignature(site: Site, tmp_path: Path) -> None:
    """A node believes the log keys of its ticket; another key is an alarm in its own log, and it stops."""
    home = site.joined("Watchful Insurer")
    node_toml = (home / "node.toml").read_text()
    from convoy_audit.keys import SignatureType
    from convoy_audit.note import Signer

    ours = [signer for signer in site.parts.log.vkeys if "+A" in signer]
    stranger = Signer.from_seed("test.example/log", SignatureType.ED25519, bytes.fromhex("ab" * 32)).vkey
    (home / "node.toml").write_text(node_toml.replace(ours[0], stranger))
    _, thread, told = site.up(home)
    thread.join(10)
    assert told[-1] == "ended COORDINATOR_UNTRUSTED"
    assert "LOG_KEY_UNKNOWN" in (home / "log" / "node.jsonl").read_text()
    assert site.parts.log.witness_size(site.party(home)) == 0


def test_a_ticket_of_another_coordinator_does_not_fit_this_one(site: Site, tmp_path: Path) -> None:
    """Whoever answers at the address must have the CA and the log keys that the ticket names; nothing is made before."""
    ticket = Ticket.read(site.ticket("Misled Insurer"))
    members = {name: getattr(ticket, name) for name in Ticket.__dataclass_fields__}
    folder = tmp_path / "impostor"
    folder.mkdir()
    impostor = Authority.open(folder, folder / "tls", "Impostor", datetime.now(UTC))
    for change in ({"ca": impostor.der}, {"keys": b64u(bytes(32))}):
        with pytest.raises(CoordinatorUntrusted):
            join.join(site.folder / "misled", Ticket(**(members | change)).text())
        assert not (site.folder / "misled").exists()


def test_oversized_messages_are_refused_with_a_reason_up_to_the_wire_limit(site: Site) -> None:
    """2 MiB at our own check, 4 MiB at the wire; the connection goes on."""
    with an_honest_node(site) as (home, _), site.line(home) as line:
        for size in (2_100_000, 6_000_000):
            with pytest.raises(ChannelRefused) as refused:
                line.ask(line.partner.State, partner_pb2.StateRequest(statements=[bytes(size)]))
            assert refused.value.code == "MESSAGE_TOO_LARGE"
        with pytest.raises(ChannelRefused):
            line.ask(line.partner.State, partner_pb2.StateRequest(statements=[b"x"] * 101))
        line.ask(line.partner.Hello, HELLO)
        assert (site.party(home), "MESSAGE_TOO_LARGE") in site.refusals() or (
            None,
            "MESSAGE_TOO_LARGE",
        ) in site.refusals()


def test_slow_loris_connections_hold_up_nobody_and_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred connections that never finish their handshake, byte by byte; honest calls answer, the slow ones end."""
    monkeypatch.setitem(
        server._LIMITS, "grpc.server_handshake_timeout_ms", 3_000
    )  # 10 s in service: a test need not wait
    with site_in(tmp_path) as site, an_honest_node(site) as (home, _):
        slow = [socket.create_connection(("127.0.0.1", site.channel_port)) for _ in range(100)]
        slow += [socket.create_connection(("127.0.0.1", site.enrolment_port)) for _ in range(20)]
        for connection in slow:
            connection.send(b"\x16\x03\x01\x02")
        with site.line(home) as line:
            for _ in range(5):
                line.ask(line.partner.Hello, HELLO)
        assert join.join(site.folder / "meanwhile", site.ticket("Quick Insurer")).state == "pending"
        context = ssl.create_default_context(cadata=(site.home / "tls" / "ca.pem").read_text())
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(
            socket.create_connection(("127.0.0.1", site.enrolment_port)), server_hostname="localhost"
        ) as tls:
            tls.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # a stranger that shakes hands and then says no more
            assert join.ask(site.folder / "meanwhile").state == "pending"
        for connection in slow:
            connection.settimeout(30)
            assert connection.recv(4096) in (b"", b"\x15\x03\x01\x00\x02\x02\x16"), "ended, at most with an alert"
            connection.close()


def test_a_statement_with_other_words_under_a_known_number_is_refused(site: Site) -> None:
    """A node that was restored from a copy would state twice; the second word is refused and logged."""
    with an_honest_node(site) as (home, memory), site.line(home) as line:
        party = site.party(home)
        first = memory.statements()[0]
        twin = sign_statement(
            alarm(party), number=1, previous=None, seed=Identity.load(home / "keys", party).identity_seed
        )
        assert twin != first
        with pytest.raises(ChannelRefused) as refused:
            line.ask(line.partner.State, partner_pb2.StateRequest(statements=[twin]))
        assert refused.value.code == "STATEMENT_FORKED"
