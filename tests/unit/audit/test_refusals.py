"""What a stranger may send and an auditor may be handed: every fault is one of ours, and nothing that must be refused gets through."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from convoy_audit import canonical, cli, fsck, keys, pack, tiles
from convoy_audit.archive import verify_pack
from convoy_audit.checkpoint import Checkpoint, parse_checkpoint
from convoy_audit.cosignature import message
from convoy_audit.errors import AuditError, FormatError, KeyRejected, LogSignatureWrong, ProofError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import verify_consistency
from convoy_audit.note import SignatureLine, Signer, Verifier, open_note, parse_vkey, sign_note
from convoy_audit.policy import parse_policy
from convoy_audit.proof import TlogProof, parse_proof, verify_proof
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.statement import statement_from_json
from convoy_audit.testing import MemoryLog, make_witness
from convoy_audit.tiles import Span, encode_bundle, entries_path, tile_data, tile_path
from convoy_audit.watch import fetcher
from convoy_audit.witness import Alarm, make_request, parse_request

ED, CO, PQ = SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44


def one_key_log() -> MemoryLog:
    log = MemoryLog("example.com/log", (ED,))
    log.append(b"entry")
    return log


# Signed notes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoilt", [bytes(64), b"\x01"], ids=["of zeros", "of one byte"])
@pytest.mark.parametrize("is_first", [True, False])
def test_every_line_of_a_known_key_is_verified(spoilt: bytes, is_first: bool) -> None:
    """signed-note: a known key's signature MUST be verified; a witness answers 403 wherever the wrong one stands."""
    log = one_key_log()
    note, key = log.checkpoint(), log.signers[0].verifier
    head, good = note.split(b"\n\n")
    wrong = str(SignatureLine(key.name, key.key_id, spoilt)).encode()
    both = head + b"\n\n" + (wrong + good if is_first else good + wrong)
    with pytest.raises((SignatureError, FormatError)):
        open_note(both, [key])
    with pytest.raises((LogSignatureWrong, FormatError)):
        make_witness("w.example", log).answer(make_request(0, [], both), 1)


def test_lines_that_repeat_count_once_known_or_not() -> None:
    """Also the specification's own vector: two times the same verified and two times the same unknown signature."""
    log = one_key_log()
    head, good = log.checkpoint().split(b"\n\n")
    stranger = Signer.generate("stranger.example", ED).line(head + b"\n").encode()
    opened = open_note(head + b"\n\n" + (good + stranger) * 3, [log.signers[0].verifier])
    assert (len(opened.signatures), len(opened.unverified)) == (1, 1)


def test_two_times_of_one_cosigner_are_one_signature() -> None:
    """Both are verified; the first is the one that counts."""
    log, witness = one_key_log(), Signer.generate("w.example", CO)
    note = log.checkpoint()
    text = note.split(b"\n\n")[0] + b"\n"
    opened = open_note(note + witness.line(text, 5).encode() + witness.line(text, 7).encode(), [witness.verifier])
    assert [found.time_s for found in opened.signatures] == [5]


def test_a_name_that_no_cosignature_can_carry_is_no_name_of_such_a_key() -> None:
    """``cosigner_name<1..2^8-1>``: 255 bytes for ML-DSA-44; an Ed25519 cosigner has no such limit."""
    public = Signer.generate("w", PQ).verifier.public
    assert Verifier("n" * 255, PQ, public)
    with pytest.raises(KeyRejected):
        Verifier("n" * 256, PQ, public)
    assert Verifier("n" * 256, CO, Signer.generate("w", CO).verifier.public)


def test_a_witness_without_a_clock_signs_nothing() -> None:
    """tlog-witness: the timestamp MUST NOT be zero; nothing is remembered either."""
    log = one_key_log()
    witness = make_witness("w.example", log)
    for time_s in (0, -1, 1.5, None, "1"):
        with pytest.raises(FormatError):
            witness.add_checkpoint(log.checkpoint(), 0, [], time_s)  # type: ignore[arg-type]
    assert witness.size(log.origin) == 0


