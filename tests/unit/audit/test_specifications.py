"""Rules of the C2SP specifications that other implementations test as well, and limits of input."""

from __future__ import annotations

import hashlib

import pytest

from convoy_audit.canonical import b64
from convoy_audit.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError, FormatError, PolicyError, ProofError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import leaf_hash
from convoy_audit.note import Signer, Verifier, open_note, parse_vkey, sign_note, split_note
from convoy_audit.policy import make_policy, parse_policy
from convoy_audit.proof import TlogProof, parse_proof, verify_proof
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS, MemoryLog, MemoryWitnessStore, make_witness
from convoy_audit.tiles import encode_bundle
from convoy_audit.witness import Witness, make_request

ED, CO, PQ = SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44
ROOT = hashlib.sha256(b"root").digest()
HEADER = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize("kinds", [(ED,), (PQ,), (ED, PQ)])
def test_extension_lines_are_kept_and_signed_by_ed25519_only(kinds: tuple[SignatureType, ...]) -> None:
    """tlog-checkpoint allows them; the ML-DSA-44 message ends with the root (tlog-cosignature)."""
    signers = [Signer.generate("example.com/log", kind) for kind in kinds]
    text = Checkpoint("example.com/log", 7, ROOT, ("extension", "another one")).text
    checkpoint, note = open_checkpoint(sign_note(text, signers, 1), [s.verifier for s in signers])
    assert checkpoint.extensions == ("extension", "another one")
    assert note.text == text == parse_checkpoint(text).text
    changed = sign_note(text, signers, 1).replace(b"another one\n", b"another two\n")
    if ED in kinds:
        with pytest.raises(SignatureError):
            open_checkpoint(changed, [s.verifier for s in signers])
    else:
        assert open_checkpoint(changed, [s.verifier for s in signers])[0].size == 7


@pytest.mark.parametrize(
    ("origin", "is_valid"),
    [("", False), ("a", True), ("a" * 255, True), ("a" * 256, False), ("é" * 127 + "a", True), ("é" * 128, False),
     ("example log+origin", True)],
)  # fmt: skip
def test_an_origin_has_1_to_255_bytes(origin: str, is_valid: bool) -> None:
    """Bytes of UTF-8, spaces and plus allowed."""
    text = f"{origin}\n1\n{b64(ROOT)}\nextension\n".encode()
    if is_valid:
        assert parse_checkpoint(text).origin == origin
    else:
        with pytest.raises(FormatError):
            parse_checkpoint(text)


def test_a_proof_keeps_its_checkpoint_to_the_byte_and_judges_it_when_verified() -> None:
    """The file format says nothing about the checkpoint; verification does."""
    proof = TlogProof(10, (ROOT,), b"some checkpoint\n", b"extra")
    assert proof.text.decode() == HEADER + f"extra ZXh0cmE=\nindex 10\n{b64(ROOT)}\n\nsome checkpoint\n"
    assert parse_proof(proof.text) == proof
    assert TlogProof(0, (), b"checkpoint\n").text.decode() == HEADER + "index 0\n\ncheckpoint\n"
    policy = make_policy(MemoryLog("example.com/log").vkeys, {})
    with pytest.raises(FormatError):
        verify_proof(proof.text, ROOT, policy)


@pytest.mark.parametrize(
    "text",
    ["wrong\nindex 0\n\nc\n", HEADER + "extra !!\nindex 0\n\nc\n", HEADER + "\n\nc\n", HEADER + "index x\n\nc\n",
     HEADER + "index -5\n\nc\n", HEADER + "index 00\n\nc\n", HEADER + "index 0\n!!\n\nc\n",
     HEADER + f"index 0\n{b64(bytes(64))}\n\nc\n", HEADER + f"index 0\n{b64(bytes(16))}\n\nc\n",
     HEADER + "index 0\n" + "a" * 66_560 + "\n", HEADER + "index 0\n", HEADER + "index 99999999999999999999\n\nc\n",
     HEADER + "index 0\nextra AAAA\n\nc\n", HEADER.replace("\n", "\r\n") + "index 0\r\n\r\nc\r\n", ""],
)  # fmt: skip
def test_what_is_no_proof_is_refused(text: str) -> None:
    """Header, extra, index, hashes, order, line ends."""
    with pytest.raises(FormatError):
        parse_proof(text.encode())


def test_a_whole_proof_verifies_for_its_leaf_only() -> None:
    """A log of one entry and of five."""
    log = MemoryLog("example.com/test")
    log.append(b"one", b"two", b"three", b"four", b"five")
    policy = make_policy(log.vkeys, {})
    for size in (1, 5):
        for index in range(size):
            text = TlogProof(index, tuple(log.tree.inclusion_proof(index, size)), log.checkpoint(size)).text
            assert verify_proof(text, leaf_hash(log.entries[index]), policy).checkpoint.size == size
            with pytest.raises(ProofError):
                verify_proof(text, leaf_hash(b"other"), policy)


