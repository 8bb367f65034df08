"""Gather the parts of an evidence pack from the log; ``convoy_audit.archive`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from convoy_audit.checkpoint import peek
from convoy_audit.errors import EvidenceError
from convoy_audit.pack import Parts, SignedContract
from convoy_audit.policy import Policy
from convoy_coordinator.log.service import LogService


def evidence_parts(
    log: LogService,
    *,
    policy: Policy,
    made_at: datetime,
    contracts: Sequence[SignedContract] = (),
    manifests: Mapping[str, bytes] | None = None,
) -> Parts:
    """Return everything up to the last checkpoint that has the policy's quorum.

    Args:
        log: the log.
        policy: whom the pack is to be verified with.
        made_at: the present instant.
        contracts: the documents that the log names, with their signatures.
        manifests: run -> the bytes of its release's manifest; those logged later are left out.

    Raises:
        EvidenceError: no checkpoint has the quorum.
    """
    notes = [note.encode() for note in log.checkpoints()]
    covered = [note for note in notes if policy.standing(note).has_quorum]
    if not covered:
        raise EvidenceError("no checkpoint of this log has the quorum", code="QUORUM_MISSING")
    size = peek(covered[-1]).size
    return Parts(
        policy=policy.text,
        checkpoint=covered[-1],
        entries=log.entries(0, size),
        made_at=made_at,
        checkpoints=[note for note in notes if peek(note).size < size],
        contracts=contracts,
        manifests=manifests or {},
    )
