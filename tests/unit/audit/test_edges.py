"""Edges of the formats that other implementations' transcripts walk on; whatever comes in, one family of errors comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from convoy_audit.canonical import b64, unb64
from convoy_audit.checkpoint import Checkpoint, open_checkpoint, peek
from convoy_audit.cosignature import MAX_TIME, message
from convoy_audit.errors import AuditError, FormatError, KeyRejected, LogSignatureWrong, PolicyError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import leaf_hash
from convoy_audit.note import Signer, Verifier, add_signatures, open_note, sign_note, split_note
from convoy_audit.policy import parse_policy
from convoy_audit.proof import TlogProof, parse_proof, verify_proof
from convoy_audit.testing import HYBRID_WITNESS, MemoryLog, MemoryWitnessStore, make_witness
from convoy_audit.witness import Witness, make_request, parse_request

ED, CO, PQ = SignatureType.ED25519, SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def respelled(note: bytes) -> bytes:
    """Change the spare bits of the last signature's base64: many decoders read the same bytes."""
    text = note.decode().rstrip("\n")
    end = text.rstrip("=")
    pads = len(text) - len(end)
    assert pads, "no spare bits in this length"
    return (end[:-1] + BASE64[BASE64.index(end[-1]) ^ 1] + "=" * pads + "\n").encode()


def test_a_signature_in_another_spelling_does_not_hold_and_of_a_stranger_is_ignored() -> None:
    """A witness answers 403, not 400: the note is well-formed as others read it, and its signature is not the one given."""
    log = MemoryLog("example.com/log", (ED,))
    log.append(b"entry")
    note = log.checkpoint()
    changed = respelled(note)
    assert changed != note
    with pytest.raises(SignatureError, match="canonical"):
        open_note(changed, [s.verifier for s in log.signers])
    witness = make_witness("w.example", log)
    with pytest.raises(LogSignatureWrong) as raised:
        witness.answer(make_request(0, [], changed), 1)
    assert raised.value.status == 403
    stranger = Signer.generate("stranger.example", ED)
    both = respelled(note + stranger.line(log.checkpoint().split(b"\n\n")[0] + b"\n").encode())
    assert len(open_note(both, [s.verifier for s in log.signers]).signatures) == 1
    assert split_note(note + split_note(changed)[1][0].__str__().encode())[1][0].is_canonical


@pytest.mark.parametrize(
    "wrong",
    ["AAAA=", "AA==AA==", "AAAAAA=", "=AAA", "AAAA AAAA", "AAAA\tAAAA", "AAAA-AA=", "", "AAAA", "AAAAAA", "ＡＡＡＡ"],
)
def test_what_is_no_base64_is_no_signature_line(wrong: str) -> None:
    """Padding in excess or missing, URL-safe letters, blanks, too short."""
    with pytest.raises(FormatError):
        split_note(f"text\n\n— name {wrong}\n".encode())


NOTES: dict[str, Callable[[bytes], bytes]] = {
    "CR LF": lambda n: n.replace(b"\n", b"\r\n"),
    "one CR": lambda n: n.replace(b"\n", b"\r\n", 1),
    "a tab in the text": lambda n: b"\t" + n,
    "a zero byte": lambda n: n.replace(b"example", b"exam\0le", 1),
    "DEL is allowed, and is another text": lambda n: b"\x7f" + n,
    "trailing newline": lambda n: n + b"\n",
    "trailing text": lambda n: n + b"x",
    "trailing text line": lambda n: n + b"x\n",
    "no last newline": lambda n: n[:-1],
    "no blank line": lambda n: n.replace(b"\n\n", b"\n"),
    "only a text": lambda n: n.split(b"\n\n")[0] + b"\n",
    "no signatures": lambda n: n.split(b"\n\n")[0] + b"\n\n",
    "a hyphen for the dash": lambda n: n.replace("—".encode(), b"-"),
    "two spaces": lambda n: n.replace("— ".encode(), "—  ".encode()),
    "a no-break space": lambda n: n.replace("— ".encode(), "—\u00a0".encode()),
    "a byte-order mark": lambda n: b"\xef\xbb\xbf" + n,
    "not UTF-8": lambda n: n + b"\xff\n",
    "a lone surrogate": lambda n: n.replace(b"log\n", b"log\xed\xa0\x80\n", 1),
    "empty": lambda n: b"",
    "a newline": lambda n: b"\n",
    "two newlines": lambda n: b"\n\n",
    "a space in a name": lambda n: n.replace("— example.com/log".encode(), "— exa mple.com/log".encode()),
    "a plus in a name": lambda n: n.replace("— example.com/log".encode(), "— example.com+log".encode()),
    "more than a mebibyte": lambda n: b"x" * 1_048_576 + n,
}


