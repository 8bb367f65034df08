"""After a restore: read back from the log what this node has forgotten, and only then let it work.

    catch_up(home, reader, clock) -> CaughtUp

Steps. 1. The whole log under its last checkpoint with a quorum, checked against what this node's witness remembers. 2. This
party's own statements, verified and chained from the first: what the memory has must be the same bytes, what it lacks is taken
back, so that the next number follows the last one in the log. 3. Every run that was authorised over this party's asset and that
the ledger lacks, or has not spent whole, is counted **in full** as spent, unless this party's own statements say that it was
denied or cost nothing; its round is used up. 4. The mark goes.

Dying between any two steps is harmless: each can be done again, and the mark goes last.
LIMIT: a statement that never reached the log is known to nobody; so is a run whose authorisation is not in the log, and on such
a run no node works. Who was in the runs since the copy is lost: ``influence.db`` has a gap, which ``gaps.json`` names.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from convoy_audit.canonical import digest
from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.events import ContractOffered, ContractSigned, DecisionMade, RunAuthorised, RunSettled
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.statement import Chain, Statement, open_statement
from convoy_audit.tiles import WIDTH, decode_bundle, entries_path, entries_spans
from convoy_audit.witness_store import write_atomically
from convoy_contracts.document import Contract
from convoy_contracts.instants import timestamp
from convoy_contracts.roles import roles_of
from convoy_models import accounting
from convoy_models.mechanisms import left_of
from convoy_models.plan import plan
from convoy_node import setup
from convoy_node.admission import charges
from convoy_node.backup.sealed import BackupRefused
from convoy_node.backup.standing import RESTORED
from convoy_node.desk import GAPS, gaps
from convoy_node.identity import Identity
from convoy_node.ledger import Charge, Ledger
from convoy_node.log_reader import LogReader
from convoy_node.memory import Memory
from convoy_node.mirror import Mirror
from convoy_node.rounds import charged_to
from convoy_node.settings import Settings
from convoy_node.settlement import run_mu2
from convoy_node.witness_home import contracts_policy, open_witness

Clock = Callable[[], datetime]


@dataclass(slots=True)
class CaughtUp:
    """What was read back: entries of the log, own statements, runs counted in full, and contracts to sign here again."""

    entries: int = 0
    statements: int = 0
    runs: list[str] = field(default_factory=list)
    contracts: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as data."""
        return asdict(self)


@dataclass(slots=True)
class _Log:
    """What the log says that concerns this party."""

    own: list[Statement] = field(default_factory=list)
    authorised: list[RunAuthorised] = field(default_factory=list)
    uids: dict[str, str] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)
    size: int = 0


