"""Tamper drills: a real coordinator's log and real nodes; each attack is noticed before any work begins.

``DRILLS`` is the table that ``docs/log.md`` prints; the last test compares. Two layers are tried for each attack: honest software
started on the tampered database, and a cheat who holds the real keys, skips every check of his own, and asks the nodes for work.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from convoy_audit.checkpoint import peek
from convoy_audit.entry import encode
from convoy_audit.errors import AuditError, WitnessInconsistent
from convoy_audit.events import RunFailed
from convoy_audit.evidence import Evidence
from convoy_audit.fsck import check_log
from convoy_audit.note import Signer
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.errors import SetupError
from convoy_coordinator.log import LogService, question_routes, routes, tables
from convoy_coordinator.log.outside import OutsideWitness, ask_before_start
from convoy_coordinator.log.questions import Questions
from convoy_coordinator.problems import install_problems
from convoy_models.messages import Payload
from convoy_node.follow import Follower
from convoy_node.log_reader import LogReader
from convoy_node.witness_service import WitnessService

ROOT = Path(__file__).resolve().parents[3]
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
NOTHING = "sha256:" + "0" * 64
PARTIES = ("oem", "insurer-a", "auditor")

Drill = tuple[str, str, str]
"""What the attacker does; the code at the coordinator's start; the code at a node that is asked to work."""
DRILLS: dict[str, Drill] = {
    "edit": ("changes an old entry", "LOG_BROKEN", "WITNESS_INCONSISTENT"),
    "delete": ("removes an entry from the middle", "LOG_BROKEN", "WITNESS_INCONSISTENT"),
    "reorder": ("swaps two entries", "LOG_BROKEN", "WITNESS_INCONSISTENT"),
    "truncate": ("cuts the last entries off", "LOG_BROKEN", "WITNESS_ROLLBACK"),
    "full re-hash": (
        "writes the whole log anew and signs it with the real keys",
        "LOG_BEHIND_WITNESS",
        "WITNESS_INCONSISTENT",
    ),
    "rollback": ("restores an old backup, whole and consistent", "LOG_BEHIND_WITNESS", "WITNESS_ROLLBACK"),
    "split view": ("shows two histories to two groups of partners", "-", "LOG_CONVICTED"),
    "backdated entry": ("authorises a run with last week's date", "-", "ENTRY_BACK_DATED"),
    "swapped statement": ("logs other words in the place of a party's statement", "-", "STATEMENT_OMITTED"),
    "forged cosignature": ("makes up a witness's signature", "SIGNATURE_WRONG", "SIGNATURE_WRONG"),
}


class RealLog:
    """The coordinator's log in the place of the nodes' test log: the same calls, real storage."""

    def __init__(self, service: LogService) -> None:
        self.service = service

    @property
    def tree(self) -> Any:
        """Its size."""
        return SimpleNamespace(size=self.service.size())

    def append(self, *entries: bytes) -> int:
        """Append, return the new size."""
        return self.service.append_many(entries)[-1] + 1

    def checkpoint(self, size: int | None = None, time_s: int = 0) -> bytes:
        """Sign every entry; the log's own clock counts."""
        return self.service.checkpoint().encode()

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """Prove growth."""
        return self.service.consistency(old, self.service.size() if new is None else new)

    def evidence(self, index: int, checkpoint: bytes, size: int | None = None) -> Evidence:
        """Return the evidence of an entry under a cosigned checkpoint."""
        proof = self.service.inclusion(index, peek(checkpoint).size)
        return Evidence(checkpoint, index, self.service.entries(index, index + 1)[0], tuple(proof))


