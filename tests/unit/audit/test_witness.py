"""The witness: what it cosigns, what it refuses, what it keeps."""

from __future__ import annotations

import pytest

from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.errors import (
    AuditError,
    FormatError,
    LogSignatureWrong,
    OriginUnknown,
    StoreConflict,
    WitnessInconsistent,
    WitnessRefusal,
    WitnessRollback,
    WitnessStale,
)
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import node_hash
from convoy_audit.note import Signer, open_note, sign_note
from convoy_audit.testing import (
    HYBRID_LOG,
    HYBRID_WITNESS,
    MemoryLog,
    MemoryWitnessStore,
    make_witness,
)
from convoy_audit.witness import Alarm, Remembered, Witness, make_request, parse_request

ORIGIN = "example.com/log"


def grown(count: int) -> MemoryLog:
    log = MemoryLog(ORIGIN, HYBRID_LOG)
    log.append(*(b"entry %d" % number for number in range(count)))
    return log


def test_a_growing_log_is_cosigned_every_time() -> None:
    """From nothing, on the same size again, and through every size to 20; no false alarm."""
    log = grown(20)
    witness = make_witness("w", log, kinds=HYBRID_WITNESS)
    for size in range(21):
        for _ in range(2):
            note = log.checkpoint(size)
            old = witness.size(ORIGIN)
            answer = witness.add_checkpoint(note, old, log.consistency(old, size), 1_700_000_000)
            opened = open_note(note + answer.lines.encode(), witness.verifiers)
            assert {s.verifier.kind for s in opened.signatures} == set(HYBRID_WITNESS)
            assert {s.time_s for s in opened.signatures} == {1_700_000_000}
            assert answer.size == size == witness.size(ORIGIN)
    assert witness.alarms() == ()


def test_what_is_remembered_carries_the_logs_and_the_own_signatures() -> None:
    """So it can be served to monitors, and convicts the log later."""
    log = grown(3)
    witness = make_witness("w", log)
    stranger = Signer.generate("stranger", SignatureType.ED25519)
    note = log.checkpoint()
    with_more = note + stranger.line(note.split(b"\n\n")[0] + b"\n").encode()
    witness.add_checkpoint(with_more, 0, [], 1)
    latest = witness.latest(ORIGIN)
    assert latest is not None
    _, opened = open_checkpoint(latest, [s.verifier for s in log.signers] + list(witness.verifiers))
    assert len(opened.signatures) == 3
    assert opened.unverified == ()


def test_rollback_is_refused_and_both_notes_are_kept() -> None:
    """A restored backup: smaller, though consistent."""
    log = grown(5)
    witness = make_witness("w", log)
    witness.add_checkpoint(log.checkpoint(), 0, [], 1)
    for old in (5, 0, 3):
        with pytest.raises(WitnessRollback) as raised:
            witness.add_checkpoint(log.checkpoint(3), old, [], 2)
        assert raised.value.size == 5
    (alarm,) = witness.alarms()
    assert alarm.finding == "rollback"
    assert Alarm.from_bytes(alarm.to_bytes()) == alarm


def test_a_split_view_is_refused_by_every_witness_and_convicts_the_log() -> None:
    """Two trees of one size, both signed with the real key."""
    log = grown(5)
    other = log.rewritten([*log.entries[:4], b"another"])
    witnesses = [make_witness(name, log) for name in "abcd"]
    for witness in witnesses:
        witness.add_checkpoint(log.checkpoint(), 0, [], 1)
        with pytest.raises(WitnessInconsistent):
            witness.add_checkpoint(other.checkpoint(), 5, [], 2)
        (alarm,) = witness.alarms()
        assert alarm.finding == "fork"
        logs = [s.verifier for s in log.signers]
        known, _ = open_checkpoint(alarm.known, logs)
        offered, _ = open_checkpoint(alarm.offered, logs)
        assert known.size == offered.size
        assert known.root != offered.root


@pytest.mark.parametrize(
    "entries",
    [
        lambda e: [b"edited", *e[1:]],
        lambda e: e[1:],
        lambda e: [e[1], e[0], *e[2:]],
        lambda e: [*e[:3], *e[4:], e[3]],
        lambda e: [b"inserted", *e],
    ],
    ids=["edit", "delete", "reorder", "move to the end", "insert"],
)
def test_a_rewritten_past_is_refused_even_with_the_real_key(entries) -> None:  # type: ignore[no-untyped-def]
    """Full re-hash: the new tree is consistent in itself, signed, and longer."""
    log = grown(8)
    witness = make_witness("w", log)
    witness.add_checkpoint(log.checkpoint(), 0, [], 1)
    other = log.rewritten([*entries(log.entries), b"more", b"and more"])
    with pytest.raises(WitnessInconsistent):
        witness.add_checkpoint(other.checkpoint(), 8, other.consistency(8), 2)
    assert [alarm.finding for alarm in witness.alarms()] == ["inconsistent"]
    assert witness.size(ORIGIN) == 8


