"""The catalogue of events: what can stand in the log, one frozen class each.

A type is ``subject:object:action``: who acted, on what, what was done. Names and members of this
version never change and are never used again; a new fact gets a new type. No event has a place for
free text or personal data (``convoy_audit.shapes``). Refusals are entries as much as permits.

    to_json(event) -> dict       from_json(value) -> Event       EVENTS: type -> class

Events that a party answers for (``StatedEvent``: subject node or witness) are put in a statement
that the party signs (``convoy_audit.statement``); the others are written by the coordinator.
LENGTH: over 500 lines, because a catalogue is one list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from convoy_audit import shapes
from convoy_audit.canonical import Json, is_version
from convoy_audit.errors import FormatError
from convoy_audit.event_base import Event as Event
from convoy_audit.event_base import StatedEvent as StatedEvent
from convoy_audit.events_governance import GOVERNANCE
from convoy_audit.events_governance import AuthorityAnnounced as AuthorityAnnounced
from convoy_audit.events_governance import CommitmentErased as CommitmentErased
from convoy_audit.events_governance import EvidenceExported as EvidenceExported
from convoy_audit.events_governance import IncidentOpened as IncidentOpened
from convoy_audit.events_governance import IncidentStepped as IncidentStepped
from convoy_audit.events_governance import LogSucceeded as LogSucceeded
from convoy_audit.events_governance import ModelLoaded as ModelLoaded
from convoy_audit.events_governance import PolicyChanged as PolicyChanged
from convoy_audit.events_governance import QuantityCommitted as QuantityCommitted
from convoy_audit.events_governance import ReceiptMissed as ReceiptMissed
from convoy_audit.events_governance import RetentionDecided as RetentionDecided
from convoy_audit.events_governance import TilesArchived as TilesArchived
from convoy_audit.events_governance import WitnessFollowed as WitnessFollowed
from convoy_audit.events_governance import WitnessRotated as WitnessRotated
from convoy_audit.shapes import Charges, Code, Codes, Count, Digest, Octets, Token, Tokens, Vkeys

VERSION: Final = 1
Phase = Literal["authorise", "release"]
Outcome = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyEnrolled(Event):
    """The coordinator took a party in, with the public halves of its keys."""

    TYPE = "coordinator:party:enrolled"
    TITLES = ("Party enrolled", "参与方登记")

    party: Token
    role: Token
    region: Token | None = None
    identity_key: Octets  # 32 bytes Ed25519: contract signatures and statements
    identity_key_id: Token | None = None
    mask_key: Octets | None = None
    witness_keys: Vkeys = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractOffered(Event):
    """A contract document was offered for signature."""

    TYPE = "party:contract:offered"
    TITLES = ("Contract offered", "合约提出")

    contract: Digest
    uid: Token
    version: Count
    parties: Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractSigned(Event):
    """A party signed a contract; ``signature`` is the digest of its detached signature."""

    TYPE = "party:contract:signed"
    TITLES = ("Contract signed", "合约签署")

    contract: Digest
    party: Token
    key_id: Token
    signature: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureRefused(Event):
    """A signature was offered that does not hold."""

    TYPE = "coordinator:signature:refused"
    TITLES = ("Signature refused", "签名被拒")

    contract: Digest
    party: Token | None = None
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractActivated(Event):
    """Every party has signed; the contract is in force for its term."""

    TYPE = "coordinator:contract:activated"
    TITLES = ("Contract activated", "合约生效")

    contract: Digest
    uid: Token
    version: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractChanged(Event):
    """A suspension, resumption, end or replacement of a contract (FORMAT.md §5)."""

    TYPE = "party:contract:changed"
    TITLES = ("Contract changed", "合约变更")

    uid: Token
    number: Count
    change: Literal["suspend", "resume", "terminate", "supersede"]
    by: Token
    party: Token | None = None
    event: Digest | None = None  # of the event's canonical bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferClosed(Event):
    """A party refused an offered version, or its author withdrew it."""

    TYPE = "party:offer:closed"
    TITLES = ("Offer closed", "要约终结")

    uid: Token
    version: Count
    number: Count
    change: Literal["refuse", "withdraw"]
    by: Token
    event: Digest  # of the event's canonical bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRefused(Event):
    """A change of a contract was asked for that may not happen; ``code`` says why."""

    TYPE = "coordinator:change:refused"
    TITLES = ("Change refused", "变更被拒")

    uid: Token
    change: Token
    by: Token
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetCatalogued(Event):
    """An owner's entry of the asset catalogue took effect; ``entry`` is the digest of its canonical bytes."""

    TYPE = "party:asset:catalogued"
    TITLES = ("Asset catalogued", "资产登记")

    asset: Token
    version: Count
    owner: Token
    steward: Token
    entry: Digest
    raised: Count  # fields whose grade rose
    lowered: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class TierGranted(Event):
    """A partner has another tier by the signatures of ``by``."""

    TYPE = "party:tier:granted"
    TITLES = ("Tier granted", "等级授予")

    party: Token
    tier: Token
    by: Tokens
    grant: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequested(Event):
    """A party asked for a training."""

    TYPE = "party:run:requested"
    TITLES = ("Run requested", "训练申请")

    run: Token
    contract: Digest
    algorithm: Token
    requester: Token
    purpose: Token
    round: Count | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRefused(Event):
    """A run was refused before any node was asked."""

    TYPE = "coordinator:run:refused"
    TITLES = ("Run refused", "训练被拒")

    run: Token | None = None
    contract: Digest
    algorithm: Token | None = None
    requester: Token | None = None
    party: Token | None = None
    reasons: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAuthorised(Event):
    """The coordinator asks the nodes to train; a node works only on evidence of this entry."""

    TYPE = "coordinator:run:authorised"
    TITLES = ("Run authorised", "训练授权")

    run: Token
    contract: Digest
    scope: Digest  # of the request, FORMAT.md §2
    algorithm: Digest
    plan: Digest
    round: Count
    attempt: Count = 1
    requester: Token
    purpose: Token
    providers: Tokens
    epsilon_micro: Charges  # asset -> micro epsilon
    delta_nano: Charges


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOpened(Event):
    """Noisy sums of one batch were opened; ``result`` is the digest of what was decoded."""

    TYPE = "coordinator:query:opened"
    TITLES = ("Queries opened", "查询结果揭示")

    run: Token
    attempt: Count
    queries: Tokens
    result: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A run ended with a model."""

    TYPE = "coordinator:run:finished"
    TITLES = ("Run finished", "训练完成")

    run: Token
    contract: Digest
    manifest: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """A run ended without a model; ``party`` is where it stopped."""

    TYPE = "coordinator:run:failed"
    TITLES = ("Run failed", "训练失败")

    run: Token
    contract: Digest
    party: Token | None = None
    reasons: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePublished(Event):
    """A model was released; ``manifest`` is the digest of its manifest's bytes."""

    TYPE = "coordinator:release:published"
    TITLES = ("Release published", "模型发布")

    run: Token
    contract: Digest
    manifest: Digest
    recipients: Tokens = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRecalled(Event):
    """A released model must no longer be used."""

    TYPE = "coordinator:release:recalled"
    TITLES = ("Release recalled", "模型召回")

    run: Token
    manifest: Digest
    reasons: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationIssued(Event):
    """The coordinator's administrator invited an organisation; ``ticket`` is the ticket's public id."""

    TYPE = "coordinator:invitation:issued"
    TITLES = ("Invitation issued", "邀请签发")

    ticket: Token
    party: Token
    role: Token
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequested(Event):
    """A node asked to be enrolled with a ticket; ``card`` is the digest of its public keys."""

    TYPE = "coordinator:enrolment:requested"
    TITLES = ("Enrolment requested", "申请加入")

    ticket: Token
    party: Token
    card: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentDecided(Event):
    """An administrator compared the fingerprint and decided."""

    TYPE = "coordinator:enrolment:decided"
    TITLES = ("Enrolment decided", "加入审批")

    ticket: Token
    party: Token
    card: Digest
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateIssued(Event):
    """A party's node got a certificate for the channel; ``certificate`` is the digest of its DER bytes."""

    TYPE = "coordinator:certificate:issued"
    TITLES = ("Certificate issued", "证书签发")

    party: Token
    serial: Token
    certificate: Digest
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyRotated(Event):
    """A party's identity key was followed by another: in a statement of the old key, or enrolled anew after a revocation.

    Statements are signed with the new key from the next one on. ``statement`` is the digest of the party's own
    ``node:key:rotated`` statement; it is missing where the old key was revoked and an administrator approved the new one.
    """

    TYPE = "coordinator:party:rotated"
    TITLES = ("Identity key rotated", "身份密钥轮换")

    party: Token
    old_key_id: Token
    new_key_id: Token
    identity_key: Octets
    old_until: datetime
    statement: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernodeRotated(Event):
    """A party's SuperNode got another key, which its identity key has asked for; ``key`` is the digest of its PEM."""

    TYPE = "coordinator:supernode:rotated"
    TITLES = ("SuperNode key rotated", "SuperNode 密钥轮换")

    party: Token
    key: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyRevoked(Event):
    """A party's access was taken away; with ``key-compromise`` its identity key counts no more from ``at`` on."""

    TYPE = "coordinator:party:revoked"
    TITLES = ("Party revoked", "参与方吊销")

    party: Token
    reason: Literal["key-compromise", "contract-ended", "cessation", "administrative"]
    certificates: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyDeparted(Event):
    """The coordinator let a party go; ``statement`` is the digest of the party's final statement."""

    TYPE = "coordinator:party:departed"
    TITLES = ("Party departed", "参与方退出")

    party: Token
    statement: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused(Event):
    """Somebody was refused on the partner channel; repeats within a minute are counted, not repeated.

    ``party`` is whom the certificate or the ticket names, which is not always who used it.
    """

    TYPE = "coordinator:access:refused"
    TITLES = ("Access refused", "访问被拒")

    party: Token | None = None
    code: Code
    count: Count = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionMade(StatedEvent):
    """A node decided on a request; a denial carries every reason."""

    TYPE = "node:run:decided"
    TITLES = ("Decision made", "节点决定")

    run: Token
    contract: Digest
    phase: Phase
    scope: Digest | None = None
    outcome: Outcome
    reasons: Codes = ()

    def check_rules(self) -> None:
        """A denial has reasons, a permit has none."""
        if (self.outcome == "deny") != bool(self.reasons):
            raise FormatError("a denial has reasons, a permit has none")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStated(StatedEvent):
    """A node reserved, spent or released privacy budget."""

    TYPE = "node:ledger:stated"
    TITLES = ("Ledger stated", "隐私账本声明")

    run: Token
    contract: Digest
    step: Literal["reserved", "spent", "released"]
    epsilon_micro: Charges  # asset -> micro epsilon of this run
    total_micro: Charges  # asset -> micro epsilon over all runs, rounded up
    cap_micro: Charges | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettled(StatedEvent):
    """A node closed a run in its ledger."""

    TYPE = "node:run:settled"
    TITLES = ("Run settled", "训练结清")

    run: Token
    contract: Digest
    outcome: Literal["finished", "aborted"]
    manifest: Digest | None = None
    epsilon_micro: Charges  # asset -> micro epsilon spent
    total_micro: Charges
    reasons: Codes = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsCommitted(StatedEvent):
    """A holder committed to its rows towards a peer before a run's first query; the trustee opens some of them at the end."""

    TYPE = "node:rows:committed"
    TITLES = ("Rows committed", "数据行承诺")

    run: Token
    contract: Digest
    peer: Token
    root: Digest  # over salted rows: says nothing about one


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsAudited(StatedEvent):
    """The trustee compared what holders sent with the rows they had committed to; ``parties`` are those with a finding."""

    TYPE = "node:rows:audited"
    TITLES = ("Rows audited", "数据行审计")

    run: Token
    contract: Digest
    roots: Digest  # of the commitments it received, as canonical JSON {holder: {peer: root}}
    outcome: Outcome
    parties: Tokens = ()
    reasons: Codes = ()

    def check_rules(self) -> None:
        """A denial has reasons, a permit has none."""
        if (self.outcome == "deny") != bool(self.reasons):
            raise FormatError("a denial has reasons, a permit has none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentRooted(StatedEvent):
    """A node fixed the state of every consent of a contract at one instant: an epoch (``convoy_audit.consent``).

    ``root`` is over keyed leaves, so it says nothing about a person. Counts are rounded down to whole fifties.
    ``incarnation`` changes when a node's register was restored from a copy.
    """

    TYPE = "node:consent:rooted"
    TITLES = ("Consent epoch", "同意登记时点")

    contract: Token  # uid: all versions of a contract share their consents
    epoch: Count
    root: Digest
    persons: Count
    withdrawn: Count  # since the epoch before
    incarnation: Token
    previous: Digest | None = None  # root of the epoch before

    def check_rules(self) -> None:
        """Counts are bucketed; only the first epoch has none before it."""
        if self.persons % 50 or self.withdrawn % 50:
            raise FormatError("counts of persons are multiples of 50")
        if self.epoch < 1 or (self.epoch == 1) != (self.previous is None):
            raise FormatError("epochs start at 1; only the first has none before it")


@dataclass(frozen=True, slots=True, kw_only=True)
class DutyStated(StatedEvent):
    """A party's duty was raised, fulfilled with evidence, or passed its due date. ``duty`` is a random id."""

    TYPE = "node:duty:stated"
    TITLES = ("Duty", "义务")

    duty: Token
    kind: Token
    contract: Token | None = None
    due: datetime
    step: Literal["raised", "fulfilled", "overdue"]
    evidence: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAlarm(StatedEvent):
    """A witness refused a checkpoint; it keeps both signed notes."""

    TYPE = "witness:log:alarmed"
    TITLES = ("Witness alarm", "见证方警报")

    origin: Token
    finding: Literal["rollback", "fork", "inconsistent"]
    known_size: Count
    known_note: Digest
    offered_size: Count
    offered_note: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotated(StatedEvent):
    """A party's old identity key names the new one; ``proof`` is the new key's own signature over the change."""

    TYPE = "node:key:rotated"
    TITLES = ("Key rotated", "密钥轮换")

    old_key_id: Token
    new_key_id: Token
    identity_key: Octets
    proof: Octets


@dataclass(frozen=True, slots=True, kw_only=True)
class DutiesEnded(StatedEvent):
    """A party leaves: its budgets are frozen, nothing is answered any more; ``total_micro`` is what persons have paid."""

    TYPE = "node:duties:ended"
    TITLES = ("Duties ended", "终止履约")

    reason: Literal["leaving", "contract-ended", "key-compromise"]
    open_runs: Count
    total_micro: Charges


CATALOGUE: Final[tuple[type[Event], ...]] = (
    PartyEnrolled,
    ContractOffered,
    ContractSigned,
    SignatureRefused,
    ContractActivated,
    ContractChanged,
    OfferClosed,
    ChangeRefused,
    AssetCatalogued,
    TierGranted,
    RunRequested,
    RunRefused,
    RunAuthorised,
    QueryOpened,
    RunFinished,
    RunFailed,
    ReleasePublished,
    ReleaseRecalled,
    DecisionMade,
    LedgerStated,
    RunSettled,
    RowsCommitted,
    RowsAudited,
    ConsentRooted,
    DutyStated,
    WitnessAlarm,
    InvitationIssued,
    EnrolmentRequested,
    EnrolmentDecided,
    CertificateIssued,
    PartyRotated,
    SupernodeRotated,
    PartyRevoked,
    PartyDeparted,
    AccessRefused,
    KeyRotated,
    DutiesEnded,
    *GOVERNANCE,
)
_ENVELOPE: Final = frozenset({"v", "type"})
EVENTS: Final[Mapping[str, type[Event]]] = MappingProxyType({c.TYPE: c for c in CATALOGUE})


def to_json(event: Event) -> dict[str, Json]:
    """Return the JSON object of an event, version and type included."""
    return {"v": VERSION, "type": event.TYPE, **shapes.write(event)}


def from_json(value: Any) -> Event:
    """Build the event of a JSON object.

    Raises:
        FormatError: not an event of this version's catalogue, or members that do not fit.
    """
    if type(value) is not dict and not isinstance(value, Mapping):
        raise FormatError("an event that is not an object")
    if not is_version(value.get("v"), VERSION):
        raise FormatError(f"an event of another version than {VERSION}")
    kind = value.get("type")
    cls = EVENTS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise FormatError(f"the event type {str(kind)[:60]!r} is not in the catalogue")
    try:
        event = shapes.read(cls, value, _ENVELOPE)
        event.check_rules()
        return event
    except FormatError as error:
        raise FormatError(f"{cls.TYPE}: {error.cause}") from None
