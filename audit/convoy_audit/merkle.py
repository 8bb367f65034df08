"""The Merkle tree of RFC 6962: hashes, proofs, and their verification.

    leaf_hash(entry: bytes) -> bytes                     SHA-256(0x00 || entry)
    node_hash(left: bytes, right: bytes) -> bytes        SHA-256(0x01 || left || right)
    root(leaf_hashes) -> bytes                           of any leaves; SHA-256("") of none
    inclusion_proof(leaf_hashes, index, size=None) -> list[bytes]
    consistency_proof(leaf_hashes, size1, size2=None) -> list[bytes]
    verify_inclusion(leaf_hash, index, size, proof, root) -> None           raises ProofError
    verify_consistency(size1, size2, proof, root1, root2) -> None           raises ProofError
    Tree: append(leaf_hash), extend(leaf_hashes), extend_perfect(levels), root(size=None), inclusion_proof,
        consistency_proof, frontier(size=None)
    perfect_levels(leaves: bytes) -> list[bytes]

Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2 step by step and raises; it never returns a
verdict. One deviation, on the safe side: ``size1 == 0`` is always an error, because a consistency
proof from nothing proves nothing. All hashes are 32 bytes. Pure: no input or output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from convoy_audit.errors import ProofError

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
MAX_SIZE: Final = 2**63 - 1
MAX_PROOF: Final = 64
MAX_EDGES: Final = 4096
_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf (RFC 6962 §2.1)."""
    return hashlib.sha256(_LEAF + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 6962 §2.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """Return the root over leaf hashes; holds a logarithmic number of them at a time."""
    return frontier_root(frontier(leaf_hashes))


def frontier(leaf_hashes: Iterable[bytes]) -> list[bytes]:
    """Return the roots of the perfect subtrees of a tree, largest first: all an append needs."""
    peaks: list[bytes] = []
    sha256 = hashlib.sha256
    for size, leaf in enumerate(leaf_hashes, start=1):
        node = leaf
        while not size & 1:  # as many merges as the new size has trailing zero bits
            node = sha256(_NODE + peaks.pop() + node).digest()
            size >>= 1
        peaks.append(node)
    return peaks


def frontier_root(peaks: Sequence[bytes]) -> bytes:
    """Return the root of a tree from its frontier."""
    if not peaks:
        return EMPTY_ROOT
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = node_hash(peak, node)
    return node


def perfect_levels(leaves: bytes) -> list[bytes]:
    """Return every level of a perfect tree, leaves (32 bytes each, a power of two of them) first, root last."""
    levels, sha256 = [leaves], hashlib.sha256
    while len(below := levels[-1]) > HASH_BYTES:
        pairs = range(0, len(below), 2 * HASH_BYTES)
        levels.append(b"".join([sha256(_NODE + below[at : at + 2 * HASH_BYTES]).digest() for at in pairs]))
    return levels


class Tree:
    """A growing tree, every level in memory (64 bytes an entry); proves at any size it has had.

    A proof costs a logarithmic number of look-ups. One thread may append while others read.
    """

    __slots__ = ("_edges", "_levels")

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self._levels: list[bytearray] = [bytearray()]
        self._edges: dict[
            tuple[int, int], bytes
        ] = {}  # roots of ragged ranges that proofs have asked for; never change
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> int:
        """Add a leaf hash and return its index."""
        index = self.size
        self.extend((leaf,))
        return index

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add leaf hashes in order; all of them or, if one has another length, none."""
        leaves = list(leaf_hashes)
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise ProofError(f"a leaf hash has {len(leaf)} bytes, not {HASH_BYTES}")
        sha256 = hashlib.sha256
        fresh, level = b"".join(leaves), 0
        additions: list[bytes] = []
        while fresh:
            additions.append(fresh)
            if level == len(self._levels):
                self._levels.append(bytearray())
            held = len(self._levels[level]) // HASH_BYTES
            below = bytes(self._levels[level][-HASH_BYTES:]) + fresh if held & 1 else fresh
            # A parent for every pair of nodes that is complete now.
            pairs = range(0, len(below) - HASH_BYTES, 2 * HASH_BYTES)
            fresh = b"".join([sha256(_NODE + below[at : at + 2 * HASH_BYTES]).digest() for at in pairs])
            level += 1
        # The leaves come last: whoever reads the size meanwhile finds every node of that size.
        for level in reversed(range(len(additions))):
            self._levels[level] += additions[level]

    def extend_perfect(self, levels: Sequence[bytes]) -> None:
        """Add the leaves of a perfect tree whose nodes ``perfect_levels`` has given; they are not hashed again.

        Raises:
            ProofError: the size is no multiple of the leaves that are added, or the levels are not those of a perfect tree.
        """
        count = len(levels[0]) // HASH_BYTES
        widths = [len(level) for level in levels]
        _check(
            bool(count) and widths == [(count >> n) * HASH_BYTES for n in range(count.bit_length())],
            "these are not the levels of a perfect tree",
        )
        _check(self.size % count == 0, f"a perfect tree of {count} leaves does not fit after {self.size}")
        top, node = len(levels) - 1, levels[-1]
        carried: list[bytes] = []
        position = self.size // count
        while position & 1:
            node = node_hash(self._node(top + len(carried), position - 1), node)
            carried.append(node)
            position >>= 1
        additions = [*levels, *carried]
        while len(self._levels) < len(additions):
            self._levels.append(bytearray())
        # As in ``extend``: the leaves come last.
        for level in reversed(range(len(additions))):
            self._levels[level] += additions[level]

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at an index."""
        _check(0 <= index < self.size, f"no leaf {index} in a tree of {self.size}")
        return self._node(0, index)

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first ``size`` leaves."""
        return frontier_root(self.frontier(size))

    def frontier(self, size: int | None = None) -> list[bytes]:
        """Return the roots of the perfect subtrees of the first ``size`` leaves, largest first."""
        size = self._size(size)
        peaks, start = [], 0
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                peaks.append(self._node(level, start >> level))
                start += 1 << level
        return peaks

    def subtree(self, start: int, end: int) -> bytes:
        """Return MTH(D[start:end]) where ``start`` is a multiple of the width rounded up to a power
        of two."""
        width = end - start
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._node(level, start >> level)
        known = self._edges.get((start, end))
        if known is None:
            split = _split(width)
            known = node_hash(self.subtree(start, start + split), self.subtree(start + split, end))
            if len(self._edges) >= MAX_EDGES:
                self._edges.clear()
            self._edges[start, end] = known
        return known

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Return PATH(index, D[size]) of RFC 6962 §2.1.1."""
        size = self._size(size)
        _check(0 <= index < size, f"no leaf {index} in a tree of {size}")
        path: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            split = start + _split(end - start)
            if index < split:
                path.append(self.subtree(split, end))
                end = split
            else:
                path.append(self.subtree(start, split))
                start = split
        return path[::-1]

    def consistency_proof(self, size1: int, size2: int | None = None) -> list[bytes]:
        """Return PROOF(size1, D[size2]) of RFC 6962 §2.1.2."""
        size2 = self._size(size2)
        _check(0 < size1 <= size2, f"no consistency proof from {size1} to {size2}")
        path: list[bytes] = []
        start, end = 0, size2
        while size1 != end:
            split = start + _split(end - start)
            if size1 <= split:
                path.append(self.subtree(split, end))
                end = split
            else:
                path.append(self.subtree(start, split))
                start = split
        if start:
            path.append(self.subtree(start, end))
        return path[::-1]

    def _node(self, level: int, position: int) -> bytes:
        return bytes(self._levels[level][position * HASH_BYTES : (position + 1) * HASH_BYTES])

    def _size(self, size: int | None) -> int:
        if size is None:
            return self.size
        _check(0 <= size <= self.size, f"no tree of {size}; there are {self.size} leaves")
        return size


def inclusion_proof(leaf_hashes: Iterable[bytes], index: int, size: int | None = None) -> list[bytes]:
    """Return the inclusion proof of one leaf; for many proofs keep a ``Tree``."""
    return Tree(leaf_hashes).inclusion_proof(index, size)


def consistency_proof(leaf_hashes: Iterable[bytes], size1: int, size2: int | None = None) -> list[bytes]:
    """Return the consistency proof between two sizes; for many proofs keep a ``Tree``."""
    return Tree(leaf_hashes).consistency_proof(size1, size2)


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf stands at ``index`` in the tree of ``size`` with this root (RFC 9162
    §2.1.3.2).

    Raises:
        ProofError: it does not, or an argument is not what it should be.
    """
    _check_number(index, "the index")
    _check_number(size, "the size")
    _check_hashes([leaf_hash, root, *_check_proof(proof)])
    # 1. The index must be in the tree.
    _check(index < size, f"index {index} is outside a tree of {size}")
    # 2.-3. Start at the leaf, with the position of the leaf and of the last leaf.
    position, last, node = index, size - 1, leaf_hash
    # 4. Climb.
    for sibling in proof:
        _check(last > 0, "the proof is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            node = node_hash(node, sibling)
        position >>= 1
        last >>= 1
    # 5. At the top: nothing left to climb, and the root is the one that was signed.
    _check(last == 0, "the proof is too short")
    _check(node == root, f"entry {index} is not in this tree of {size}: the root differs")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check that the tree of ``size2`` extends the tree of ``size1`` (RFC 9162 §2.1.4.2).

    Raises:
        ProofError: it does not, or an argument is not what it should be; always for ``size1 == 0``.
    """
    _check_number(size1, "the first size")
    _check_number(size2, "the second size")
    hashes = _check_proof(proof)
    _check_hashes(hashes)
    _check(0 < size1 <= size2, f"no tree of {size2} can be shown to extend one of {size1}")
    if size1 == size2:
        _check(not hashes, "a proof between equal sizes must be empty")
        # Only equality counts here, as in transparency-dev/merkle: nothing is hashed, so
        # any length will do.
        _check(isinstance(root1, bytes) and isinstance(root2, bytes), "a root is bytes")
        _check(root1 == root2, f"two different trees of size {size1}")
        return
    _check_hashes([root1, root2])
    _check(bool(hashes), "the proof is empty")
    # 1. If the first size is a power of two, the first root begins the path.
    path = [root1, *hashes] if size1 & (size1 - 1) == 0 else hashes
    # 2.-4. Positions of the last leaves; skip the levels that the trees share.
    position, last = size1 - 1, size2 - 1
    while position & 1:
        position >>= 1
        last >>= 1
    # 5. Both roots start from the first hash.
    old = new = path[0]
    # 6. Climb.
    for sibling in path[1:]:
        _check(last > 0, "the proof is too long")
        if position & 1 or position == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    # 7. Both roots must come out, at the top.
    _check(last == 0, "the proof is too short")
    _check(old == root1, f"the tree of {size2} does not extend this tree of {size1}")
    _check(new == root2, f"the proof does not lead to this tree of {size2}")


def _split(width: int) -> int:
    """Return the largest power of two smaller than ``width`` (> 1)."""
    return 1 << (width - 1).bit_length() - 1


def _check(holds: bool, cause: str) -> None:
    if not holds:
        raise ProofError(cause)


def _check_number(number: int, what: str) -> None:
    if type(number) is not int or not 0 <= number <= MAX_SIZE:
        raise ProofError(f"{what} is not a number between 0 and 2^63 - 1")


def _check_proof(proof: Sequence[bytes]) -> list[bytes]:
    if isinstance(proof, bytes | str) or not isinstance(proof, Sequence):
        raise ProofError("the proof is not a list of hashes")
    _check(
        len(proof) <= MAX_PROOF,
        f"the proof has {len(proof)} hashes; no tree needs more than {MAX_PROOF}",
    )
    return list(proof)


def _check_hashes(hashes: Iterable[bytes]) -> None:
    for value in hashes:
        if not isinstance(value, bytes) or len(value) != HASH_BYTES:
            raise ProofError(f"a hash that is not {HASH_BYTES} bytes")
