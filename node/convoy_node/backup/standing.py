"""Whether a node knows all that it has done: after an older copy was put back it does not, and works on nothing until it does.

    RESTORED                      the file that says so; ``restore`` writes it, ``catch_up`` takes it away
    check_current(home)           raises NODE_RESTORED while it is there
    check_ledger(ledger, memory)  the ledger's copy is older than the memory (``node.db``)
    check_log(home, memory, last) the memory's copy is older than the log

Why. A node that has forgotten would under-count what persons have paid, give a statement's number a second time - which looks
like lying -, and use consents that were withdrawn since. So it states, reserves and spends nothing until ``catch_up`` has read
back its own statements and every authorisation from the log.
LIMIT: who puts back *all* files by hand and never speaks with the coordinator again is not noticed; nothing leaves then either.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from convoy_audit.canonical import parse_canonical
from convoy_audit.statement import statement_from_json
from convoy_audit.witness_store import write_atomically
from convoy_node.errors import HomeRefused, LedgerError
from convoy_node.ledger_view import LedgerView
from convoy_node.memory import RESTORED, Memory

__all__ = ["RESTORED", "check_current", "check_ledger", "check_log", "is_restored", "mark_restored"]
FIX: Final = (
    "convoy-node catch-up --coordinator ADDRESS, then convoy-node consent catch-up; until then it works on nothing."
)


def is_restored(home: Path) -> bool:
    """Whether this node was restored and has not caught up."""
    return (home / RESTORED).exists()


def mark_restored(home: Path, why: str, **facts: Any) -> None:
    """Have the node work on nothing until it has caught up; durable when this returns."""
    write_atomically(home / RESTORED, json.dumps({"why": why, **facts}, indent=1).encode())


def check_current(home: Path) -> None:
    """Refuse to work in a folder that was restored.

    Raises:
        HomeRefused: NODE_RESTORED.
    """
    if is_restored(home):
        raise HomeRefused(
            "this node was restored from a copy and may have forgotten what its persons have paid.",
            code="NODE_RESTORED",
            fix=FIX,
            reasons=("REGISTER_STALE", "LEDGER_STALE"),
        )


def check_ledger(home: Path, ledger: LedgerView, memory: Memory, party: str = "") -> None:
    """Refuse a ledger that lacks a run which the memory knows: its file was put back from an older copy.

    Raises:
        LedgerError: LEDGER_STALE; the node works on nothing until it has caught up.
    """
    known = {(run, attempt) for run, attempt in memory.charged_runs()}
    missing = known - ledger.reservations()
    if missing:
        mark_restored(home, "the ledger is older than the memory", runs=len(missing))
        raise LedgerError(
            f"the ledger lacks {len(missing)} runs that this node took part in: it was restored from a copy.",
            party=party,
            code="LEDGER_STALE",
            fix=FIX,
        )


def check_log(home: Path, memory: Memory, last: int, party: str = "") -> None:
    """Refuse to go on where the log has a later statement of this party than its memory.

    Args:
        last: number of this party's last statement in the log.

    Raises:
        HomeRefused: NODE_RESTORED.
    """
    raw = memory.last_statement()
    own = statement_from_json(parse_canonical(raw), raw).number if raw is not None else 0
    if last > own:
        mark_restored(home, "the memory is older than the log", statement=own, logged=last, party=party)
        check_current(home)