def test_a_witness_key_may_be_listed_as_a_plain_ed25519_key() -> None:
    """As transparency-dev lists them; only its timestamped cosignature counts, never a plain signature."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    seed = bytes(range(32))
    plain, witness = Signer.from_seed("w.example", ED, seed), Signer.from_seed("w.example", CO, seed)
    policy = parse_policy(f"log {log.vkeys[0]}\nwitness w1 {plain.vkey} https://w.example/\nquorum w1")
    text, note = split_note(log.checkpoint())[0], log.checkpoint()
    assert policy.verify(note + witness.line(text, 5).encode()).checkpoint.size == 1
    with pytest.raises(PolicyError):
        policy.verify(note + plain.line(text).encode())


def test_a_quorum_can_be_asked_for_a_set_of_names() -> None:
    """Two of three of X and any of Y, as the specification's example says; unknown names count for nothing."""
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    lines = [f"witness {name} {Signer.generate(name, CO).vkey}" for name in names]
    lines += ["group X 2 X1 X2 X3", "group Y any Y1 Y2 Y3", "group both all X Y", "quorum both", ""]
    policy = parse_policy("\n".join(lines).encode())
    rows = {
        ("X1", "X2", "Y1"): True,
        ("X1", "X2"): False,
        ("X1", "Y1", "Y2", "Y3"): False,
        tuple(names): True,
        (): False,
        ("X1", "X1", "Y1"): False,
        ("X", "Y", "both"): False,
        ("X1", "X2", "Z"): False,
    }
    assert {row: policy.is_met_by(row) for row in rows} == rows
    assert parse_policy(b"quorum none\n").is_met_by([])


def test_thirty_two_hybrid_witnesses_fit_into_one_checkpoint() -> None:
    """tlog-policy recommends 32 witnesses; with two keys each that is 66 signature lines."""
    log = MemoryLog("example.com/log", HYBRID_LOG)
    log.append(b"entry")
    witnesses = {f"w{i}": make_witness(f"w{i}.example", log, kinds=HYBRID_WITNESS) for i in range(32)}
    policy = make_policy(log.vkeys, {name: [v.vkey for v in w.verifiers] for name, w in witnesses.items()})
    note = log.checkpoint()
    lines = "".join(w.add_checkpoint(note, 0, [], 1).lines for w in witnesses.values())
    assert len(policy.verify(note + lines.encode()).standing.cosigned) == 32


def test_ten_thousand_signature_lines_are_refused_before_any_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the keys are known or not, and whether as note, witness request or proof."""
    verified: list[bytes] = []
    monkeypatch.setattr(Verifier, "verify", lambda _self, _text, signature: verified.append(signature))
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    note = log.checkpoint() + b"".join(
        f"— w{i}.example {b64(i.to_bytes(4, 'big') + bytes(72))}\n".encode() for i in range(10_000)
    )
    witness = Witness([Signer.generate("w.example", CO)], [s.verifier for s in log.signers], MemoryWitnessStore())
    for act in (
        lambda: open_note(note, [s.verifier for s in log.signers]),
        lambda: witness.answer(make_request(0, [], note), 1),
        lambda: verify_proof(TlogProof(0, (), note).text, leaf_hash(b"entry"), make_policy(log.vkeys, {})),
        lambda: make_policy(log.vkeys, {}).verify(note),
    ):
        with pytest.raises(FormatError, match=r"more than|signatures"):
            act()
    assert verified == []


@pytest.mark.parametrize("size", [0, 65_536, 1_000_000])
def test_an_entry_has_1_to_65535_bytes(size: int) -> None:
    """The length prefix of tlog-tiles has 16 bits."""
    for act in (parse_entry, lambda raw: encode_bundle([raw])):
        with pytest.raises(FormatError, match="65535"):
            act(b"x" * size)
    assert encode_bundle([b"x" * 65_535])


@pytest.mark.parametrize("end", [b"\r\n", b"\n\n", b" \n", b"\nx", b"\x00\n", "\u2028\n".encode()])
def test_trailing_bytes_and_other_line_ends_are_refused_everywhere(end: bytes) -> None:
    """Checkpoint, note, key and policy: one error root, and a cause that a person can read."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    note = log.checkpoint()
    for act in (
        lambda: parse_checkpoint(split_note(note)[0][:-1] + end),
        lambda: open_note(note[:-1] + end, [s.verifier for s in log.signers]),
        lambda: parse_vkey(log.vkeys[0].encode() + end),
        lambda: parse_policy(b"log " + log.vkeys[0].encode() + b"\nquorum none" + end + b"quorum none\n"),
    ):
        with pytest.raises(AuditError) as raised:
            act()
        assert raised.value.cause
        assert raised.value.fix_zh


@pytest.mark.parametrize("kind", [0x00, 0x02, 0x03, 0x05, 0x07, 0xFA, 0xFF])
def test_a_signature_of_an_unknown_type_is_ignored_and_its_key_refused(kind: int) -> None:
    """ECDSA, RFC 6962 tree heads, future types: a line is skipped, a key is not accepted."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    public = bytes([kind]) + bytes(range(32))
    key_id = hashlib.sha256(b"example.com/log\n" + public).digest()[:4]
    with pytest.raises(AuditError, match="unknown type"):
        parse_vkey(f"example.com/log+{key_id.hex()}+{b64(public)}")
    note = log.checkpoint() + f"— example.com/log {b64(key_id + bytes(70))}\n".encode()
    assert len(open_note(note, [s.verifier for s in log.signers]).unverified) == 1


def test_a_note_may_be_opened_with_text_and_vkeys() -> None:
    """What a caller has at hand."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    for keys in (log.vkeys, list(log.vkeys), (s.verifier for s in log.signers), log.signers[0].verifier):
        assert open_note(log.checkpoint().decode(), keys).signed_by(log.signers[0].verifier)
