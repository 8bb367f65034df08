"""Evidence of one entry, tlog-proofs, and whole packs under every tamper drill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from convoy_audit import events
from convoy_audit.entry import encode
from convoy_audit.errors import (
    AuditError,
    EvidenceError,
    FormatError,
    PolicyError,
    ProofError,
    SignatureError,
)
from convoy_audit.evidence import Evidence, verify_evidence
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import leaf_hash
from convoy_audit.note import Signer, sign_note
from convoy_audit.pack import SUMS, build, verify_files
from convoy_audit.policy import Policy, make_policy
from convoy_audit.proof import TlogProof, verify_proof
from convoy_audit.rehearsal import ORIGIN, RUN, Member, Rehearsal
from convoy_audit.statement import sign_statement

Files = dict[str, bytes]
AUTHORISED = 10  # index of the authorisation in a rehearsal of four


@pytest.fixture(scope="module")
def told() -> tuple[Rehearsal, Files]:
    """A rehearsal and the files of its pack; tests copy the files before they change them."""
    rehearsal = Rehearsal()
    return rehearsal, build(rehearsal.parts())


def resummed(files: Files) -> Files:
    """Write the sums again, as a forger would."""
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()) if name != SUMS
    ]
    return files | {SUMS: "".join(lines).encode()}


def codes(files: Files, pinned: Policy | None = None) -> set[str]:
    verdict = verify_files(resummed(files), pinned)
    assert verdict.is_verified == (not verdict.faults)
    return {fault.code for fault in verdict.faults}


# One entry ----------------------------------------------------------------------------------------


def test_evidence_survives_its_journey_as_json_and_as_a_tlog_proof() -> None:
    """The node sees exactly the entry that the coordinator logged."""
    rehearsal = Rehearsal()
    note = rehearsal.cosigned()
    evidence = rehearsal.log.evidence(AUTHORISED, note)
    again = Evidence.from_json(json.loads(json.dumps(evidence.to_json())))
    own = rehearsal.witnesses["did:web:oem.example"].verifiers
    verified = verify_evidence(again, rehearsal.policy, require=own)
    assert isinstance(verified.event, events.RunAuthorised)
    proof = TlogProof.parse(again.tlog_proof.text)
    assert proof == again.tlog_proof
    assert verify_proof(proof, leaf_hash(again.entry), rehearsal.policy).checkpoint.size == 21
    assert len(proof.text) < 20_000


@pytest.mark.parametrize(("at_s", "is_dated_well"), [(0, True), (-299, True), (299, True), (-302, False), (302, False)])
def test_an_entry_is_dated_by_its_witnesses(at_s: int, is_dated_well: bool) -> None:
    """Their median clock; more than five minutes away is back-dated, or dated ahead."""
    rehearsal = Rehearsal()
    at = rehearsal.tick() + timedelta(seconds=at_s)
    rehearsal.record(events.PartyRevoked(at=at, party=rehearsal.members[0].party, reason="cessation", certificates=1))
    evidence = rehearsal.log.evidence(rehearsal.log.tree.size - 1, rehearsal.cosigned())
    verified = verify_evidence(evidence, rehearsal.policy)
    if is_dated_well:
        verified.check_dated()
    else:
        with pytest.raises(EvidenceError) as raised:
            verified.check_dated()
        assert raised.value.code == "ENTRY_BACK_DATED"
        assert raised.value.fix_zh


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda e: replace(e, index=e.index + 1), ProofError),
        (lambda e: replace(e, index=-1), ProofError),
        (lambda e: replace(e, index=2**70), ProofError),
        (lambda e: replace(e, proof=e.proof[:-1]), ProofError),
        (lambda e: replace(e, proof=(*e.proof, bytes(32))), ProofError),
        (lambda e: replace(e, proof=(bytes(31), *e.proof[1:])), ProofError),
        (lambda e: replace(e, entry=e.entry.replace(b'"round":1', b'"round":2')), ProofError),
        (lambda e: replace(e, checkpoint=e.checkpoint.replace(b"\n21\n", b"\n22\n")), SignatureError),
        (lambda e: replace(e, checkpoint=b""), FormatError),
    ],
)
def test_spoilt_evidence_is_refused(
    told: tuple[Rehearsal, Files],
    spoil: Callable[[Evidence], Evidence],
    error: type[AuditError],
) -> None:
    """Index, proof, entry, checkpoint."""
    rehearsal, files = told
    evidence = rehearsal.log.evidence(AUTHORISED, files["checkpoint"])
    verify_evidence(evidence, rehearsal.policy)
    with pytest.raises(error):
        verify_evidence(spoil(evidence), rehearsal.policy)


def test_no_quorum_or_no_own_cosignature_means_no_evidence() -> None:
    """Two of four are too few; three of four without one's own are refused as well."""
    rehearsal = Rehearsal()
    parties = [member.party for member in rehearsal.members]
    two = rehearsal.log.evidence(AUTHORISED, rehearsal.cosigned(by=parties[:2]))
    with pytest.raises(PolicyError):
        verify_evidence(two, rehearsal.policy)
    three = rehearsal.log.evidence(AUTHORISED, rehearsal.cosigned(by=parties[1:]))
    verify_evidence(three, rehearsal.policy)
    with pytest.raises(EvidenceError) as raised:
        verify_evidence(three, rehearsal.policy, require=rehearsal.witnesses[parties[0]].verifiers)
    assert raised.value.code == "OWN_WITNESS_MISSING"


