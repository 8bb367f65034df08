"""Values that nobody in this project wrote: RFC 6962 proofs, the classic tree, signed notes, JCS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from convoy_audit import merkle
from convoy_audit.canonical import canonical_bytes, parse_json
from convoy_audit.errors import AuditError, KeyRejected, ProofError
from convoy_audit.note import Signer, Verifier, open_note, sign_note


def octets(text: str | None) -> bytes:
    return base64.b64decode(text) if text else b""


@contextmanager
def named(case: str) -> Iterator[None]:
    """Say which case was not refused."""
    yield
    pytest.fail(case)


def cases(shared: Path, kind: str) -> list[tuple[str, dict[str, Any]]]:
    found = sorted((shared / "vectors/rfc6962/testdata" / kind).rglob("*.json"))
    assert len(found) == 98
    return [(str(path), json.loads(path.read_text())) for path in found]


def test_every_given_inclusion_proof_is_judged_as_its_author_says(shared: Path) -> None:
    """98 cases, 6 of them good."""
    good = 0
    for name, case in cases(shared, "inclusion"):
        proof = [octets(node) for node in case["proof"] or []]
        given = (octets(case["leafHash"]), case["leafIdx"], case["treeSize"], proof)
        if case["wantErr"]:
            with pytest.raises(ProofError), named(name):
                merkle.verify_inclusion(*given, octets(case["root"]))
        else:
            merkle.verify_inclusion(*given, octets(case["root"]))
            good += 1
    assert good == 6


def test_every_given_consistency_proof_is_judged_as_its_author_says(shared: Path) -> None:
    """98 cases, 6 of them good; two empty trees are an error."""
    good = 0
    for name, case in cases(shared, "consistency"):
        proof = [octets(node) for node in case["proof"] or []]
        given = (case["size1"], case["size2"], proof, octets(case["root1"]), octets(case["root2"]))
        if case["wantErr"]:
            with pytest.raises(ProofError), named(name):
                merkle.verify_consistency(*given)
        else:
            merkle.verify_consistency(*given)
            good += 1
    assert good == 6


def test_the_classic_eight_leaf_tree_has_its_published_roots_and_nodes(shared: Path) -> None:
    """Roots of sizes 0 to 8 and the nodes of every level."""
    vector = json.loads((shared / "vectors/rfc6962/rfc6962-tree-8.json").read_text())
    leaves = [merkle.leaf_hash(bytes.fromhex(text)) for text in vector["leaf_inputs_hex"]]
    tree = merkle.Tree(leaves)
    for size, expected in enumerate(vector["roots_by_size_hex"]):
        assert tree.root(size).hex() == expected
        assert merkle.root(leaves[:size]).hex() == expected
    for level, nodes in enumerate(vector["nodes_by_level_hex"]):
        width = 1 << level
        found = [tree.subtree(i * width, (i + 1) * width).hex() for i in range(8 // width)]
        assert found == nodes


def test_every_given_note_opens_or_is_refused_as_go_does_it(shared: Path) -> None:
    """14 notes of golang.org/x/mod; a refusal is always our own error."""
    vector = json.loads((shared / "vectors/signed-note/signed-note-go.json").read_text())
    assert len(vector["open"]) == 14
    for case in vector["open"]:
        text = octets(case["note_b64"]) if "note_b64" in case else case["note"].encode()
        verifiers = [Verifier.parse(vkey) for vkey in case["vkeys"]]
        if not case["ok"]:
            with pytest.raises(AuditError), named(case["desc"]):
                open_note(text, verifiers)
            continue
        note = open_note(text, verifiers)
        if "verified" in case:
            assert [s.verifier.name for s in note.signatures] == case["verified"], case["desc"]


def test_bad_verifier_keys_are_refused_and_good_ones_round_trip(shared: Path) -> None:
    """Keys of golang.org/x/mod, and each of them with one character changed."""
    vector = json.loads((shared / "vectors/signed-note/signed-note-go.json").read_text())
    for vkey in vector["bad_vkeys"]:
        with pytest.raises(KeyRejected):
            Verifier.parse(vkey)
    for vkey in vector["vkeys"].values():
        assert Verifier.parse(vkey).vkey == vkey
        for at in range(len(vkey)):
            changed = vkey[:at] + ("A" if vkey[at] != "A" else "B") + vkey[at + 1 :]
            with pytest.raises(KeyRejected):
                Verifier.parse(changed)


def test_our_signature_is_the_published_one(shared: Path) -> None:
    """Ed25519 is deterministic, so the whole note must come out byte for byte."""
    vector = json.loads((shared / "vectors/signed-note/signed-note-go.json").read_text())
    signer = Signer.parse(vector["signer_key"])
    note = sign_note(vector["sign"]["text"].encode(), [signer])
    assert note.decode() == vector["sign"]["want"]
    assert signer.secret == vector["signer_key"]
    assert "AYEKFALV" not in repr(signer)


def test_the_example_of_the_specification_opens(shared: Path) -> None:
    """C2SP signed-note, the printed example."""
    vector = json.loads((shared / "vectors/signed-note/c2sp-spec-examples.json").read_text())
    note = open_note(vector["note"].encode(), [Verifier.parse(vector["vkey"])])
    assert note.text == b"This is an example message.\n"


def test_canonical_json_is_that_of_rfc_8785(shared: Path) -> None:
    """The six files of the JCS author."""
    folder = shared / "vectors/jcs/testdata"
    inputs = sorted((folder / "input").glob("*.json"))
    assert len(inputs) == 6
    for path in inputs:
        expected = bytes.fromhex((folder / "outhex" / f"{path.stem}.txt").read_text())
        assert canonical_bytes(parse_json(path.read_bytes())) == expected, path.name
