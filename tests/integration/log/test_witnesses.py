"""Witnesses at work: the protocol over HTTP, push and pull, split views, receipts; real folders, real keys, a real log.

LENGTH: over 500 lines: one log, its witnesses and their keys serve every test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from convoy_audit.canonical import b64
from convoy_audit.errors import AuditError, WitnessInconsistent
from convoy_audit.events import WitnessAlarm
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer, open_note
from convoy_audit.policy import Policy
from convoy_audit.statement import next_link, sign_statement
from convoy_audit.testing import HYBRID_LOG, MemoryLog
from convoy_audit.witness import Alarm, make_request
from convoy_audit.witness_store import FileWitnessStore
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.log import LogService, question_routes, routes, tables
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.outside import OutsideWitness, ask_before_start, read_witnesses
from convoy_coordinator.log.publisher import Publisher
from convoy_coordinator.log.questions import Questions
from convoy_coordinator.problems import install_problems
from convoy_node.errors import ActionRefused, SettingsRefused
from convoy_node.follow import Follower
from convoy_node.identity import Identity
from convoy_node.log_reader import LogReader
from convoy_node.memory import Memory
from convoy_node.mirror import Mirror
from convoy_node.receipts import Receipts
from convoy_node.setup import create_home
from convoy_node.witness_home import LOGS_FILE, check_log_standing, open_witness
from convoy_node.witness_service import WitnessService

ORIGIN = "example.com/log"
SIGNERS = [Signer.generate(ORIGIN, kind) for kind in HYBRID_LOG]
TABLES = [c.__table__ for c in (tables.LogEntry, tables.LogFrontier, tables.LogCheckpoint, tables.LogCosignature)]
PARTIES = ("auditor", "charging", "insurer", "oem")
Entry = Callable[[int], bytes]


@dataclass
class Node:
    """A node's folder and its witness's service."""

    home: Path
    party: str

    @property
    def vkeys(self) -> list[str]:
        """The witness's keys."""
        return [verifier.vkey for verifier in open_witness(self.home).verifiers]

    def service(self) -> TestClient:
        """The witness over HTTP."""
        return TestClient(WitnessService(open_witness(self.home), time.time))

    def store(self) -> FileWitnessStore:
        """What the witness remembers."""
        return FileWitnessStore.open(self.home / "witness")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four fresh folders, to be copied."""
    root = tmp_path_factory.mktemp("nodes")
    for short in PARTIES:
        create_home(
            root / short,
            party=f"did:web:{short}.example",
            role="trustee",
            region="CN-SH",
            log_keys=[signer.vkey for signer in SIGNERS],
        )
    return {short: root / short for short in PARTIES}


@pytest.fixture
def four(nodes: dict[str, Path], tmp_path: Path) -> dict[str, Node]:
    """Four nodes that have seen nothing yet."""
    for short, home in nodes.items():
        shutil.copytree(home, tmp_path / short)
    return {f"did:web:{short}.example": Node(tmp_path / short, f"did:web:{short}.example") for short in nodes}


@pytest.fixture
def make_log(four: dict[str, Node], tmp_path: Path) -> Iterator[Callable[[str], LogService]]:
    """Start a log on a database of its own, or again on the same."""
    started: list[LogService] = []
    keys = {party: node.vkeys for party, node in four.items()}

    def make(name: str = "log", ahead_s: int = 0) -> LogService:
        engine = open_engine(f"sqlite:///{tmp_path / name}.db")
        Base.metadata.create_all(engine, tables=TABLES)  # type: ignore[arg-type]
        clock = lambda: datetime.now(UTC) + timedelta(seconds=ahead_s)  # noqa: E731
        started.append(LogService(session_factory(engine), ORIGIN, SIGNERS, witnesses=lambda: keys, clock=clock))
        return started[-1]

    yield make
    for log in started:
        log.close()


def outsiders(four: dict[str, Node]) -> list[OutsideWitness]:
    """The four as the log knows them."""
    return [OutsideWitness(party, "http://testserver", client=node.service()) for party, node in four.items()]  # type: ignore[arg-type]


def reader(log: LogService) -> LogReader:
    """The log's public routes, read as a node reads them."""
    app = FastAPI()
    install_problems(app)
    app.include_router(routes.router(log))
    app.include_router(question_routes.router(log, Questions(log)))
    return LogReader("http://testserver", TestClient(app, raise_server_exceptions=False))  # type: ignore[arg-type]


