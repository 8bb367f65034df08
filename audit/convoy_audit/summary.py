"""What a log says in sum, gathered entry by entry from parsed entries: the facts behind report and lists.

    Summary().take(index, content) for every entry in order; then the facts below
    .decisions_json() / .ledgers_json() -> bytes        the pack's ``decisions.json`` and ``ledgers.json``
    .proof_indices() -> list[int]                       entries that a pack proves one by one

Pure, and the same whoever gathers it: the maker of a pack renders from it, the verifier renders again from
the entries it has verified and compares. LIMIT: nothing is verified here (``convoy_audit.trail`` does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from convoy_audit.canonical import Json, canonical_bytes
from convoy_audit.events import (
    ContractActivated,
    ContractOffered,
    DecisionMade,
    Event,
    IncidentOpened,
    LedgerStated,
    PartyEnrolled,
    ReleasePublished,
    ReleaseRecalled,
    RunAuthorised,
    RunFailed,
    RunFinished,
    RunSettled,
)
from convoy_audit.shapes import INSTANT
from convoy_audit.statement import Statement

MAX_PROOFS: Final = 64  # each carries the whole cosigned checkpoint


@dataclass(slots=True)
class Run:
    """A run that was authorised."""

    run: str
    contract: str
    requester: str
    purpose: str
    authorised: int  # index of the entry
    outcome: str = "authorised"


@dataclass(slots=True)
class Account:
    """A party's privacy budget for one asset, as its ledger last stated it."""

    total_micro: int
    cap_micro: int | None
    entry: int


@dataclass(slots=True)
class Summary:
    """The facts; see the fields."""

    size: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    parties: dict[str, str] = field(default_factory=dict)  # party -> role
    contracts: dict[str, tuple[str, int, bool]] = field(default_factory=dict)  # digest -> uid, version, active
    runs: dict[str, Run] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)  # party, asset
    decisions: list[dict[str, Json]] = field(default_factory=list)
    denials: int = 0
    incidents: int = 0
    _proofs: list[int] = field(default_factory=list)

    def take(self, index: int, content: Event | Statement) -> None:
        """Take the next entry."""
        event = content.event if isinstance(content, Statement) else content
        self.size = index + 1
        at = event.at
        if self.first_at is None or at < self.first_at:
            self.first_at = at
        if self.last_at is None or at > self.last_at:
            self.last_at = at
        act = TAKEN.get(type(event))
        if act is not None:
            act(self, index, event)

    def take_plain(self, size: int, first_at: datetime | None, last_at: datetime | None) -> None:
        """Take entries that only count, up to ``size``: their first and last instant."""
        self.size = size
        if first_at is not None and (self.first_at is None or first_at < self.first_at):
            self.first_at = first_at
        if last_at is not None and (self.last_at is None or last_at > self.last_at):
            self.last_at = last_at

    def proof_indices(self) -> list[int]:
        """Return the entries that matter most: activations, authorisations, releases, recalls, denials."""
        return self._proofs[:MAX_PROOFS]

    def decisions_json(self) -> bytes:
        """Return every decision of every node, in log order."""
        return canonical_bytes({"v": 1, "decisions": self.decisions})

    def ledgers_json(self) -> bytes:
        """Return every party's budget as its ledger last stated it; micro epsilon, rounded up by the party."""
        rows = [
            {"party": party, "asset": asset, "totalMicro": a.total_micro, "entry": a.entry}
            | ({} if a.cap_micro is None else {"capMicro": a.cap_micro})
            for (party, asset), a in sorted(self.accounts.items())
        ]
        return canonical_bytes({"v": 1, "ledgers": rows})

    def _enrolled(self, index: int, event: PartyEnrolled) -> None:
        self.parties[event.party] = event.role

    def _offered(self, index: int, event: ContractOffered) -> None:
        self.contracts[event.contract] = (event.uid, event.version, False)

    def _activated(self, index: int, event: ContractActivated) -> None:
        self.contracts[event.contract] = (event.uid, event.version, True)
        self._proofs.append(index)

    def _authorised(self, index: int, event: RunAuthorised) -> None:
        self.runs[event.run] = Run(event.run, event.contract, event.requester, event.purpose, index)
        self._proofs.append(index)

    def _ended(self, index: int, event: RunFinished | RunFailed) -> None:
        if event.run in self.runs and self.runs[event.run].outcome != "released":
            self.runs[event.run].outcome = "finished" if isinstance(event, RunFinished) else "failed"

    def _released(self, index: int, event: ReleasePublished) -> None:
        if event.run in self.runs:
            self.runs[event.run].outcome = "released"
        self._proofs.append(index)

    def _recalled(self, index: int, event: ReleaseRecalled) -> None:
        if event.run in self.runs:
            self.runs[event.run].outcome = "recalled"
        self._proofs.append(index)

    def _decided(self, index: int, event: DecisionMade) -> None:
        row: dict[str, Json] = {
            "entry": index,
            "at": INSTANT.write(event.at),
            "party": event.party,
            "run": event.run,
            "contract": event.contract,
            "phase": event.phase,
            "outcome": event.outcome,
        }
        self.decisions.append(row | ({"reasons": list(event.reasons)} if event.reasons else {}))
        if event.outcome == "deny":
            self.denials += 1
            self._proofs.append(index)

    def _ledger(self, index: int, event: LedgerStated | RunSettled) -> None:
        caps = (event.cap_micro or {}) if isinstance(event, LedgerStated) else {}
        for asset, total in event.total_micro.items():
            before = self.accounts.get((event.party, asset))
            cap = caps.get(asset, before.cap_micro if before else None)
            self.accounts[event.party, asset] = Account(total, cap, index)

    def _incident(self, index: int, event: IncidentOpened) -> None:
        self.incidents += 1
        self._proofs.append(index)


TAKEN: Final[dict[type[Event], Callable[[Summary, int, Any], None]]] = {
    PartyEnrolled: Summary._enrolled,
    ContractOffered: Summary._offered,
    ContractActivated: Summary._activated,
    RunAuthorised: Summary._authorised,
    RunFinished: Summary._ended,
    RunFailed: Summary._ended,
    ReleasePublished: Summary._released,
    ReleaseRecalled: Summary._recalled,
    DecisionMade: Summary._decided,
    LedgerStated: Summary._ledger,
    RunSettled: Summary._ledger,
    IncidentOpened: Summary._incident,
}
