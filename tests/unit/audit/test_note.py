"""Notes, checkpoints and their limits."""

from __future__ import annotations

import pytest

from convoy_audit.checkpoint import Checkpoint, open_checkpoint, peek
from convoy_audit.errors import AuditError, FormatError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import EMPTY_ROOT
from convoy_audit.note import Signer, add_signatures, open_note, sign_note, split_note

ED = SignatureType.ED25519
LOG = Signer.from_seed("example.com/log", ED, bytes(31) + b"\1")
OTHER = Signer.from_seed("example.com/other", ED, bytes(31) + b"\2")
CHECKPOINT = Checkpoint("example.com/log", 1, bytes(range(32)))
NOTE = sign_note(CHECKPOINT.text, [LOG, OTHER])


def test_a_checkpoint_comes_back_as_it_was_signed() -> None:
    """Text, parse, open."""
    opened, note = open_checkpoint(NOTE, [LOG.verifier])
    assert opened == CHECKPOINT == peek(NOTE)
    assert note.signed_by(LOG.verifier)
    assert [line.name for line in note.unverified] == ["example.com/other"]


def test_a_signature_of_an_unknown_key_is_ignored_and_never_counts() -> None:
    """With no known key the note is refused, whoever else has signed."""
    with pytest.raises(SignatureError) as raised:
        open_note(NOTE, [Signer.generate("example.com/log", ED).verifier])
    assert raised.value.code == "SIGNATURE_MISSING"
    with pytest.raises(SignatureError):
        open_note(NOTE, [])


def test_a_wrong_signature_of_a_known_key_refuses_the_whole_note() -> None:
    """Even if another known key's is right."""
    changed = sign_note(CHECKPOINT.text, [LOG]) + OTHER.line(b"other text\n").encode()
    with pytest.raises(SignatureError) as raised:
        open_note(changed, [LOG.verifier, OTHER.verifier])
    assert raised.value.party == "example.com/other"


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n",
        NOTE[:-1],
        NOTE + b"x",
        NOTE + b"\n",
        NOTE.replace(b"\n", b"\r\n"),
        NOTE.replace(b"example.com/log ", b"example.com/log  "),
        NOTE.replace("—".encode(), b"-"),
        b"\x00" + NOTE,
        b"\xff" + NOTE,
        NOTE.split(b"\n\n")[0] + b"\n",
        NOTE.split(b"\n\n")[0] + b"\n\n",
        NOTE + LOG.line(CHECKPOINT.text).encode() * 99,
        NOTE.split(b"\n\n")[0] + b"\n\n" + LOG.line(CHECKPOINT.text).encode() * 10_000,
        b"x" * (1024 * 1024) + NOTE,
    ],
)
def test_a_malformed_note_raises_our_error_and_nothing_else(note: bytes) -> None:
    """CR LF, control characters, trailing bytes, 10,000 signatures, a megabyte."""
    with pytest.raises(AuditError):
        open_note(note, [LOG.verifier])


def test_sixteen_signatures_are_accepted() -> None:
    """The least that the specification asks for."""
    signers = [Signer.generate(f"w{number}", ED) for number in range(16)]
    note = sign_note(CHECKPOINT.text, signers)
    assert len(open_note(note, [s.verifier for s in signers]).signatures) == 16


def test_the_same_signature_twice_counts_once() -> None:
    """Duplicate lines are allowed and mean nothing."""
    note = NOTE + LOG.line(CHECKPOINT.text).encode()
    assert len(open_note(note, [LOG.verifier]).signatures) == 1
    _, lines = split_note(note)
    assert add_signatures(NOTE, lines) == NOTE


@pytest.mark.parametrize(
    "text",
    [
        b"example.com/log\n1\n",
        b"example.com/log\n1\nAA==\n",
        b"example.com/log\n01\n" + b"A" * 43 + b"=\n",
        b"example.com/log\n-1\n" + b"A" * 43 + b"=\n",
        b"example.com/log\n1\n" + b"A" * 43 + b"=\nextension",
        b"example.com/log\n1\n" + b"A" * 43 + b"=\n\n",
        b"example.com/log\n1\n" + b"A" * 43 + b"=\n\nextension\n",
        b"example.com/log\n1\n" + b"A" * 42 + b"B=\n",
        b"\n1\n" + b"A" * 43 + b"=\n",
        b"example.com/log\n99999999999999999999\n" + b"A" * 43 + b"=\n",
        b"example.com/log\n0\n" + b"A" * 43 + b"=\n",
        b"x" * 256 + b"\n1\n" + b"A" * 43 + b"=\n",
    ],
)
def test_a_malformed_checkpoint_is_refused(text: bytes) -> None:
    """Leading zeroes, empty extension lines, loose base64, an empty tree with another root, a long origin."""
    with pytest.raises(FormatError):
        Checkpoint.parse(text)


def test_an_empty_log_can_be_signed() -> None:
    """Size 0 has exactly one root."""
    assert Checkpoint.parse(Checkpoint("o", 0, EMPTY_ROOT).text).size == 0
