"""Read a log from its first entry to its last and check what the entries say to each other.

    Trail(): .take(index, raw) for every entry in order; then .faults and the facts below
             .take_run(start, run)    many at once, read by ``convoy_audit.skim``; the same faults and facts

Checked: every entry is canonical and of the catalogue; every statement is signed with the key that
its party was enrolled with *before* (or rotated to), numbered and chained; no party is enrolled under another's key;
every release and every finished run was authorised before, under the same contract; no node
allowed a run that was not authorised before; what a ledger says it has spent stays under its cap;
what only a party can say stands in a statement of that party; nothing is dated back: the coordinator's
own entries by more than ``BACK_DATED_S`` behind its latest, a party's statements behind its own latest.
Not checked, because the log cannot know: whether what is said is true.
Faults are collected, not raised: a report names all of them (the first 1,000).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError, EvidenceError, StatementError
from convoy_audit.events import (
    ContractOffered,
    ContractSigned,
    DecisionMade,
    Event,
    KeyRotated,
    LedgerStated,
    PartyEnrolled,
    PartyRevoked,
    PartyRotated,
    ReleasePublished,
    RunAuthorised,
    RunFinished,
    RunSettled,
    StatedEvent,
    WitnessFollowed,
    WitnessRotated,
)
from convoy_audit.keys import check_ed25519_public, key_id_of
from convoy_audit.statement import Chain, Statement, verify_statement
from convoy_audit.summary import Summary
from convoy_audit.witness_change import check_change

if TYPE_CHECKING:
    from convoy_audit.skim import Skimmed

MAX_FAULTS: Final = 1000
BACK_DATED_S: Final = 300  # entries of one author may overtake each other, not by more


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong: code, what, where, and whom it concerns."""

    code: str
    cause: str
    party: str | None = None
    index: int | None = None

    @classmethod
    def of(cls, error: AuditError, index: int | None = None) -> Fault:
        """Make a fault of an error."""
        return cls(error.code, error.cause, error.party, index)

    def __str__(self) -> str:
        where = "" if self.index is None else f"entry {self.index}: "
        return f"{self.code}: {where}{self.cause}" + (f" (party: {self.party})" if self.party else "")