class Site:
    """The coordinator's database and the nodes, with a way to start the log again."""

    def __init__(self, federation: Any, folder: Path) -> None:
        self.nodes = federation
        self.folder = folder
        self.started: list[LogService] = []
        self.honest = self.start("honest")
        federation.log = RealLog(self.honest)

    def path(self, name: str) -> Path:
        """Return the database of a name."""
        return self.folder / f"{name}.db"

    def start(self, name: str) -> LogService:
        """Start a log with the real keys on a database."""
        engine = open_engine(f"sqlite:///{self.path(name)}")
        Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
        keys = {party: [v.vkey for v in node.home.witness.verifiers] for party, node in self.nodes.nodes.items()}
        self.started.append(
            LogService(
                session_factory(engine),
                self.nodes.prepared.log.origin,
                self.nodes.prepared.log.signers,
                witnesses=lambda: keys,
                clock=self.nodes.clock,
            )
        )
        return self.started[-1]

    def start_seen(self, name: str) -> LogService:
        """Start as ``serve`` does: after asking every witness."""
        log = self.start(name)
        witnesses = [
            OutsideWitness(party, "http://testserver", client=TestClient(WitnessService(node.home.witness, time.time)))  # type: ignore[arg-type]
            for party, node in self.nodes.nodes.items()
        ]
        ask_before_start(log, witnesses)
        return log

    def snapshot(self, name: str) -> None:
        """Copy the honest database under another name."""
        with closing(sqlite3.connect(self.path("honest"))) as live, closing(sqlite3.connect(self.path(name))) as copy:
            live.backup(copy)

    def cheat(self, entries: Sequence[bytes]) -> LogService:
        """Write a history of one's own with the real keys."""
        log = self.start("cheat")
        log.append_many(entries)
        self.nodes.log = RealLog(log)
        return log

    def refused_everywhere(self, ask: Callable[[str], None]) -> set[str]:
        """Ask each party; return the codes of their refusals; nobody may have begun anything."""
        codes = set()
        for party in map(did, PARTIES):
            before = work_of(self.nodes.nodes[party])
            with pytest.raises(Exception) as raised:
                ask(party)
            codes.add(str(getattr(raised.value, "code", raised.value)))
            assert work_of(self.nodes.nodes[party]) == before
        return codes

    def reader(self, log: LogService) -> LogReader:
        """The log's public routes, as a node reads them."""
        app = FastAPI()
        install_problems(app)
        app.include_router(routes.router(log))
        app.include_router(question_routes.router(log, Questions(log)))
        return LogReader("http://testserver", TestClient(app, raise_server_exceptions=False))  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop every log."""
        for log in self.started:
            log.close()


def did(short: str) -> str:
    """The id of a party."""
    return f"did:web:{short}.example"


def work_of(node: Any) -> tuple[Any, ...]:
    """What a node has begun: runs in memory, open runs on disk, and every row of its ledger."""
    with closing(sqlite3.connect(f"file:{node.home.path / 'ledger.db'}?mode=ro", uri=True)) as database:
        ledger = "".join(database.iterdump())
    return sorted(node._runs), [repr(row) for row in node.home.memory.open_runs()], ledger


def noise(number: int, at: datetime) -> bytes:
    """An entry of no consequence."""
    return encode(RunFailed(at=at, run=f"other-{number}", contract=NOTHING, reasons=("NODE_LOST",)))


@pytest.fixture
def site(federation: Any, tmp_path: Path) -> Iterator[Site]:
    """Eight entries and one honest authorisation, all witnessed; a minute later the attack begins."""
    made = Site(federation, tmp_path)
    made.honest.append_many([noise(number, federation.clock.now) for number in range(4)])
    federation.witnessed()
    made.snapshot("backup")
    made.honest.append_many([noise(number, federation.clock.now) for number in range(4, 8)])
    federation.evidence(federation.prepare())
    federation.clock.pass_by(seconds=60)
    yield made
    made.close()


def test_the_honest_way_leads_to_work(site: Site) -> None:
    """The control: the same calls, no attack, and every party decides to allow and begins."""
    run = site.nodes.prepare()
    assert site.nodes.decisions(run, [did("oem")]) == {}
    assert run.uid in site.nodes.node("oem")._runs
    site.start_seen("honest")


AT_REST: dict[str, str] = {
    "edit": "UPDATE log_entry SET body = CAST(replace(CAST(body AS TEXT), 'other-2', 'other-9') AS BLOB) WHERE idx = 2",
    "delete": "DELETE FROM log_entry WHERE idx = 2",
    "reorder": "UPDATE log_entry SET idx = -1 WHERE idx = 2; UPDATE log_entry SET idx = 2 WHERE idx = 3; "
    "UPDATE log_entry SET idx = 3 WHERE idx = -1",
    "truncate": "DELETE FROM log_entry WHERE idx > 5",
    "full re-hash": "DELETE FROM log_entry; DELETE FROM log_frontier; DELETE FROM log_cosignature; DELETE FROM log_checkpoint",
}
CHEATS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "edit": lambda e: [*e[:2], e[2].replace(b"other-2", b"other-9"), *e[3:]],
    "delete": lambda e: [*e[:2], *e[3:], e[0]],
    "reorder": lambda e: [*e[:2], e[3], e[2], *e[4:]],
    "truncate": lambda e: e[:6],
    "full re-hash": lambda e: [raw.replace(b"other-", b"altro-") for raw in e],
    "rollback": lambda e: e[:4],
}


@pytest.mark.parametrize("name", CHEATS)
def test_a_changed_history_starts_nowhere_and_gets_no_work(name: str, site: Site) -> None:
    """First at the start of honest software; then by a cheat who signs it with the real keys."""
    _, at_start, at_node = DRILLS[name]
    tampered = "backup"
    if name in AT_REST:
        tampered = "tampered"
        site.snapshot(tampered)
        with closing(sqlite3.connect(site.path(tampered))) as database:
            database.executescript(AT_REST[name])
        assert name == "full re-hash" or check_log(site.path(tampered)).faults != []
    if name == "full re-hash":
        again = site.start(tampered)
        again.append_many(CHEATS[name](site.honest.entries(0, site.honest.size())))
        again.checkpoint()
        again.close()
    with pytest.raises(SetupError) as raised:
        site.start_seen(tampered)
    assert raised.value.code == at_start
    cheat = site.cheat(CHEATS[name](site.honest.entries(0, site.honest.size())))
    run = site.nodes.prepare()
    index = site.nodes.log.append(site.nodes.entry(run)) - 1
    note, size = cheat.checkpoint().encode(), cheat.size()

    def cosign(party: str) -> None:
        old = site.nodes.nodes[party].home.witness.size(cheat.origin)
        site.nodes.ask("witness", {party: site.nodes.checkpoint_question(note, old, size)})

    assert site.refused_everywhere(cosign) == {at_node}
    bare = site.nodes.log.evidence(index, note).to_json()
    asked = site.nodes.question(run, bare)
    assert site.refused_everywhere(lambda p: site.nodes.ask("authorise", {p: asked})) == {"QUORUM_MISSING"}
    for party in map(did, PARTIES):
        assert site.nodes.nodes[party].home.witness.alarms(), party


def test_a_split_view_convicts_the_log_at_every_honest_node(site: Site) -> None:
    """Two groups are shown two histories of one size; neither has a quorum; one exchange among the nodes and nobody works."""
    _, _, at_node = DRILLS["split view"]
    other = site.start("other")
    other.append_many(site.honest.entries(0, site.honest.size()))
    run = site.nodes.prepare()
    site.honest.append(noise(100, site.nodes.clock.now))
    other.append(noise(200, site.nodes.clock.now))
    everyone = sorted(site.nodes.nodes)
    groups = [(RealLog(site.honest), everyone[:3]), (RealLog(other), everyone[3:])]
    for log, members in groups:
        site.nodes.log = log
        index = log.append(site.nodes.entry(run)) - 1
        note = site.nodes.witnessed(without=[p for p in everyone if p not in members])
        asked = site.nodes.question(run, log.evidence(index, note).to_json())
        assert site.refused_everywhere(lambda p, asked=asked: site.nodes.ask("authorise", {p: asked})) == {
            "QUORUM_MISSING"
        }
    for log, members in groups:
        strangers = [p for p in everyone if p not in members]
        for party in members:
            node = site.nodes.nodes[party]
            peer = TestClient(WitnessService(site.nodes.nodes[strangers[0]].home.witness, time.time))
            follower = Follower(
                node.home.witness,
                node.home.witness._store,
                site.reader(log.service),
                log.service.origin,
                lambda: site.nodes.clock.now.timestamp(),
                peers=["http://testserver"],
                client=peer,  # type: ignore[arg-type]
            )
            with pytest.raises(WitnessInconsistent):
                follower.once()
            assert "fork" in {alarm.finding for alarm in node.home.witness.alarms()}
    assert site.refused_everywhere(lambda p: site.nodes.ask("authorise", {p: asked})) == {at_node}


def test_a_back_dated_authorisation_starts_no_work_and_fsck_names_it(site: Site) -> None:
    """Witnessed by everybody, so the log holds; its date does not fit the witnesses' clocks."""
    _, _, at_node = DRILLS["backdated entry"]
    run = site.nodes.prepare()
    evidence = site.nodes.evidence(run, at=site.nodes.clock.now - timedelta(days=7))
    asked = site.nodes.question(run, evidence)
    assert site.refused_everywhere(lambda p: site.nodes.ask("authorise", {p: asked})) == {at_node}
    assert any("dated back" in fault.cause for fault in check_log(site.path("honest")).faults)


