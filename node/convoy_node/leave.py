"""Leave a federation: end the duties, freeze the budgets, hand over a signed final statement.

Steps, and what is true if the process dies after each: 1. ``ledger.frozen`` is there: nothing is reserved or spent any
more, whatever asks (an open run fails at its next answer); 2. the final statement is in the node's memory: signed,
numbered, the last one; 3. the coordinator has it in the log, has revoked the certificates and closed the streams; 4.
``left.json`` keeps the receipt. Every step is found again by the next call. What has left the node stays where it is:
models that were released keep what they learned; what persons have paid is in the statement and stays paid.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from convoy_audit.canonical import digest, parse_canonical
from convoy_audit.events import DutiesEnded
from convoy_audit.statement import sign_statement, statement_from_json
from convoy_contracts.wire import partner_pb2
from convoy_node.channel import ChannelRefused, Line
from convoy_node.channel_home import LEFT, read_json, write
from convoy_node.channel_keys import KEYS, MEMORY, open_line
from convoy_node.identity import Identity
from convoy_node.ledger import FROZEN, Ledger
from convoy_node.memory import Memory
from convoy_node.settings import Settings
from convoy_node.setup import LEDGER

Reason = Literal["leaving", "contract-ended", "key-compromise"]
BATCH: Final = 90


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the final statement stands in the log, and what it says."""

    party: str
    index: int
    time: str
    statement: str
    total_micro: dict[str, int]
    open_runs: int


def leave(home: Path, now: datetime, reason: Reason = "leaving") -> Receipt:
    """Leave; again returns the same receipt.

    Raises:
        LedgerError: LEDGER_BUSY, the node is working: stop it first.
        NodeError: the coordinator refused or is not there; the node is frozen already, and the call can be repeated.
    """
    known = read_json(home / LEFT)
    if known is not None:
        return Receipt(**known)
    settings = Settings.load(home)
    identity = Identity.load(home / KEYS, settings.party)
    ledger = Ledger(home / LEDGER, lock_wait_s=1.0)  # settles what was reserved and not spent
    try:
        (home / FROZEN).touch(mode=0o600)
        totals: dict[str, int] = {}
        for total in ledger.totals():
            totals[total.asset] = max(totals.get(total.asset, 0), math.ceil(total.epsilon * 1e6))
    finally:
        ledger.close()
    memory = Memory(home / MEMORY)
    try:
        final = memory.last_statement()
        if final is None or not isinstance(_event(final), DutiesEnded):
            event = DutiesEnded(
                at=now,
                party=settings.party,
                reason=reason,
                open_runs=len(memory.open_runs()),
                total_micro=totals,
            )
            final = memory.state(
                lambda number, previous: sign_statement(
                    event, number=number, previous=previous, seed=identity.identity_seed
                )
            )
        with open_line(home, settings.party) as line:
            reply = _hand_over(line, settings, memory, final)
        said = _event(final)
        memory.reported_to(statement_from_json(parse_canonical(final), final).number)
    finally:
        memory.close()
    receipt = Receipt(
        party=settings.party,
        index=int(reply.index),
        time=reply.time,
        statement=digest(final),
        total_micro=dict(said.total_micro),
        open_runs=said.open_runs,
    )
    write(home / LEFT, json.dumps(as_json(receipt), indent=1).encode())
    return receipt


def as_json(receipt: Receipt) -> dict[str, Any]:
    """Return a receipt as ``left.json`` keeps it."""
    return {
        "party": receipt.party,
        "index": receipt.index,
        "time": receipt.time,
        "statement": receipt.statement,
        "total_micro": receipt.total_micro,
        "open_runs": receipt.open_runs,
    }


def _hand_over(line: Line, settings: Settings, memory: Memory, final: bytes) -> Any:
    from convoy_contracts.wire import PROTOCOLS

    try:
        hello = line.ask(line.partner.Hello, partner_pb2.HelloRequest(protocols=PROTOCOLS, role=settings.role))
    except ChannelRefused as refused:
        if refused.code != "PARTY_REVOKED":
            raise
        return line.ask(
            line.partner.Leave, partner_pb2.LeaveRequest(statements=[final])
        )  # it had our answer, we had not
    waiting = memory.statements(int(hello.last_statement)) or [final]
    while len(waiting) > BATCH:
        line.ask(line.partner.State, partner_pb2.StateRequest(statements=waiting[:BATCH]))
        waiting = waiting[BATCH:]
    return line.ask(line.partner.Leave, partner_pb2.LeaveRequest(statements=waiting))


def _event(raw: bytes) -> Any:
    return statement_from_json(parse_canonical(raw), raw).event
