"""Hold what persons said against the contracts: what can never count is refused, and what counts nowhere is told.

    Check(signed, known, party, now)    .see(rows, reader)     adds faults to the reader, batch by batch
                                        .counts()              what is kept and counts nowhere, or wants a look
    lines(counts)                       the same as sentences

Refused is what only a mistake explains: a contract that is none of this node's, a notice, purpose or recipient that no signed
version of it has, a term that ends before it begins, an open end where data are sensitive. Kept and told is what may be
true: a term that has run out since, a contract that is still to be signed. A withdrawal is refused for its contract only, so that
no other fault ever stands in its way. Wordings are compared once each, however many rows have them.
Does not: decide who counts in a run. That is FORMAT.md §6, at the time of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from convoy_contracts.consent import asked_for
from convoy_contracts.decide.gates import ADULT_CONSENT_AGE, related
from convoy_contracts.document import Contract
from convoy_contracts.instants import instant, timestamp
from convoy_contracts.vocabulary import PURPOSES
from convoy_node.consent_table import ConsentRow, TableReader

COUNT_NOWHERE: Final = {
    "unknownAge": "of unknown age",
    "minorsWithoutGuardian": f"under {ADULT_CONSENT_AGE} without a guardian",
    "ended": "whose term has ended",
    "contractNotSigned": "under a contract that this node has not signed",
    "earlierNotice": "told by a notice that the newest version does not accept",
}
"""Why a consent that is kept counts nowhere at present: name in JSON -> words after a number."""
FOREIGN: Final = "foreignRecipients"


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What the signed versions of one contract allow; ``newest`` are the notices of the newest."""

    notices: frozenset[str]
    newest: frozenset[str]
    purposes: frozenset[str]
    recipients: frozenset[str]
    is_sensitive: bool


class Check:
    """Holds rows against contracts.

    Args:
        signed: every contract that this node has signed, all versions.
        known: uids of contracts that this node knows without having signed them: named in node.toml, or in the register.
        party: this party; whether data are sensitive is asked of its own.
        now: aware.
        is_said_now: whether the person says it at this moment; then a term that has ended is a fault.
    """

    def __init__(
        self,
        signed: Iterable[Contract],
        known: Collection[str],
        party: str,
        now: datetime,
        *,
        is_said_now: bool = False,
    ) -> None:
        versions: dict[str, list[Contract]] = {}
        for contract in signed:
            versions.setdefault(contract.uid, []).append(contract)
        self._agreed = {uid: _agreed(listed, party) for uid, listed in versions.items()}
        self._known = {*known, *self._agreed}
        self._now_us = instant(timestamp(now)) or 0
        self._is_said_now = is_said_now
        self._counts: Counter[str] = Counter()

    def see(self, rows: Sequence[ConsentRow], reader: TableReader) -> None:
        """Add the faults of a batch to its reader, and count what is kept and counts nowhere."""
        by_contract = Counter(row.contract for row in rows)
        reader.count(
            "contract",
            "neither signed by this node nor named under [contracts] of node.toml",
            sum(n for uid, n in by_contract.items() if uid and uid not in self._known),
        )
        given = [row for row in rows if row.given_us is not None and row.withdrawn is None]
        wordings = Counter((row.contract, row.notice, row.purpose, row.recipients) for row in given)
        for (uid, notice, purpose, recipients), n in wordings.items():
            self._wording(self._agreed.get(uid), uid, notice, purpose, recipients, n, reader)
        sensitive = {uid for uid, agreed in self._agreed.items() if agreed.is_sensitive}
        reader.count(
            "until",
            "open-ended, but the contract has sensitive data: name a term",
            sum(row.until_us is None and row.contract in sensitive for row in given),
        )
        reader.count(
            "until",
            "not later than given",
            sum(row.until_us is not None and row.until_us <= (row.given_us or 0) for row in given),
        )
        ended = sum(row.until_us is not None and row.until_us <= self._now_us for row in given)
        if self._is_said_now:
            reader.count("until", "in the past: the consent would count nowhere", ended)
        self._counts["ended"] += ended
        self._counts["unknownAge"] += sum(row.age < 0 for row in given)
        self._counts["minorsWithoutGuardian"] += sum(
            0 <= row.age < ADULT_CONSENT_AGE and not row.guardian for row in given
        )

    def counts(self) -> dict[str, int]:
        """Return how many rows count nowhere, by reason (``COUNT_NOWHERE``), and ``FOREIGN``; without those of none."""
        return {name: self._counts[name] for name in (*COUNT_NOWHERE, FOREIGN) if self._counts[name]}

    def _wording(
        self,
        agreed: _Agreed | None,
        uid: str,
        notice: str,
        purpose: str,
        recipients: str | None,
        n: int,
        reader: TableReader,
    ) -> None:
        is_word = purpose in PURPOSES
        reader.count("purpose", "not in the vocabulary", n if purpose and not is_word else 0)
        if agreed is None:
            self._counts["contractNotSigned"] += n if uid in self._known else 0
            return
        if notice:
            is_accepted = notice in agreed.notices
            reader.count("notice", "not one that the contract accepts", 0 if is_accepted else n)
            self._counts["earlierNotice"] += n if is_accepted and notice not in agreed.newest else 0
        if is_word and agreed.purposes:
            is_asked = any(related(PURPOSES, purpose, asked) for asked in agreed.purposes)
            reader.count("purpose", "not one that the contract permits", 0 if is_asked else n)
        if recipients:
            told = _names(recipients)
            reader.count("recipients", "none of them is a party of the contract", 0 if told & agreed.recipients else n)
            self._counts[FOREIGN] += n if told & agreed.recipients and told - agreed.recipients else 0


def lines(counts: dict[str, int]) -> list[str]:
    """Return ``Check.counts`` as sentences."""
    nowhere = [f"{counts[name]} {words}" for name, words in COUNT_NOWHERE.items() if name in counts]
    told = [f"Count nowhere: {', '.join(nowhere)}."] if nowhere else []
    if FOREIGN in counts:
        told.append(f"Name a recipient who is no party of the contract: {counts[FOREIGN]}.")
    return told


def _agreed(versions: Sequence[Contract], party: str) -> _Agreed:
    newest = max(versions, key=lambda one: one.version)
    asked = [asked_for(contract) for contract in versions]
    return _Agreed(
        notices=frozenset(notice for contract in versions for notice in contract.consent.notices),
        newest=frozenset(newest.consent.notices),
        purposes=frozenset(purpose for purposes, _ in asked for purpose in purposes),
        recipients=frozenset(to for _, recipients in asked for to in recipients)
        | {one.id for contract in versions for one in contract.parties},
        is_sensitive=any(
            field.sensitive for scheduled in newest.data if scheduled.provider == party for field in scheduled.fields
        ),
    )


@lru_cache(maxsize=4096)
def _names(recipients: str) -> frozenset[str]:
    return frozenset(json.loads(recipients))
