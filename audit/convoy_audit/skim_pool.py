"""Skim the bundles of a large pack in several processes.

    bundles_of(path: Path, files, jobs: int) -> Bundles       for ``pack.verify_files``; one process for small packs
    cores() -> int                                            that this process may use

Each process opens the pack for itself; what comes back is hashes, counts and the entries that need a judgement. A process that
dies, or meets a bundle that is none, costs only time: its bundles are read again here, and here the fault is raised.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

from convoy_audit.archive import read_files
from convoy_audit.errors import AuditError
from convoy_audit.pack import Bundles, skim_files
from convoy_audit.skim import Keys, Skimmed, skim_bundle
from convoy_audit.tiles import Span, entries_path

TASK: Final = 16
"""Bundles that a process reads at a time: 4,096 entries."""
WORTH: Final = 8 * TASK
"""From this many bundles on, starting processes costs less than it saves."""
FIRST: Final = 4
AHEAD: Final = 4
"""Tasks that wait or are under way for each process, so that memory stays bounded."""
Answer: TypeAlias = Future[list[Skimmed] | None] | None
_opened: dict[Path, Mapping[str, bytes]] = {}


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def bundles_of(path: Path, files: Mapping[str, bytes], jobs: int) -> Bundles:
    """Return what reads the bundles of the pack at ``path``, with at most ``jobs`` processes."""
    return partial(_skim, path, files, jobs)


def _skim(
    path: Path, files: Mapping[str, bytes], jobs: int, spans: Iterable[Span], keys: Callable[[], Keys]
) -> Iterator[Skimmed]:
    wanted = list(spans)
    if jobs < 2 or len(wanted) < WORTH:
        yield from skim_files(files, wanted)
        return
    # The first bundles here: parties are enrolled at the start of a log, and their keys go to the processes with each task.
    yield from skim_files(files, wanted[:FIRST])
    tasks = deque(wanted[at : at + TASK] for at in range(FIRST, len(wanted), TASK))
    # Forked where that is safe (one thread, Linux), because a fresh interpreter takes a second to start on a busy machine.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context)
    waiting: deque[tuple[list[Span], Answer]] = deque()
    try:
        while tasks or waiting:
            while tasks and len(waiting) < AHEAD * jobs:
                task = tasks.popleft()
                waiting.append((task, _submit(pool, path, task, keys())))
            task, future = waiting.popleft()
            found = _result(future)
            yield from skim_files(files, task) if found is None else found
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, path: Path, task: list[Span], keys: Keys) -> Answer:
    try:
        return pool.submit(_task, path, task, keys)
    except (BrokenExecutor, OSError):
        return None


def _result(answer: Answer) -> list[Skimmed] | None:
    try:
        return None if answer is None else answer.result()
    except (BrokenExecutor, OSError):
        return None


def _task(path: Path, spans: list[Span], keys: Keys) -> list[Skimmed] | None:
    """Skim some bundles in a process of the pool; None leaves them to the parent."""
    try:
        files = _opened.get(path)
        if files is None:
            files = _opened[path] = read_files(path)
        return [skim_bundle(files[entries_path(span.index, span.width)], span.width, keys) for span in spans]
    except (AuditError, KeyError):
        return None
