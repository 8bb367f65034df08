"""Commit and audit as the coordinator drives it: after the last query, before anything is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.errors import QuorumMissing
from convoy_coordinator.federation.exchange import Exchange
from convoy_models.gates import GateRefused
from convoy_models.messages import Payload


def audit_rows(
    run: Assignment, exchange: Exchange, base: Mapping[str, Any], asked: Mapping[str, object], paired: Sequence[str]
) -> dict[str, Any] | None:
    """Have the trustee audit the holders' rows; return what it found fit for the page, or None where nothing is agreed.

    Args:
        run: with a specification that may hold ``rowAudit``.
        exchange: the connected nodes.
        base: run and attempt.
        asked: public weights by query, of every query that was opened.
        paired: parties that share rows.

    Raises:
        GateRefused: a finding; nothing is released.
        QuorumMissing: the contract names no trustee.
    """
    if getattr(run.specification, "rowAudit", None) is None or not paired:
        return None
    if run.trustee is None:
        raise QuorumMissing("the contract names no trustee", fix="Add a party with role convoy:Trustee.")
    exchange.ask({party: ("report", Payload(dict(base))) for party in paired})
    exchange.ask({run.trustee: ("reveal", Payload(dict(base)))})
    exchange.ask({party: ("disclose", Payload(dict(base))) for party in paired})
    asks = [{"query": query, "weights": weights} for query, weights in asked.items()]
    answer = exchange.ask({run.trustee: ("judge", Payload({**base, "asks": asks}))})[run.trustee].data
    findings = [finding for finding in answer.get("findings", ()) if isinstance(finding, Mapping)]
    if answer.get("verdict") != "allow":
        told = "; ".join(f"{f.get('party')}: {f.get('code')} (towards {f.get('by')})" for f in findings)
        raise GateRefused(
            f"the trustee's audit of rows found what the holders did not commit to: {told or 'no verdict'}.",
            code="ROW_AUDIT_FAILED",
        )
    return {"verdict": "allow", "pairs": len(paired)}
