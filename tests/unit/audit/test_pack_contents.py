"""What a pack holds beside the log: single proofs, growth, lists, cards, report, trusted time. None of it can lie."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convoy_audit import timestamps
from convoy_audit.canonical import b64
from convoy_audit.errors import AuditError, EvidenceError, FormatError
from convoy_audit.merkle import leaf_hash
from convoy_audit.note import split_note
from convoy_audit.pack import SUMS, build, verify_files
from convoy_audit.proof import parse_proof, verify_proof
from convoy_audit.rehearsal import RUN, Rehearsal

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

from time_authority import TimeAuthority

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def told() -> tuple[Rehearsal, Files]:
    """A rehearsal and the files of its pack."""
    rehearsal = Rehearsal()
    return rehearsal, build(rehearsal.parts())


def resummed(files: Files) -> Files:
    lines = [f"{hashlib.sha256(files[n]).hexdigest()}  {n}\n" for n in sorted(files) if n != SUMS]
    return files | {SUMS: "".join(lines).encode()}


def faults(files: Files) -> str:
    return "; ".join(map(str, verify_files(resummed(files)).faults))


def test_the_entries_that_matter_carry_their_own_proof(told: tuple[Rehearsal, Files]) -> None:
    """Activation, authorisation, release, denial: each a C2SP tlog-proof that verifies by itself."""
    rehearsal, files = told
    proofs = {name: parse_proof(content) for name, content in files.items() if name.startswith("proofs/")}
    kinds = set()
    for proof in proofs.values():
        raw = rehearsal.log.entries[proof.index]
        verify_proof(proof, leaf_hash(raw), rehearsal.policy)
        value = json.loads(raw)
        kinds.add(value.get("event", value)["type"])
    assert kinds == {
        "coordinator:contract:activated",
        "coordinator:run:authorised",
        "coordinator:release:published",
        "node:run:decided",
    }


@pytest.mark.parametrize(
    "prefix", ["proofs/", "consistency/", "decisions.json", "ledgers.json", "report.html", "releases/run-1/card.md"]
)
def test_a_changed_convenience_file_is_found_even_with_new_sums(told: tuple[Rehearsal, Files], prefix: str) -> None:
    """Every byte of it is derived again or bound by a logged digest."""
    _, files = told
    (name, *_) = sorted(n for n in files if n.startswith(prefix))
    content = files[name]
    for at in (0, len(content) // 2, len(content) - 1):
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert faults(files | {name: changed}), (name, at)
    assert faults(files | {name: content + b" "})


def test_convenience_files_may_be_absent_and_strange_ones_may_not(told: tuple[Rehearsal, Files]) -> None:
    """An older pack has none; a proof of an entry that is not there, or a second report, belongs to no pack."""
    _, files = told
    kept = {n: c for n, c in files.items() if not n.startswith(("proofs/", "consistency/")) and n != "report.html"}
    assert not faults(kept)
    some = next(content for name, content in files.items() if name.startswith("proofs/"))
    for name in ("proofs/99.tlog-proof", "proofs/0.tlog-proof", "report.pdf", "consistency/1.json", "timestamps/1.tsr"):
        assert faults(files | {name: some}), name


def test_a_proof_under_another_good_checkpoint_is_refused(told: tuple[Rehearsal, Files]) -> None:
    """All proofs of a pack speak of its one checkpoint."""
    rehearsal, files = told
    name = next(n for n in files if n.startswith("proofs/"))
    proof = parse_proof(files[name])
    other = replace(proof, checkpoint=rehearsal.log.checkpoint(time_s=1_700_000_009))
    assert "another checkpoint" in faults(files | {name: other.text})


def test_growth_is_proven_from_every_earlier_checkpoint(told: tuple[Rehearsal, Files]) -> None:
    """And a shortened proof is refused."""
    _, files = told
    (name,) = [n for n in files if n.startswith("consistency/")]
    value = json.loads(files[name])
    assert f"checkpoints/{value['from']}" in files
    for change in (
        {"proof": value["proof"][:-1]},
        {"proof": [b64(bytes(32))]},
        {"to": 1},
        {"from": "x"},
        {"proof": "x"},
    ):
        assert faults(files | {name: json.dumps(value | change, sort_keys=True, separators=(",", ":")).encode()})


def test_the_report_is_one_bilingual_page_from_the_log_alone(told: tuple[Rehearsal, Files]) -> None:
    """Names, numbers, limits, how to verify; no script and no address to load from."""
    rehearsal, files = told
    page = files["report.html"].decode()
    for words in (
        "Convoy evidence report",
        "证据报告",
        RUN,
        "did:web:oem.example",
        "2.900",
        "局限",
        "convoy-audit verify",
    ):
        assert words in page
    assert rehearsal.log.tree.root().hex() in page
    assert "<script" not in page
    assert "http" not in page.replace("<!doctype html>", "")
    assert len(page) < 20_000


def test_decisions_and_ledgers_are_listed_with_their_entries(told: tuple[Rehearsal, Files]) -> None:
    """A reader can go from a row to the entry."""
    rehearsal, files = told
    rows = json.loads(files["decisions.json"])["decisions"]
    assert [row["outcome"] for row in rows] == ["allow"] * 4 + ["deny"]
    assert rows[-1]["reasons"] == ["BUDGET_EXHAUSTED"]
    assert b"BUDGET_EXHAUSTED" in rehearsal.log.entries[rows[-1]["entry"]]
    ledgers = json.loads(files["ledgers.json"])["ledgers"]
    assert {(row["totalMicro"], row["capMicro"]) for row in ledgers} == {(2_900_000, 6_000_000)}


# Trusted time -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> TimeAuthority:
    """A time-stamping authority of our own."""
    return TimeAuthority(tmp_path_factory.mktemp("tsa"))


def stamp(tsa: TimeAuthority, text: bytes) -> bytes:
    return tsa.reply(timestamps.request(text))


def test_a_time_stamp_of_the_checkpoint_is_verified_offline(told: tuple[Rehearsal, Files], tsa: TimeAuthority) -> None:
    """With the TSA's root from the auditor; without it the verdict says that it was not checked."""
    rehearsal, _ = told
    parts = rehearsal.parts()
    size = len(parts.entries)
    response = stamp(tsa, split_note(parts.checkpoint)[0])
    files = build(replace(parts, timestamps={size: response}))
    root = tsa.root
    verdict = verify_files(files, tsa_roots=[root])
    assert verdict.is_verified, verdict.faults
    assert any(check.name == "time-stamp" for check in verdict.checks)
    unchecked = verify_files(files)
    assert unchecked.is_verified
    assert any("was not verified" in english for english, _ in unchecked.limits)
    # The same response for an earlier checkpoint of the pack, and a damaged one.
    (earlier,) = [n.split("/")[1] for n in files if n.startswith("checkpoints/")]
    moved = {n: c for n, c in files.items() if not n.startswith("timestamps/")} | {
        f"timestamps/{earlier}.tsr": response
    }
    assert not verify_files(resummed(moved), tsa_roots=[root]).is_verified
    spoilt = files | {f"timestamps/{size}.tsr": response[:-10] + bytes(10)}
    assert not verify_files(resummed(spoilt), tsa_roots=[root]).is_verified


def test_a_time_stamp_of_another_text_or_authority_is_refused(tsa: TimeAuthority) -> None:
    """And so is what is no time-stamp at all; one error root."""
    response, root = stamp(tsa, b"a checkpoint"), tsa.root
    assert timestamps.verify(response, b"a checkpoint", [root]).at.tzinfo is not None
    for text, roots in ((b"another", [root]), (b"a checkpoint", [])):
        with pytest.raises(EvidenceError):
            timestamps.verify(response, text, roots)
    for data, roots in ((b"", [root]), (b"\x30\x03\x02\x01\x00", [root]), (response[:100], [root]), (response, [b"x"])):
        with pytest.raises(FormatError):
            timestamps.verify(data, b"a checkpoint", roots)
    other = tsa.folder / "other.pem"
    tsa.openssl("req", "-x509", "-new", "-key", "tsa.key", "-subj", "/CN=Other", "-out", str(other), "-config", "tsa.cnf",
                "-extensions", "root")  # fmt: skip
    with pytest.raises(AuditError):
        timestamps.verify(response, b"a checkpoint", [other.read_bytes()])