# Policies ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["9" * 5000, "9" * 19, "0", "2", "01", "1.0", "-1", "１", "²"])
def test_a_threshold_is_a_decimal_number_from_one_to_the_members(threshold: str) -> None:
    """Also one of thousands of digits, in a policy of its own and in the one of a pack."""
    witness = Signer.generate("w.example", CO)
    policy = f"witness a {witness.vkey}\ngroup g {threshold} a\nquorum g\n"
    with pytest.raises(AuditError):
        parse_policy(policy)
    files = dict(pack.build(Rehearsal().parts()))
    files["policy"] = policy.encode()
    assert not pack.verify_files(files).is_verified


def test_a_policy_of_thousands_of_groups_is_read() -> None:
    """As long as the file may be; a member of two groups is found among them."""
    names = [f"g{number}" for number in range(20_000)]
    chain = "".join(f"group {name} all {before}\n" for before, name in zip(["a", *names], names, strict=False))
    text = f"witness a {Signer.generate('w.example', CO).vkey}\n{chain}quorum {names[-1]}\n"
    assert parse_policy(text).is_met_by(["a"])
    with pytest.raises(AuditError, match="another group"):
        parse_policy(text + f"group last all {names[0]}\n")


# Types -------------------------------------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[Any], Any]] = {
    "parse_vkey": parse_vkey,
    "open_note": lambda given: open_note(given, [Signer.generate("a", ED).verifier]),
    "open_note, keys": lambda given: open_note(one_key_log().checkpoint(), [given]),
    "parse_checkpoint": parse_checkpoint,
    "a root": lambda given: Checkpoint("example.com/log", 1, given),
    "a size": lambda given: Checkpoint("example.com/log", given, bytes(32)),
    "an origin": lambda given: Checkpoint(given, 1, bytes(32)),
    "parse_policy": parse_policy,
    "parse_proof": parse_proof,
    "verify_proof": lambda given: verify_proof(given, bytes(32), Rehearsal().policy),
    "parse_path": tiles.parse_path,
    "decode_bundle": lambda given: tiles.decode_bundle(given, 1),
    "encode_bundle": lambda given: encode_bundle([given]),
    "parse_canonical": canonical.parse_canonical,
    "parse_json": canonical.parse_json,
    "unb64": canonical.unb64,
    "unb64u": lambda given: canonical.unb64u(given) if isinstance(given, str) else FormatError,
    "parse_request": parse_request,
    "an Ed25519 key": keys.check_ed25519_public,
    "a signature": lambda given: keys.verify_ed25519(Signer.generate("a", ED).verifier.public, b"text", given),
    "sign_note": lambda given: sign_note(given, [Signer.generate("a", ED)]),
    "a secret": Signer.parse,
    "a time": lambda given: message(CO, "a", b"text\n", given),
}


@pytest.mark.parametrize("given", [None, 5, 1.5, "text", [b"x"], "\ud800", True], ids=repr)
@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_of_another_type_raises_one_family_of_errors(name: str, given: Any) -> None:
    """Bytes or text where a file is read, text where a key is; nothing else is tried."""
    if name == "a time" and type(given) is int:
        given = -1
    if name == "a size" and given == 5 and type(given) is int:
        given = 2**63
    if name == "an origin" and given == "text":
        given = "with\rreturn"
    if name == "parse_json" and given == "text":
        given = "{"
    if name == "unb64" and given == "text":
        given = "text="
    if name == "unb64u" and not isinstance(given, str):
        return
    if name == "unb64u" and given == "text":
        given = "te xt"
    with pytest.raises(AuditError):
        WRONG[name](given)


def test_a_checkpoint_and_a_proof_may_come_as_text() -> None:
    """As they stand in a JSON file of vectors."""
    log = one_key_log()
    text = log.checkpoint().split(b"\n\n")[0] + b"\n"
    assert parse_checkpoint(text.decode()) == parse_checkpoint(text)
    proof = TlogProof(0, (), log.checkpoint()).text
    assert parse_proof(proof.decode()) == parse_proof(proof)


@pytest.mark.parametrize("roots", [(None, None), ("x", "x"), (5, 5), ([], [])], ids=repr)
def test_equal_roots_are_bytes(roots: Any) -> None:
    """Between equal sizes nothing is hashed, so their type is all that is left to see."""
    with pytest.raises(ProofError):
        verify_consistency(1, 1, [], *roots)