@pytest.mark.parametrize("name", NOTES)
def test_a_spoiled_note_raises_one_family_of_errors(name: str) -> None:
    """As a note, as a checkpoint, as a witness's request, as a proof."""
    log = MemoryLog("example.com/log", (ED, PQ))
    log.append(b"entry")
    keys = [s.verifier for s in log.signers]
    policy = parse_policy("".join(f"log {k.vkey}\n" for k in keys) + "quorum none\n")
    witness = Witness([Signer.generate("w.example", CO)], keys, MemoryWitnessStore())
    note = log.checkpoint()
    spoiled = NOTES[name](note)
    proof = TlogProof(0, (), note).text.replace(note, spoiled)
    for act in (
        lambda: open_note(spoiled, keys),
        lambda: open_checkpoint(spoiled, keys),
        lambda: policy.verify(spoiled),
        lambda: witness.answer(b"old 0\n\n" + spoiled, 1),
        lambda: verify_proof(parse_proof(proof), leaf_hash(b"entry"), policy),
    ):
        with pytest.raises(AuditError) as raised:
            act()
        assert raised.value.cause
        assert raised.value.fix


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"o\n1\n",
        b"o\n01\nAAAA\n",
        b"o\n1\n%s" % b64(bytes(32)).encode(),
        b"o\n+1\n%s\n" % b64(bytes(32)).encode(),
        b"o\n-1\n%s\n" % b64(bytes(32)).encode(),
        b"o\n 1\n%s\n" % b64(bytes(32)).encode(),
        b"o\n1 \n%s\n" % b64(bytes(32)).encode(),
        b"o\n9223372036854775808\n%s\n" % b64(bytes(32)).encode(),
        b"o\n1\n%s\n" % b64(bytes(31)).encode(),
        b"o\n1\n%s\n" % b64(bytes(33)).encode(),
        b"o\n1\n%s\n\n" % b64(bytes(32)).encode(),
        b"\n1\n%s\n" % b64(bytes(32)).encode(),
        b"o\n0\n%s\n" % b64(bytes(32)).encode(),
        "o\n١\n".encode() + b64(bytes(32)).encode() + b"\n",
        b"o\n1\n%s\nx\n\ny\n" % b64(bytes(32)).encode(),
    ],
)
def test_what_is_no_checkpoint_is_refused(text: bytes) -> None:
    """Sizes, roots, lines; also the empty tree with another root."""
    with pytest.raises(FormatError):
        Checkpoint.parse(text)


def test_the_largest_checkpoint_and_the_longest_origin_are_read() -> None:
    """2^63 - 1 entries; 255 bytes that are no URL, with spaces."""
    text = b"x y" + b"z" * 252 + b"\n%d\n%s\n" % (2**63 - 1, b64(bytes(32)).encode())
    assert Checkpoint.parse(text).text == text
    with pytest.raises(FormatError):
        Checkpoint.parse(b"z" + text)


def test_the_messages_that_cosigners_sign_are_those_of_the_specification() -> None:
    """Built here by hand, field by field (tlog-cosignature); extension lines are in the one, not in the other."""
    root = hashlib.sha256(b"root").digest()
    text = b"log.example/a\n7\n%s\nextension\n" % b64(root).encode()
    assert message(CO, "w.example", text, 1_679_315_147) == b"cosignature/v1\ntime 1679315147\n" + text
    expected = (
        b"subtree/v1\n\0"
        b"\x09w.example"
        + (1_679_315_147).to_bytes(8, "big")
        + b"\x0dlog.example/a"
        + bytes(8)
        + (7).to_bytes(8, "big")
        + root
    )
    assert message(PQ, "w.example", text, 1_679_315_147) == expected
    for time_s in (-1, MAX_TIME + 1):
        with pytest.raises(FormatError):
            message(CO, "w", text, time_s)
    with pytest.raises(FormatError):
        message(PQ, "w" * 256, text, 1)