def test_a_proof_from_another_size_is_answered_with_the_size_to_use() -> None:
    """Not an alarm: the log just does not know how far the witness is."""
    log = grown(6)
    witness = make_witness("w", log)
    witness.add_checkpoint(log.checkpoint(4), 0, [], 1)
    for old in (0, 2, 5, 6):
        with pytest.raises(WitnessStale) as raised:
            witness.add_checkpoint(log.checkpoint(), old, log.consistency(old), 2)
        assert raised.value.size == 4
    assert witness.alarms() == ()


def test_a_proof_from_nothing_must_be_empty() -> None:
    """422 in the protocol."""
    log = grown(3)
    with pytest.raises(WitnessInconsistent):
        make_witness("w", log).add_checkpoint(log.checkpoint(), 0, [bytes(32)], 1)


def test_an_unknown_log_and_a_foreign_signature_are_refused() -> None:
    """404 and 403; nothing is remembered."""
    log, foreign = grown(3), MemoryLog("example.com/other", HYBRID_LOG)
    witness = make_witness("w", log)
    with pytest.raises(OriginUnknown):
        witness.add_checkpoint(foreign.checkpoint(), 0, [], 1)
    for forger in (MemoryLog(ORIGIN, HYBRID_LOG), MemoryLog(ORIGIN, HYBRID_LOG[:1])):
        with pytest.raises(LogSignatureWrong):
            witness.add_checkpoint(forger.checkpoint(), 0, [], 1)
    half = log.checkpoint().split(b"\n\n")
    only_one = half[0] + b"\n\n" + half[1].splitlines(keepends=True)[0]
    with pytest.raises(LogSignatureWrong):
        witness.add_checkpoint(only_one, 0, [], 1)
    assert witness.latest(ORIGIN) is None


def test_a_witness_refuses_to_exist_without_cosignature_keys() -> None:
    """A plain Ed25519 key signs no time."""
    log = grown(1)
    for signers in ([], [Signer.generate("w", SignatureType.ED25519)]):
        with pytest.raises(FormatError):
            Witness(signers, [s.verifier for s in log.signers], MemoryWitnessStore())


def test_a_faster_checkpoint_in_between_is_noticed() -> None:
    """The race of the specification: the slower request may not roll back the store."""
    log = grown(6)

    class Racing(MemoryWitnessStore):
        is_raced = False

        def replace(self, origin: str, old: Remembered | None, new: Remembered) -> None:
            if not self.is_raced:
                self.is_raced = True
                super().replace(origin, old, Remembered(log.checkpoint(6)))
            super().replace(origin, old, new)

    store = Racing()
    witness = make_witness("w", log, store)
    with pytest.raises(WitnessRefusal):
        witness.add_checkpoint(log.checkpoint(4), 0, [], 1)
    assert witness.size(ORIGIN) == 6
    with pytest.raises(StoreConflict):
        MemoryWitnessStore().replace(ORIGIN, Remembered(b"x"), Remembered(b"y"))


def test_the_protocol_body_is_answered_with_cosignature_lines() -> None:
    """C2SP tlog-witness add-checkpoint, through text."""
    log = grown(7)
    witness = make_witness("w", log)
    witness.answer(make_request(0, [], log.checkpoint(3)), 1)
    body = make_request(3, log.consistency(3), log.checkpoint())
    assert parse_request(body)[0] == 3
    lines = witness.answer(body, 2)
    open_note(log.checkpoint() + lines, witness.verifiers)


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda b: b.replace(b"old 3", b"old 03"), 400),
        (lambda b: b.replace(b"old 3", b"old"), 400),
        (lambda b: b.replace(b"old 3\n", b""), 400),
        (lambda b: b.replace(b"\n", b"\r\n"), 400),
        (lambda b: b.replace(b"old 3", b"old 99"), 400),
        (lambda b: b.replace(b"old 3\n", b"old 3\nAAAA\n"), 400),
        (lambda b: b.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 64), 400),
        (lambda b: b.replace(b"old 3", b"old 2"), 409),
        (lambda b: b.replace(b"old 3\n", b"old 3\n" + b"A" * 43 + b"=\n"), 422),
        (lambda b: b.replace(b"\n7\n", b"\n6\n"), 403),
        (lambda b: b.replace(b"example.com/log\n", b"example.com/lug\n"), 404),
        (lambda b: b"", 400),
    ],
)
def test_a_wrong_body_gets_the_status_of_the_specification(spoil, status: int) -> None:  # type: ignore[no-untyped-def]
    """400 malformed, 403 signature, 404 origin, 409 size, 422 proof."""
    log = grown(7)
    witness = make_witness("w", log)
    witness.answer(make_request(0, [], log.checkpoint(3)), 1)
    body = spoil(make_request(3, log.consistency(3), log.checkpoint()))
    with pytest.raises(AuditError) as raised:
        witness.answer(body, 2)
    error = raised.value
    assert (error.status if isinstance(error, WitnessRefusal) else 400) == status