def test_numbers_beyond_a_double_are_no_json() -> None:
    """``1e400`` would be read as infinity; an integer of thousands of digits can be neither written nor shown."""
    for text in ("1e400", "-1e999"):
        with pytest.raises(FormatError):
            canonical.parse_json(text)
    for value in (10**5000, float("inf"), float("nan"), 2**53, {"a": object()}):
        with pytest.raises(FormatError):
            canonical.canonical_bytes(value)


# One and true --------------------------------------------------------------------------------------------------------------


def test_true_is_no_version() -> None:
    """SPEC.md §2.3: ``v`` is 1; in JSON of Python's reading ``true`` would be equal to it."""
    files = dict(pack.build(Rehearsal().parts()))
    about = canonical.parse_canonical(files["pack.json"])
    files["pack.json"] = canonical.canonical_bytes(about | {"v": True})
    assert not pack.verify_files(files).is_verified
    log = one_key_log()
    alarm = canonical.parse_canonical(Alarm(log.origin, "fork", log.checkpoint(), log.checkpoint()).to_bytes())
    with pytest.raises(FormatError):
        Alarm.from_bytes(canonical.canonical_bytes(alarm | {"v": True}))
    stated = next(raw for raw in Rehearsal().log.entries if b"party:statement:filed" in raw)
    with pytest.raises(FormatError):
        statement_from_json(canonical.parse_canonical(stated) | {"v": True}, stated)


# Files -------------------------------------------------------------------------------------------------------------------


def spoilt_zip(path: Path, method: int, spoil: Callable[[bytearray], None]) -> Path:
    """Write a pack as a zip, its checkpoint first, and spoil the bytes of the file."""
    files = dict(pack.build(Rehearsal().parts()))
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in sorted(files, key=lambda name: (name != "checkpoint", name)):
            archive.writestr(name, files[name])
    content = bytearray(path.read_bytes())
    spoil(content)
    path.write_bytes(content)
    return path


def overwrite(start: int, end: int) -> Callable[[bytearray], None]:
    def spoil(content: bytearray) -> None:
        content[start:end] = bytes(octet ^ 0xA5 for octet in content[start:end])

    return spoil


def foreign_name(content: bytearray) -> None:
    """Say that the name in the central directory is UTF-8, and spoil it."""
    at = content.index(b"PK\x01\x02")
    content[at + 9] |= 0x08
    content[at + 46] = 0xFF


def newer_format(content: bytearray) -> None:
    at = content.index(b"PK\x01\x02")
    content[at + 6] = 200


ZIPS: dict[str, tuple[int, Callable[[bytearray], None]]] = {
    "damaged deflate": (zipfile.ZIP_DEFLATED, overwrite(42, 60)),
    "damaged bzip2": (zipfile.ZIP_BZIP2, overwrite(42, 90)),
    "damaged lzma": (zipfile.ZIP_LZMA, overwrite(42, 90)),
    "a name that is not UTF-8": (zipfile.ZIP_DEFLATED, foreign_name),
    "of a later version": (zipfile.ZIP_DEFLATED, newer_format),
}