def follower(node: Node, log: LogService, **more: object) -> Follower:
    """A node that fetches."""
    return Follower(open_witness(node.home), node.store(), reader(log), ORIGIN, time.time, **more)  # type: ignore[arg-type]


# The protocol -----------------------------------------------------------------------------------------------------------


def test_the_witness_speaks_tlog_witness_to_the_letter(four: dict[str, Node]) -> None:
    """A transcript: every status, body and content type of add-checkpoint, and the monitoring address."""
    node = four["did:web:oem.example"]
    client = node.service()
    log = MemoryLog(ORIGIN, ())
    log.signers = tuple(SIGNERS)
    log.append(*(b"entry %d" % number for number in range(9)))
    fork = log.rewritten([b"x", *log.entries])

    def post(old: int, proof: list[bytes], note: bytes) -> httpx.Response:
        return client.post("/add-checkpoint", content=make_request(old, proof, note))  # type: ignore[return-value]

    address = f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
    assert client.get(address).status_code == 404
    first = post(0, [], log.checkpoint(3))
    assert first.status_code == 200
    assert all(line.startswith("— ") for line in first.text.splitlines())
    signed = open_note(log.checkpoint(3) + first.content, open_witness(node.home).verifiers).signatures
    assert {s.verifier.kind for s in signed} == {
        SignatureType.COSIGNATURE_ED25519,
        SignatureType.COSIGNATURE_ML_DSA_44,
    }
    assert all(s.time_s and abs(s.time_s - time.time()) < 60 for s in signed)
    assert post(3, [], log.checkpoint(3)).status_code == 200
    stale = post(0, [], log.checkpoint(5))
    assert (stale.status_code, stale.headers["content-type"], stale.content) == (409, "text/x.tlog.size", b"3\n")
    assert post(2, log.consistency(2, 5), log.checkpoint(5)).status_code == 409
    assert post(6, [], log.checkpoint(5)).status_code == 400
    assert post(3, [], log.checkpoint(5)).status_code == 422
    assert post(3, [bytes(32)] * 3, log.checkpoint(5)).status_code == 422
    assert post(3, log.consistency(3, 5), fork.checkpoint(5)).status_code == 422
    assert post(3, [], fork.checkpoint(3)).status_code == 422
    assert post(3, log.consistency(3, 5), log.checkpoint(5).replace(b"\n5\n", b"\n6\n")).status_code == 403
    unknown = MemoryLog("example.com/other")
    unknown.append(b"x")
    assert post(0, [], unknown.checkpoint()).status_code == 404
    assert post(3, [bytes(32)] * 64, log.checkpoint(5)).status_code == 400
    for body in (b"", b"old 3", b"old 03\n\n" + log.checkpoint(5), b"old 3\nx\n\n" + log.checkpoint(5), b"\xff" * 40):
        assert client.post("/add-checkpoint", content=body).status_code == 400
    assert client.post("/add-checkpoint", content=b"x" * 2_000_000).status_code == 413
    wrong = client.get("/add-checkpoint")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert client.delete(address).status_code == 405
    assert post(3, log.consistency(3, 9), log.checkpoint(9)).status_code == 200
    served = client.get(address)
    assert served.headers["content-type"] == "text/plain; charset=utf-8"
    opened = open_note(served.content, [*open_witness(node.home).verifiers, *(s.verifier for s in SIGNERS)])
    assert len(opened.signatures) == 4
    old = post(9, [], log.checkpoint(5))
    assert (old.status_code, post(0, [], log.checkpoint(5)).content) == (400, b"9\n")
    assert {a["finding"] for a in client.get("/alarms").json()["alarms"]} >= {"fork"}
    again = Node(node.home, node.party).service()
    assert again.get(address).content == served.content


def test_one_witness_serves_several_logs_and_a_wrong_list_names_every_line(four: dict[str, Node]) -> None:
    """Ours can serve others: keys by origin, in a file of the operator."""
    node = four["did:web:auditor.example"]
    other = MemoryLog("go.sum database tree", ())
    other.signers = (Signer.generate("sum.example.org", SignatureType.ED25519),)
    other.append(b"a")
    (node.home / LOGS_FILE).write_text(f"# Go\nlog {other.signers[0].vkey} {other.origin}\n")
    answer = node.service().post("/add-checkpoint", content=make_request(0, [], other.checkpoint()))
    assert answer.status_code == 200
    (node.home / LOGS_FILE).write_text(f"logs x\nlog x\nlog {SIGNERS[0].vkey}\n")
    with pytest.raises(SettingsRefused) as raised:
        open_witness(node.home)
    assert len(raised.value.reasons) == 3


