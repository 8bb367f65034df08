"""Revoking, leaving, rotating, and the way back after a compromise, over the channel with real certificates."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from channel_site import Site, alarm, until
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from convoy_audit.canonical import digest
from convoy_audit.statement import sign_statement
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_contracts.wire.proof import supernode_proof
from convoy_contracts.wire.statuses import unpack
from convoy_node import channel_keys, join, setup
from convoy_node.channel import ChannelRefused
from convoy_node.channel_home import TLS, Connection, Credentials
from convoy_node.errors import HomeRefused, LedgerError
from convoy_node.identity import Identity
from convoy_node.leave import leave
from convoy_node.ledger import Charge, Ledger
from convoy_node.memory import Memory
from convoy_node.setup import LEDGER
from convoy_node.up import Node

HELLO = partner_pb2.HelloRequest(protocols=PROTOCOLS, role="insurer")
LIMIT_S = 5.0
"""The requirement: a revocation takes effect within this time, on every open stream and at Flower."""


class Listener:
    """An open stream of events; ``ended`` is why and when it ended."""

    def __init__(self, site: Site, home: Path) -> None:
        self._line = site.line(home)
        self._stream = self._line.partner.Events(partner_pb2.EventsRequest(after=0))
        self.heard = 0
        self.ended: tuple[float, str] | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for _ in self._stream:
                self.heard += 1
        except grpc.RpcError as error:
            told = unpack([(str(name), value) for name, value in error.trailing_metadata() or ()])  # type: ignore[attr-defined]
            self.ended = (time.monotonic(), told.code if told else str(error))

    def close(self) -> None:
        """Go away."""
        self._stream.cancel()
        self._line.close()


def state(home: Path, party: str) -> bytes:
    """Have a node make a statement; it is not sent."""
    seed = Identity.load(home / "keys", party).identity_seed
    memory = Memory(home / "node.db")
    raw = memory.state(lambda n, previous: sign_statement(alarm(party), number=n, previous=previous, seed=seed))
    memory.close()
    return raw


def send(site: Site, home: Path, raw: bytes) -> Any:
    """Bring a statement to the log."""
    with site.line(home) as line:
        return line.ask(line.partner.State, partner_pb2.StateRequest(statements=[raw]))


def test_a_revocation_ends_every_open_stream_of_the_party_and_no_other(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within five seconds, with its reason; the door of the runtime is told as well; others go on hearing."""
    rogue, loyal = site.joined("Rogue Insurer"), site.joined("Loyal Insurer")
    streams = [Listener(site, rogue) for _ in range(3)]
    other = Listener(site, loyal)
    until(lambda: all(stream.heard for stream in (*streams, other)), "every stream has heard something", 30)
    assert site.party(rogue) in site.gate.admitted
    begun = time.monotonic()
    site.parts.access.revoke(site.party(rogue), "administrative")
    until(lambda: all(stream.ended for stream in streams), "every stream of the revoked party has ended", LIMIT_S)
    until(lambda: site.party(rogue) not in site.gate.admitted, "the runtime's door is shut", LIMIT_S)
    assert {stream.ended[1] for stream in streams if stream.ended} == {"PARTY_REVOKED"}
    last = max(stream.ended[0] for stream in streams if stream.ended)
    door = next(at for at, admitted in reversed(site.gate.changes) if site.party(rogue) not in admitted)
    with capsys.disabled():
        print(
            f"\nrevoked: 3 open streams ended after {last - begun:.2f} s, the runtime's door after {door - begun:.2f} s"
        )
    heard = other.heard
    until(lambda: other.heard > heard, "the other party goes on hearing", 30)
    assert other.ended is None
    assert site.party(loyal) in site.gate.admitted
    for stream in (*streams, other):
        stream.close()


def test_a_running_node_that_is_revoked_ends_and_says_who_can_help(site: Site) -> None:
    """It does not try again and again: a human has to act."""
    home = site.joined("Fallen Insurer")
    _, thread, told = site.up(home)
    site.parts.access.revoke(site.party(home), "key-compromise")
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert told[-1] == "ended PARTY_REVOKED"


