"""One digest for a plan, so that the log can say what a run was allowed to ask, to the last bit of every sigma."""

from __future__ import annotations

from convoy_contracts.canonical import digest
from convoy_models.plan import Plan


def plan_digest(plan: Plan) -> str:
    """Return ``sha256:`` hex over every query; floats are written in hexadecimal, so equal digests mean equal bits."""
    return digest(
        [
            [
                query.id,
                query.kind,
                query.cohort,
                query.module,
                query.purpose,
                list(query.columns),
                list(query.shape),
                query.clip.hex(),
                query.sigma.hex(),
                query.mu2.hex(),
                [[side.role, list(side.parties)] for side in (query.matrix, *query.vectors)],
                *([] if query.lead is None and query.rate == 1 else [query.rate.hex(), query.lead]),
            ]
            for query in plan.queries
        ]
    )