def test_the_command_serves_a_real_socket(four: dict[str, Node]) -> None:
    """``convoy-node witness serve``: pushed to by a real log over TCP."""
    node = four["did:web:insurer.example"]
    command = [sys.executable, "-m", "convoy_node.cli", "witness", "serve", "--home", str(node.home), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if line.startswith("Witness")).split()[1]
        log = MemoryLog(ORIGIN, ())
        log.signers = tuple(SIGNERS)
        log.append(b"a", b"b")
        for _ in range(50):
            try:
                answer = httpx.post(f"{url}add-checkpoint", content=make_request(0, [], log.checkpoint()))
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert answer.status_code == 200
    finally:
        process.terminate()
        process.wait(10)
    assert open_witness(node.home).size(ORIGIN) == 2


# Push ---------------------------------------------------------------------------------------------------------------------


def test_the_publisher_has_checkpoints_cosigned_and_one_silent_witness_stops_nobody(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """Three of four are the quorum; a later turn catches the fourth up from the size that it names."""
    log = make_log()
    pushed = outsiders(four)
    dead = OutsideWitness(pushed[0].party, "http://127.0.0.1:9", timeout_s=0.5)
    publisher = Publisher(log, [dead, *pushed[1:]])
    assert publisher.once() is Level.NONE
    log.append_many([entry(0), entry(1)])
    assert publisher.once() is Level.WITNESSED
    log.append(entry(2))
    assert publisher.once() is Level.WITNESSED
    assert log.cosigning(3).parties == tuple(sorted(four))[1:]
    assert Publisher(log, pushed).once() is Level.WITNESSED
    assert len(log.cosigning(3).parties) == 4
    assert all(node.store().alarms() == () for node in four.values())


def test_a_witness_that_answers_nonsense_or_forged_lines_spoils_nothing(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """Its lines are judged alone, before they are mixed with those of honest witnesses."""

    def forging(request: httpx.Request) -> httpx.Response:
        note = request.content.partition(b"\n\n")[2]
        text = note.split(b"\n\n")[0] + b"\n"
        stranger = Signer.generate("auditor.example", SignatureType.COSIGNATURE_ED25519)
        genuine = open_witness(four["did:web:oem.example"].home).verifiers[0]
        line = stranger.line(text, 1)
        forged = f"— {genuine.name} {b64(genuine.key_id + bytes(72))}\n"
        return httpx.Response(200, text=line if len(note) % 2 else forged)

    log = make_log()
    log.append(entry(0))
    honest = [w for w in outsiders(four) if w.party != "did:web:auditor.example"]
    client = httpx.Client(transport=httpx.MockTransport(forging))
    forger = OutsideWitness("did:web:auditor.example", "http://forger", client=client)
    assert Publisher(log, [forger, *honest]).once() is Level.WITNESSED
    assert "did:web:auditor.example" not in log.cosigning(1).parties
    nonsense = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(409, text="many")))
    log.append(entry(1))
    assert Publisher(log, [OutsideWitness("x", "http://x", client=nonsense), *honest]).once() is Level.WITNESSED


def test_the_log_does_not_start_behind_a_witness_nor_unseen(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry, tmp_path: Path
) -> None:
    """A restored backup is refused by what the witnesses remember; so is a start that too few of them can judge."""
    log = make_log("first")
    log.append(entry(0))
    ask_before_start(log, outsiders(four))  # nobody has seen anything yet
    log.checkpoint()
    backup = (tmp_path / "first.db").read_bytes(), (tmp_path / "first.db-wal").read_bytes()
    log.append(entry(1))
    Publisher(log, outsiders(four)).once()
    ask_before_start(log, outsiders(four))
    (tmp_path / "restored.db").write_bytes(backup[0])
    (tmp_path / "restored.db-wal").write_bytes(backup[1])
    restored = make_log("restored")
    assert restored.size() == 1
    with pytest.raises(SetupError) as raised:
        ask_before_start(restored, outsiders(four))
    assert (raised.value.code, raised.value.party in four) == ("LOG_BEHIND_WITNESS", True)
    silent = [OutsideWitness(party, "http://127.0.0.1:9", timeout_s=0.5) for party in four]
    with pytest.raises(SetupError) as raised:
        ask_before_start(log, [*outsiders(four)[:2], *silent[2:]])
    assert raised.value.code == "WITNESSES_SILENT"
    ask_before_start(log, [*outsiders(four)[:3], silent[3]])
    # Even if it is started all the same: the push tells it, and it stops.
    restored.append(entry(7))
    with pytest.raises(Problem, match="LOG_BEHIND_WITNESS"):
        Publisher(restored, outsiders(four)).once()
    with pytest.raises(Problem, match="LOG_BEHIND_WITNESS"):
        restored.append(entry(8))


