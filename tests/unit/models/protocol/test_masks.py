"""Seals open in one context only; streams and masks are bound to contract, run and attempt."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from convoy_models.errors import KeyUnknown, MessageUnexpected, SealBroken, ShapeMismatch
from convoy_models.masks import PairKeys
from convoy_models.streams import expand, label
from convoy_models.testing import new_keys

A, B, C = "did:web:a.example", "did:web:b.example", "did:web:c.example"


def test_a_sealed_blob_opens_for_its_addressee_in_its_context() -> None:
    """And the same bytes sealed twice differ."""
    keys = new_keys([A, B])
    blob = keys[A].seal(B, b"context", b"secret")
    assert keys[B].unseal(A, b"context", blob) == b"secret"
    assert blob != keys[A].seal(B, b"context", b"secret")
    assert b"secret" not in blob


def test_any_other_key_context_direction_or_byte_breaks_the_seal() -> None:
    """Wrong peer, wrong AAD, reflection to the sender, a flipped bit, a cut."""
    keys = new_keys([A, B, C])
    blob = keys[A].seal(B, b"context", b"secret")
    flipped = bytes([*blob[:-1], blob[-1] ^ 1])
    attempts = [
        (keys[C], A, b"context", blob),
        (keys[B], C, b"context", blob),
        (keys[B], A, b"other", blob),
        (keys[A], B, b"context", blob),
        (keys[B], A, b"context", flipped),
        (keys[B], A, b"context", blob[:10]),
        (keys[B], A, b"context", b""),
    ]
    for receiver, sender, aad, tried in attempts:
        with pytest.raises(SealBroken):
            receiver.unseal(sender, aad, tried)


def test_keys_of_another_contract_open_nothing() -> None:
    """The pair secret is bound to the contract's digest."""
    private = {name: X25519PrivateKey.generate() for name in (A, B)}
    public = {name: key.public_key().public_bytes_raw() for name, key in private.items()}
    one, two = (PairKeys(A, private[A], public, digest) for digest in ("sha256:1", "sha256:2"))
    other = PairKeys(B, private[B], public, "sha256:1")
    assert other.unseal(A, b"", one.seal(B, b"", b"x")) == b"x"
    with pytest.raises(SealBroken):
        other.unseal(A, b"", two.seal(B, b"", b"x"))


def test_both_ends_expand_the_same_stream_and_nobody_else() -> None:
    """From any even position; another label gives unrelated words."""
    keys = new_keys([A, B, C])
    name = label("A", "run", 1)
    whole = keys[A].stream(B, name, 1000)
    assert np.array_equal(whole, keys[B].stream(A, name, 1000))
    assert np.array_equal(whole[400:], keys[B].stream(A, name, 600, 400))
    assert not np.isin(whole, keys[A].stream(C, name, 1000)).any()
    assert not np.isin(whole, keys[A].stream(B, label("A", "run", 2), 1000)).any()


def test_labels_of_different_parts_differ() -> None:
    """Length-prefixed and typed, so that no two lists collide."""
    lists = [
        ("a", "bc"),
        ("ab", "c"),
        ("abc",),
        ("a", "b", "c"),
        (1, "2"),
        ("1", "2"),
        ("1", 2),
        (12,),
    ]
    assert len({label(*parts) for parts in lists}) == len(lists)


def test_a_stream_is_aes_256_in_counter_mode() -> None:
    """The first block is AES-256 of zeros under a zero key, a known value."""
    words = expand(bytes(32), 2)
    assert words.astype("<u8").tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    with pytest.raises(ShapeMismatch):
        expand(bytes(32), 2, 1)


def test_masks_are_bound_to_run_query_attempt_and_participants() -> None:
    """Any change gives other masks."""
    keys = new_keys([A, B, C])
    tags = [("r", "q", 1), ("r", "q", 2), ("r", "p", 1), ("s", "q", 1)]
    masks = [keys[A].mask(*tag, 4, [A, B, C]).tobytes() for tag in tags]
    masks.append(keys[A].mask("r", "q", 1, 4, [A, B]).tobytes())
    assert len(set(masks)) == len(masks)


def test_a_single_participant_has_no_mask() -> None:
    """There is nobody to hide among; noise alone protects, and the documents say so."""
    assert not new_keys([A, B])[A].mask("r", "q", 1, 4, [A]).any()


def test_strangers_and_unusable_keys_are_refused() -> None:
    """No pinned key, a key of low order, or a query one takes no part in."""
    private = X25519PrivateKey.generate()
    keys = PairKeys(A, private, {B: bytes(32), C: b"short"}, "sha256:1")
    for peer in (B, C, "did:web:stranger.example"):
        with pytest.raises(KeyUnknown):
            keys.seal(peer, b"", b"")
    with pytest.raises(MessageUnexpected):
        keys.mask("r", "q", 1, 4, [B, C])
