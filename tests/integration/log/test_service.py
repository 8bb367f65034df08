"""The log on both databases: entries, proofs, checkpoints, cosignatures, restarts, evidence packs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from convoy_audit.archive import verify_pack, write_pack
from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.errors import AuditError, EvidenceError, FormatError, ProofError, SignatureError, WitnessRollback
from convoy_audit.evidence import verify_evidence
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import leaf_hash, root, verify_consistency, verify_inclusion
from convoy_audit.note import Signer, open_note
from convoy_audit.testing import HYBRID_WITNESS, MemoryWitnessStore
from convoy_audit.witness import Witness
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.log import LogService
from convoy_coordinator.log.export import evidence_parts
from convoy_coordinator.log.levels import Level

Start = Callable[[], LogService]
Entry = Callable[[int], bytes]
Witnesses = Mapping[str, Witness]


def cosign(log: LogService, witnesses: Witnesses, *parties: str) -> str:
    """Have the log's newest checkpoint cosigned; return the lines."""
    note = log.checkpoint()
    size = log.size()
    lines = ""
    for party in parties:
        old = witnesses[party].size(log.origin)
        lines += witnesses[party].add_checkpoint(note.encode(), old, log.consistency(old, size), 1_700_000_000).lines
    return note + lines


def test_entries_come_back_in_order_and_are_proven(start: Start, entry: Entry) -> None:
    """Index, inclusion and consistency, for every size."""
    log = start()
    assert log.size() == 0
    assert log.append_many([]) == []
    assert [log.append(entry(number)) for number in range(5)] == list(range(5))
    assert log.append_many([entry(5), entry(6)]) == [5, 6]
    assert log.entries(0, 7) == [entry(number) for number in range(7)]
    roots = [root(leaf_hash(entry(n)) for n in range(size)) for size in range(8)]
    for size in range(1, 8):
        for index in range(size):
            verify_inclusion(leaf_hash(entry(index)), index, size, log.inclusion(index, size), roots[size])
        for old in range(1, size + 1):
            verify_consistency(old, size, log.consistency(old, size), roots[old], roots[size])
    for wrong in ((7, 7), (-1, 7), (0, 8)):
        with pytest.raises(ProofError):
            log.inclusion(*wrong)
    for wrong in ((-1, 3), (3, 2), (0, 8)):
        with pytest.raises(ProofError):
            log.entries(*wrong)


def test_what_is_no_entry_is_refused_and_nothing_of_its_batch_is_taken(start: Start, entry: Entry) -> None:
    """Not canonical, not of the catalogue, too long."""
    log = start()
    for bad in (b"", b"{}", b"x", entry(1) + b" ", b"x" * 65_536, entry(1).replace(b"run-1", b"r" * 20_000)):
        with pytest.raises(FormatError):
            log.append_many([entry(0), bad])
    assert log.size() == 0


def test_a_checkpoint_is_signed_by_both_keys_and_once_a_size(start: Start, entry: Entry) -> None:
    """Also of the empty log; the same size gives the same note, also after a restart."""
    log = start()
    assert log.latest() is None
    first = log.checkpoint()
    assert log.checkpoint() == first
    log.append(entry(0))
    second = log.checkpoint()
    opened, note = open_checkpoint(second.encode(), log.verifiers)
    assert opened.size == 1
    assert len(note.signatures) == 2
    again = start()
    assert again.checkpoint() == second == again.latest()
    assert again.checkpoints() == [first, second]


def test_cosignatures_add_up_to_the_quorum_and_survive(start: Start, entry: Entry, witnesses: Witnesses) -> None:
    """Two of four are too few, the third makes it; twice the same counts once."""
    log = start()
    log.append_many([entry(0), entry(1)])
    standing = log.add_cosignatures(cosign(log, witnesses, "oem", "insurer"))
    assert standing.as_json() == {
        "size": 2,
        "cosigned": 2,
        "parties": ["insurer", "oem"],
        "needed": 3,
        "quorum": False,
    }
    assert not log.add_cosignatures(cosign(log, witnesses, "oem")).has_quorum
    with pytest.raises(EvidenceError):
        evidence_parts(log, policy=log.policy(), made_at=datetime.now(UTC))
    assert log.add_cosignatures(cosign(log, witnesses, "auditor")).has_quorum
    assert (log.witness_size("oem"), log.witness_size("charging")) == (2, 0)
    again = start()
    assert again.cosigning(2).has_quorum
    own = witnesses["oem"].verifiers
    assert verify_evidence(again.evidence(1), again.policy(), require=own).index == 1


