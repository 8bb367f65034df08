"""Evidence that one entry stands in the log, under a checkpoint that enough witnesses have
cosigned.

    Evidence(checkpoint: bytes, index: int, entry: bytes, proof: tuple[bytes, ...])
    Evidence.from_json({"checkpoint", "index", "entry", "proof": [base64]}) / .to_json()
    verify_evidence(evidence, policy, require=()) -> VerifiedEntry        raises AuditError
    VerifiedEntry.check_dated()                  refuses an entry dated back or ahead, by the witnesses' clocks
    write_pack(...) / verify_pack(path)          whole evidence packs: see convoy_audit.archive

A node acts on a ``VerifiedEntry`` and nothing else; only ``verify_evidence`` makes one. ``require``
are keys that must have cosigned whatever the policy says: the node's own witness. What it does not
show: that the entry is true, or that no later entry takes it back.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from convoy_audit.archive import verify_pack, write_pack
from convoy_audit.canonical import Json, b64, unb64
from convoy_audit.entry import Entry
from convoy_audit.errors import EvidenceError, FormatError, SignatureError
from convoy_audit.events import Event
from convoy_audit.merkle import MAX_PROOF, leaf_hash, verify_inclusion
from convoy_audit.note import Verifier, open_note
from convoy_audit.policy import Policy, Verified
from convoy_audit.proof import TlogProof

DATED_S: Final = 300
"""How far an entry's own clock may be from the witnesses' that cosign it, for work to start on it."""
__all__ = ["Evidence", "VerifiedEntry", "verify_evidence", "verify_pack", "write_pack"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An entry with what shows that it is logged; nothing verified yet."""

    checkpoint: bytes
    index: int
    entry: bytes
    proof: tuple[bytes, ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Evidence:
        """Read the members of a message: checkpoint and entry as text, proof in base64.

        Raises:
            FormatError: members that are missing or of another type.
        """
        try:
            checkpoint, entry = value["checkpoint"], value["entry"]
            index, proof = value["index"], value["proof"]
        except (KeyError, TypeError):
            raise FormatError("evidence needs checkpoint, index, entry and proof") from None
        if (
            not isinstance(checkpoint, str)
            or not isinstance(entry, str)
            or type(index) is not int
            or not isinstance(proof, list)
            or len(proof) > MAX_PROOF
            or not all(isinstance(node, str) for node in proof)
        ):
            raise FormatError("evidence with a member of the wrong type")
        try:
            return cls(checkpoint.encode(), index, entry.encode(), tuple(unb64(node) for node in proof))
        except UnicodeEncodeError:
            raise FormatError("evidence that is not UTF-8") from None

    def to_json(self) -> dict[str, Json]:
        """Return the members of a message."""
        return {
            "checkpoint": self.checkpoint.decode(),
            "index": self.index,
            "entry": self.entry.decode(),
            "proof": [b64(node) for node in self.proof],
        }

    @property
    def tlog_proof(self) -> TlogProof:
        """The same, without the entry, as a C2SP tlog-proof."""
        return TlogProof(self.index, self.proof, self.checkpoint)


@dataclass(frozen=True, slots=True)
class VerifiedEntry:
    """An entry that is proven to be in the log; only ``verify_evidence`` makes one."""

    entry: Entry
    index: int
    checkpoint: Verified

    @property
    def event(self) -> Event:
        """What the entry says."""
        return self.entry.event

    def check_dated(self) -> None:
        """Check that the entry was written about when it was cosigned, by the witnesses' clocks.

        Raises:
            EvidenceError: ENTRY_BACK_DATED, more than ``DATED_S`` before or after; not judged where nobody gave a time.
        """
        times = self.checkpoint.standing.times_s
        if not times:
            return
        away_s = statistics.median(times) - self.event.at.timestamp()
        if abs(away_s) > DATED_S:
            raise EvidenceError(
                f"entry {self.index} is dated {abs(away_s):.0f} s {'before' if away_s > 0 else 'after'} its witnesses' clocks",
                code="ENTRY_BACK_DATED",
            )


def verify_evidence(evidence: Evidence, policy: Policy, *, require: Iterable[Verifier] = ()) -> VerifiedEntry:
    """Verify evidence, in this order.

    1. The policy accepts the checkpoint: the log's signatures and the quorum of cosignatures.
    2. Every key of ``require`` has cosigned it.
    3. The entry is at its index in this tree.
    4. The entry is canonical and of the catalogue.

    Raises:
        FormatError, SignatureError, PolicyError, ProofError: as the step says.
        EvidenceError: OWN_WITNESS_MISSING.
    """
    verified = policy.verify(evidence.checkpoint)
    for own in require:
        try:
            open_note(evidence.checkpoint, [own])
        except SignatureError:
            raise EvidenceError(
                f"checkpoint {verified.checkpoint.size} is not cosigned by {own.name[:80]}",
                code="OWN_WITNESS_MISSING",
                party=own.name[:80],
            ) from None
    checkpoint = verified.checkpoint
    verify_inclusion(leaf_hash(evidence.entry), evidence.index, checkpoint.size, evidence.proof, checkpoint.root)
    return VerifiedEntry(Entry(evidence.entry), evidence.index, verified)