def test_a_swapped_statement_is_missed_by_its_party_and_fsck_names_it(site: Site) -> None:
    """The node demands a receipt for its own bytes; after more than two checkpoints without one it stops working."""
    _, _, at_node = DRILLS["swapped statement"]
    run = site.nodes.prepare()
    assert site.nodes.decisions(run, [did("oem")]) == {}
    (*_, genuine) = site.nodes.statements
    swapped = genuine.replace(run.uid.encode(), b"run-risk-99")
    assert swapped != genuine
    site.honest.append(swapped)
    node = site.nodes.node("oem")
    follower = Follower(
        node.home.witness, node.home.witness._store, site.reader(site.honest), site.honest.origin,
        lambda: site.nodes.clock.now.timestamp(), receipts=node._receipts,
    )  # fmt: skip
    overdue = []
    for number in range(5):
        site.honest.append(noise(300 + number, site.nodes.clock.now))
        note = site.nodes.witnessed()
        site.honest.add_cosignatures(note.decode())
        overdue.append(follower.once().overdue)
    assert overdue[0] == 0
    assert overdue[-1] > 0
    later = site.nodes.prepare()
    asked = site.nodes.question(later, site.nodes.evidence(later))
    before = work_of(node)
    answer = node.handle("authorise", Payload(asked))
    assert answer.refused is not None
    assert answer.refused["code"] == at_node
    assert work_of(node) == before
    assert any(
        fault.code in ("STATEMENT_WRONG", "SIGNATURE_WRONG", "FORMAT_WRONG")
        for fault in check_log(site.path("honest")).faults
    )