def test_the_list_of_listening_witnesses_names_every_fault(tmp_path: Path) -> None:
    """party, url, keys; no file is no witness."""
    assert read_witnesses(tmp_path / "none.toml") == ()
    file = tmp_path / "witnesses.toml"
    key = Signer.generate("w.example", SignatureType.COSIGNATURE_ED25519).vkey
    file.write_text(f'[[witness]]\nparty = "w"\nurl = "https://w.example/"\nkeys = ["{key}"]\ncounts = false\n')
    (read,) = read_witnesses(file)
    assert (read.party, read.vkeys, read.counts) == ("w", (key,), False)
    file.write_text(
        '[[witness]]\nurl = "ftp://x"\nkeys = ["x"]\n[[witness]]\nparty = "w"\nurl = "http://w"\nport = 1\n'
    )
    with pytest.raises(SetupError) as raised:
        read_witnesses(file)
    assert raised.value.cause.count("witness 0") == 3
    assert "witness 1" in raised.value.cause


# Pull, peers, alarms ------------------------------------------------------------------------------------------------------


def test_nodes_behind_nat_fetch_and_cosign_and_a_mirror_verifies(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry, tmp_path: Path
) -> None:
    """Nothing listens at the nodes; the third makes the quorum, the mirror holds every entry."""
    log = make_log()
    log.append_many([entry(number) for number in range(600)])
    log.checkpoint()
    done = [follower(node, log).once() for node in four.values()]
    assert [round_.quorum for round_ in done] == [False, False, True, True]
    policy = log.policy()
    mirror = Mirror(tmp_path / "mirror", lambda note: policy.verify(note).checkpoint)
    node = four["did:web:oem.example"]
    assert follower(node, log, mirror=mirror).once().mirrored == 600
    log.append(entry(600))
    log.checkpoint()
    for node in four.values():
        follower(node, log).once()
    assert follower(node, log, mirror=mirror).once().mirrored == 1
    fresh = Mirror(tmp_path / "mirror", lambda note: policy.verify(note).checkpoint)
    assert fresh.copy(reader(log), log.latest().encode()) == 601  # type: ignore[union-attr]
    assert all(n.store().alarms() == () for n in four.values())


