"""Proofs hold for every size and index, and break on any change."""

from __future__ import annotations

import functools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_audit import merkle
from convoy_audit.errors import ProofError

LIMIT = 300
LEAVES = [merkle.leaf_hash(b"entry %d" % number) for number in range(LIMIT)]
TREE = merkle.Tree(LEAVES)


@functools.cache
def textbook_root(start: int, end: int) -> bytes:
    """MTH of RFC 6962 §2.1, literally."""
    if end - start == 1:
        return LEAVES[start]
    k = 1
    while k * 2 < end - start:
        k *= 2
    return merkle.node_hash(textbook_root(start, start + k), textbook_root(start + k, end))


def textbook_path(index: int, start: int, end: int) -> list[bytes]:
    """PATH of RFC 6962 §2.1.1, literally."""
    if end - start == 1:
        return []
    k = 1
    while k * 2 < end - start:
        k *= 2
    if index < k:
        return [*textbook_path(index, start, start + k), textbook_root(start + k, end)]
    return [*textbook_path(index - k, start + k, end), textbook_root(start, start + k)]


def test_every_entry_of_every_tree_to_300_is_proven() -> None:
    """45,150 proofs, all of them those of the textbook."""
    for size in range(1, LIMIT + 1):
        root = TREE.root(size)
        assert root == textbook_root(0, size) == merkle.root(LEAVES[:size])
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
    for size in (1, 2, 3, 8, 77, 299, 300):
        for index in range(size):
            assert TREE.inclusion_proof(index, size) == textbook_path(index, 0, size)


def test_every_tree_to_300_is_proven_to_extend_every_smaller_one() -> None:
    """45,150 proofs."""
    roots = [TREE.root(size) for size in range(LIMIT + 1)]
    for new in range(1, LIMIT + 1):
        for old in range(1, new + 1):
            proof = TREE.consistency_proof(old, new)
            merkle.verify_consistency(old, new, proof, roots[old], roots[new])


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_proof_is_noticed() -> None:
    """All bits of leaf, root and path, for some sizes; any other index or size."""
    for size, index in ((1, 0), (2, 1), (7, 3), (8, 7), (300, 255), (300, 299)):
        root, proof = TREE.root(size), TREE.inclusion_proof(index, size)
        parts = [LEAVES[index], root, *proof]
        for at, part in enumerate(parts):
            for bit in range(256):
                spoilt = [*parts[:at], flip(part, bit), *parts[at + 1 :]]
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(spoilt[0], index, size, spoilt[2:], spoilt[1])
        for other in range(size + 2):
            if other != index:
                with pytest.raises(ProofError):
                    merkle.verify_inclusion(LEAVES[index], other, size, proof, root)


def test_every_flipped_bit_of_a_consistency_proof_is_noticed() -> None:
    """All bits of both roots and the path, for some sizes."""
    for old, new in ((1, 2), (3, 7), (4, 8), (7, 8), (128, 300), (255, 300)):
        parts = [TREE.root(old), TREE.root(new), *TREE.consistency_proof(old, new)]
        for at, part in enumerate(parts):
            for bit in range(256):
                spoilt = [*parts[:at], flip(part, bit), *parts[at + 1 :]]
                with pytest.raises(ProofError):
                    merkle.verify_consistency(old, new, spoilt[2:], spoilt[0], spoilt[1])


@given(st.integers(1, LIMIT), st.data())
@settings(max_examples=150, deadline=None)
def test_a_proof_of_another_length_or_order_never_holds(size: int, data: st.DataObject) -> None:
    """Longer, shorter, shuffled."""
    index = data.draw(st.integers(0, size - 1))
    root, proof = TREE.root(size), TREE.inclusion_proof(index, size)
    extra = data.draw(st.binary(min_size=32, max_size=32))
    at = data.draw(st.integers(0, len(proof)))
    changed = [[*proof[:at], extra, *proof[at:]]]
    if proof:
        changed += [proof[:-1], proof[1:]]
    shuffled = Random(size).sample(proof, len(proof))
    if shuffled != proof:
        changed.append(shuffled)
    for wrong in changed:
        with pytest.raises(ProofError):
            merkle.verify_inclusion(LEAVES[index], index, size, wrong, root)


@given(
    st.one_of(st.integers(), st.none(), st.booleans(), st.floats(), st.text(max_size=3)),
    st.one_of(st.integers(), st.none(), st.booleans()),
    st.one_of(st.none(), st.lists(st.one_of(st.binary(max_size=40), st.none())), st.text(max_size=3)),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
@settings(max_examples=200, deadline=None)
def test_no_input_raises_anything_but_a_proof_error(a: object, b: object, proof: object, x: bytes, y: bytes) -> None:
    """Also what the types forbid: it comes from the network."""
    for act in (
        lambda: merkle.verify_inclusion(x, a, b, proof, y),  # type: ignore[arg-type]
        lambda: merkle.verify_consistency(a, b, proof, x, y),  # type: ignore[arg-type]
    ):
        try:
            act()
        except ProofError:
            continue
        assert x == y or a == b


def test_two_empty_trees_are_an_error_and_so_is_an_empty_start() -> None:
    """A proof from nothing proves nothing."""
    for size in (0, 1, 300):
        with pytest.raises(ProofError):
            merkle.verify_consistency(0, size, [], merkle.EMPTY_ROOT, TREE.root(size))


@given(st.lists(st.integers(1, 40), max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_frontier_is_all_that_an_append_needs(batches: list[int]) -> None:
    """In whatever batches the leaves come."""
    tree = merkle.Tree()
    for batch in batches:
        for leaf in LEAVES[tree.size : tree.size + batch]:
            tree.append(leaf)
        assert tree.frontier() == merkle.frontier(LEAVES[: tree.size])
        assert merkle.frontier_root(tree.frontier()) == tree.root()
