"""Every step from a durable entry to a witnessed checkpoint broken twice: lost, and happened all the same."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.fsck import check_log
from convoy_audit.keys import SignatureType
from convoy_audit.merkle import Tree, leaf_hash, verify_consistency
from convoy_audit.note import Signer, sign_note
from convoy_audit.testing import HYBRID_WITNESS, MemoryWitnessStore
from convoy_audit.witness import Witness
from convoy_coordinator.db.session import session_factory
from convoy_coordinator.log import LogService
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.outside import OutsideWitness
from convoy_coordinator.log.publisher import Publisher
from convoy_node.witness_service import WitnessService

ORIGIN = "example.com/log"
SIGNERS = [Signer.from_seed(ORIGIN, SignatureType.ED25519, bytes(31) + b"\1")]
Entry = Callable[[int], bytes]
Attempt = Callable[[], None]
PARTIES = ("auditor", "charging", "insurer", "oem")


class Wire(httpx.BaseTransport):
    """Carries requests to a witness's service; loses the next request or the next answer when told to."""

    def __init__(self, witness: Witness) -> None:
        self.service = WitnessService(witness, time.time)
        self.loses: str | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Carry one request."""
        loses, self.loses = self.loses, None
        if loses == "lost":
            raise httpx.ConnectError("lost on the way there")
        status, kind, content = self.service.answer(request.method, request.url.path, request.read())
        if loses == "happened":
            raise httpx.ReadTimeout("lost on the way back")
        return httpx.Response(status, headers={"content-type": kind}, content=content)


@pytest.fixture
def witnesses() -> dict[str, Witness]:
    """Four witnesses."""
    logs = [signer.verifier for signer in SIGNERS]
    return {
        party: Witness([Signer.generate(party, kind) for kind in HYBRID_WITNESS], logs, MemoryWitnessStore())
        for party in PARTIES
    }


@pytest.fixture
def begin(engine: Engine, witnesses: dict[str, Witness]) -> Iterator[Callable[[], LogService]]:
    """Start the log with its witnesses; each start reads the database afresh."""
    started: list[LogService] = []
    keys = {party: [v.vkey for v in witness.verifiers] for party, witness in witnesses.items()}

    def run() -> LogService:
        started.append(LogService(session_factory(engine), ORIGIN, SIGNERS, witnesses=lambda: keys))
        return started[-1]

    yield run
    for log in started:
        log.close()


def break_commit(engine: Engine, table: str, *, happens: bool) -> None:
    """Make the commit after the next insert into a table raise, before or after it has happened."""
    armed = [False]

    def execute(_c: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        armed[0] = armed[0] or text.startswith(f"INSERT INTO {table}")

    def commit(connection: Any) -> None:
        if not armed[0]:
            return
        event.remove(engine, "before_cursor_execute", execute)
        event.remove(engine, "commit", commit)
        if happens:
            connection.connection.commit()
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))

    event.listen(engine, "before_cursor_execute", execute)
    event.listen(engine, "commit", commit)


def break_insert(engine: Engine, table: str) -> None:
    """Make the next insert into a table raise."""

    def execute(_c: Any, _cursor: Any, text: str, *_rest: Any) -> None:
        if text.startswith(f"INSERT INTO {table}"):
            event.remove(engine, "before_cursor_execute", execute)
            raise OperationalError(text, {}, sqlite3.OperationalError("disk I/O error"))

    event.listen(engine, "before_cursor_execute", execute)


STEPS = [
    *(
        ("commit", table, way)
        for table in ("log_entry", "log_checkpoint", "log_cosignature")
        for way in ("lost", "happened")
    ),
    *(("insert", table, "lost") for table in ("log_entry", "log_frontier", "log_checkpoint", "log_cosignature")),
    *(("push", party, way) for party in ("oem", "auditor") for way in ("lost", "happened")),
]


@pytest.mark.parametrize(("kind", "where", "way"), STEPS)
@pytest.mark.parametrize("dies", [False, True], ids=["goes on", "dies there"])
def test_a_broken_step_loses_nothing_and_the_next_turn_ends_witnessed(
    kind: str,
    where: str,
    way: str,
    dies: bool,
    engine: Engine,
    tmp_path: Path,
    begin: Callable[[], LogService],
    witnesses: dict[str, Witness],
    entry: Entry,
) -> None:
    """Append, sign, store, push, cosign, keep: after each fault, and with a restart, the whole log is checked."""
    wires = {party: Wire(witness) for party, witness in witnesses.items()}
    log = begin()

    def publisher(current: LogService) -> Publisher:
        pushed = [OutsideWitness(p, "http://w", client=httpx.Client(transport=wire)) for p, wire in wires.items()]
        return Publisher(current, pushed)

    log.append_many([entry(0), entry(1)])
    assert publisher(log).once() is Level.WITNESSED
    signed = [str(log.latest())]
    if kind == "commit":
        break_commit(engine, where, happens=way == "happened")
    elif kind == "insert":
        break_insert(engine, where)
    else:
        wires[where].loses = way
    acknowledged = [entry(0), entry(1)]
    try:
        log.append(entry(2))
        acknowledged.append(entry(2))
        publisher(log).once()
    except Exception as error:  # noqa: BLE001 - whatever it is, it was told
        assert type(error).__name__ in ("Problem", "OperationalError")  # noqa: PT017
    if dies:
        log = begin()
    note = log.newest()
    assert note is not None
    signed.append(note)
    log.append(entry(3))
    assert publisher(log).once() is Level.WITNESSED
    signed.append(str(log.latest()))
    size = log.size()
    found = log.entries(0, size)
    assert [e for e in found if e in acknowledged] == acknowledged
    assert len(set(found)) == len(found)
    assert found[-1] == entry(3)
    for before, after in pairwise(signed):
        old, new = peek(before.encode()), peek(after.encode())
        proof = log.consistency(old.size, new.size) if old.size < new.size else []
        verify_consistency(old.size, new.size, proof, old.root, new.root)
    assert {witness.size(ORIGIN) for witness in witnesses.values()} == {size}
    assert all(witness.alarms() == () for witness in witnesses.values())
    again = begin()
    assert again.level_of(size - 1) is Level.WITNESSED
    assert check_log(tmp_path / "log.db").faults == []


def test_ten_thousand_honest_checkpoints_raise_no_alarm(witnesses: dict[str, Witness]) -> None:
    """Growing by random steps, and the same size again."""
    witness = Witness([Signer.generate("w", HYBRID_WITNESS[0])], [s.verifier for s in SIGNERS], MemoryWitnessStore())
    random, tree, size, now = Random(3), Tree(), 0, 1_800_000_000
    for number in range(10_000):
        for _ in range(random.randrange(3)):
            tree.append(leaf_hash(b"%d" % tree.size))
        now += random.randrange(2)
        new = tree.size
        text = Checkpoint(ORIGIN, new, tree.root()).text
        proof = tree.consistency_proof(size, new) if 0 < size < new else []
        witness.add_checkpoint(sign_note(text, SIGNERS, now), size, proof, now)
        size = new
        assert witness.size(ORIGIN) == size, number
    assert witness.alarms() == ()