def test_a_split_view_is_found_by_peers_and_the_alarm_reaches_every_honest_node(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """Two histories under one key, shown to two groups: each cosigns its own, then they compare."""
    one, two = make_log("one"), make_log("two")
    for log, number in ((one, 1), (two, 2)):
        log.append_many([entry(0), entry(number)])
        log.checkpoint()
    names = sorted(four)
    for party in names[:2]:
        follower(four[party], one).once()
    for party in names[2:3]:
        follower(four[party], two).once()
    client = four[names[2]].service()
    with pytest.raises(WitnessInconsistent):
        follower(four[names[0]], one, peers=["http://testserver"], client=client).once()
    (alarm,) = four[names[0]].store().alarms()
    assert alarm.finding == "fork"
    policy = Policy.parse(b"".join(f"log {s.vkey}\n".encode() for s in SIGNERS) + b"quorum none\n")
    sizes = {policy.standing(note).checkpoint.size for note in (alarm.known, alarm.offered)}
    assert sizes == {2}  # both notes hold by themselves: portable proof
    # The others take the alarm over without having seen the second history.
    for party in (names[1], names[3]):
        node = four[party]
        follower(node, one, peers=["http://testserver"], client=four[names[0]].service()).once()
        assert [kept.identity for kept in node.store().alarms()] == [alarm.identity]
    receipts = Receipts(four[names[3]].home, names[3], lambda: None, lambda: datetime.now(UTC))
    Memory(four[names[3]].home / "node.db").close()
    with pytest.raises(ActionRefused) as raised:
        check_log_standing(open_witness(four[names[3]].home), receipts, ORIGIN, names[3])
    assert raised.value.code == "LOG_CONVICTED"


def test_a_false_alarm_of_a_peer_convinces_nobody(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """Notes that the log has not signed, or that fit together, are not taken over."""
    log = make_log()
    log.append_many([entry(0), entry(1)])
    note = log.checkpoint().encode()
    forger = MemoryLog(ORIGIN)
    forger.append(b"x", b"y")
    liar, honest = four["did:web:oem.example"], four["did:web:insurer.example"]
    for offered in (forger.checkpoint(), note):
        liar.store().keep_alarm(Alarm(ORIGIN, "fork", note, offered))
    follower(honest, log).once()
    follower(honest, log, peers=["http://testserver"], client=liar.service()).once()
    assert honest.store().alarms() == ()


def test_a_rolled_back_log_is_refused_and_learns_what_it_has_signed(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """A rewritten, shorter history with the real key: the follower refuses, keeps both notes, and the log stops."""
    log, rewritten = make_log("one"), make_log("two", ahead_s=2)  # signed later, so nothing was merely overtaken
    log.append_many([entry(number) for number in range(4)])
    log.checkpoint()
    rewritten.append_many([entry(9), entry(8)])
    node = four["did:web:oem.example"]
    follower(node, log).once()
    rewritten.checkpoint()
    with pytest.raises(AuditError):
        follower(node, rewritten).once()
    assert {alarm.finding for alarm in node.store().alarms()} == {"rollback"}
    with pytest.raises(Problem, match="LOG_BEHIND_WITNESS"):
        rewritten.append(entry(1))


# Receipts -----------------------------------------------------------------------------------------------------------------


def state(node: Node, memory: Memory, number: int) -> bytes:
    """Have a node state something, and hand it over."""
    seed = Identity.load(node.home / "keys", node.party).identity_seed
    event = WitnessAlarm(
        at=datetime.now(UTC),
        party=node.party,
        origin=ORIGIN,
        finding="fork",
        known_size=number,
        known_note="sha256:" + "0" * 64,
        offered_size=number,
        offered_note="sha256:" + "1" * 64,
    )
    memory.state(lambda n, previous: sign_statement(event, number=n, previous=previous, seed=seed))
    (raw,) = memory.report()
    return raw


def test_an_omitted_statement_shows_after_more_than_two_checkpoints_and_stops_the_work(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """The coordinator logs the first statement and withholds the second; when it is logged, work may go on."""
    log = make_log()
    node = four["did:web:oem.example"]
    memory = Memory(node.home / "node.db")
    receipts = Receipts(node.home, node.party, log.policy, lambda: datetime.now(UTC))
    first, second = state(node, memory, 1), state(node, memory, 2)
    assert next_link(first) == (2, next_link(first)[1])
    log.append(first)
    overdue = []
    for turn in range(5):
        log.append(entry(turn))
        log.checkpoint()
        for other in four.values():
            follower(other, log).once()
        overdue.append(follower(node, log, receipts=receipts).once().overdue)
    assert overdue == [0, 0, 0, 1, 1]
    assert receipts.all() == {1: 0}
    (late,) = receipts.overdue()
    assert (late.party, late.number, late.passed) == (node.party, 2, 4)
    assert late.since is not None
    with pytest.raises(ActionRefused) as raised:
        check_log_standing(open_witness(node.home), receipts, ORIGIN, node.party)
    assert (raised.value.code, "statement 2" in raised.value.cause) == ("STATEMENT_OMITTED", True)
    command = [sys.executable, "-m", "convoy_node.cli", "statements", "--home", str(node.home), "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert shown.returncode == 1, shown.stderr
    assert json.loads(shown.stdout)["outstanding"] == [late.as_json()]
    index = log.append(second)
    log.checkpoint()
    for other in four.values():
        follower(other, log).once()
    assert follower(node, log, receipts=receipts).once().overdue == 0
    assert receipts.all() == {1: 0, 2: index}
    check_log_standing(open_witness(node.home), receipts, ORIGIN, node.party)


def test_a_receipt_for_something_else_is_none(
    four: dict[str, Node], make_log: Callable[..., LogService], entry: Entry
) -> None:
    """A swapped statement: the log holds another text under the number, so its proof does not fit the node's bytes."""
    log = make_log()
    node = four["did:web:oem.example"]
    memory = Memory(node.home / "node.db")
    state(node, memory, 1)
    twin = Memory(node.home / "twin.db")
    log.append(state(Node(node.home, node.party), twin, 5))  # same number, same key, other words
    log.checkpoint()
    for other in four.values():
        follower(other, log).once()
    receipts = Receipts(node.home, node.party, log.policy, lambda: datetime.now(UTC))
    assert follower(node, log, receipts=receipts).once().receipts == 0
    assert [one.number for one in receipts.outstanding()] == [1]
