"""A node's backup and its restore: sealed, whole, and never a way to forget what persons have paid."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from convoy_audit.canonical import parse_canonical
from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError
from convoy_audit.statement import Chain, open_statement, statement_from_json
from convoy_contracts.canonical import unb64u
from convoy_demo.party_data import party_id
from convoy_node.backup import catch_up as catching
from convoy_node.backup.catch_up import catch_up
from convoy_node.backup.folder import make_backup, restore_backup
from convoy_node.backup.sealed import BackupRefused, SealedReader, SealedWriter
from convoy_node.backup.standing import RESTORED, check_log, mark_restored
from convoy_node.cli import app
from convoy_node.errors import HomeRefused, KeyRefused, LedgerError, NodeError
from convoy_node.ledger import Charge, Ledger
from convoy_node.ledger_view import LedgerView
from convoy_node.memory import Memory
from convoy_node.runtime import NodeRuntime
from convoy_node.up import Node

UID = "urn:convoy:contract:risk"
ASSET = "urn:convoy:asset:insurer-a:1"
WORDS = b"correct horse battery staple"


class StaticLog:
    """A log as files, as a mirror or the coordinator serves it."""

    def __init__(self, federation: Any) -> None:
        for node in federation.nodes.values():
            stated = [raw for raw in node.home.memory.statements() if raw not in federation.log.entries]
            federation.log.append(*stated)
        self._note = federation.witnessed()
        self._files = federation.log.static(self._note)

    def latest(self) -> bytes:
        """Return the last checkpoint that has the quorum."""
        return self._note

    def file(self, path: str) -> bytes:
        """Return a file."""
        return self._files[path]


def say(*arguments: object) -> Any:
    """Run a command of the node with --json; a refusal comes out as its exception."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    """A file that only its owner can read."""
    path = tmp_path / "passphrase"
    path.write_bytes(WORDS + b"\n")
    path.chmod(0o600)
    return path


def paid(home: Path) -> float:
    """Return mu^2 that the asset's persons have paid."""
    with LedgerView(home / "ledger.db") as view:
        return view.mu2(ASSET)


def numbers(home: Path, key: str) -> list[int]:
    """Return the numbers of a node's statements, verified and chained."""
    chain, found = Chain(party_id("insurer-a")), []
    with closing(Memory(home / "node.db")) as memory:
        for raw in memory.statements():
            statement = open_statement(raw, unb64u(key))
            chain.accept(statement)
            found.append(statement.number)
    return found