@dataclass(slots=True)
class Trail:
    """What a log says, gathered entry by entry."""

    kinds: Counter[str] = field(default_factory=Counter)
    parties: dict[str, PartyEnrolled] = field(default_factory=dict)
    identity_keys: dict[str, bytes] = field(default_factory=dict)  # the key that signs from now on
    former: dict[str, tuple[bytes, datetime]] = field(default_factory=dict)  # a rotated key, and until when it signs
    rotations: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # party -> statement and key it announced
    revoked: set[str] = field(default_factory=set)
    witness_changes: dict[str, WitnessRotated] = field(
        default_factory=dict
    )  # digest of the statement -> change, in order
    chains: dict[str, Chain] = field(default_factory=dict)
    contracts: set[str] = field(default_factory=set)
    contract_signers: dict[str, set[str]] = field(default_factory=dict)
    authorised: dict[str, RunAuthorised] = field(default_factory=dict)
    releases: dict[str, ReleasePublished] = field(default_factory=dict)
    denials: list[DecisionMade] = field(default_factory=list)
    spent_micro: dict[tuple[str, str], int] = field(default_factory=dict)  # party, asset -> total
    latest: dict[str, datetime] = field(default_factory=dict)  # author ("" = the coordinator) -> latest clock
    summary: Summary = field(default_factory=Summary)
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0

    def take(self, index: int, raw: bytes, signed_by: bytes = b"") -> None:
        """Take the next entry; ``signed_by`` is a key under which its signature was verified already (``skim``)."""
        self.summary.size = index + 1
        try:
            content = parse_entry(raw)
        except AuditError as error:
            self._fault(Fault.of(error, index))
            return
        event: Event
        if isinstance(content, Statement):
            event, author, at = content.event, content.party, content.at
        else:
            event, author, at = content, "", content.at
        kind = type(event)
        self.summary.take(index, content)
        self.kinds[kind.TYPE] = self.kinds.get(kind.TYPE, 0) + 1
        try:
            if author:
                self._statement(cast("Statement", content), signed_by)
            elif isinstance(event, StatedEvent):
                raise StatementError("a party's act without the party's signature", party=event.party)
            if kind in JUDGED:
                self._event(event)
            latest = self.latest.get(author)
            if latest is None or at > latest:
                self.latest[author] = at
            elif (back := (latest - at).total_seconds()) > BACK_DATED_S:
                raise EvidenceError(f"dated back by {back:.0f} s behind an earlier entry", party=author or None)
        except AuditError as error:
            self._fault(Fault.of(error, index))

    def take_run(self, start: int, run: Skimmed) -> bool:
        """Take all the entries of a run, of which most need no look of their own; False, and nothing is taken, if they do.

        They do if an entry of the coordinator could be dated back too far; then take them one by one.
        """
        latest = self.latest.get("")
        if run.lowest is not None and run.highest is not None:
            behind = 0.0 if latest is None else (latest - run.lowest).total_seconds()
            if max(run.back_s, behind) > BACK_DATED_S:
                return False
        for position, raw in run.rest:
            self.take(start + position, raw, run.signed.get(position, b""))
        self.kinds.update(run.kinds)
        self.summary.take_plain(start + run.size, run.first_at, run.last_at)
        latest = self.latest.get("")
        if run.highest is not None and (latest is None or run.highest > latest):
            self.latest[""] = run.highest
        return True

    def keys(self) -> dict[str, bytes]:
        """Return the identity keys that sign now, by their ids."""
        return {key_id_of(key): key for key in self.identity_keys.values()}

    @property
    def size(self) -> int:
        """How many entries were taken, those that cannot be read included."""
        return self.summary.size

    @property
    def first_at(self) -> datetime | None:
        """The earliest clock of an event."""
        return self.summary.first_at

    @property
    def last_at(self) -> datetime | None:
        """The latest clock of an event."""
        return self.summary.last_at

    def _statement(self, statement: Statement, signed_by: bytes) -> None:
        enrolled = self.parties.get(statement.party)
        if enrolled is None:
            raise StatementError("the party was not enrolled before", party=statement.party)
        if (key := self._signer(statement)) != signed_by or statement.key_id != key_id_of(key):
            verify_statement(statement, key)
        self.chains.setdefault(statement.party, Chain(statement.party)).accept(statement)
        if isinstance(statement.event, KeyRotated):
            self.rotations[statement.party] = (statement.digest, statement.event.identity_key)
        elif isinstance(statement.event, WitnessRotated):
            check_change(statement.event)
            self.witness_changes[statement.digest] = statement.event

    def _event(self, event: Event) -> None:
        match event:
            case PartyEnrolled():
                check_ed25519_public(event.identity_key)
                for other in self.parties.values():
                    if other.identity_key == event.identity_key and other.party != event.party:
                        raise EvidenceError(f"the key of {other.party} again", party=event.party)
                known = self.parties.setdefault(event.party, event)
                if self.identity_keys.setdefault(event.party, event.identity_key) != event.identity_key:
                    raise EvidenceError("enrolled again with another key", party=known.party)
            case PartyRotated():
                self._rotated(event)
            case PartyRevoked():
                self.revoked.add(event.party)
            case WitnessFollowed() if event.statement is not None:
                stated = self.witness_changes.get(event.statement)
                if stated is None or (stated.party, stated.new_keys) != (event.party, event.witness_keys):
                    raise EvidenceError("other witness keys than the party stated", party=event.party)
            case ContractOffered():
                self.contracts.add(event.contract)
            case ContractSigned():
                self.contract_signers.setdefault(event.contract, set()).add(event.party)
            case RunAuthorised():
                self.contracts.add(event.contract)
                self.authorised[event.run] = event
            case ReleasePublished():
                self._after_authorisation(event.run, event.contract, "released")
                if event.run in self.releases:
                    raise EvidenceError(f"run {event.run} was released twice")
                self.releases[event.run] = event
            case RunFinished():
                self._after_authorisation(event.run, event.contract, "finished")
            case DecisionMade():
                if event.outcome == "deny":
                    self.denials.append(event)
                else:
                    self._after_authorisation(event.run, event.contract, "allowed", event.party)
            case LedgerStated() | RunSettled():
                self._ledger(event)
            case _:
                pass

    def _signer(self, statement: Statement) -> bytes:
        """Return the key that a statement must be signed with: the present one, or the former one in its overlap."""
        old, until = self.former.get(statement.party, (b"", None))
        if until is not None and statement.at <= until and statement.key_id == key_id_of(old):
            return old
        return self.identity_keys[statement.party]

    def _rotated(self, event: PartyRotated) -> None:
        """Follow a key only where the old one said so, or where the party had been revoked before."""
        check_ed25519_public(event.identity_key)
        if event.party not in self.parties:
            raise EvidenceError("a key of a party that was not enrolled", party=event.party)
        if any(key == event.identity_key and party != event.party for party, key in self.identity_keys.items()):
            raise EvidenceError("rotated to another party's key", party=event.party)
        announced = self.rotations.get(event.party)
        if event.statement is None:
            if event.party not in self.revoked:
                raise EvidenceError("another key without the old one's word", party=event.party)
            self.revoked.discard(event.party)
        elif announced != (event.statement, event.identity_key):
            raise EvidenceError("another key than the party stated", party=event.party)
        if event.statement is None:
            self.former.pop(event.party, None)
        else:
            self.former[event.party] = (self.identity_keys[event.party], event.old_until)
        self.identity_keys[event.party] = event.identity_key

    def _ledger(self, event: LedgerStated | RunSettled) -> None:
        for asset, total in event.total_micro.items():
            self.spent_micro[event.party, asset] = total
        caps = (event.cap_micro or {}) if isinstance(event, LedgerStated) else {}
        over = sorted(a for a, cap in caps.items() if event.total_micro.get(a, 0) > cap)
        if over:
            raise EvidenceError(f"the ledger is over its cap for {over[0]}", party=event.party)

    def _after_authorisation(self, run: str, contract: str, what: str, party: str | None = None) -> None:
        authorised = self.authorised.get(run)
        if authorised is None:
            raise EvidenceError(f"run {run} was {what} without authorisation", party=party)
        if authorised.contract != contract:
            raise EvidenceError(f"run {run} was {what} under another contract", party=party)

    def _fault(self, fault: Fault) -> None:
        self.fault_count += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(fault)


JUDGED: Final = frozenset(
    {
        PartyEnrolled,
        PartyRotated,
        PartyRevoked,
        WitnessFollowed,
        ContractOffered,
        ContractSigned,
        RunAuthorised,
        ReleasePublished,
        RunFinished,
        DecisionMade,
        LedgerStated,
        RunSettled,
    }
)
"""The types that ``Trail._event`` looks at."""
