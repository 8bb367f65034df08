"""Witness keys change while the node runs: nothing pauses, old cosignatures stay good, and nobody else changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from channel_site import Site, until

from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError
from convoy_audit.events import WitnessFollowed, WitnessRotated
from convoy_audit.note import Signer, open_note
from convoy_audit.statement import sign_statement
from convoy_audit.witness_change import sign_change
from convoy_contracts.wire import partner_pb2
from convoy_coordinator.log.levels import Level
from convoy_coordinator.parties import witnesses as party_witnesses
from convoy_node import channel_keys, join, setup
from convoy_node.channel import ChannelRefused, ChannelUnreachable
from convoy_node.errors import NodeError
from convoy_node.identity import WITNESS_NEXT, WITNESS_TYPES, Identity, witness_name
from convoy_node.memory import Memory


def now() -> datetime:
    return datetime.now(UTC)


def pair(party: str) -> list[Signer]:
    return [Signer.generate(witness_name(party), kind) for kind in WITNESS_TYPES]


def has_signed(site: Site, signers: tuple[Signer, ...]) -> bool:
    """Whether all of these keys have cosigned the newest checkpoint."""
    note = (site.parts.log.newest() or "").encode()
    opened = open_note(note, [*site.parts.log.verifiers, *(s.verifier for s in signers)])
    return all(opened.signed_by(signer.verifier) for signer in signers)


def counted(site: Site, size: int) -> tuple[str, ...]:
    return site.parts.log.cosigning(size).parties


def test_witness_keys_are_rotated_without_a_pause(site: Site) -> None:
    """A running node takes the new keys up by itself; every entry is witnessed before, between and after."""
    homes = [site.joined(f"Witness {letter}") for letter in "ABC"]
    for home in homes:
        site.up(home)
    home, party = homes[0], site.party(homes[0])
    before = Identity.load(home / "keys", party).witness
    first = site.parts.log.size()
    site.parts.log.wait(first - 1, Level.WITNESSED, 20)
    index = channel_keys.rotate_witness(home, now())
    after = Identity.load(home / "keys", party)
    assert after.former_witnesses == (before,)
    assert setup.read_card(home).witness_key == "\n".join(s.vkey for s in after.witness)
    assert not (home / "keys" / WITNESS_NEXT).exists()
    site.parts.log.wait(index, Level.WITNESSED, 20)
    until(lambda: has_signed(site, after.witness), "the new keys sign")
    size = peek((site.parts.log.newest() or "").encode()).size
    assert party in counted(site, size)
    assert site.events().count("node:witness:rotated") == site.events().count("coordinator:witness:followed") == 1
    policy = site.parts.log.policy()
    assert {s.verifier for s in (*before, *after.witness)} <= set(policy.witnesses.values()), "the history of the keys"
    assert len(policy.quorum_members) == 3
    site.check_log()


def test_the_log_counts_the_new_keys_and_still_takes_what_the_old_ones_sign(site: Site) -> None:
    """Contracts in force pin the old keys: their cosignatures are verified and kept, and do not count for the log's quorum."""
    home = site.joined("Lone Witness")
    party, log = site.party(home), site.parts.log
    old = Identity.load(home / "keys", party).witness
    channel_keys.rotate_witness(home, now())
    new = Identity.load(home / "keys", party).witness
    note = log.checkpoint()
    text, size = peek(note.encode()).text, peek(note.encode()).size

    def cosigned(signers: tuple[Signer, ...]) -> str:
        return note + "".join(s.line(text, 1_800_000_000) for s in signers)

    assert not log.add_cosignatures(cosigned(old)).has_quorum
    assert has_signed(site, old)
    assert log.add_cosignatures(cosigned(new)).parties == (party,)
    assert log.level_of(size - 1) is Level.WITNESSED
    assert has_signed(site, (*old, *new))
    lines = (log.at(size, party) or "").splitlines()
    assert [line.split()[1] for line in lines if line.startswith("— ")][2:6] == [new[0].name] * 4, "its own come first"


def test_after_a_compromise_the_old_keys_are_worth_nothing(site: Site) -> None:
    """The log takes no cosignature of them any more, and the node has thrown them away."""
    home = site.joined("Robbed Witness")
    party, log = site.party(home), site.parts.log
    old = Identity.load(home / "keys", party).witness
    channel_keys.rotate_witness(home, now(), "compromised")
    identity = Identity.load(home / "keys", party)
    assert identity.witness != old
    assert identity.former_witnesses == ()
    assert identity.witness_of(s.vkey for s in old) == ()
    note = log.checkpoint()
    with pytest.raises(AuditError, match="known"):
        log.add_cosignatures(note + "".join(s.line(peek(note.encode()).text, 1) for s in old))
    site.check_log()


