"""Questions to a verified trail: which entries, who used what, and a sample for a reviewer.

    Filter(contract, party, run, model, since, until, reason, kind).select(entries) -> Iterator[Found]
    use_by_quarter(entries) -> list[Use]               "who used which data under which contract last quarter"
    sample(size, count, seed) -> list[int]             indices; the same seed gives the same sample anywhere
    Found: .index, .content        quarter_of(instant) -> "2026-Q4"

``entries`` are the raw entries in log order, from index 0: names that stand in one entry (a contract's
uid, a run's contract) resolve those in others. Whoever asks must have verified them first; nothing here
verifies. Pure: no input or output, no clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from convoy_audit.composition import composed_micro
from convoy_audit.entry import parse_entry
from convoy_audit.errors import FormatError
from convoy_audit.events import (
    ContractActivated,
    ContractOffered,
    DecisionMade,
    Event,
    LedgerStated,
    ReleasePublished,
    RunAuthorised,
    RunRequested,
    RunSettled,
)
from convoy_audit.statement import Statement

_PARTY_MEMBERS: Final = ("party", "requester", "by", "to")
_PARTIES_MEMBERS: Final = ("parties", "providers", "recipients", "approved_by")


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that answers a question."""

    index: int
    content: Event | Statement

    @property
    def event(self) -> Event:
        """The event, also if it stands in a statement."""
        return self.content.event if isinstance(self.content, Statement) else self.content


@dataclass(slots=True)
class Names:
    """What entries so far say about each other's names."""

    uid_of: dict[str, str] = field(default_factory=dict)  # contract digest -> uid
    contract_of: dict[str, str] = field(default_factory=dict)  # run -> contract digest
    run_of: dict[str, str] = field(default_factory=dict)  # manifest digest -> run
    requester_of: dict[str, str] = field(default_factory=dict)  # run -> requester

    def learn(self, event: Event) -> None:
        """Take the names of the next entry."""
        match event:
            case ContractOffered() | ContractActivated():
                self.uid_of[event.contract] = event.uid
            case RunAuthorised() | RunRequested():
                self.contract_of[event.run] = event.contract
                self.requester_of[event.run] = event.requester
            case ReleasePublished():
                self.run_of[event.manifest] = event.run
            case _:
                pass

    def contract(self, event: Event) -> str | None:
        """Return the contract that an event belongs to: a digest, or a uid where only that is known."""
        found = getattr(event, "contract", None) or getattr(event, "uid", None)
        if found is None and (run := self.run(event)) is not None:
            found = self.contract_of.get(run)
        return found

    def run(self, event: Event) -> str | None:
        """Return the run that an event belongs to."""
        run: str | None = getattr(event, "run", None)
        return run or self.run_of.get(getattr(event, "manifest", None) or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which entries are asked for; a condition that is None does not count, all others must hold.

    ``contract``: uid or digest. ``model``: digest of a manifest, or the run that made it. Digests may be
    shortened to their first hex digits, at least eight. ``since`` (inclusive) and ``until`` (exclusive)
    are compared with the authors' clocks. ``reason``: a code of a denial, refusal or recall. ``kind``: an
    event type, or its beginning.
    """

    contract: str | None = None
    party: str | None = None
    run: str | None = None
    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        for instant in (self.since, self.until):
            if instant is not None and instant.tzinfo is None:
                raise FormatError("an instant without a time zone")

    def select(self, entries: Iterable[bytes]) -> Iterator[Found]:
        """Yield the entries that fit, in log order.

        Raises:
            FormatError: an entry that is none; verify the log first.
        """
        names = Names()
        for index, raw in enumerate(entries):
            content = parse_entry(raw)
            event = content.event if isinstance(content, Statement) else content
            names.learn(event)
            if self._fits(event, names):
                yield Found(index, content)

    def _fits(self, event: Event, names: Names) -> bool:
        if (self.since and event.at < self.since) or (self.until and event.at >= self.until):
            return False
        if self.kind and not event.TYPE.startswith(self.kind):
            return False
        if self.party and self.party not in parties_of(event):
            return False
        if self.run and names.run(event) != self.run:
            return False
        if self.contract:
            contract = names.contract(event)
            if contract is None or not (_same(contract, self.contract) or self.contract == names.uid_of.get(contract)):
                return False
        if self.model:
            manifest = getattr(event, "manifest", None)
            is_made_by = names.run(event) == self.model and manifest is not None
            if not is_made_by and not (manifest and _same(manifest, self.model)):
                return False
        if self.reason:
            reasons = (*getattr(event, "reasons", ()), getattr(event, "code", None), getattr(event, "reason", None))
            return self.reason in reasons
        return True


@dataclass(slots=True)
class Use:
    """What one party's data was used for under one contract in one quarter."""

    contract: str
    uid: str | None
    quarter: str
    party: str
    requesters: set[str] = field(default_factory=set)
    purposes: set[str] = field(default_factory=set)
    assets: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)
    allowed: int = 0
    denied: int = 0
    released: set[str] = field(default_factory=set)
    spent_micro: dict[str, int] = field(default_factory=dict)  # asset -> micro epsilon of this quarter's runs together

    def as_json(self) -> dict[str, Any]:
        """Return the row as data."""
        return {
            "contract": self.contract,
            "uid": self.uid,
            "quarter": self.quarter,
            "party": self.party,
            "requesters": sorted(self.requesters),
            "purposes": sorted(self.purposes),
            "assets": sorted(self.assets),
            "runs": sorted(self.runs),
            "allowed": self.allowed,
            "denied": self.denied,
            "released": sorted(self.released),
            "spentMicroEpsilon": dict(sorted(self.spent_micro.items())),
        }


