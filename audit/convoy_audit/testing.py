"""Real in-memory parts for tests: a witness store and a small log; no mocks, no files.

    MemoryWitnessStore                         a WitnessStore without durability
    MemoryLog(origin, kinds=…)                 a log with real keys that signs and proves
    make_witness(name, log, store=None)        a witness of that log with both key types

Never use these in production: nothing here survives the process.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import StoreConflict
from convoy_audit.evidence import Evidence
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.note import Signer, sign_note
from convoy_audit.tiles import WIDTH, encode_bundle, entries_path, entries_spans, tile_data, tile_path, tile_spans
from convoy_audit.witness import Alarm, Remembered, Witness, WitnessStore

HYBRID_LOG = (SignatureType.ED25519, SignatureType.COSIGNATURE_ML_DSA_44)
HYBRID_WITNESS = (SignatureType.COSIGNATURE_ED25519, SignatureType.COSIGNATURE_ML_DSA_44)


class MemoryWitnessStore:
    """Remembers until the process ends."""

    def __init__(self) -> None:
        self._remembered: dict[str, Remembered] = {}
        self._alarms: list[Alarm] = []
        self._mutex = threading.Lock()

    def load(self, origin: str) -> Remembered | None:
        """Return what is remembered of a log."""
        return self._remembered.get(origin)

    def replace(self, origin: str, old: Remembered | None, new: Remembered) -> None:
        """Put ``new`` in the place of ``old``."""
        with self._mutex:
            if self._remembered.get(origin) != old:
                raise StoreConflict("the remembered checkpoint has changed")
            self._remembered[origin] = new

    def keep_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm."""
        if alarm.identity not in {known.identity for known in self._alarms}:
            self._alarms.append(alarm)

    def alarms(self) -> tuple[Alarm, ...]:
        """Return every alarm."""
        return tuple(self._alarms)


class MemoryLog:
    """A log in memory, with real keys."""

    def __init__(self, origin: str, kinds: Sequence[SignatureType] = (SignatureType.ED25519,)) -> None:
        self.origin = origin
        self.signers = tuple(Signer.generate(origin, kind) for kind in kinds)
        self.entries: list[bytes] = []
        self.tree = Tree()

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The log's verifier keys."""
        return tuple(signer.vkey for signer in self.signers)

    def append(self, *entries: bytes) -> int:
        """Append entries and return the new size."""
        for entry in entries:
            self.entries.append(entry)
            self.tree.append(leaf_hash(entry))
        return self.tree.size

    def checkpoint(self, size: int | None = None, time_s: int = 1_700_000_000) -> bytes:
        """Sign the tree of a size."""
        size = self.tree.size if size is None else size
        checkpoint = Checkpoint(self.origin, size, self.tree.root(size))
        return sign_note(checkpoint.text, self.signers, time_s)

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Prove that the log grew from ``old``; empty from 0."""
        return self.tree.consistency_proof(old, new) if old else []

    def evidence(self, index: int, checkpoint: bytes, size: int | None = None) -> Evidence:
        """Return the evidence of an entry under a cosigned checkpoint of ``size``."""
        proof = self.tree.inclusion_proof(index, size)
        return Evidence(checkpoint, index, self.entries[index], tuple(proof))

    def static(self, note: bytes | None = None) -> dict[str, bytes]:
        """Return the log as static files under a checkpoint: tiles, bundles, ``checkpoint`` (C2SP tlog-tiles)."""
        note = note or self.checkpoint()
        size = peek(note).size
        files = {"checkpoint": note}
        for span in entries_spans(size):
            start = span.index * WIDTH
            files[entries_path(span.index, span.width)] = encode_bundle(self.entries[start : start + span.width])
        for span in tile_spans(size):
            files[tile_path(span.level, span.index, span.width)] = tile_data(self.tree, span)
        return files

    def rewritten(self, entries: Sequence[bytes]) -> MemoryLog:
        """Return another log with the same keys and other entries: what a cheating log does."""
        other = MemoryLog(self.origin, ())
        other.signers = self.signers
        other.append(*entries)
        return other


def make_witness(
    name: str,
    log: MemoryLog,
    store: WitnessStore | None = None,
    kinds: Sequence[SignatureType] = (SignatureType.COSIGNATURE_ED25519,),
) -> Witness:
    """Return a witness with fresh keys that knows one log."""
    signers = [Signer.generate(name, kind) for kind in kinds]
    logs = [signer.verifier for signer in log.signers]
    return Witness(signers, logs, store if store is not None else MemoryWitnessStore())
