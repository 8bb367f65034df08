"""Keys of a node: born once, private, and refused when anything about them is wrong."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from convoy_audit.keys import SignatureType
from convoy_node.errors import KeyRefused
from convoy_node.identity import FILES, IDENTITY, MASK, WITNESS, Card, Identity

PARTY = "did:web:oem.example"
BORN = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Identity.create(tmp_path / "keys", PARTY, BORN)
    return tmp_path / "keys"


def test_every_key_file_is_for_its_owner_only(folder: Path) -> None:
    """Group and others have no right on any of them."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_keys_are_loaded_as_they_were_made(folder: Path) -> None:
    """The card of a loaded identity is the card of the created one."""
    first, again = Identity.load(folder, PARTY), Identity.load(folder, PARTY)
    card = first.card(name="OEM", role="oem", region="CN-SH")
    assert card == again.card(name="OEM", role="oem", region="CN-SH")
    assert Card.read(card.enrolment()) == card
    assert (card.key_not_before, card.identity_kid) == ("2026-11-24T08:00:00.000000Z", f"{PARTY}#1")


def test_the_witness_has_a_classical_and_a_post_quantum_key(folder: Path) -> None:
    """Both cosign; both stand on the card."""
    identity = Identity.load(folder, PARTY)
    kinds = [signer.kind for signer in identity.witness]
    assert kinds == [SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44]
    assert len(identity.card(name="OEM", role="oem", region="CN").witness_key.splitlines()) == 2


def test_keys_are_never_replaced_in_place(folder: Path) -> None:
    """One key that is there is enough to refuse."""
    (folder / MASK).unlink()
    before = (folder / IDENTITY).read_bytes()
    with pytest.raises(KeyRefused, match="keys already"):
        Identity.create(folder, PARTY, BORN)
    assert (folder / IDENTITY).read_bytes() == before
    assert not (folder / MASK).exists()


def test_a_private_key_is_shown_by_nothing(folder: Path) -> None:
    """Neither the identity's text nor a refusal holds a byte of a seed."""
    identity = Identity.load(folder, PARTY)
    assert identity.identity_seed.hex() not in repr(identity)
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize("name", FILES)
def test_a_key_that_others_can_read_is_refused(folder: Path, name: str) -> None:
    """It may have been copied."""
    os.chmod(folder / name, 0o640)
    with pytest.raises(KeyRefused, match="by others"):
        Identity.load(folder, PARTY)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"not a key\n", b"\xff" * 40])
def test_a_damaged_key_is_refused_with_its_name(folder: Path, name: str, content: bytes) -> None:
    """Untrusted bytes raise nothing but KeyRefused."""
    (folder / name).write_bytes(content)
    with pytest.raises(KeyRefused, match=name.replace(".", r"\.")):
        Identity.load(folder, PARTY)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_key_is_refused(folder: Path, name: str) -> None:
    """A node never makes a new key in place of a lost one."""
    (folder / name).unlink()
    with pytest.raises(KeyRefused, match="cannot be read"):
        Identity.load(folder, PARTY)


def test_a_key_of_another_kind_or_party_is_refused(folder: Path) -> None:
    """An Ed25519 key does not serve as the mask key, nor another party's witness as one's own."""
    with pytest.raises(KeyRefused):
        Identity.load(folder, "did:web:insurer-a.example")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / MASK).write_bytes(pem)
    with pytest.raises(KeyRefused, match="another kind"):
        Identity.load(folder, PARTY)


def test_a_log_key_is_no_witness_key(folder: Path) -> None:
    """A key without time would not make cosignatures."""
    from convoy_audit.note import Signer

    (folder / WITNESS).write_text(Signer.generate("oem.example", SignatureType.ED25519).secret + "\n")
    with pytest.raises(KeyRefused):
        Identity.load(folder, PARTY)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("identityKey", "AA"),
        ("identityKey", "A" * 43),  # y = 0: low order
        ("maskKey", "A" * 43),  # low order
        ("maskKey", None),
        ("keyNotAfter", "2026-11-24T07:00:00Z"),
        ("keyNotBefore", "yesterday"),
    ],
)
def test_a_card_with_a_key_that_must_not_be_used_is_refused(folder: Path, member: str, value: str | None) -> None:
    """Low-order keys share one secret with everybody, or fit many messages."""
    card = Identity.load(folder, PARTY).card(name="OEM", role="oem", region="CN").enrolment()
    with pytest.raises(KeyRefused):
        Card.read({**card, member: value})
