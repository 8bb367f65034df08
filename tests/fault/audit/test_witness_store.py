"""The folder in which a witness remembers: every step of a write broken twice."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from convoy_audit.errors import AuditError, StoreConflict, StoreError, WitnessInconsistent
from convoy_audit.testing import MemoryLog, make_witness
from convoy_audit.witness import Remembered
from convoy_audit.witness_store import MARK, FileWitnessStore

ORIGIN = "example.com/log"


@pytest.fixture
def log() -> MemoryLog:
    """A log of twenty entries."""
    log = MemoryLog(ORIGIN)
    log.append(*(b"entry %d" % number for number in range(20)))
    return log


def test_a_store_is_made_once_and_opened_after(tmp_path: Path, log: MemoryLog) -> None:
    """Neither act does the other's work: a lost folder is not silently started anew."""
    with pytest.raises(StoreError):
        FileWitnessStore.open(tmp_path / "w")
    make_witness("w", log, FileWitnessStore.create(tmp_path / "w")).add_checkpoint(log.checkpoint(5), 0, [], 1)
    with pytest.raises(StoreError):
        FileWitnessStore.create(tmp_path / "w")
    assert make_witness("w", log, FileWitnessStore.open(tmp_path / "w")).size(ORIGIN) == 5
    (tmp_path / "w" / MARK).unlink()
    with pytest.raises(StoreError):
        FileWitnessStore.open(tmp_path / "w")


def test_memory_and_alarms_survive_a_restart(tmp_path: Path, log: MemoryLog) -> None:
    """And the same alarm is kept once, however often the log repeats itself."""
    store = FileWitnessStore.create(tmp_path / "w")
    make_witness("w", log, store).add_checkpoint(log.checkpoint(), 0, [], 1)
    other = log.rewritten([b"x", *log.entries])
    for _ in range(3):
        witness = make_witness("w", log, FileWitnessStore.open(tmp_path / "w"))
        with pytest.raises(WitnessInconsistent):
            witness.add_checkpoint(other.checkpoint(), 20, other.consistency(20), 1)
    (alarm,) = FileWitnessStore.open(tmp_path / "w").alarms()
    assert alarm.finding == "inconsistent"
    assert alarm.offered == other.checkpoint()


STEPS = ("open", "fsync", "rename")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("happens", [False, True], ids=["lost", "happened"])
def test_a_write_that_fails_is_not_cosigned_and_the_next_one_works(
    tmp_path: Path, log: MemoryLog, monkeypatch: pytest.MonkeyPatch, step: str, happens: bool
) -> None:
    """Fail once at every call of each step: the memory is the old or the new one, and whole."""
    real: Callable[..., Any] = getattr(os, step)
    for failing_call in range(4):
        folder = tmp_path / str(failing_call)
        witness = make_witness("w", log, FileWitnessStore.create(folder))
        witness.add_checkpoint(log.checkpoint(5), 0, [], 1)
        calls = 0

        def broken(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls - 1 != failing_call:  # noqa: B023
                return real(*arguments, **options)
            if happens:
                result = real(*arguments, **options)
                if step == "open":
                    os.close(result)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, step, broken)
        is_broken = True
        try:
            witness.add_checkpoint(log.checkpoint(9), 5, log.consistency(5, 9), 2)
            is_broken = False
        except StoreError:
            pass
        monkeypatch.setattr(os, step, real)
        assert is_broken == (calls > failing_call)
        again = make_witness("w", log, FileWitnessStore.open(folder))
        size = again.size(ORIGIN)
        assert size in (5, 9)
        again.add_checkpoint(log.checkpoint(), size, log.consistency(size), 3)
        assert again.size(ORIGIN) == 20


def test_a_damaged_memory_is_named_and_never_taken_for_none(tmp_path: Path, log: MemoryLog) -> None:
    """Empty, cut, or that of another log: the witness stops instead of starting from zero."""
    store = FileWitnessStore.create(tmp_path / "w")
    witness = make_witness("w", log, store)
    witness.add_checkpoint(log.checkpoint(5), 0, [], 1)
    (file,) = (tmp_path / "w").glob("*.checkpoint")
    good = file.read_bytes()
    for bad in (b"", good[:-1], good.replace(ORIGIN.encode(), b"example.com/lug"), b"\xff"):
        file.write_bytes(bad)
        with pytest.raises(StoreError):
            witness.add_checkpoint(log.checkpoint(), 5, log.consistency(5), 2)
    file.write_bytes(good)
    witness.add_checkpoint(log.checkpoint(), 5, log.consistency(5), 2)


def test_a_folder_that_cannot_be_written_is_our_error(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError):
        FileWitnessStore.create(tmp_path / "file" / "w")


def test_many_threads_and_stores_never_roll_back(tmp_path: Path, log: MemoryLog) -> None:
    """Two programs on one folder; whoever is slower is told so."""
    FileWitnessStore.create(tmp_path / "w")
    witnesses = [make_witness("w", log, FileWitnessStore.open(tmp_path / "w")) for _ in range(2)]
    highest: list[int] = []

    def cosign(number: int) -> None:
        witness = witnesses[number % 2]
        old = witness.size(ORIGIN)
        size = min(20, old + 1 + number % 3)
        try:
            answer = witness.add_checkpoint(log.checkpoint(size), old, log.consistency(old, size), 1)
        except AuditError:
            return
        assert witness.size(ORIGIN) >= answer.size
        highest.append(answer.size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cosign, range(60)))
    assert witnesses[0].size(ORIGIN) == max(highest)


def test_compare_and_set_refuses_what_has_changed(tmp_path: Path, log: MemoryLog) -> None:
    """The store's own promise, without a witness."""
    store = FileWitnessStore.create(tmp_path / "w")
    first, second = Remembered(log.checkpoint(1)), Remembered(log.checkpoint(2))
    store.replace(ORIGIN, None, first)
    for wrong in (None, second):
        with pytest.raises(StoreConflict):
            store.replace(ORIGIN, wrong, second)
    store.replace(ORIGIN, first, second)
    assert store.load(ORIGIN) == second
