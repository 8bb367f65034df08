"""The catalogue of problems: every failure that a user can see has a code, who acts, a cause and a fix, in zh and en.

The one source of these sentences for HTTP (RFC 9457), gRPC (status details), the command line and ``docs/problems/``. A new code
is added to the module of its area here; ``tests/docs`` fails for a code in the source that is absent, and for one nobody uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.problems.contracts import CONTRACTS
from convoy_contracts.problems.coordinator import COORDINATOR
from convoy_contracts.problems.decisions import DECISIONS
from convoy_contracts.problems.doctor import DOCTOR
from convoy_contracts.problems.joining import JOINING
from convoy_contracts.problems.log import LOG
from convoy_contracts.problems.models import MODELS
from convoy_contracts.problems.node import NODE
from convoy_contracts.problems.problem import ACTS, AREAS, GRPC, Problem, listed

PROBLEMS: Final[Mapping[str, Problem]] = listed(
    *(
        problem
        for area in (DECISIONS, CONTRACTS, JOINING, COORDINATOR, LOG, NODE, DOCTOR, MODELS)
        for problem in area.values()
    )
)
"""Every problem by code."""


def find(code: str) -> Problem:
    """Return a problem by its code, however it is written.

    Raises:
        ArgumentRefused: there is none.
    """
    name = code.strip().upper().replace("-", "_").removesuffix(".MD")
    if name not in PROBLEMS:
        near = [known for known in PROBLEMS if name and (name in known or known in name)][:5]
        raise ArgumentRefused(
            f"there is no problem {code[:60]!r}" + (f"; did you mean {', '.join(near)}?" if near else ""),
            fix="convoy-contracts problem --list prints every code.",
        )
    return PROBLEMS[name]


__all__ = ["ACTS", "AREAS", "GRPC", "PROBLEMS", "Problem", "find", "listed"]
