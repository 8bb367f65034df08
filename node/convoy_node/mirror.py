"""A copy of the whole log in a folder, verified as it comes: tlog-tiles paths, and the checkpoint that covers it.

    Mirror(folder, verify).copy(reader, note) -> int      new entries; the folder can be served or rsynced as it is

Layout: ``checkpoint``, ``tile/entries/<N>[.p/<W>]``. Entries are derived to a tree and compared with the cosigned root before
the checkpoint is replaced, so a mirror never vouches for what it has not seen. ``convoy-audit fsck FOLDER`` checks it alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import ProofError
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.tiles import WIDTH, decode_bundle, entries_path, entries_spans
from convoy_audit.witness_store import write_atomically
from convoy_node.log_reader import LogReader

CHECKPOINT: Final = "checkpoint"


class Mirror:
    """One mirrored log.

    Args:
        folder: made where absent.
        verify: returns the checkpoint of a note that the pinned policy or log accepts; raises else.
    """

    def __init__(self, folder: Path, verify: Callable[[bytes], Checkpoint]) -> None:
        self._folder = folder
        self._verify = verify
        self._tree = Tree()

    def copy(self, reader: LogReader, note: bytes) -> int:
        """Copy what is new up to a checkpoint; return how many entries came.

        Raises:
            ProofError: the entries do not make the cosigned root; nothing is vouched for.
            AuditError: the checkpoint is not accepted.
        """
        checkpoint = self._verify(note)
        have = self._tree.size
        if checkpoint.size < self._known():
            return 0
        for span in entries_spans(checkpoint.size):
            first = span.index * WIDTH
            if first + span.width <= self._tree.size:
                continue
            path = self._folder / entries_path(span.index, span.width)
            data = path.read_bytes() if path.is_file() else reader.file(entries_path(span.index, span.width))
            entries = decode_bundle(data, span.width)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)
            for entry in entries[self._tree.size - first :]:
                self._tree.append(leaf_hash(entry))
        if self._tree.root(checkpoint.size) != checkpoint.root:
            self._tree = Tree()
            raise ProofError(f"the {checkpoint.size} entries that were copied do not make the cosigned root")
        write_atomically(self._folder / CHECKPOINT, note)
        return self._tree.size - have

    def _known(self) -> int:
        path = self._folder / CHECKPOINT
        return peek(path.read_bytes()).size if path.is_file() else 0
