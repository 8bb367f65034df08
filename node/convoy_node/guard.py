"""The gate of the node: is this run what all parties signed, does the log know it, and may it go on now?

Two decisions for every run (DESIGN §4): *authorise* before data are read, *release* before anything leaves. Both are
``convoy_contracts.decide`` over a world that this node assembles from what it knows itself: its pinned keys, its consent
register, its ledger, its memory of nonces and rounds. The coordinator's message contributes the contract's text, the
signatures, the events and the request, and all of these are checked, none believed.

A node without persons (trustee, auditor) has no consents to count; ``COHORT_TOO_SMALL`` says nothing about it and is left to
the nodes that hold persons. Every other gate counts for it as well.
LIMIT: a node knows the current owner and grades of its own assets only; for other parties' assets the signed schedule is
taken as the catalogue, and each of those parties checks its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from convoy_audit.errors import AuditError
from convoy_audit.events import RunAuthorised
from convoy_audit.evidence import Evidence, VerifiedEntry, verify_evidence
from convoy_audit.note import Verifier
from convoy_audit.policy import Policy
from convoy_contracts.decide import Decision, decide
from convoy_contracts.decide.decision import scope
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_contracts.instants import timestamp
from convoy_contracts.vocabulary import VOCABULARY
from convoy_models.plan import Plan
from convoy_models.plan_digest import plan_digest
from convoy_node.errors import ActionRefused
from convoy_node.ledger_view import BudgetStatement

DATA_BOUND = frozenset({"COHORT_TOO_SMALL"})
"""Reasons that only a node with persons can judge."""
DRIFT_S = 300
"""Seconds by which this node's clock may differ from the median of the witnesses' clocks."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the coordinator sent for an authorisation; nothing in it is trusted."""

    run: str
    attempt: int
    text: str
    signatures: Sequence[Any]
    events: Sequence[Any]
    request: Mapping[str, Any]
    evidence: Mapping[str, Any]

    @classmethod
    def read(cls, data: Mapping[str, Any], party: str) -> Ask:
        """Read the message.

        Raises:
            ActionRefused: a member is missing or of a wrong type (code ``MESSAGE_MALFORMED``).
        """
        wanted: dict[str, type] = {
            "run": str, "attempt": int, "contractText": str, "signatures": list, "events": list, "request": dict,
            "evidence": dict,
        }  # fmt: skip
        faults = [name for name, kind in wanted.items() if type(data.get(name)) is not kind]
        if faults:
            raise ActionRefused(
                f"an authorisation without a usable {', '.join(faults)}.",
                party=party,
                code="MESSAGE_MALFORMED",
                fix="The coordinator and this node may run different versions.",
            )
        return cls(*(data[name] for name in wanted))


@dataclass(frozen=True, slots=True)
class Standing:
    """What this node knows itself at one instant; the parts of the world that no message may fill."""

    now: datetime
    keys: Mapping[str, Mapping[str, Any]]
    catalogue: Mapping[str, Mapping[str, Any]]
    subjects: Sequence[Mapping[str, Any]]
    budget: Mapping[str, BudgetStatement]
    asset_cap: Mapping[str, int]
    memory: Mapping[str, Any]
    duties: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    clock_ok: bool = True


def world(ask: Ask, request: Mapping[str, Any], own: Standing, contract: Contract) -> dict[str, Any]:
    """Assemble the world of a decision (FORMAT.md §2)."""
    caps = {row.asset: contract.privacy[row.asset].totalMicro for row in contract.data if row.asset in contract.privacy}
    return {
        "now": timestamp(own.now),
        "vocabulary": VOCABULARY,
        "contract_text": ask.text,
        "signatures": list(ask.signatures),
        "keys": dict(own.keys),
        "events": list(ask.events),
        "duties": list(own.duties),
        "node": {
            "clockOk": own.clock_ok,
            **own.memory,
            "catalog": scheduled_catalogue(contract) | dict(own.catalogue),
            "consent": {"subjects": list(own.subjects)},
            "budget": dict(own.budget),
            "assetCapMicro": caps | dict(own.asset_cap),
        },
        "request": dict(request),
    }


def scheduled_catalogue(contract: Contract) -> dict[str, Any]:
    """Return the signed schedule as a catalogue: owners and grades as they were agreed."""
    return {
        row.asset: {"owner": row.provider, "fields": {f.name: {"grade": f.grade} for f in row.fields}}
        for row in contract.data
    }


def judge(given: Mapping[str, Any], *, holds_persons: bool) -> Decision:
    """Decide, leaving what only a holder of persons can judge to the holders."""
    decision = decide(given)
    if holds_persons:
        return decision
    reasons = tuple(code for code in decision.reasons if code not in DATA_BOUND)
    return Decision(not reasons, reasons, decision.obligations)


def check_evidence(
    ask: Ask, contract: Contract, plan: Plan, policy: Policy, own: Sequence[Verifier], party: str
) -> VerifiedEntry:
    """Check that the log, cosigned by a quorum with this node in it, holds the authorisation of this very run; return it.

    Raises:
        ActionRefused: with the code of ``convoy_audit``, or ``EVIDENCE_OF_ANOTHER_RUN``.
    """
    try:
        entry = verify_evidence(Evidence.from_json(ask.evidence), policy, require=own)
        entry.check_dated()
    except AuditError as error:
        raise ActionRefused(
            f"the run's authorisation is not proven: {error.cause}.",
            party=party,
            code=error.code,
            fix=error.fix,
        ) from error
    event = entry.event
    expected = {
        "run": ask.run,
        "attempt": ask.attempt,
        "contract": contract.digest,
        "scope": request_scope(ask.request, party),
        "algorithm": ask.request.get("algorithm", {}).get("digest"),
        "plan": plan_digest(plan),
    }
    wrong = (
        sorted(expected)
        if not isinstance(event, RunAuthorised)
        else [name for name, value in expected.items() if getattr(event, name) != value]
    )
    if wrong:
        raise ActionRefused(
            f"the logged authorisation differs from what is asked in: {', '.join(wrong)}.",
            party=party,
            code="EVIDENCE_OF_ANOTHER_RUN",
            fix="Authorise this run, contract, request and plan in the log.",
        )
    return entry


def is_clock_near(now: datetime, entry: VerifiedEntry) -> bool:
    """Whether this node's clock agrees with the clocks of those who have just cosigned, within ``DRIFT_S``."""
    times = entry.checkpoint.standing.times_s
    return not times or abs(statistics.median(times) - now.timestamp()) <= DRIFT_S


def request_scope(request: Mapping[str, Any], party: str) -> str:
    """Return the scope of a request.

    Raises:
        ActionRefused: the request has no canonical form.
    """
    try:
        return scope(request)
    except ContractsError as error:
        raise ActionRefused("the request has no canonical form.", party=party, code="MESSAGE_MALFORMED") from error