def test_a_restored_old_backup_works_on_nothing_until_it_has_caught_up_and_never_under_counts(
    noisy_federation, prepared, tmp_path: Path, passphrase: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rehearsal by commands: backup while the node runs, a whole run and a withdrawal later the machine is lost."""
    federation, home, key = (
        noisy_federation,
        noisy_federation.home("insurer-a"),
        prepared.cards["insurer-a"].identity_key,
    )
    federation.complete()
    copies = tmp_path / "copies"
    copies.mkdir()
    made = say("backup", copies, "--home", home, "--passphrase-file", passphrase)
    assert Path(made["place"]).parent == copies
    assert Path(made["place"]).stat().st_mode & 0o777 == 0o600
    federation.complete()
    before, last = paid(home), len(numbers(home, key))
    assert last > made["statement"] > 0
    log = StaticLog(federation)
    federation.kill("insurer-a")
    shutil.rmtree(home)
    restored = say("restore", made["place"], "--home", home, "--passphrase-file", passphrase)
    assert restored["statement"] == made["statement"]
    assert paid(home) < before
    # 1. Nothing works: not the node, not the ledger, no statement, no epoch; a withdrawal does.
    with pytest.raises(HomeRefused) as refused:
        NodeRuntime(home, clock=federation.clock)
    assert (refused.value.code, refused.value.reasons) == ("NODE_RESTORED", ("REGISTER_STALE", "LEDGER_STALE"))
    with closing(Ledger(home / "ledger.db")) as ledger, pytest.raises(LedgerError) as stale:
        ledger.reserve("run-x", 1, UID, ASSET, 2026, 1e-6, [Charge("q", "all", 1.0, 1.0, 1.0)],
                       contract_cap_micro=10**9, asset_cap_micro=10**9)  # fmt: skip
    assert stale.value.code == "LEDGER_STALE"
    with pytest.raises(NodeError) as epoch:
        say("consent", "epoch", "--contract", "risk", "--always", "--home", home)
    assert epoch.value.code == "REGISTER_STALE"
    with sqlite3.connect(home / "register.db") as db:
        (person,) = db.execute("SELECT local_id FROM consent WHERE contract = ?", (UID,)).fetchone()
    assert say("consent", "withdraw", person, "--contract", "risk", "--home", home)["kind"] == "withdrawal"
    assert not (home / "data").exists()
    # 2. The log knows: own statements come back, the lost run counts in full.
    shutil.copytree(prepared.folder / "insurer-a" / "data", home / "data")
    monkeypatch.setattr("convoy_node.log_reader.LogReader", lambda _url: _Opened(log))
    done = say("catch-up", "--home", home, "--coordinator", "http://log.example")
    assert done["runs"] == ["run-risk-2/1"]
    assert paid(home) >= before
    assert numbers(home, key) == list(range(1, last + 1))
    assert json.loads((home / catching.GAPS).read_text())[0]["from"] == restored["taken_at"]
    assert say("desk", person, "--home", home)["gaps"] == json.loads((home / catching.GAPS).read_text())
    # 3. The register still lets nobody in until somebody tells what was said since.
    federation.clock.pass_by(hours=1)
    federation.start("insurer-a")
    assert federation.decisions(federation.prepare())[party_id("insurer-a")][0] == "REGISTER_STALE"
    with pytest.raises(NodeError) as lost:
        say("consent", "catch-up", "--home", home)
    assert lost.value.code == "REGISTER_STALE"
    assert say("consent", "catch-up", "--nothing-since", "--home", home)["withdrawalsAgain"] == 0
    assert say("consent", "show", person, "--contract", "risk", "--home", home)["state"] == "withdrawn"
    # 4. What the two runs have cost stands: a third does not fit.
    third = federation.decisions(federation.prepare())[party_id("insurer-a")]
    assert "BUDGET_EXHAUSTED" in third
    assert "REGISTER_STALE" not in third
    assert numbers(home, key)[-1] > last


class _Opened:
    """A log reader as the command opens it."""

    def __init__(self, log: StaticLog) -> None:
        self._log = log

    def __enter__(self) -> StaticLog:
        return self._log

    def __exit__(self, *_: object) -> None:
        return None


def test_a_backup_in_the_middle_of_a_run_counts_the_whole_run(noisy_federation, tmp_path: Path) -> None:
    """What was reserved and not spent when the copy was made may have been spent since."""
    federation, home = noisy_federation, noisy_federation.home("insurer-a")
    run = federation.begin()
    made = make_backup(home, tmp_path / "b.convoy", WORDS, federation.clock.now)
    federation.fit(run)
    federation.finish(run)
    before, log = paid(home), StaticLog(federation)
    new = tmp_path / "new"
    restore_backup(Path(made.place), new, WORDS)
    done = catch_up(new, log, federation.clock)
    assert done.runs == ["run-risk-1/1"]
    assert paid(new) >= before
    assert catch_up(new, log, federation.clock).runs == []
    with closing(Memory(new / "node.db")) as memory:
        assert memory.open_runs() == []
        assert memory.world(UID)["lastRound"] == 1


def test_a_run_that_the_node_denied_or_that_cost_nothing_is_not_counted(federation, tmp_path: Path) -> None:
    """Its own statements in the log say so."""
    home = federation.home("insurer-a")
    made = make_backup(home, tmp_path / "b.convoy", WORDS, federation.clock.now)
    denied = federation.prepare(purpose="convoy:Marketing")
    assert party_id("insurer-a") in federation.decisions(denied)
    aborted = federation.prepare()
    assert federation.decisions(aborted) == {}
    federation.ask("abort", {party_id("insurer-a"): {"run": aborted.uid, "reason": "TEST"}})
    new = tmp_path / "new"
    restore_backup(Path(made.place), new, WORDS)
    done = catch_up(new, StaticLog(federation), federation.clock)
    assert done.runs == []
    assert done.statements > 0
    assert paid(new) == 0.0


def test_a_ledger_that_was_put_back_by_hand_is_noticed(noisy_federation, tmp_path: Path) -> None:
    """The memory knows runs that the file lacks: LEDGER_STALE until the node has caught up."""
    federation, home = noisy_federation, noisy_federation.home("insurer-a")
    old = tmp_path / "ledger.old"
    with closing(sqlite3.connect(home / "ledger.db")) as db, closing(sqlite3.connect(old)) as copy:
        db.backup(copy)
    federation.complete()
    before, log = paid(home), StaticLog(federation)
    federation.kill("insurer-a")
    for path in home.glob("ledger.db*"):
        path.unlink()
    shutil.copy(old, home / "ledger.db")
    with pytest.raises(LedgerError) as refused:
        federation.start("insurer-a")
    assert refused.value.code == "LEDGER_STALE"
    with pytest.raises(HomeRefused):
        federation.start("insurer-a")
    catch_up(home, log, federation.clock)
    assert paid(home) >= before
    federation.start("insurer-a")


def test_catching_up_refuses_a_log_that_contradicts_this_node(noisy_federation, tmp_path: Path) -> None:
    """Another statement under an own number, a log that lost entries, a checkpoint without quorum: the mark stays."""
    federation, home = noisy_federation, noisy_federation.home("insurer-a")
    made = make_backup(home, tmp_path / "old.convoy", WORDS, federation.clock.now)
    federation.complete()
    log = StaticLog(federation)
    fork = tmp_path / "fork"
    restore_backup(Path(made.place), fork, WORDS)
    (fork / RESTORED).unlink()
    say("consent", "catch-up", "--nothing-since", "--home", fork)
    say("consent", "epoch", "--contract", "risk", "--always", "--home", fork)
    mark_restored(fork, "test")
    with pytest.raises(BackupRefused) as refused:
        catch_up(fork, log, federation.clock)
    assert refused.value.code == "STATEMENT_FORKED"
    federation.kill("insurer-a")
    mark_restored(home, "test")
    shorter = StaticLog.__new__(StaticLog)
    size = peek(log.latest()).size - 1
    shorter._note = federation.log.checkpoint(size)
    shorter._files = federation.log.static(shorter._note)
    with pytest.raises(AuditError):
        catch_up(home, shorter, federation.clock)  # no quorum
    log._files = {path: raw[:-1] + bytes([raw[-1] ^ 1]) for path, raw in log._files.items()}
    with pytest.raises(AuditError):
        catch_up(home, log, federation.clock)
    assert (home / RESTORED).exists()


def test_only_the_whole_backup_with_its_passphrase_opens(federation, tmp_path: Path, passphrase: Path) -> None:
    """Every kind of damage has a code, and leaves no folder behind; nothing of a key is readable in the file."""
    home, now = federation.home("insurer-a"), federation.clock.now
    made = Path(make_backup(home, tmp_path / "b.convoy", WORDS, now).place)
    raw = made.read_bytes()
    assert (home / "keys" / "identity.pem").read_bytes().splitlines()[1] not in raw
    with pytest.raises(BackupRefused, match="there already"):
        make_backup(home, made, WORDS, now)
    bad = tmp_path / "bad.convoy"
    for changed, words, code in (
        (raw, b"another passphrase of length", "PASSPHRASE_WRONG"),
        (raw[:-20], WORDS, "BACKUP_DAMAGED"),
        (raw[: len(raw) // 2], WORDS, None),
        (raw + b"x", WORDS, "BACKUP_DAMAGED"),
        (raw[:200] + bytes([raw[200] ^ 1]) + raw[201:], WORDS, "PASSPHRASE_WRONG"),
        (raw.replace(b'"r": 8', b'"r": 9', 1), WORDS, "PASSPHRASE_WRONG"),
        (raw.replace(b'"n": 65536', b'"n": 99999', 1), WORDS, "BACKUP_DAMAGED"),
        (b"no backup at all", WORDS, "BACKUP_DAMAGED"),
    ):
        bad.write_bytes(changed)
        with pytest.raises(BackupRefused) as refused:
            restore_backup(bad, tmp_path / "new", words)
        assert code in (None, refused.value.code)
        assert not (tmp_path / "new").exists()
    with pytest.raises(HomeRefused, match="not empty"):
        restore_backup(made, home, WORDS)
    passphrase.chmod(0o644)
    with pytest.raises(KeyRefused):
        say("backup", tmp_path / "c.convoy", "--home", home, "--passphrase-file", passphrase)
    passphrase.write_bytes(b"short")
    passphrase.chmod(0o600)
    with pytest.raises(BackupRefused) as weak:
        say("backup", tmp_path / "c.convoy", "--home", home, "--passphrase-file", passphrase)
    assert weak.value.code == "PASSPHRASE_WEAK"


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "link", "second-manifest", "extra"])
def test_a_backup_holds_only_the_files_of_its_manifest(federation, tmp_path: Path, name: str) -> None:
    """Who knows the passphrase still cannot write outside of the new folder."""
    made = Path(make_backup(federation.home("auditor"), tmp_path / "b.convoy", WORDS, federation.clock.now).place)
    plain = io.BytesIO(SealedReader(made.open("rb"), WORDS).read())
    forged = tmp_path / "forged.convoy"
    with forged.open("wb") as file:
        sealed = SealedWriter(file, WORDS)
        with tarfile.open(fileobj=sealed, mode="w|") as out, tarfile.open(fileobj=plain) as given:
            for member in given:
                out.addfile(member, given.extractfile(member))
            extra = tarfile.TarInfo("manifest.json" if name == "second-manifest" else name)
            if name == "link":
                extra.type, extra.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                extra.size = 1
            out.addfile(extra, io.BytesIO(b"x"))
        sealed.close()
    with pytest.raises(BackupRefused) as refused:
        restore_backup(forged, tmp_path / "sub" / "new", WORDS)
    assert refused.value.code == "BACKUP_DAMAGED"
    assert not list(tmp_path.rglob("escaped"))
    assert not (tmp_path / "sub" / "new").exists()


def test_a_backup_is_a_copy_of_one_instant_while_consents_are_written(federation, tmp_path: Path) -> None:
    """SQLite's own backup: what was committed before it is there, write-ahead log included."""
    home = federation.home("insurer-a")
    with closing(sqlite3.connect(home / "register.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE consent SET notice = 'half written'")
        made = make_backup(home, tmp_path / "b.convoy", WORDS, federation.clock.now + timedelta(seconds=1))
        db.execute("ROLLBACK")
    restore_backup(Path(made.place), tmp_path / "new", WORDS)
    with closing(sqlite3.connect(tmp_path / "new" / "register.db")) as kept:
        (rows, wrong) = kept.execute("SELECT COUNT(*), SUM(notice = 'half written') FROM consent").fetchone()
    assert rows > 0
    assert wrong == 0
    last = Memory(tmp_path / "new" / "node.db").last_statement()
    assert made.statement == (statement_from_json(parse_canonical(last), last).number if last else 0)


def test_a_node_behind_the_log_or_restored_does_not_go_up(federation) -> None:
    """Compared at each connection: the coordinator tells the number of this party's last statement in the log."""
    home = federation.home("insurer-b")
    assert federation.decisions(federation.prepare()) == {}
    memory = federation.node("insurer-b").home.memory
    last = len(memory.statements())
    check_log(home, memory, last)
    assert not (home / RESTORED).exists()
    with pytest.raises(HomeRefused) as refused:
        check_log(home, memory, last + 1, party_id("insurer-b"))
    assert refused.value.code == "NODE_RESTORED"
    with pytest.raises(HomeRefused) as again:
        Node(home).run()
    assert again.value.code == "NODE_RESTORED"
    with pytest.raises(NodeError) as silent:
        memory.state(lambda *_: b"")
    assert silent.value.code == "NODE_RESTORED"