def use_by_quarter(entries: Iterable[bytes]) -> list[Use]:
    """Return the use of every party's data, by contract and quarter, in this order.

    A quarter is that of the author's clock in UTC. Spending is what the party's own ledger states for a
    run, counted once: the settlement where there is one, else the largest statement. Runs of a quarter are composed as Gaussian
    mechanisms at the largest delta that they were authorised with (``composition``); epsilons of quarters do not add up.
    """
    names = Names()
    rows: dict[tuple[str, str, str], Use] = {}
    spent: dict[tuple[str, str, str], tuple[str, Mapping[str, int]]] = {}  # contract, run, party
    deltas: dict[tuple[str, str], int] = {}  # run, asset

    def row(contract: str, at: datetime, party: str) -> Use:
        key = (contract, quarter_of(at), party)
        return rows.setdefault(key, Use(contract, names.uid_of.get(contract), key[1], party))

    for raw in entries:
        content = parse_entry(raw)
        event = content.event if isinstance(content, Statement) else content
        names.learn(event)
        match event:
            case RunAuthorised():
                deltas |= {(event.run, asset): delta for asset, delta in event.delta_nano.items()}
                for provider in event.providers:
                    use = row(event.contract, event.at, provider)
                    use.runs.add(event.run)
                    use.requesters.add(event.requester)
                    use.purposes.add(event.purpose)
            case DecisionMade():
                use = row(event.contract, event.at, event.party)
                use.runs.add(event.run)
                use.requesters |= {names.requester_of[event.run]} if event.run in names.requester_of else set()
                use.allowed += event.outcome == "allow"
                use.denied += event.outcome == "deny"
            case LedgerStated() | RunSettled():
                is_spent = isinstance(event, RunSettled) or event.step == "spent"
                use = row(event.contract, event.at, event.party)
                use.assets |= set(event.epsilon_micro)
                key = (event.contract, event.run, event.party)
                before = {} if isinstance(event, RunSettled) else spent.get(key, ("", {}))[1]
                if is_spent:
                    largest = {a: max(v, before.get(a, 0)) for a, v in event.epsilon_micro.items()}
                    spent[key] = (use.quarter, {**before, **largest})
            case ReleasePublished():
                for (contract, quarter, _), use in rows.items():
                    if contract == event.contract and quarter == quarter_of(event.at) and event.run in use.runs:
                        use.released.add(event.run)
            case _:
                pass
    charged: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}  # contract, quarter, party, asset
    for (contract, run, party), (quarter, charges) in spent.items():
        for asset, amount in charges.items():
            charged.setdefault((contract, quarter, party, asset), []).append((amount, deltas.get((run, asset), 0)))
    for (contract, quarter, party, asset), runs in charged.items():
        delta = max(delta for _, delta in runs) if all(delta for _, delta in runs) else 0
        rows[contract, quarter, party].spent_micro[asset] = composed_micro([amount for amount, _ in runs], delta)
    return [rows[key] for key in sorted(rows)]


def sample(size: int, count: int, seed: str) -> list[int]:
    """Draw indices without replacement, ascending.

    The k-th draw is SHA-256(``convoy-audit sample`` SP seed SP k), its first 16 bytes as a number modulo
    ``size``; what was drawn before is drawn again. Anyone can repeat it with any tool.

    Raises:
        FormatError: a count that is negative or larger than the log.
    """
    if not 0 <= count <= size:
        raise FormatError(f"a sample of {count} from {size} entries")
    drawn: set[int] = set()
    number = 0
    while len(drawn) < count:
        digest = hashlib.sha256(f"convoy-audit sample {seed} {number}".encode()).digest()
        drawn.add(int.from_bytes(digest[:16], "big") % size)
        number += 1
    return sorted(drawn)


def quarter_of(at: datetime) -> str:
    """Return the calendar quarter of an instant, UTC."""
    return f"{at.year}-Q{(at.month + 2) // 3}"


def parties_of(event: Event) -> set[str]:
    """Return every party that an event names."""
    found = {getattr(event, name, None) for name in _PARTY_MEMBERS}
    for name in _PARTIES_MEMBERS:
        found |= set(getattr(event, name, None) or ())
    return {party for party in found if isinstance(party, str)}


def _same(digest: str, given: str) -> bool:
    """Tell whether a digest is the given one, spelled whole or by its first hex digits."""
    short = given.removeprefix("sha256:")
    return digest == given or (len(short) >= 8 and digest.startswith(f"sha256:{short}"))