def catch_up(home: Path, reader: LogReader, clock: Clock) -> CaughtUp:
    """Bring a restored node up to the log; nothing to do where it was not restored.

    Raises:
        BackupRefused: the log does not extend what this node knows, or has other statements under its numbers.
        AuditError: the log's checkpoint has no quorum, or its entries do not make its root.
        LedgerError: the node is running (code ``LEDGER_BUSY``).
    """
    if not (home / RESTORED).exists():
        return CaughtUp()
    settings = Settings.load(home)
    identity = Identity.load(home / "keys", settings.party)
    log = _read(home, settings, identity, reader)
    done = CaughtUp(entries=log.size)
    with closing(Ledger(home / setup.LEDGER, clock=clock)) as ledger, closing(Memory(home / "node.db")) as memory:
        missing, settled = _missing(log, memory)
        done.runs = _take_runs(home, log, settings, ledger, memory)
        # If we die here: what was paid counts, and the statements are taken back by the next call.
        memory.take_back(missing, settled)
        done.statements = len(missing)
    done.contracts = sorted(log.signed - set(setup.contracts(home)))
    _note_gap(home, clock())
    # If we die here: the next call does all of it again, and finds nothing to do.
    (home / RESTORED).unlink()
    descriptor = os.open(home, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    return done


def _read(home: Path, settings: Settings, identity: Identity, reader: LogReader) -> _Log:
    witness, policy = open_witness(home), contracts_policy(home, settings)

    def accepted(note: bytes) -> Checkpoint:
        if policy is not None:
            return policy.verify(note).checkpoint
        return peek(witness.check_signed(settings.log_origin, note))

    note = reader.latest()
    remembered = witness.latest(settings.log_origin)
    known = peek(remembered) if remembered is not None else None
    log, tree = _Log(size=peek(note).size), Tree()
    with tempfile.TemporaryDirectory(prefix=".log-", dir=home) as folder:
        Mirror(Path(folder), accepted).copy(reader, note)
        for entry in _entries(Path(folder), log.size):
            tree.append(leaf_hash(entry))
            _sort(log, entry, settings, identity)
    if known is not None and (known.size > log.size or tree.root(known.size) != known.root):
        raise BackupRefused(
            f"the log does not extend the {known.size} entries that this node's witness has cosigned.",
            party=settings.party,
            code="LOG_CONVICTED",
            fix="Keep the folder and its witness, and show both to every partner.",
        )
    return log


def _entries(folder: Path, size: int) -> Iterator[bytes]:
    for span in entries_spans(size):
        data = (folder / entries_path(span.index, span.width)).read_bytes()
        yield from decode_bundle(data, span.width)[: max(0, size - span.index * WIDTH)]


def _sort(log: _Log, entry: bytes, settings: Settings, identity: Identity) -> None:
    try:
        content = parse_entry(entry)
    except AuditError:
        return
    if isinstance(content, Statement):
        if content.party == settings.party:
            log.own.append(open_statement(entry, identity.identity_public))
    elif isinstance(content, ContractOffered):
        log.uids[content.contract] = content.uid
    elif isinstance(content, ContractSigned) and content.party == settings.party:
        log.signed.add(content.contract)
    elif isinstance(content, RunAuthorised) and settings.asset in content.epsilon_micro:
        log.authorised.append(content)


def _missing(log: _Log, memory: Memory) -> tuple[list[tuple[int, bytes]], dict[str, int]]:
    """Return own statements that the memory lacks, and which of them settled which run."""
    chain, here = Chain(log.own[0].party) if log.own else None, memory.statements()
    missing: list[tuple[int, bytes]] = []
    settled: dict[str, int] = {}
    for statement in log.own:
        if chain is not None:
            chain.accept(statement)
        if statement.number <= len(here):
            if digest(here[statement.number - 1]) != statement.digest:
                raise BackupRefused(
                    f"the log has another statement {statement.number} of this party than this node.",
                    party=statement.party,
                    code="STATEMENT_FORKED",
                    fix="Stop. Two copies of this node have worked side by side; show both statements to the auditor.",
                )
            continue
        missing.append((statement.number, statement.raw))
        if isinstance(statement.event, RunSettled):
            settled[statement.event.run] = statement.number
    return missing, settled


def _take_runs(home: Path, log: _Log, settings: Settings, ledger: Ledger, memory: Memory) -> list[str]:
    texts = setup.contracts(home)
    decided: dict[str, set[str]] = {}
    stated: dict[str, int] = {}
    for statement in log.own:
        if isinstance(statement.event, DecisionMade):
            decided.setdefault(statement.event.run, set()).add(statement.event.outcome)
        elif isinstance(statement.event, RunSettled):
            cost = statement.event.epsilon_micro.get(settings.asset, 0)
            stated[statement.event.run] = max(cost, stated.get(statement.event.run, 0))
    counted: list[str] = []
    there = ledger.reservations()
    for run in log.authorised:
        uid = log.uids.get(run.contract) or (Contract.parse(texts[run.contract]).uid if run.contract in texts else "")
        if uid:
            memory.use_up(uid, run.round, timestamp(run.at), run.scope)
        delta = run.delta_nano[settings.asset] / 1e9
        is_free = decided.get(run.run) == {"deny"} or stated.get(run.run) == 0
        if (run.run, run.attempt) in there:
            left = left_of(delta, ledger.tail(settings.asset))
            own = accounting.micro(accounting.epsilon_of(run_mu2(ledger, run.run), left))
            is_free = run.run in stated and own >= stated[run.run]
        if is_free:
            continue
        contract = Contract.parse(texts[run.contract]) if run.contract in texts else None
        ledger.take_back(
            run.run,
            run.attempt,
            uid or run.contract,
            settings.asset,
            run.at.year,
            delta,
            _price(run, contract, settings, delta),
            contract_cap_micro=contract.privacy[settings.asset].totalMicro if contract else 0,
            asset_cap_micro=settings.asset_year_cap_micro,
        )
        counted.append(f"{run.run}/{run.attempt}")
    return counted


def _price(run: RunAuthorised, contract: Contract | None, settings: Settings, delta: float) -> list[Charge]:
    """Return what a run costs at most: its plan where the contract is here, else its epsilon as one sum."""
    entry = next((a for a in contract.algorithms if a.digest == run.algorithm), None) if contract else None
    if contract is not None and entry is not None and entry.specification is not None:
        planned = plan(entry.specification, roles_of(contract))
        priced = charges(charged_to(planned, settings.party), delta)
        if priced:
            return priced
    mu = accounting.mu_of(run.epsilon_micro[settings.asset] / 1e6, delta)
    return [Charge("in-full", "all", mu**2, sigma=1 / mu, clip=1.0)]


def _note_gap(home: Path, now: datetime) -> None:
    mark: Mapping[str, Any] = json.loads((home / RESTORED).read_text(encoding="utf-8"))
    gap = {"from": mark.get("takenAt"), "until": timestamp(now), "why": mark.get("why")}
    write_atomically(home / GAPS, json.dumps([*gaps(home), gap], indent=1).encode())