def test_a_second_preimage_of_a_node_as_a_leaf_is_impossible() -> None:
    """Leaves and nodes are hashed with different prefixes (RFC 6962 §2.1)."""
    log = grown(2)
    pair = log.tree.leaf(0) + log.tree.leaf(1)
    forged = log.rewritten([pair])
    assert forged.tree.root() != log.tree.root() == node_hash(log.tree.leaf(0), log.tree.leaf(1))


def test_a_log_may_sign_under_another_name_than_its_origin() -> None:
    """The Go checksum database does; its keys are pinned by origin then."""
    log = grown(0)
    other = MemoryLog("go.sum database tree", ())
    other.signers = (Signer.generate("sum.example.org", SignatureType.ED25519),)
    other.append(b"a", b"b")
    witness = Witness(
        [Signer.generate("w", SignatureType.COSIGNATURE_ED25519)],
        {log.origin: [s.verifier for s in log.signers], other.origin: [s.verifier for s in other.signers]},
        MemoryWitnessStore(),
    )
    assert witness.answer(make_request(0, [], other.checkpoint()), 1).startswith("— w ".encode())
    assert (witness.size(other.origin), witness.size(log.origin)) == (2, 0)


def test_an_empty_tree_with_a_false_root_is_unprocessable() -> None:
    """422 if the log signed it, 404 and 403 before that (tlog-witness)."""
    log = MemoryLog(ORIGIN)
    witness = make_witness("w", log)

    def body(origin: str, signer: Signer) -> bytes:
        text = f"{origin}\n0\n{'A' * 43}=\n".encode()
        return b"old 0\n\n" + sign_note(text, [signer], 1)

    stranger = Signer.generate(ORIGIN, SignatureType.ED25519)
    for request, status in (
        (body(ORIGIN, log.signers[0]), 422),
        (body(ORIGIN, stranger), 403),
        (body("example.com/lug", log.signers[0]), 404),
    ):
        with pytest.raises(WitnessRefusal) as raised:
            witness.answer(request, 1)
        assert raised.value.status == status


def test_a_false_empty_tree_is_judged_in_the_order_of_the_specification() -> None:
    """The old size first (400), then what the witness has (409), then the root (422)."""
    log = grown(3)
    witness = make_witness("w", log)
    false = sign_note(f"{ORIGIN}\n0\n{'A' * 43}=\n".encode(), log.signers, 1)
    with pytest.raises(FormatError):
        witness.answer(b"old 3\n\n" + false, 1)
    with pytest.raises(WitnessInconsistent):
        witness.answer(b"old 0\n\n" + false, 1)
    witness.answer(make_request(0, [], log.checkpoint()), 1)
    with pytest.raises(WitnessStale) as raised:
        witness.answer(b"old 0\n\n" + false, 1)
    assert raised.value.size == 3


def test_a_rollback_raises_the_alarm_even_where_the_request_is_malformed() -> None:
    """Old size 5 for a checkpoint of 3 is status 400; that the log signed it is kept all the same."""
    log = grown(5)
    witness = make_witness("w", log)
    witness.add_checkpoint(log.checkpoint(), 0, [], 1)
    with pytest.raises(FormatError):
        witness.answer(make_request(5, [], log.checkpoint(3)), 100)
    assert [alarm.finding for alarm in witness.alarms()] == ["rollback"]
    with pytest.raises(FormatError):
        witness.answer(make_request(9, [], log.checkpoint()), 100)
    assert len(witness.alarms()) == 1


def test_an_overtaken_checkpoint_is_refused_without_an_alarm_and_a_restored_backup_is_not() -> None:
    """Push and pull may cross within seconds; the same note a minute later is a rollback."""
    log = grown(5)
    witness = make_witness("w", log)
    signed = 1_700_000_000
    witness.add_checkpoint(log.checkpoint(5, signed), 0, [], signed)
    with pytest.raises(WitnessRollback):
        witness.add_checkpoint(log.checkpoint(3, signed - 1), 5, [], signed + 2)
    assert witness.alarms() == ()
    for note, time_s in ((log.checkpoint(3, signed - 1), signed + 60), (log.checkpoint(2, signed + 1), signed + 2)):
        with pytest.raises(WitnessRollback):
            witness.add_checkpoint(note, 5, [], time_s)
    assert {alarm.finding for alarm in witness.alarms()} == {"rollback"}
    assert len(witness.alarms()) == 2