@pytest.mark.parametrize(
    "value",
    [{}, [], None, {"checkpoint": 1, "index": 1, "entry": "", "proof": []}, {"checkpoint": ""}]
    + [{"checkpoint": "", "index": i, "entry": "", "proof": p} for i, p in ((True, []), (0, "A"), (0, [1]), (0, ["A"]))],
)  # fmt: skip
def test_evidence_of_the_wrong_shape_raises_our_error(value: object) -> None:
    """It comes from the network."""
    with pytest.raises(FormatError):
        Evidence.from_json(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t.replace(b"index 10", b"index 010"),
        lambda t: t.replace(b"index 10\n", b""),
        lambda t: t.replace(b"@v1", b"@v2"),
        lambda t: t.replace(b"\n\n", b"\n", 1),
        lambda t: t.replace(b"index 10", b"extra !\nindex 10"),
        lambda t: t.replace(b"index 10", b"index 10\n" + b"A" * 40),
        lambda t: t.replace(b"index 10", b"index 10" + b"\n" + b"A" * 43 + b"=" * 65),
        lambda t: t.split(b"\n\n")[0] + b"\n\n",
        lambda t: b"",
    ],
)
def test_a_malformed_tlog_proof_is_refused(told: tuple[Rehearsal, Files], spoil: Callable[[bytes], bytes]) -> None:
    """Leading zero, no index, other version, no empty line, bad base64, no checkpoint."""
    rehearsal, files = told
    text = rehearsal.log.evidence(AUTHORISED, files["checkpoint"]).tlog_proof.text
    with pytest.raises(FormatError):
        TlogProof.parse(spoil(text))


# Whole packs --------------------------------------------------------------------------------------


def test_a_whole_pack_verifies_and_says_what_it_cannot_know(told: tuple[Rehearsal, Files]) -> None:
    """All that was checked is named, in numbers."""
    rehearsal, files = told
    verdict = verify_files(files)
    assert verdict.is_verified, verdict.faults
    assert (verdict.entries, len(verdict.witnesses), verdict.needed) == (21, 4, 3)
    assert {c.name for c in verdict.checks} >= {"tree", "statements", "release", "contract signatures"}
    said = " ".join(english for english, _ in verdict.limits)
    assert "came with the pack" in said
    assert "did:web:oem.example: statements 1 to 3" in said
    pinned = verify_files(files, rehearsal.policy)
    assert pinned.is_verified
    assert "came with the pack" not in " ".join(english for english, _ in pinned.limits)