@pytest.mark.parametrize("kind", [CO, PQ])
def test_a_cosignature_binds_name_time_and_text(kind: SignatureType) -> None:
    """Each changed byte of the time, each truncation, each extension; ML-DSA-44 also binds the cosigner's name."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    text = split_note(log.checkpoint())[0]
    signer = Signer.generate("w.example", kind)
    line = signer.line(text, 1_700_000_000)
    raw = unb64(line.split(" ")[2].strip())
    assert open_note(text + b"\n" + line.encode(), [signer.verifier]).signatures[0].time_s == 1_700_000_000

    def spoil(data: bytes) -> None:
        with pytest.raises(AuditError):
            open_note(text + b"\n" + f"— w.example {b64(data)}\n".encode(), [signer.verifier])

    for at in range(4, 12):
        spoil(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    spoil(raw[:-1])
    spoil(raw + b"\0")
    spoil(raw[:4] + b"\xff" * 8 + raw[12:])
    with pytest.raises(SignatureError):
        open_note(text.replace(b"\n1\n", b"\n2\n") + b"\n" + line.encode(), [signer.verifier])
    if kind is PQ:
        other = Verifier("v.example", kind, signer.verifier.public)
        with pytest.raises(SignatureError):
            open_note(text + b"\n" + f"— v.example {b64(other.key_id + raw[4:])}\n".encode(), [other])


def test_two_keys_of_one_name_and_two_names_of_one_key_are_kept_apart() -> None:
    """A known key is a name and an id; either alone is a stranger's."""
    first, second = Signer.generate("same.example", ED), Signer.generate("same.example", ED)
    note = sign_note(b"text\n", [first])
    with pytest.raises(SignatureError) as raised:
        open_note(note, [second.verifier])
    assert raised.value.code == "SIGNATURE_MISSING"
    line = first.line(b"text\n")
    lie = b"text\n\n" + line.replace(b64(first.verifier.key_id)[:5], b64(second.verifier.key_id)[:5]).encode()
    with pytest.raises(AuditError):
        open_note(lie, [first.verifier, second.verifier])
    renamed = note.replace(b"same.example", b"else.example")
    with pytest.raises(SignatureError):
        open_note(renamed, [first.verifier])
    assert add_signatures(note, split_note(note)[1]) == note


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a",
        "a+b",
        "a+00000000",
        "+00000000+AQ==",
        "a b+00000000+AQ==",
        "a+0000000G+AQ==",
        "a+0000000+AQ==",
        "a+000000000+AQ==",
        "a+00000000+",
        "a+00000000+AQ==\n",
        "a\u2003b+00000000+AQ==",
        "a+00000000+" + b64(b"\x02" + bytes(91)),
        "a+00000000+" + b64(b"\x05" + bytes(32)),
        "a+00000000+" + b64(b"\xff" + bytes(32)),
        "a+00000000+" + b64(b"\x01" + bytes(31)),
        "a+00000000+" + b64(b"\x06" + bytes(1311)),
    ],
)
def test_what_is_no_verifier_key_is_refused(vkey: str) -> None:
    """Form, unknown type, wrong length, wrong id, upper case."""
    with pytest.raises(KeyRejected):
        Verifier.parse(vkey)


def test_a_key_id_in_capitals_is_another_spelling_and_refused() -> None:
    """One key, one text."""
    vkey = Signer.from_seed("example.com/x", ED, bytes(32)).vkey
    name, key_id, key = vkey.split("+", 2)
    assert key_id != key_id.upper()
    with pytest.raises(KeyRejected):
        Verifier.parse(f"{name}+{key_id.upper()}+{key}")


