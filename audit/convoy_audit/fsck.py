"""Derive a whole log again from where it is stored, and compare with what was signed.

    check_log(path: Path, policy: Policy | None = None) -> Findings      path: database, dump, tiles, pack

From a coordinator's SQLite file (opened read-only) or a plain ``pg_dump``: every leaf, the index
sequence, the stored frontier of every commit, and every signed checkpoint. From a folder or zip with
``checkpoint`` and ``tile/``: every entry bundle and tile of hashes that is there, partial ones included, and the
checkpoints. Signatures are verified if a policy is given. Needs no code of the coordinator.
LIMIT: a tile that reaches beyond the newest checkpoint (published, and not signed yet) cannot be judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import AuditError, EvidenceError, FormatError
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.policy import Policy
from convoy_audit.skim import skim
from convoy_audit.sources import open_log
from convoy_audit.tiles import WIDTH, decode_bundle, entries_path, entries_spans, is_within, parse_path, tile_data
from convoy_audit.trail import Fault, Trail


@dataclass(slots=True)
class Findings:
    """What was derived, and what does not fit."""

    size: int = 0
    root: bytes = b""
    checkpoints: int = 0
    verified_signatures: int = 0
    faults: list[Fault] = field(default_factory=list)

    def wrong(self, cause: str, index: int | None = None) -> None:
        """Note a fault."""
        self.faults.append(Fault("EVIDENCE_WRONG", cause, None, index))

    def as_json(self) -> dict[str, Any]:
        """Return the findings as data."""
        return {
            "verified": not self.faults,
            "entries": self.size,
            "root": self.root.hex(),
            "checkpoints": self.checkpoints,
            "signaturesVerified": self.verified_signatures,
            "faults": [{"code": f.code, "cause": f.cause, "entry": f.index} for f in self.faults],
        }

    def lines(self) -> Iterator[str]:
        """Yield the findings as text."""
        yield f"{'WRONG' if self.faults else 'CLEAN'}: {self.size} entries, root {self.root.hex()}"
        yield f"  checkpoints compared: {self.checkpoints}"
        yield (
            f"  checkpoint signatures verified: {self.verified_signatures}"
            + ("" if self.verified_signatures else " (give --policy to verify them)")
        )
        for fault in self.faults:
            yield f"  {fault}"


def check_log(path: Path, policy: Policy | None = None) -> Findings:
    """Check a stored log.

    Raises:
        FormatError: there is no log at ``path``.
    """
    log = open_log(path)
    reading = _Reading(dict(log.frontiers or {}))
    findings, tree = reading.findings, reading.tree
    is_broken = False
    try:
        for index, leaf, body in log.rows():
            is_broken = index != tree.size + len(reading.bodies) or not isinstance(body, bytes)
            if is_broken:
                break
            reading.take(leaf, body)
        reading.flush()
    except AuditError as error:
        reading.flush()
        findings.faults.append(Fault.of(error, tree.size))
    if is_broken:
        findings.wrong("an entry is missing or is not what it was", tree.size)
    for size in sorted(reading.frontiers):
        findings.wrong(f"a frontier of {size} is stored; there are {tree.size} entries")
    if log.frontiers is not None and reading.last != tree.size:
        findings.wrong(f"the last stored frontier is of {reading.last}, there are {tree.size} entries")
    if log.files is not None:
        _check_tiles(findings, tree, log.files)
    for note in log.notes:
        _compare(findings, tree, note, policy)
    findings.size, findings.root = tree.size, tree.root()
    findings.faults += reading.trail.faults
    return findings


class _Reading:
    """The entries so far; judged by whole bundles, which is several times faster than one by one."""

    def __init__(self, frontiers: dict[int, bytes]) -> None:
        self.findings, self.tree, self.trail = Findings(), Tree(), Trail()
        self.frontiers = frontiers  # those that no entry has come to yet
        self.last = 0  # size of the last frontier that was compared
        self.bodies: list[bytes] = []
        self._leaves: list[bytes | None] = []

    def take(self, leaf: bytes | None, body: bytes) -> None:
        """Take the next entry with the leaf hash that is stored beside it."""
        self.bodies.append(body)
        self._leaves.append(leaf)
        if len(self.bodies) == WIDTH:
            self.flush()

    def flush(self) -> None:
        """Judge what was taken."""
        start, run = self.tree.size, skim(self.bodies)
        for position, leaf in enumerate(self._leaves):
            if leaf is not None and leaf != run.leaf(position):
                self.findings.wrong("the stored leaf is not that of the entry", start + position)
        run.extend(self.tree)
        if not self.trail.take_run(start, run):
            for index, body in enumerate(self.bodies, start):
                self.trail.take(index, body)
        for size in range(start + 1, self.tree.size + 1):
            stored = self.frontiers.pop(size, None)
            if stored is not None and stored != b"".join(self.tree.frontier(size)):
                self.findings.wrong(f"the stored frontier of {size} does not fit", size - 1)
            self.last = size if stored is not None else self.last
        self.bodies, self._leaves = [], []


def _check_tiles(findings: Findings, tree: Tree, files: Mapping[str, bytes]) -> None:
    """Compare every tile of hashes with the tree, and of the bundles those beside the ones that were read."""
    read = {entries_path(span.index, span.width) for span in entries_spans(tree.size)}
    for name in sorted(files):
        if not name.startswith("tile/") or name in read:
            continue
        try:
            kind, span = parse_path(name)
            if not is_within(span, tree.size):
                continue
            found = files[name] if kind == "tile" else b"".join(map(leaf_hash, decode_bundle(files[name], span.width)))
        except FormatError as error:
            findings.wrong(f"{name[:80]}: {error.cause}")
            continue
        if found != tile_data(tree, span):
            findings.wrong(f"{name} does not fit the entries")


def _compare(findings: Findings, tree: Tree, note: bytes, policy: Policy | None) -> None:
    try:
        checkpoint: Checkpoint = peek(note)
        if checkpoint.size > tree.size:
            raise EvidenceError(f"{checkpoint.size} entries were signed, there are {tree.size}")
        if tree.root(checkpoint.size) != checkpoint.root:
            raise EvidenceError(f"the first {checkpoint.size} entries are not those that were signed")
        findings.checkpoints += 1
        if policy is not None:
            findings.verified_signatures += len(policy.standing(note).note.signatures)
    except AuditError as error:
        findings.faults.append(Fault.of(error))
