"""Witness keys that follow others: signed by both, and followed offline from the policy that was pinned before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from convoy_audit.canonical import digest
from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError, PolicyError, SignatureError
from convoy_audit.events import WitnessFollowed, WitnessRotated
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer, Verifier
from convoy_audit.pack import build, verify_files
from convoy_audit.policy import Policy, make_policy
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.testing import HYBRID_WITNESS, MemoryLog, MemoryWitnessStore
from convoy_audit.witness import Witness
from convoy_audit.witness_change import Reason, check_change, follow, sign_change

PARTIES = tuple(f"did:web:p{n}.example" for n in range(4))


def pair(name: str) -> list[Signer]:
    return [Signer.generate(name, kind) for kind in HYBRID_WITNESS]


def vkeys(signers: list[Signer]) -> list[str]:
    return [signer.vkey for signer in signers]


class Log:
    """A log with one checkpoint, and four witnesses of two keys each."""

    def __init__(self) -> None:
        self.log = MemoryLog("example.com/log")
        self.log.append(b"entry")
        self.note = self.log.checkpoint()
        self.pairs = {party: pair(party.removeprefix("did:web:")) for party in PARTIES}
        self.policy = make_policy(self.log.vkeys, {party: vkeys(own) for party, own in self.pairs.items()})

    def cosigned(self, *pairs: list[Signer]) -> bytes:
        text = peek(self.note).text
        return self.note + "".join(s.line(text, 1) for own in pairs for s in own).encode()

    def change(self, party: str, new: list[Signer], reason: Reason = "planned") -> WitnessRotated:
        return sign_change(party, self.pairs[party], new, Rehearsal().tick(), reason)


def counted(policy: Policy, note: bytes) -> set[str]:
    return set(policy.standing(note).cosigned)


@pytest.mark.parametrize("reason", ["planned", "compromised"])
def test_a_policy_follows_to_the_new_pair_and_counts_a_witness_once(reason: Reason) -> None:
    """Old cosignatures stay good after a planned change and not after a compromise; half a pair never counts."""
    site, party = Log(), PARTIES[1]
    old, new = site.pairs[party], pair("p1.example")
    followed = follow(site.policy, [site.change(party, new, reason)])
    assert counted(site.policy, site.cosigned(new, site.pairs[PARTIES[0]])) == {PARTIES[0]}
    assert counted(followed, site.cosigned(new)) == {party}
    assert counted(followed, site.cosigned(old)) == ({party} if reason == "planned" else set())
    assert counted(followed, site.cosigned(old, new)) == {party}
    assert counted(followed, site.cosigned([old[0], new[1]])) == set()
    assert (followed.needed, followed.quorum_members) == (site.policy.needed, site.policy.quorum_members)


def test_changes_are_followed_one_after_the_other_and_those_of_strangers_change_nothing() -> None:
    """Three generations; the order is the log's."""
    site, party = Log(), PARTIES[2]
    second, third, stranger = pair("p2.example"), pair("p2.example"), pair("elsewhere.example")
    changes = [
        site.change(party, second),
        sign_change("did:web:x.example", stranger, pair("elsewhere.example"), Rehearsal().tick()),
        sign_change(party, second, third, Rehearsal().tick()),
    ]
    followed = follow(site.policy, changes)
    for own in (site.pairs[party], second, third):
        assert counted(followed, site.cosigned(own)) == {party}
    assert counted(followed, site.cosigned(site.pairs[PARTIES[0]], stranger)) == {PARTIES[0]}
    assert follow(site.policy, changes[1:2]) is site.policy


def test_a_witness_of_one_key_follows_as_well() -> None:
    """A policy may name a witness by its key alone."""
    log, old = Log(), [Signer.generate("w.example", SignatureType.COSIGNATURE_ED25519)]
    new = [Signer.generate("w.example", SignatureType.COSIGNATURE_ED25519)]
    policy = make_policy(log.log.vkeys, {"w": vkeys(old)})
    followed = follow(policy, [sign_change("did:web:w.example", old, new, Rehearsal().tick())])
    assert counted(policy, log.cosigned(old)) == counted(followed, log.cosigned(new)) == {"w"}
    assert followed.verify(log.cosigned(old)).standing.has_quorum


