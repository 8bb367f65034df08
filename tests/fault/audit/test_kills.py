"""kill -9 in the middle: what was acknowledged is there, what was signed still holds."""

from __future__ import annotations

import json
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

KILLS = int(os.environ.get("CONVOY_KILLS", "100"))

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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_acknowledged_entry_and_no_signed_checkpoint_is_lost_by_kills(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """100 lives on each database; the long form is CONVOY_KILLS=1000."""
    url = f"sqlite:///{tmp_path / 'log.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    command = [sys.executable, str(Path(__file__).with_name("kill_harness.py")), url, str(KILLS), "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 + 3 * KILLS)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    print(kind, figures)
    assert figures["kills"] == KILLS
    assert figures["acknowledged"] >= KILLS
    assert figures["checkpoints"] > 0
    if kind == "sqlite":
        assert check_log(tmp_path / "log.db").faults == []


def test_a_killed_witness_never_forgets_what_it_cosigned(tmp_path: Path) -> None:
    """The remembered size is at least the last answered one, and the file is whole."""
    folder = tmp_path / "witness"
    FileWitnessStore.create(folder)
    log = Rehearsal().log
    policy = make_policy(log.vkeys, {})
    answered = 0
    random = Random(8)
    for _ in range(max(3, KILLS // 25)):
        lines = run_and_kill(WITNESS, str(folder), after_s=random.uniform(0, 0.1))
        answered = max(answered, *map(int, lines))
        remembered = FileWitnessStore.open(folder).load(log.origin)
        assert remembered is not None
        assert remembered.checkpoint.size >= answered
        assert policy.standing(remembered.note).checkpoint.size == remembered.checkpoint.size