def entries_of(rehearsal: Rehearsal, change: Callable[[list[bytes]], list[bytes]]) -> Files:
    """Rewrite the log with the real log key, and make a pack of it with the old cosignatures."""
    parts = rehearsal.parts()
    files = build(parts)
    log = rehearsal.log.rewritten(change(list(parts.entries)))
    forged = build(replace(parts, entries=log.entries, checkpoint=log.checkpoint(), checkpoints=[]))
    own = files["checkpoint"].split(b"\n\n")[1]
    return forged | {"checkpoint": log.checkpoint() + own}


@pytest.mark.parametrize(
    "change",
    [
        lambda e: [*e[:10], e[10].replace(b'"round":1', b'"round":2'), *e[11:]],
        lambda e: [*e[:9], *e[10:]],
        lambda e: [e[1], e[0], *e[2:]],
        lambda e: e[:-1],
    ],
    ids=["edit", "delete", "reorder", "truncate"],
)
def test_a_log_rewritten_with_the_real_key_has_no_cosignatures(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    """The forger holds every key of the log and none of a witness."""
    rehearsal = Rehearsal()
    files = entries_of(rehearsal, change)
    assert codes(files, rehearsal.policy) & {"SIGNATURE_WRONG", "QUORUM_MISSING"}
    stripped = files["checkpoint"].split(b"\n\n")
    only_log = b"".join(
        line for line in stripped[1].splitlines(keepends=True) if line.startswith(f"— {ORIGIN} ".encode())
    )
    assert "QUORUM_MISSING" in codes(files | {"checkpoint": rehearsal.log.rewritten([]).checkpoint()})
    assert only_log


@pytest.mark.parametrize("position", [0, 9, 20])
def test_one_flipped_bit_in_an_entry_is_found(told: tuple[Rehearsal, Files], position: int) -> None:
    """First, middle, last."""
    _, files = told
    name = "tile/entries/000.p/21"
    bundle = bytearray(files[name])
    at = 0
    for _ in range(position):
        at += 2 + int.from_bytes(bundle[at : at + 2], "big")
    bundle[at + 20] ^= 1
    assert "PROOF_WRONG" in codes(files | {name: bytes(bundle)})


def test_a_forged_cosignature_is_found(told: tuple[Rehearsal, Files]) -> None:
    """A line under a witness's name and key id, made with another key."""
    rehearsal, files = told
    text = files["checkpoint"].split(b"\n\n")[0] + b"\n"
    victim = rehearsal.witnesses["did:web:oem.example"].verifiers[0]
    forger = Signer.generate(victim.name, SignatureType.COSIGNATURE_ED25519)
    line = forger.line(text, 1)
    from convoy_audit.note import SignatureLine, parse_signature_lines

    (parsed,) = parse_signature_lines(line.encode())
    forged = SignatureLine(victim.name, victim.key_id, parsed.signature)
    note = rehearsal.log.checkpoint() + str(forged).encode()
    assert "SIGNATURE_WRONG" in codes(files | {"checkpoint": note})


def test_a_swapped_policy_does_not_help_against_a_pinned_one() -> None:
    """The forger brings four witnesses of his own; only the pinned policy tells."""
    rehearsal = Rehearsal()
    names = [member.party for member in rehearsal.members]
    fakes = {n: Signer.generate(n, SignatureType.COSIGNATURE_ED25519) for n in names}
    policy = make_policy(rehearsal.log.vkeys, {n: [s.vkey] for n, s in fakes.items()})
    note = rehearsal.log.checkpoint()
    text = note.split(b"\n\n")[0] + b"\n"
    note += "".join(signer.line(text, 1) for signer in fakes.values()).encode()
    files = build(replace(rehearsal.parts(), policy=policy.text, checkpoint=note))
    assert codes(files) == set()
    assert "QUORUM_MISSING" in codes(files, rehearsal.policy)


def test_a_weak_quorum_is_refused_even_if_it_is_met() -> None:
    """One of four could be the coordinator's friend."""
    rehearsal = Rehearsal()
    vkeys = {p: [v.vkey for v in w.verifiers] for p, w in rehearsal.witnesses.items()}
    for policy in (
        make_policy(rehearsal.log.vkeys, vkeys, quorum=1),
        make_policy(rehearsal.log.vkeys, {}),
    ):
        files = build(replace(rehearsal.parts(), policy=policy.text))
        assert "POLICY_WRONG" in codes(files)


def test_an_earlier_checkpoint_of_another_history_is_found() -> None:
    """Split view in time, both signed with the real key."""
    rehearsal = Rehearsal()
    other = rehearsal.log.rewritten([*rehearsal.log.entries[:4], rehearsal.log.entries[5]])
    files = build(replace(rehearsal.parts(), checkpoints=[other.checkpoint()]))
    assert codes(files) == {"PROOF_WRONG"}


def logged(change: Callable[[Rehearsal], None]) -> set[str]:
    """Let the coordinator log something wrong, have it witnessed, and verify."""
    rehearsal = Rehearsal()
    change(rehearsal)
    return codes(build(rehearsal.parts()))


def test_the_entries_are_also_judged_for_what_they_say() -> None:
    """A perfectly witnessed log can still convict its author."""

    def decided(rehearsal: Rehearsal, member: Member, run: str = RUN) -> events.DecisionMade:
        return events.DecisionMade(
            at=rehearsal.tick(),
            party=member.party,
            run=run,
            contract=rehearsal.contract_digest,
            phase="release",
            outcome="allow",
        )

    def swapped_statement(r: Rehearsal) -> None:
        oem, insurer = r.members[0], r.members[1]
        forged = sign_statement(decided(r, oem), number=4, previous="sha256:" + "0" * 64, seed=insurer.seed)
        r.log.append(forged)

    def left_out_statement(r: Rehearsal) -> None:
        r.state(r.members[0], decided(r, r.members[0]))
        r.log = r.log.rewritten(r.log.entries[:-1])
        r.state(r.members[0], decided(r, r.members[0]))

    def repeated_statement(r: Rehearsal) -> None:
        r.log.append(r.log.entries[-1])

    def unsigned_decision(r: Rehearsal) -> None:
        r.record(decided(r, r.members[0]))

    def unknown_party(r: Rehearsal) -> None:
        r.state(
            Member("did:web:ghost.example", "ghost", bytes(32)), decided(r, Member("did:web:ghost.example", "g", b""))
        )

    def released_without_authorisation(r: Rehearsal) -> None:
        r.record(
            events.ReleasePublished(at=r.tick(), run="run-9", contract=r.contract_digest, manifest=r.contract_digest)
        )

    def allowed_without_authorisation(r: Rehearsal) -> None:
        r.state(r.members[0], decided(r, r.members[0], run="run-9"))

    def key_taken_over(r: Rehearsal) -> None:
        forged = Member(r.members[0].party, "oem", b"f" * 32)
        r.record(events.PartyEnrolled(at=r.tick(), party=forged.party, role="oem", identity_key=forged.public))

    def over_cap(r: Rehearsal) -> None:
        r.state(
            r.members[0],
            events.LedgerStated(
                at=r.tick(),
                party=r.members[0].party,
                run=RUN,
                contract=r.contract_digest,
                step="spent",
                epsilon_micro={"asset-1": 1},
                total_micro={"asset-1": 6_000_001},
                cap_micro={"asset-1": 6_000_000},
            ),
        )

    def not_an_event(r: Rehearsal) -> None:
        r.log.append(b"not canonical JSON")

    assert logged(lambda r: None) == set()
    assert logged(swapped_statement) == {"STATEMENT_WRONG"}
    assert logged(left_out_statement) == {"STATEMENT_CHAIN_BROKEN"}
    assert logged(repeated_statement) == {"STATEMENT_CHAIN_BROKEN"}
    assert logged(unsigned_decision) == {"STATEMENT_WRONG"}
    assert logged(unknown_party) == {"STATEMENT_WRONG"}
    assert logged(released_without_authorisation) == {"EVIDENCE_WRONG"}
    assert logged(allowed_without_authorisation) == {"EVIDENCE_WRONG"}
    assert logged(key_taken_over) == {"EVIDENCE_WRONG"}
    assert logged(over_cap) == {"EVIDENCE_WRONG"}
    assert logged(not_an_event) == {"FORMAT_WRONG"}


def test_contracts_and_manifests_are_those_that_were_logged(told: tuple[Rehearsal, Files]) -> None:
    """A changed byte, a missing signature, another manifest, an unlogged release."""
    _, files = told
    (folder,) = {n.rsplit("/", 1)[0] for n in files if n.startswith("contracts/")}
    contract, signatures = f"{folder}/contract.json", f"{folder}/signatures.json"
    one_less = json.dumps(json.loads(files[signatures])[1:]).encode()
    other_time = files[signatures].replace(b"T02:00:00Z", b"T02:00:01Z")
    manifest = f"releases/{RUN}/manifest.json"
    for changed in (
        {contract: files[contract].replace(b'"version":1', b'"version":2')},
        {signatures: one_less},
        {signatures: other_time},
        {signatures: b"{}"},
        {manifest: files[manifest] + b" "},
        {"releases/run-9/manifest.json": b"{}"},
    ):
        assert codes(files | changed) == {"EVIDENCE_WRONG"}
    absent = (signatures, manifest, f"releases/{RUN}/card.md")
    assert codes({k: v for k, v in files.items() if k not in absent}) == set()


def test_the_sums_and_the_list_of_files_are_checked(told: tuple[Rehearsal, Files]) -> None:
    """A changed sum, a file too many, a bundle missing."""
    _, files = told
    assert not verify_files(files | {SUMS: files[SUMS].replace(b"0", b"1")}).is_verified
    assert codes(files | {"notes.txt": b"hello"}) == {"FORMAT_WRONG"}
    assert "FORMAT_WRONG" in codes({k: v for k, v in files.items() if not k.startswith("tile/")})
    with pytest.raises(FormatError):
        verify_files({})


def test_an_alarm_in_the_pack_convicts_the_log() -> None:
    """Two signed notes of one size."""
    rehearsal = Rehearsal()
    parts = rehearsal.parts()
    other = rehearsal.log.rewritten([*rehearsal.log.entries[:-1], rehearsal.log.entries[0]])
    witness = rehearsal.witnesses["did:web:oem.example"]
    with pytest.raises(AuditError):
        witness.add_checkpoint(other.checkpoint(), 21, [], 1)
    verdict = verify_files(build(replace(parts, alarms=witness.alarms())))
    assert not verdict.is_verified
    assert "two different trees of size 21" in verdict.faults[0].cause


def test_a_pack_with_entries_of_another_checkpoint_cannot_be_built() -> None:
    """The writer refuses as well."""
    rehearsal = Rehearsal()
    with pytest.raises(EvidenceError):
        build(replace(rehearsal.parts(), entries=rehearsal.log.entries[:-1]))


def test_a_backdated_entry_is_newer_than_the_checkpoint_before() -> None:
    """What was appended after a cosigned checkpoint cannot be proven under it."""
    rehearsal = Rehearsal()
    note = rehearsal.cosigned()
    late = encode(
        events.RunFailed(
            at=events.Event(at=rehearsal.tick()).at.replace(year=2020),
            run="run-0",
            contract=rehearsal.contract_digest,
            reasons=("NODE_LOST",),
        )
    )
    rehearsal.log.append(late)
    with pytest.raises(ProofError):
        verify_evidence(Evidence(note, 21, late, tuple(rehearsal.log.tree.inclusion_proof(21))), rehearsal.policy)


def test_an_unsigned_checkpoint_is_worth_nothing(told: tuple[Rehearsal, Files]) -> None:
    """Only a stranger has signed."""
    _, files = told
    text = files["checkpoint"].split(b"\n\n")[0] + b"\n"
    stranger = Signer.generate(ORIGIN, SignatureType.ED25519)
    assert "SIGNATURE_MISSING" in codes(files | {"checkpoint": sign_note(text, [stranger])})