def test_a_forged_cosignature_is_refused_by_the_log_and_by_every_node(site: Site) -> None:
    """A line under a witness's name and key id, made by somebody else."""
    _, at_log, at_node = DRILLS["forged cosignature"]
    run = site.nodes.prepare()
    index = site.honest.append(site.nodes.entry(run))
    note = site.nodes.witnessed(without=[did("oem"), did("insurer-a")])
    text = note.split(b"\n\n")[0] + b"\n"
    for victim in site.nodes.node("oem").home.witness.verifiers:
        forger = Signer.generate(victim.name, victim.kind)
        genuine_id, forged = victim.key_id, forger.line(text, int(site.nodes.clock.now.timestamp()))
        note += relabel(forged, forger, genuine_id).encode()
    with pytest.raises(AuditError) as raised:
        site.honest.add_cosignatures(note.decode())
    assert raised.value.code == at_log
    asked = site.nodes.question(run, site.nodes.log.evidence(index, note).to_json())
    assert site.refused_everywhere(lambda p: site.nodes.ask("authorise", {p: asked})) == {at_node}


def relabel(line: str, forger: Signer, key_id: bytes) -> str:
    """Put a genuine key id on a forged signature line."""
    from convoy_audit.canonical import b64, unb64

    name, encoded = line.removeprefix("— ").removesuffix("\n").split(" ")
    raw = unb64(encoded)
    assert raw[:4] == forger.verifier.key_id
    return f"— {name} {b64(key_id + raw[4:])}\n"


def table() -> str:
    """The drills as docs/log.md prints them."""
    rows = [f"| {name} | {what} | {start} | {node} |" for name, (what, start, node) in DRILLS.items()]
    return "\n".join(["| Attack | The attacker | The coordinator | A node that is asked |", "|---|---|---|---|", *rows])


def test_the_documentation_prints_this_table() -> None:
    """docs/log.md, to the letter."""
    assert table() in (ROOT / "docs/log.md").read_text(encoding="utf-8")
