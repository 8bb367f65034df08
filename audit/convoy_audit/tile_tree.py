"""A tree that lies in tiles: prove and check with a few files instead of the whole log (C2SP tlog-tiles).

    TileTree(read, size): .root(), .leaf(index), .inclusion_proof(index), .consistency_proof(size1)
    read(path: str) -> bytes          a tile by its path; raises AuditError or returns None where there is none

Only tiles of hashes are read, each once. What they hold is trusted by nobody: compare the root, or verify
the proof. A partial tile that is gone is looked for as a full one, as the specification allows, and above
the lowest level derived from the full tiles below it.
"""

from __future__ import annotations

from collections.abc import Callable

from convoy_audit.errors import FormatError
from convoy_audit.merkle import HASH_BYTES, Tree, node_hash
from convoy_audit.tiles import HEIGHT, WIDTH, tile_path


class TileTree(Tree):
    """A tree of a fixed size, read tile by tile."""

    __slots__ = ("_read", "_tile_size", "_tiles")

    def __init__(self, read: Callable[[str], bytes | None], size: int) -> None:
        super().__init__()
        self._read = read
        self._tile_size = size
        self._tiles: dict[tuple[int, int], bytes] = {}

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._tile_size

    def append(self, leaf: bytes) -> int:
        """Refuse: tiles are only read."""
        raise FormatError("a tree of tiles cannot grow here")

    def _node(self, level: int, position: int) -> bytes:
        tile_level, height = divmod(level, HEIGHT)
        first, count = position << height, 1 << height
        index, offset = divmod(first, WIDTH)
        tile = self._tile(tile_level, index)
        part = tile[offset * HASH_BYTES : (offset + count) * HASH_BYTES]
        if len(part) != count * HASH_BYTES:
            raise FormatError(f"{tile_path(tile_level, index)} is too short")
        return self._root_of(part)

    @staticmethod
    def _root_of(part: bytes) -> bytes:
        """Return the root over the hashes of a perfect subtree."""
        nodes = [part[at : at + HASH_BYTES] for at in range(0, len(part), HASH_BYTES)]
        while len(nodes) > 1:
            nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
        return nodes[0]

    def _tile(self, level: int, index: int) -> bytes:
        found = self._tiles.get((level, index))
        if found is None:
            width = min(WIDTH, (self._tile_size >> (HEIGHT * level)) - index * WIDTH)
            data = self._read(tile_path(level, index, width)) if width > 0 else None
            if data is None and 0 < width < WIDTH:
                data = self._read(tile_path(level, index))
            if data is None and level > 0 and width > 0:  # an old size: its tiles above the lowest can be derived
                data = b"".join(self._root_of(self._tile(level - 1, index * WIDTH + i)) for i in range(width))
            if data is None:
                raise FormatError(f"{tile_path(level, index, max(width, 1))} is missing")
            found = self._tiles[level, index] = data[: width * HASH_BYTES]
        return found