def test_one_lost_certificate_is_revoked_and_the_party_goes_on_with_another(site: Site) -> None:
    """By serial; the renewed certificate still lets it in."""
    home = site.joined("Careless Insurer")
    party, lost = site.party(home), Credentials.load(home, "x")
    with site.line(home) as line:
        channel_keys.renew(home, line, party)
    serial = format(lost.x509.serial_number, "x")
    site.parts.access.revoke_certificate(serial, party, "key-compromise")
    with site.line(home) as line:
        assert line.ask(line.partner.Hello, HELLO).party == party
    door = Connection.load(home).door(home, f"localhost:{site.channel_port}")
    from convoy_node.channel import Line

    with Line.mutual(door, party, lost.key, lost.certificate) as line, pytest.raises(ChannelRefused) as refused:
        line.ask(line.partner.Hello, HELLO)
    assert refused.value.code == "CERTIFICATE_REVOKED"


def test_a_node_that_leaves_hands_over_a_final_statement_and_answers_nothing_any_more(site: Site) -> None:
    """Statements that waited come first, the final one last; budgets are frozen; again it gets the same receipt."""
    home = site.joined("Leaving Insurer")
    party = site.party(home)
    waiting = state(home, party)
    receipt = leave(home, datetime.now(UTC))
    entries = site.parts.log.entries(0, site.parts.log.size())
    assert entries.index(waiting) < receipt.index
    assert b"node:duties:ended" in entries[receipt.index]
    assert leave(home, datetime.now(UTC)) == receipt
    assert site.parts.parties.standing(party).state == "left"
    assert party not in site.gate.admitted or until(lambda: party not in site.gate.admitted, "shut", LIMIT_S)
    with site.line(home) as line, pytest.raises(ChannelRefused) as refused:
        line.ask(line.partner.Hello, HELLO)
    assert refused.value.code == "PARTY_REVOKED"
    with pytest.raises(HomeRefused) as left:
        Node(home).run()
    assert left.value.code == "NODE_LEFT"
    ledger = Ledger(home / LEDGER)
    price = [Charge("q", "joint", 0.25, sigma=2.0, clip=1.0)]
    with pytest.raises(LedgerError) as frozen:
        ledger.reserve(
            "run-x", 1, "urn:c", "urn:a", 2026, 1e-6, price, contract_cap_micro=9_000_000, asset_cap_micro=9_000_000
        )
    assert frozen.value.code == "LEDGER_FROZEN"
    ledger.close()
    site.check_log()


def test_certificates_are_renewed_without_a_pause(site: Site) -> None:
    """After two thirds of its life, by the running node; the open stream of the old one is not cut."""
    home = site.joined("Lasting Insurer")
    party, before = site.party(home), (home / TLS).read_bytes()
    stream = Listener(site, home)
    until(lambda: stream.heard, "the stream is open", 30)
    ahead = timedelta(days=61)
    node = Node(home, clock=lambda: datetime.now(UTC) + ahead)
    thread = threading.Thread(target=node.run, daemon=True)
    thread.start()
    until(lambda: (home / TLS).read_bytes() != before, "the certificate was renewed", 30)
    node.stop()
    thread.join(20)
    assert stream.ended is None
    stream.close()
    with site.line(home) as line:
        assert line.ask(line.partner.Hello, HELLO).party == party
    assert len(site.parts.access.certificates(party)) == 2


def test_an_identity_key_is_rotated_without_a_pause(site: Site) -> None:
    """A statement that the old key signed before is still taken after; then the new key signs, and both stand in the log."""
    home = site.joined("Changing Insurer")
    party = site.party(home)
    old = state(home, party)
    done = channel_keys.rotate(home, datetime.now(UTC))
    assert done.kid == f"{party}#2"
    new = state(home, party)
    send(site, home, new)
    entries = site.parts.log.entries(0, site.parts.log.size())
    assert entries.index(old) < done.index < entries.index(new)
    assert Identity.load(home / "keys", party).kid == done.kid
    site.check_log()


