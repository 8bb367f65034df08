"""kill -9 in the middle: what was acknowledged is there, what was signed still holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from convoy_audit.fsck import check_log
from convoy_audit.policy import make_policy
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.witness_store import FileWitnessStore

KILLS = int(os.environ.get("CONVOY_KILLS", "6"))

APPENDER = """
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from convoy_audit.entry import encode
from convoy_audit.events import RunFailed
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_coordinator.db import Base
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.log import LogService, tables

engine = open_engine("sqlite:///" + sys.argv[1])
Base.metadata.create_all(engine, tables=[getattr(tables, n).__table__ for n in
    ("LogEntry", "LogFrontier", "LogCheckpoint", "LogCosignature")])
signer = Signer.from_seed("example.com/log", SignatureType.ED25519, bytes(31) + b"\\1")
log = LogService(session_factory(engine), "example.com/log", [signer])
def work(thread):
    for number in range(10**6):
        at = datetime.now(UTC)
        raw = encode(RunFailed(at=at, run=f"run-{sys.argv[2]}-{thread}-{number}", contract="sha256:" + "0" * 64, reasons=("X_Y",)))
        index = log.append(raw)
        os.write(1, f"{index} {raw.hex()}\\n".encode())
        if number % 7 == 0:
            os.write(1, f"signed {log.checkpoint().encode().hex()}\\n".encode())
with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
"""

WITNESS = """
import sys
from pathlib import Path
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.testing import make_witness
from convoy_audit.witness_store import FileWitnessStore

log = Rehearsal().log
witness = make_witness("w", log, FileWitnessStore.open(Path(sys.argv[1])))
while True:
    size = witness.size(log.origin) + 1
    log.append(*(b"entry %d" % n for n in range(log.tree.size, size)))
    note = log.checkpoint(size)
    witness.add_checkpoint(note, size - 1, log.consistency(size - 1, size), 1)
    print(size, flush=True)
"""


def run_and_kill(script: str, *arguments: str, after_s: float) -> list[str]:
    """Run a script, kill it without warning some time after its first line, return its whole lines."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = process.stdout.readline()
    if not first:
        pytest.fail(process.stderr.read().decode())
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    lines = (first + rest).split(b"\n")
    return [line.decode() for line in lines[:-1]]  # a line that was cut off was not acknowledged


def test_no_acknowledged_entry_and_no_signed_checkpoint_is_lost_by_kills(tmp_path: Path) -> None:
    """Short form; CONVOY_KILLS=200 for the long one."""
    database = tmp_path / "log.db"
    random = Random(7)
    acknowledged: dict[int, bytes] = {}
    signed: list[bytes] = []
    for number in range(KILLS):
        for line in run_and_kill(APPENDER, str(database), str(number), after_s=random.uniform(0, 0.25)):
            what, value = line.split(" ")
            if what == "signed":
                signed.append(bytes.fromhex(value))
            else:
                assert int(what) not in acknowledged
                acknowledged[int(what)] = bytes.fromhex(value)
        findings = check_log(database)
        assert findings.faults == []
    import sqlite3

    with sqlite3.connect(database) as connection:
        rows = dict(connection.execute("SELECT idx, body FROM log_entry"))
        stored = {note.encode() for (note,) in connection.execute("SELECT note FROM log_checkpoint")}
    assert len(acknowledged) >= KILLS
    for index, raw in acknowledged.items():
        assert rows[index] == raw
    assert set(signed) <= stored
    vkey = "example.com/log"
    assert all(note.startswith(vkey.encode()) for note in signed)


def test_a_killed_witness_never_forgets_what_it_cosigned(tmp_path: Path) -> None:
    """The remembered size is at least the last answered one, and the file is whole."""
    folder = tmp_path / "witness"
    FileWitnessStore.create(folder)
    log = Rehearsal().log
    policy = make_policy(log.vkeys, {})
    answered = 0
    random = Random(8)
    for _ in range(max(3, KILLS // 2)):
        lines = run_and_kill(WITNESS, str(folder), after_s=random.uniform(0, 0.1))
        answered = max(answered, *map(int, lines))
        remembered = FileWitnessStore.open(folder).load(log.origin)
        assert remembered is not None
        assert remembered.checkpoint.size >= answered
        assert policy.standing(remembered.note).checkpoint.size == remembered.checkpoint.size