def test_a_wrong_or_foreign_cosignature_is_not_kept(start: Start, entry: Entry, witnesses: Witnesses) -> None:
    """Forged line, other checkpoint, stranger, nobody."""
    log = start()
    log.append(entry(0))
    note = cosign(log, witnesses, "oem")
    bare = log.checkpoint()
    text_of = bare.split("\n\n")[0] + "\n"
    stranger = Signer.generate("stranger", SignatureType.COSIGNATURE_ED25519)
    for wrong, error in (
        (note.replace("\n1\n", "\n2\n"), FormatError),
        (note[:-8] + "AAAA" + note[-4:], AuditError),
        (bare, SignatureError),
        (bare + stranger.line(text_of.encode(), 1), SignatureError),
        ("nonsense", FormatError),
    ):
        with pytest.raises(error):
            log.add_cosignatures(wrong)
    assert log.cosigning(1).parties == ()
    assert log.add_cosignatures(note + stranger.line(text_of.encode(), 1)).parties == ("oem",)
    assert "stranger" not in str(log.latest())


def test_two_coordinators_on_one_database_do_not_fork(start: Start, entry: Entry) -> None:
    """The slower one stops; nothing is lost."""
    first, second = start(), start()
    first.append(entry(0))
    with pytest.raises(Problem):
        second.append(entry(1))
    with ThreadPoolExecutor(8) as pool:
        indexes = list(pool.map(first.append, map(entry, range(1, 101))))
    assert sorted(indexes) == list(range(1, 101))
    assert start().size() == 101


def test_a_restored_backup_is_noticed_by_the_witness_and_by_the_log(
    start: Start, entry: Entry, witnesses: Witnesses, engine: Engine
) -> None:
    """The database is set back to an earlier, consistent state, checkpoints and cosignatures too."""
    log = start()
    log.append_many([entry(0), entry(1)])
    cosign(log, witnesses, "oem")
    log.append(entry(2))
    cosign(log, witnesses, "oem")
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM log_checkpoint WHERE size > 2"))
        connection.execute(text("DELETE FROM log_frontier WHERE size > 2"))
        connection.execute(text("DELETE FROM log_entry WHERE idx > 1"))
    restored = start()
    with pytest.raises(WitnessRollback):
        witnesses["oem"].add_checkpoint(restored.checkpoint().encode(), 3, [], 1)
    note = witnesses["oem"].latest(log.origin)
    assert note is not None
    with pytest.raises(SetupError) as raised:
        restored.refuse_behind([note])
    assert raised.value.code == "LOG_BEHIND_WITNESS"
    with pytest.raises(SetupError) as raised:
        restored.refuse_smaller_than({"oem": witnesses["oem"].size(log.origin)})
    assert raised.value.party == "oem"


def test_a_lost_tail_is_noticed_at_the_start(start: Start, entry: Entry, engine: Engine) -> None:
    """The checkpoint that was signed says so."""
    log = start()
    log.append(entry(0))
    log.append(entry(1))
    log.checkpoint()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM log_frontier WHERE size > 1"))
        connection.execute(text("DELETE FROM log_entry WHERE idx > 0"))
    with pytest.raises(SetupError):
        start()


def test_a_pack_of_the_log_verifies_offline(start: Start, entry: Entry, witnesses: Witnesses, tmp_path: Path) -> None:
    """Up to the last checkpoint with the quorum; what came later is left out."""
    log = start()
    log.append_many([entry(number) for number in range(300)])
    log.checkpoint()
    log.append(entry(300))
    log.add_cosignatures(cosign(log, witnesses, "oem", "insurer", "auditor"))
    log.append(entry(301))
    log.checkpoint()
    parts = evidence_parts(log, policy=log.policy(), made_at=datetime.now(UTC))
    verdict = verify_pack(write_pack(tmp_path / "pack.zip", parts), log.policy())
    assert verdict.is_verified, verdict.faults
    assert (verdict.entries, verdict.witnesses) == (301, ("auditor", "insurer", "oem"))


def test_with_more_witnesses_than_a_note_has_room_for_each_reads_its_own(
    start: Start, entry: Entry, witnesses: dict[str, Witness]
) -> None:
    """Fifty-three: the cosignatures come in two notes, the quorum counts all, every reader finds its own two lines."""
    log = start()
    for number in range(49):
        name = f"node-{number:02}"
        keys = [Signer.generate(name, kind) for kind in HYBRID_WITNESS]
        witnesses[name] = Witness(keys, log.verifiers, MemoryWitnessStore())
    log.append(entry(0))
    log.add_cosignatures(cosign(log, witnesses, *sorted(witnesses)[:30]))
    assert log.level_of(0) < Level.WITNESSED
    standing = log.add_cosignatures(cosign(log, witnesses, *sorted(witnesses)[30:]))
    assert (len(standing.parties), standing.needed, standing.has_quorum) == (49, 36, True)
    assert log.level_of(0) is Level.WITNESSED
    for party, witness in witnesses.items():
        note = log.at(1, party)
        assert note is not None
        opened = open_note(note.encode(), witness.verifiers)
        assert len(opened.signatures) == 2
        assert log.policy().standing(note.encode()).has_quorum
    assert str(log.at(1)).count("\n— ") == 100
