"""Bring back entries that a restored log lacks, from a copy that a partner kept.

    catch_up(log, source: Path) -> Recovered        source: a node's mirror, an archive, a pack, a database or a dump

Taken is only what this very log has signed: the copy's last checkpoint must carry the signatures of all of the log's keys, its
entries must derive to that root, and they must begin with every entry there is here. So nobody can bring in an entry that was
not logged. LIMIT: only the log comes back. What the entries told of (a run, a signature, a release) is in tables of their own;
``kinds`` counts what the operator has to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from convoy_audit.checkpoint import open_checkpoint
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.sources import open_log
from convoy_audit.statement import Statement
from convoy_coordinator.errors import SetupError
from convoy_coordinator.log.service import LogService

BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many entries there were, how many came, and of which types."""

    before: int
    after: int
    kinds: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return {"before": self.before, "after": self.after, "kinds": dict(self.kinds)}


def catch_up(log: LogService, source: Path) -> Recovered:
    """Append what a copy has and the log has not.

    Raises:
        SetupError: COPY_WRONG; nothing is appended then.
        Problem: LOG_UNAVAILABLE; what was appended so far is right, and the next call goes on.
    """
    before = log.size()
    try:
        found = open_log(source)
        if not found.notes:
            raise _wrong("it holds no checkpoint")
        checkpoint, note = open_checkpoint(found.notes[-1], log.verifiers)
        if checkpoint.origin != log.origin or not all(map(note.signed_by, log.verifiers)):
            raise _wrong("its checkpoint is not signed by all of this log's keys")
        tree, missing = Tree(), []
        for index, _, body in found.rows():
            if index >= checkpoint.size:
                break
            leaf = leaf_hash(body)
            if index != tree.size or (index < before and leaf != log.leaf(index)):
                raise _wrong(f"entry {index} is not the one that is here")
            tree.append(leaf)
            if index >= before:
                missing.append(body)
    except AuditError as error:
        raise _wrong(error.cause) from None
    if tree.size != checkpoint.size or tree.root() != checkpoint.root:
        raise _wrong("its entries do not make the root that was signed")
    if checkpoint.size < before:
        raise _wrong(f"it has {checkpoint.size} entries, there are {before} here")
    for start in range(0, len(missing), BATCH):
        log.append_many(missing[start : start + BATCH])
        # If we die here: a beginning of what was signed is durable, and the next call goes on from it.
    return Recovered(before, log.size(), Counter(map(_kind, missing)))


def _kind(raw: bytes) -> str:
    content = parse_entry(raw)
    return content.event.TYPE if isinstance(content, Statement) else content.TYPE


def _wrong(cause: str) -> SetupError:
    return SetupError(
        "COPY_WRONG", f"this copy cannot be taken: {cause}", fix="Ask another partner for the mirror of its witness."
    )