@pytest.mark.parametrize(
    "bend",
    [
        lambda c, _: replace(c, old_proofs=(c.old_proofs[0], bytes(2420))),
        lambda c, _: replace(c, new_proofs=c.new_proofs[:1]),
        lambda c, _: replace(c, old_proofs=(), new_proofs=()),
        lambda c, _: replace(c, party="did:web:p0.example"),
        lambda c, other: replace(c, new_keys=tuple(vkeys(other))),
        lambda c, _: replace(c, new_keys=c.new_keys[:1], new_proofs=c.new_proofs[:1]),
        lambda c, _: replace(c, new_keys=c.old_keys, new_proofs=c.old_proofs),
        lambda c, _: replace(c, new_keys=tuple(reversed(c.new_keys)), new_proofs=tuple(reversed(c.new_proofs))),
    ],
)
def test_a_change_that_not_all_keys_have_signed_is_refused(bend: Callable[..., WitnessRotated]) -> None:
    """Whoever holds the new keys alone, or the old Ed25519 key alone, changes nothing."""
    site, party = Log(), PARTIES[1]
    bent = bend(site.change(party, pair("p1.example")), pair("p1.example"))
    with pytest.raises(SignatureError):
        check_change(bent)
    with pytest.raises(SignatureError):
        follow(site.policy, [bent])


def test_a_new_pair_under_another_name_is_refused() -> None:
    """A cosignature carries its witness's name; whoever changes it becomes another witness."""
    with pytest.raises(SignatureError, match="name"):
        check_change(Log().change(PARTIES[1], pair("p2.example")))


def rotated(rehearsal: Rehearsal, count: int, *, forged: bool = False) -> None:
    """Let the witnesses of the first ``count`` members change their keys, as the log tells it."""
    for member in rehearsal.members[:count]:
        known = [key.vkey for key in rehearsal.witnesses[member.party].verifiers]
        old = pair(name := member.party.removeprefix("did:web:"))
        if not forged:  # a witness with keys that the test knows takes the place of the rehearsal's
            rehearsal.policy = Policy.parse(swapped(rehearsal.policy.text, known, vkeys(old)))
            known = vkeys(old)
        new = pair(name)
        change = replace(sign_change(member.party, old, new, rehearsal.tick()), old_keys=tuple(known))
        raw = rehearsal.state(member, change)
        rehearsal.record(
            WitnessFollowed(
                at=rehearsal.tick(), party=member.party, witness_keys=tuple(vkeys(new)), statement=digest(raw)
            )
        )
        rehearsal.witnesses[member.party] = Witness(
            new, [s.verifier for s in rehearsal.log.signers], MemoryWitnessStore()
        )


def swapped(text: bytes, known: list[str], new: list[str]) -> bytes:
    for old, key in zip(known, new, strict=True):
        text = text.replace(old.encode(), key.encode())
    return text


def test_a_pack_of_today_is_verified_with_the_policy_that_was_pinned_before_the_changes() -> None:
    """All four witnesses have other keys; the old ones' word for them is in the pack."""
    rehearsal = Rehearsal()
    rotated(rehearsal, 4)
    pinned = rehearsal.policy
    now = {party: [key.vkey for key in witness.verifiers] for party, witness in rehearsal.witnesses.items()}
    files = build(replace(rehearsal.parts(), policy=make_policy(rehearsal.log.vkeys, now).text))
    with pytest.raises(PolicyError, match="cosigned by 0 of 4"):
        pinned.verify(files["checkpoint"])
    verdict = verify_files(files, pinned)
    assert verdict.is_verified, verdict.faults
    assert len(verdict.witnesses) == 4
    assert any(check.name == "witness keys" for check in verdict.checks)
    assert verify_files(files).is_verified


def test_keys_that_the_old_ones_did_not_sign_for_lead_nowhere() -> None:
    """A coordinator that makes the change up, with an identity key it stole, gets no quorum from a pinned policy."""
    rehearsal = Rehearsal()
    pinned = rehearsal.policy
    rotated(rehearsal, 2, forged=True)
    codes = {fault.code for fault in verify_files(build(rehearsal.parts()), pinned).faults}
    assert {"SIGNATURE_WRONG", "QUORUM_MISSING"} <= codes


def test_the_log_counts_no_other_keys_than_the_party_has_stated() -> None:
    """An entry of the coordinator alone changes no witness."""
    rehearsal = Rehearsal()
    party, new = rehearsal.members[0].party, pair("x")
    event = WitnessFollowed(
        at=rehearsal.tick(), party=party, witness_keys=tuple(vkeys(new)), statement=f"sha256:{'0' * 64}"
    )
    rehearsal.record(event)
    verdict = verify_files(build(rehearsal.parts()), rehearsal.policy)
    assert [fault.party for fault in verdict.faults if fault.code == "EVIDENCE_WRONG"] == [party]


def test_a_change_is_told_from_a_cosignature() -> None:
    """Neither message can be read as the other: no cosignature begins as a change does."""
    site = Log()
    change = site.change(PARTIES[0], pair("p0.example"))
    for key, proof in zip(change.old_keys, change.old_proofs, strict=True):
        with pytest.raises(AuditError):
            Verifier.parse(key).verify(peek(site.note).text, proof)