def test_a_supernode_key_is_rotated_at_the_runtimes_door_and_only_by_its_party(site: Site) -> None:
    """Both keys sign; the certificate alone is not enough, nor is another party's key; repeated, it changes nothing more."""
    home, other = site.joined("Moving Insurer"), site.joined("Staying Insurer")
    party, before = site.party(home), Identity.load(home / "keys", site.party(home))
    until(lambda: party in site.gate.admitted, "the first key is let in", 30)
    index = channel_keys.rotate_supernode(home)
    card = setup.read_card(home)
    until(lambda: site.gate.admitted.get(party) == card.supernode_key, "the new key is let in, the old one is not", 30)
    after = Identity.load(home / "keys", party)
    assert (after.kid, after.mask_public) == (before.kid, before.mask_public)
    assert b"coordinator:supernode:rotated" in site.parts.log.entries(index, index + 1)[0]
    key, message = after.supernode, supernode_proof(party, card.supernode_key.encode())
    theirs = setup.read_card(other).supernode_key.encode()
    good = {
        "supernode_key": card.supernode_key.encode(),
        "supernode_proof": key.sign(message, ECDSA(SHA256())),
        "identity_proof": after.identity.sign(message),
    }
    bad: tuple[dict[str, bytes], ...] = (
        {"identity_proof": bytes(64)},
        {"supernode_proof": b"no signature"},
        {"supernode_key": b"no key"},
        {"supernode_key": theirs, "identity_proof": after.identity.sign(supernode_proof(party, theirs))},
    )
    size = site.parts.log.size()
    with site.line(home) as line:
        assert line.ask(line.partner.Rotate, partner_pb2.RotateRequest(**good)).old_not_after == ""
        assert site.parts.log.size() == size, "the same again is no change"
        for change in bad:
            with pytest.raises(ChannelRefused) as refused:
                line.ask(line.partner.Rotate, partner_pb2.RotateRequest(**(good | change)))
            assert refused.value.code == "ROTATION_REFUSED"
    assert site.gate.admitted[party] == card.supernode_key
    assert (party, "ROTATION_REFUSED") in site.refusals()
    site.check_log()


def test_after_a_compromise_the_party_comes_back_with_new_keys_and_its_old_ledger(site: Site) -> None:
    """Revoked, invited again, joined with --recover: no key of before lets anybody in, and no budget has grown."""
    home = site.joined("Burgled Insurer")
    party, stolen = site.party(home), Credentials.load(home, "x")
    seed = Identity.load(home / "keys", party).identity_seed
    first = state(home, party)
    send(site, home, first)
    ledger = (home / LEDGER).read_bytes()
    site.parts.access.revoke(party, "key-compromise")
    text = site.ticket("Burgled Insurer", party=party)
    asked = join.join(home, text, recover=True)
    site.parts.enrolment.approve(asked.fingerprint)
    assert join.ask(home).state == "enrolled"
    assert Identity.load(home / "keys", party).kid == f"{party}#2"
    assert (home / LEDGER).read_bytes() == ledger
    second = state(home, party)
    send(site, home, second)
    from convoy_node.channel import Line

    door = Connection.load(home).door(home, f"localhost:{site.channel_port}")
    with Line.mutual(door, party, stolen.key, stolen.certificate) as line:
        with pytest.raises(ChannelRefused) as refused:
            line.ask(line.partner.Hello, HELLO)
        assert refused.value.code in ("CERTIFICATE_REVOKED", "CERTIFICATE_UNKNOWN")
    memory = Memory(home / "node.db")
    past = memory.statements()
    memory.close()
    forged = sign_statement(alarm(party), number=len(past) + 1, previous=digest(past[-1]), seed=seed)
    with pytest.raises(ChannelRefused) as thief:
        send(site, home, forged)
    assert thief.value.code == "LOG_REFUSED"
    entries = site.parts.log.entries(0, site.parts.log.size())
    assert first in entries
    assert second in entries
    site.check_log()
