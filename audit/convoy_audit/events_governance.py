"""Events about the log itself and what surrounds it: incidents, evidence, retention, succession, use of models.

Part of the catalogue in ``convoy_audit.events``; the same rules hold. ``GOVERNANCE`` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from convoy_audit.errors import FormatError
from convoy_audit.event_base import Event, StatedEvent
from convoy_audit.shapes import Code, Codes, Count, Digest, Octets, Proofs, Token, Tokens, Vkeys


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Event):
    """An incident became known; every legal clock starts at ``known_at``. ``entries`` triggered it."""

    TYPE = "coordinator:incident:opened"
    TITLES = ("Incident opened", "事件立案")

    incident: Token
    code: Code
    severity: Literal["P1", "P2", "P3"]
    known_at: datetime
    contract: Digest | None = None
    run: Token | None = None
    party: Token | None = None
    entries: Tokens = ()  # indices in this log, in decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentStepped(Event):
    """An incident was contained, notified to an authority, corrected, or closed."""

    TYPE = "coordinator:incident:stepped"
    TITLES = ("Incident step", "事件处置")

    incident: Token
    step: Literal["contained", "notified", "reported", "corrected", "closed"]
    to: Token | None = None  # the authority or party that was told
    evidence: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceExported(Event):
    """An evidence pack was given out; reading the trail is part of the trail."""

    TYPE = "coordinator:evidence:exported"
    TITLES = ("Evidence exported", "证据导出")

    size: Count
    pack: Digest
    by: Token
    purpose: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged(Event):
    """The witness policy was replaced; ``approved_by`` are the parties that pinned the new one."""

    TYPE = "coordinator:policy:changed"
    TITLES = ("Witness policy changed", "见证策略变更")

    old: Digest
    new: Digest
    approved_by: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSucceeded(Event):
    """The first entry of a log that follows a retired one; names the last checkpoint that was cosigned there."""

    TYPE = "coordinator:log:succeeded"
    TITLES = ("Log succeeded", "日志接续")

    old_origin: Token
    old_size: Count
    old_root: Digest
    old_note: Digest
    reason: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesArchived(Event):
    """Sealed entry bundles were moved to an archive; their hashes stay in the log."""

    TYPE = "coordinator:log:archived"
    TITLES = ("Entries archived", "条目归档")

    first: Count
    end: Count
    archive: Digest

    def check_rules(self) -> None:
        """Whole bundles only."""
        if self.first % 256 or self.end % 256 or self.first >= self.end:
            raise FormatError("an archive holds whole bundles of 256 entries")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionDecided(Event):
    """A request to erase was judged; a refusal names the floor that forbids it."""

    TYPE = "coordinator:retention:decided"
    TITLES = ("Retention decision", "保存期限决定")

    subject: Literal["log", "decision", "assessment", "contract", "commitment"]
    outcome: Literal["allow", "deny"]
    until: datetime | None = None
    reasons: Codes = ()

    def check_rules(self) -> None:
        """A denial has reasons, a permit has none."""
        if (self.outcome == "deny") != bool(self.reasons):
            raise FormatError("a denial has reasons, a permit has none")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentErased(StatedEvent):
    """A party erased the key of a commitment: nobody can open it any more."""

    TYPE = "node:commitment:erased"
    TITLES = ("Commitment forgotten", "承诺密钥销毁")

    commitment: Digest
    ground: Literal["withdrawal", "request", "expiry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantityCommitted(StatedEvent):
    """A party committed to a number of a round without showing it (``convoy_audit.zk``; experimental)."""

    TYPE = "node:quantity:committed"
    TITLES = ("Quantity committed", "数量承诺")

    run: Token
    contract: Digest
    round: Count
    quantity: Literal["cohort", "spend"]
    commitment: Octets  # 32 bytes, ristretto255
    proof: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptMissed(StatedEvent):
    """A party's statement was not under a cosigned checkpoint in time; ``statement`` is its digest."""

    TYPE = "node:receipt:missed"
    TITLES = ("Receipt missing", "回执缺失")

    number: Count
    statement: Digest
    checkpoints: Count  # how many went by


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded(StatedEvent):
    """A party loaded a released model for use, or its loader refused it."""

    TYPE = "node:release:loaded"
    TITLES = ("Model loaded", "模型加载")

    run: Token
    manifest: Digest
    contract: Digest | None = None
    outcome: Literal["allow", "deny"]
    reasons: Codes = ()

    def check_rules(self) -> None:
        """A denial has reasons, a permit has none."""
        if (self.outcome == "deny") != bool(self.reasons):
            raise FormatError("a denial has reasons, a permit has none")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessRotated(StatedEvent):
    """A party's witness gets other keys; every old and every new one has signed the change (``witness_change``).

    ``planned``: the old keys go on to count for contracts that pin them; ``compromised``: for nothing any more.
    """

    TYPE = "node:witness:rotated"
    TITLES = ("Witness keys rotated", "见证密钥轮换")

    old_keys: Vkeys
    new_keys: Vkeys
    old_proofs: Proofs
    new_proofs: Proofs
    reason: Literal["planned", "compromised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessFollowed(Event):
    """From this entry on the log counts these keys of a party's witness.

    ``statement`` is the digest of the party's ``node:witness:rotated``; it is missing where the party came back after a revocation.
    """

    TYPE = "coordinator:witness:followed"
    TITLES = ("Witness keys followed", "见证密钥已更新")

    party: Token
    witness_keys: Vkeys
    statement: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityAnnounced(Event):
    """Another certificate authority of the coordinator follows the present one, which has signed this (``proof``, ECDSA).

    From ``begins`` on it issues the nodes' certificates, from ``ends`` on the old one counts no more.
    """

    TYPE = "coordinator:authority:announced"
    TITLES = ("Certificate authority announced", "证书机构更换公告")

    old: Digest  # of the present authority's certificate, DER
    certificate: Octets  # of the next one, DER
    begins: datetime
    ends: datetime
    proof: Octets


GOVERNANCE: Final[tuple[type[Event], ...]] = (
    IncidentOpened,
    IncidentStepped,
    EvidenceExported,
    PolicyChanged,
    LogSucceeded,
    TilesArchived,
    RetentionDecided,
    CommitmentErased,
    QuantityCommitted,
    ReceiptMissed,
    ModelLoaded,
    WitnessRotated,
    WitnessFollowed,
    AuthorityAnnounced,
)