@pytest.mark.parametrize("name", list(ZIPS))
def test_a_zip_that_cannot_be_read_is_said_to_be_so(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback, and never the exit code of a log that was found wrong without a fault that says what."""
    path = spoilt_zip(tmp_path / "pack.zip", *ZIPS[name])
    with suppress(AuditError):
        assert not verify_pack(path).is_verified
    for command in ("verify", "fsck"):
        assert cli.main([command, str(path)]) in (1, 2)
        said = capsys.readouterr()
        assert "None" not in said.out + said.err
        assert "zip" in said.err or "unpacked" in said.out + said.err


@pytest.mark.parametrize("body", ["'text'", "NULL", "7"])
def test_a_database_of_other_types_is_no_log(tmp_path: Path, body: str, capsys: pytest.CaptureFixture[str]) -> None:
    """``show`` and ``fsck`` name the row."""
    log, path = one_key_log(), tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE log_entry(idx, leaf, body); CREATE TABLE log_frontier(size, frontier);"
            f"CREATE TABLE log_checkpoint(note); INSERT INTO log_entry VALUES (0, x'00', {body});"
        )
        database.execute("INSERT INTO log_checkpoint VALUES (?)", (log.checkpoint().decode(),))
        database.commit()
    assert cli.main(["show", str(path), "0"]) == 2
    assert "row 0" in capsys.readouterr().err
    assert cli.main(["fsck", str(path)]) == 1


def test_fsck_judges_every_tile_and_bundle_that_is_there(tmp_path: Path) -> None:
    """Partial ones of earlier sizes too; what reaches beyond the checkpoint is left, because nothing says what it should be."""
    log = MemoryLog("example.com/log", (ED,))
    log.append(*(b"entry %d" % number for number in range(300)))
    good = {"checkpoint": log.checkpoint(), entries_path(0): encode_bundle(log.entries[:256])}
    good |= {entries_path(1, 44): encode_bundle(log.entries[256:])}
    good |= {
        entries_path(0, 5): encode_bundle(log.entries[:5]),
        entries_path(1, 9): encode_bundle(log.entries[256:265]),
    }
    for span in (Span(0, 0, 256), Span(0, 0, 5), Span(0, 1, 44), Span(1, 0, 1)):
        good[tile_path(span.level, span.index, span.width)] = tile_data(log.tree, span)
    beyond = {tile_path(0, 1): bytes(256 * 32), entries_path(1): b"not signed yet"}

    def faults(files: dict[str, bytes], name: str) -> list[str]:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return [fault.cause for fault in fsck.check_log(tmp_path / name).faults if "tile" in fault.cause]

    assert faults(good | beyond, "good") == []
    for number, path in enumerate(sorted(set(good) - {"checkpoint"})):
        spoilt = bytearray(good[path])
        spoilt[-1] ^= 1
        found = faults(good | {path: bytes(spoilt)}, f"spoilt-{number}")
        assert found or path in (entries_path(0), entries_path(1, 44)), path
        findings = fsck.check_log(tmp_path / f"spoilt-{number}")
        assert findings.faults, path
    assert "not the path of a tile" in faults(good | {"tile/0/01": b""}, "odd")[0]


def test_a_full_bundle_stands_for_the_partial_one_that_is_gone(tmp_path: Path) -> None:
    """tlog-tiles: a log may delete a partial tile once the full one exists; an older checkpoint still fits."""
    log = MemoryLog("example.com/log", (ED,))
    log.append(*(b"entry %d" % number for number in range(200)))
    note = log.checkpoint()
    log.append(*(b"entry %d" % number for number in range(200, 256)))
    (tmp_path / "tile/entries").mkdir(parents=True)
    (tmp_path / "checkpoint").write_bytes(note)
    (tmp_path / entries_path(0)).write_bytes(encode_bundle(log.entries))
    findings = fsck.check_log(tmp_path)
    assert findings.size == 200
    assert not [fault for fault in findings.faults if "missing" in fault.cause or "signed" in fault.cause]


def test_a_tile_beyond_its_tree_is_none() -> None:
    """Neither short data nor an index out of range; no path beyond 2^63, no bundle of 257."""
    log = one_key_log()
    for span in (Span(0, 0, 2), Span(0, 1, 1), Span(1, 0, 1), Span(0, -1, 1), Span(0, 0, 0)):
        with pytest.raises(FormatError):
            tile_data(log.tree, span)
    for index in (10**21, 2**63):
        with pytest.raises(FormatError):
            tile_path(0, index)
    with pytest.raises(FormatError):
        encode_bundle([b"x"] * 257)


# The command ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", ["-1", "nan", "0", "1e9", "soon"])
def test_watch_looks_at_a_pace_that_can_be_kept(tmp_path: Path, pause: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before the first look, with the exit code of a wrong command, never with that of an alarm."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["watch", str(tmp_path), "--state", str(tmp_path / "state"), "--every", pause])
    assert ended.value.code == 2
    assert "seconds" in capsys.readouterr().err


def test_an_address_that_is_none_is_out_of_reach() -> None:
    """One error, which says so."""
    with pytest.raises(FormatError, match="cannot be reached"):
        fetcher("http://a b/")("checkpoint")
