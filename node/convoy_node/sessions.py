"""Which session of the protocol a contract's specification asks for."""

from __future__ import annotations

from typing import Any

from convoy_contracts.specification import Specification
from convoy_models.masks import PairKeys
from convoy_models.sums import DealerSession, PartySession
from convoy_models.sums.row_audit import AuditTerms
from convoy_models.sums.row_audit_sessions import AuditedSession, AuditingDealer


def terms_of(specification: Specification) -> AuditTerms | None:
    """Return the contract's terms, or None where it asks for no audit."""
    audit = getattr(specification, "rowAudit", None)
    return None if audit is None else AuditTerms(audit.rowsMilli, audit.blockRows)


def make_session(specification: Specification, run: str, attempt: int, keys: PairKeys, **rest: Any) -> PartySession:
    """Return a holder's session: by the contract's backend, audited where it says so and rows are shared with anybody."""
    if getattr(specification, "backend", None) == "ckks" and rest.get("peers"):
        from convoy_models.sums.ckks import CkksSession  # an extra: needs TenSEAL when it is used

        return CkksSession(run, attempt, keys, **rest)
    if terms_of(specification) is not None and rest.get("peers"):
        return AuditedSession(run, attempt, keys, **rest)
    return PartySession(run, attempt, keys, **rest)


def make_dealer(specification: Specification, run: str, attempt: int, keys: PairKeys) -> DealerSession:
    """Return the trustee's session."""
    terms = terms_of(specification)
    return DealerSession(run, attempt, keys) if terms is None else AuditingDealer(run, attempt, keys, terms)