def test_a_party_that_comes_back_names_its_new_witness_keys_in_the_log(site: Site) -> None:
    """After a revocation former pairs are taken no more either."""
    home = site.joined("Returning Witness")
    party = site.party(home)
    channel_keys.rotate_witness(home, now())
    assert [name for name in site.parts.log.policy().witnesses if name.startswith("former/")]
    site.parts.access.revoke(party, "key-compromise")
    asked = join.join(home, site.ticket("Returning Witness", party=party), recover=True)
    site.parts.enrolment.approve(asked.fingerprint)
    assert not [name for name in site.parts.log.policy().witnesses if name.startswith("former/")]
    said = [e for e in entries(site) if isinstance(e, WitnessFollowed)]
    assert [e.statement is None for e in said] == [False, True]
    assert "\n".join(said[1].witness_keys) == setup.read_card(home).witness_key
    site.check_log()


def entries(site: Site) -> list[Any]:
    from convoy_audit.entry import parse_entry

    return [parse_entry(raw) for raw in site.parts.log.entries(0, site.parts.log.size())]


BENT: dict[str, Callable[[WitnessRotated, list[Signer]], WitnessRotated]] = {
    "old keys that are somebody else's": lambda c, other: replace(c, old_keys=tuple(s.vkey for s in other)),
    "no word of the old keys": lambda c, _: replace(c, old_proofs=tuple(bytes(len(p)) for p in c.old_proofs)),
    "no word of the new keys": lambda c, _: replace(c, new_proofs=tuple(bytes(len(p)) for p in c.new_proofs)),
    "one key instead of two": lambda c, _: replace(c, new_keys=c.new_keys[:1], new_proofs=c.new_proofs[:1]),
}


@pytest.mark.parametrize("how", BENT)
def test_whoever_lacks_one_of_the_keys_changes_no_witness(site: Site, how: str) -> None:
    """The identity key and the certificate alone are not enough; nothing gets into the log."""
    home = site.joined("Careful Witness")
    party = site.party(home)
    identity = Identity.load(home / "keys", party)
    bent = BENT[how](sign_change(party, identity.witness, pair(party), now()), pair(party))
    raw = sign_statement(bent, number=1, previous=None, seed=identity.identity_seed)
    with site.line(home) as line, pytest.raises(ChannelRefused) as refused:
        line.ask(line.partner.Rotate, partner_pb2.RotateRequest(statement=raw))
    assert refused.value.code == "ROTATION_REFUSED"
    assert "node:witness:rotated" not in site.events()
    assert site.parts.parties.get(party).witness_key == setup.read_card(home).witness_key


def test_another_partys_change_cannot_be_brought(site: Site) -> None:
    """A statement is taken from its party only."""
    home, other = site.joined("Mine"), site.joined("Theirs")
    theirs = Identity.load(other / "keys", site.party(other))
    change = sign_change(theirs.party, theirs.witness, pair(theirs.party), now())
    raw = sign_statement(change, number=1, previous=None, seed=theirs.identity_seed)
    with site.line(home) as line, pytest.raises(ChannelRefused) as refused:
        line.ask(line.partner.Rotate, partner_pb2.RotateRequest(statement=raw))
    assert refused.value.code == "STATEMENT_NOT_YOURS"


def test_a_coordinator_that_dies_between_log_and_database_says_the_change_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is found again; meanwhile the node signs with both pairs."""
    home = site.joined("Patient Witness")
    party = site.party(home)

    def dies(*_: Any) -> None:
        raise RuntimeError("the process is gone")

    with monkeypatch.context() as patch:
        patch.setattr(party_witnesses.store, "update_party", dies)
        with pytest.raises((NodeError, ChannelUnreachable)):
            channel_keys.rotate_witness(home, now())
    waiting = Identity.load(home / "keys", party)
    assert len(waiting.former_witnesses) == 1
    assert (home / "keys" / WITNESS_NEXT).exists()
    channel_keys.rotate_witness(home, now())
    assert site.events().count("node:witness:rotated") == site.events().count("coordinator:witness:followed") == 1
    assert site.parts.parties.get(party).witness_key == setup.read_card(home).witness_key
    memory = Memory(home / "node.db")
    assert len(memory.statements()) == 1
    memory.close()
    site.check_log()


def test_the_second_change_follows_the_first(site: Site, tmp_path: Path) -> None:
    """Three generations at the node; a contract finds the one that it pins."""
    home = site.joined("Busy Witness")
    party = site.party(home)
    seen = [Identity.load(home / "keys", party).witness]
    for _ in range(2):
        channel_keys.rotate_witness(home, now())
        seen.append(Identity.load(home / "keys", party).witness)
    identity = Identity.load(home / "keys", party)
    for signers in seen:
        assert identity.witness_of(s.vkey for s in signers) == signers
    assert identity.witness_of([seen[0][0].vkey, seen[1][1].vkey]) == ()
    site.check_log()