POLICY_KEYS = [Signer.from_seed(f"w{n}.example", CO, bytes([n]) * 32).vkey for n in range(1, 5)]
WITNESSES = "".join(f"witness w{n} {key}\n" for n, key in enumerate(POLICY_KEYS, start=1))


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "quorum w9\n",
        "quorum w1\nquorum w1\n",
        "quorum\n",
        "quorum w1 w2\n",
        "group g 0 w1\nquorum g\n",
        "group g 2 w1\nquorum g\n",
        "group g -1 w1\nquorum g\n",
        "group g 01 w1\nquorum g\n",
        "group g 1.0 w1\nquorum g\n",
        "group g ALL w1\nquorum g\n",
        "group g any\nquorum g\n",
        "group g any g\nquorum g\n",
        "group g any none\nquorum g\n",
        "group none any w1\nquorum w1\n",
        "group w1 any w2\nquorum w1\n",
        "group g any w1 w1\nquorum g\n",
        "group g any w1\ngroup h any w1\nquorum g\n",
        "group h any g\ngroup g any w1\nquorum h\n",
        "quorum g\ngroup g any w1\n",
        "Quorum w1\n",
        "witness w1\nquorum w1\n",
        f"witness w5 {POLICY_KEYS[0]}\nquorum w1\n",
        f"log {POLICY_KEYS[0]}\nquorum w1\n",
        "quorum w1 # comment\n",
        "quorum w1\r\n",
        "quorum w1\0\n",
        "quorum w1\x7f\n",
    ],
)
def test_a_wrong_policy_is_refused(tail: str) -> None:
    """tlog-policy, rule by rule."""
    with pytest.raises(PolicyError):
        parse_policy((WITNESSES + tail).encode())


def test_a_policy_in_free_spelling_is_read() -> None:
    """Blanks, tabs, comments, empty lines, no last newline, names of any octets, URLs, groups of groups."""
    text = (
        b" \t\n# comment\n\t # another\n"
        + WITNESSES.replace("witness ", "  witness \t ").replace("\n", " https://w.example/\t\n").encode()
        + b"group \xc3\xa9\xff 2 w1 w2 w3\ngroup top all \xc3\xa9\xff w4\nquorum top"
    )
    policy = parse_policy(text)
    assert len(policy.witnesses) == 4
    assert parse_policy(b"quorum none\n").needed == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0",
        b"old 0\n",
        b"old  0\n\n",
        b"old 00\n\n",
        b"old -1\n\n",
        b"old 0\r\n\r\n",
        b"OLD 0\n\n",
        b"old 1\nAAAA\n\n",
        b"old 1\n" + b64(bytes(32)).encode() + b" \n\n",
        b"old 1\n" + b64(bytes(33)).encode() + b"\n\n",
        b"old 1\n" + (b64(bytes(32)).encode() + b"\n") * 64 + b"\n",
        b"\nold 0\n\n",
    ],
)
def test_what_is_no_request_to_a_witness_is_refused(body: bytes) -> None:
    """Status 400, before any signature is looked at."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    with pytest.raises(FormatError):
        parse_request(body + log.checkpoint() if body.endswith(b"\n\n") else body)


def test_a_request_of_63_hashes_is_read_and_a_wrong_signature_comes_before_the_size() -> None:
    """The most that a client may send; 404 and 403 are told before 400, 409 and 422."""
    log = MemoryLog("example.com/log")
    log.append(*(b"entry %d" % n for n in range(4)))
    witness = make_witness("w.example", log, kinds=HYBRID_WITNESS)
    proof = [bytes([n]) * 32 for n in range(63)]
    assert parse_request(make_request(3, proof, log.checkpoint()))[1] == proof
    forged = log.checkpoint().replace(b"\n4\n", b"\n2\n")
    for old in (0, 1, 2, 3):
        with pytest.raises(LogSignatureWrong):
            witness.answer(make_request(old, [], forged), 1)
    assert peek(witness.latest(log.origin) or log.checkpoint()).size == 4
    assert witness.size(log.origin) == 0


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"c2sp.org/tlog-proof@v2\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\n",
        b"c2sp.org/tlog-proof@v1\nindex\n",
        b"c2sp.org/tlog-proof@v1\nindex 00\n",
        b"c2sp.org/tlog-proof@v1\nindex -1\n",
        b"c2sp.org/tlog-proof@v1\nindex 9223372036854775808\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nextra AA==\n",
        b"c2sp.org/tlog-proof@v1\nextra AA==\nextra AA==\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\nextra A\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n",
        b"c2sp.org/tlog-proof@v1\r\nindex 0\r\n",
        b" c2sp.org/tlog-proof@v1\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nindex 0\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n" + (b64(bytes(32)).encode() + b"\n") * 70,
    ],
)
def test_what_is_no_tlog_proof_is_refused(head: bytes) -> None:
    """Header, extra, index, hashes."""
    log = MemoryLog("example.com/log")
    log.append(b"entry")
    with pytest.raises(FormatError):
        parse_proof(head + b"\n" + log.checkpoint())
