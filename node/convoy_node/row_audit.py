"""Commit and audit at a node (contract option ``rowAudit``; ``convoy_models.sums.row_audit`` says what it is worth).

A holder commits to its rows when they are aligned and states the roots; after the last query it opens to the trustee
the rows that the trustee names. The trustee judges and states the outcome; without its permit nothing is released.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol, cast, runtime_checkable

from convoy_audit.canonical import canonical_bytes, digest
from convoy_audit.events import RowsAudited, RowsCommitted
from convoy_contracts.roles import roles_of
from convoy_contracts.specification import RecommendSpecification, RiskSpecification
from convoy_models.fixedpoint import Floats
from convoy_models.messages import Payload
from convoy_models.row_values import PlannedValues
from convoy_models.sums.row_audit_sessions import AuditedSession, AuditingDealer
from convoy_node.admission import Run
from convoy_node.errors import ActionRefused


@runtime_checkable
class Committing(Protocol):
    """A part whose rows can be committed to."""

    def committed(self, peer: str) -> Floats:
        """Return what beside the matrix decides own factors towards a peer, (rows of ``aligned``, width)."""


def commit(run: Run, party: str, peer: str, now: datetime) -> RowsCommitted | None:
    """Commit to the rows with a peer; return what is stated, or None where the contract asks for no audit."""
    if not isinstance(run.session, AuditedSession) or not isinstance(run.part, Committing):
        return None
    root = run.session.commit(peer, run.part.committed(peer))
    return RowsCommitted(
        at=now,
        party=party,
        run=run.known.run,
        contract=run.case.contract.digest,
        peer=peer,
        root=f"sha256:{root.hex()}",
    )


def audited_session(run: Run, party: str) -> AuditedSession:
    """Return the holder's audited session.

    Raises:
        ActionRefused: the contract asks for no audit, or this node holds no rows.
    """
    if not isinstance(run.session, AuditedSession):
        raise _none(party)
    return run.session


def auditing_dealer(run: Run, party: str) -> AuditingDealer:
    """Return the trustee's auditing session.

    Raises:
        ActionRefused: the contract asks for no audit, or this node is no trustee.
    """
    if not isinstance(run.dealer, AuditingDealer):
        raise _none(party)
    return run.dealer


def judge(run: Run, party: str, payload: Payload, now: datetime) -> tuple[RowsAudited, list[dict[str, str]]]:
    """Compare everything at the trustee; return what is stated, and the findings without anything of a row.

    Raises:
        ActionRefused: no audit here, or weights that cannot be read.
    """
    dealer = auditing_dealer(run, party)
    asks = payload.data.get("asks")
    if not isinstance(asks, list) or not all(
        isinstance(ask, Mapping) and isinstance(ask.get("query"), str) for ask in asks
    ):
        raise ActionRefused("the audit's queries are not readable.", party=party, code="MESSAGE_MALFORMED")
    contract = run.case.contract
    roles = {member: role for role, members in roles_of(contract).items() for member in members}
    specification = cast("RiskSpecification | RecommendSpecification", run.case.specification)
    values = PlannedValues(specification, roles, {str(ask["query"]): ask.get("weights") for ask in asks})
    findings = dealer.judge(values, [str(ask["query"]) for ask in asks])
    roots: dict[str, dict[str, str]] = {}
    for (holder, peer), root in dealer.roots.items():
        roots.setdefault(holder, {})[peer] = f"sha256:{root.hex()}"
    stated = RowsAudited(
        at=now,
        party=party,
        run=run.known.run,
        contract=contract.digest,
        roots=digest(canonical_bytes(roots)),
        outcome="deny" if findings else "allow",
        parties=tuple(sorted({finding.party for finding in findings})),
        reasons=tuple(sorted({finding.code for finding in findings})),
    )
    return stated, [{"party": f.party, "by": f.by, "code": f.code} for f in findings]


def _none(party: str) -> ActionRefused:
    return ActionRefused(
        "the contract asks for no row audit here.",
        party=party,
        code="ROLE_WITHOUT_PART",
        fix="Agree rowAudit in the specification, and a trustee, if rows shall be audited.",
    )
