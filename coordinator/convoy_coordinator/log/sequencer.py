"""The one writer of the log: group commit, durable before it answers.

    Sequencer(sessions, deadline_s=2.0, max_batch=1024)
      .append(entries) -> list[int]         blocks until durable, or raises Problem(LOG_UNAVAILABLE)
      .submit(entries) -> Future[list[int]]
      .tree  .close()

Guarantees (SPEC.md L1, L5, L6): an index is given out once and only after the commit that holds the
entry and the frontier after it; a commit happens only on the frontier that the writer has in
memory, so entries that were lost, added or changed behind its back stop the log; one thread writes.
Whatever came in while the last commit was on its way goes into the next one together.

When it fails: a commit that raised is looked up again before anything is answered. If it cannot be
looked up, callers hear LOG_UNAVAILABLE, and the next commit begins with finding out. An append that
ran into its deadline in the queue is withdrawn; one that is already being written may still become
durable, and then the log holds an entry that nobody acted on. LIMIT: entries changed in the
database while the process runs are noticed when they are read, or at the next start, which derives
the whole tree again.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from convoy_audit.merkle import Tree, leaf_hash, node_hash
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.log import store
from convoy_coordinator.log.wal import WalKeeper

Indexes = list[int]
IDLE_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What one caller wants appended, and where the answer goes."""

    entries: tuple[bytes, ...]
    answer: Future[Indexes]


class Sequencer:
    """The single writer.

    Args:
        sessions: the database; its tables must be there.
        deadline_s: how long an append may take before it counts as refused.
        max_batch: how many appends go into one commit.

    Raises:
        SetupError: LOG_BROKEN, the stored entries and the stored frontier do not fit together.
    """

    def __init__(self, sessions: SessionFactory, *, deadline_s: float = 2.0, max_batch: int = 1024) -> None:
        self._sessions = sessions
        self._deadline_s = deadline_s
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[_Ticket | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_uncertain = False
        self._held: Connection | None = None
        self._last_used = 0.0
        self.tree = Tree()
        with sessions() as session:
            self._engine = session.connection().engine
            self._is_postgresql = self._engine.dialect.name == "postgresql"
            self._wal = None if self._is_postgresql else WalKeeper(self._engine)
            # A writer that was killed may have a commit on its way that the server still finishes: wait for it.
            store.take_writer_lock(session)
            _read_on(session, self.tree)

    def append(self, entries: Sequence[bytes]) -> Indexes:
        """Append entries, all or none, next to each other; return when they are durable.

        Raises:
            Problem: LOG_UNAVAILABLE; the entries must be taken as not logged.
        """
        answer = self.submit(entries)
        try:
            return answer.result(self._deadline_s)
        except FutureTimeout:
            withdrawn = answer.cancel()
            raise Problem(
                "LOG_UNAVAILABLE",
                f"the log did not answer within {self._deadline_s:g} s"
                + ("" if withdrawn else "; the entry may still become durable"),
            ) from None

    def submit(self, entries: Sequence[bytes]) -> Future[Indexes]:
        """Put entries in the queue; the future answers when they are durable."""
        ticket = _Ticket(tuple(entries), Future())
        with self._starting:
            if self._is_closed:
                raise Problem("LOG_UNAVAILABLE", "the log is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
                self._thread.start()
            self._queue.put(ticket)
        return ticket.answer

    def close(self) -> None:
        """Write what is in the queue, then stop; nothing can be appended any more."""
        with self._starting:
            self._is_closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None:
            thread.join()
        if self._wal is not None:
            self._wal.stop()

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._let_go()

    def _work(self) -> None:
        while (ticket := self._queue.get()) is not None:
            batch = [ticket]
            is_last = False
            while len(batch) < self._max_batch:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    is_last = True
                    break
                batch.append(following)
            self._serve([t for t in batch if t.answer.set_running_or_notify_cancel()])
            if is_last:
                return

    def _serve(self, batch: list[_Ticket]) -> None:
        start = self.tree.size
        try:
            if batch:
                start = self._commit([entry for ticket in batch for entry in ticket.entries])
        except (SQLAlchemyError, Problem) as error:
            _log.error("an append of %d was refused: %s", len(batch), type(error).__name__)
            problem = (
                error if isinstance(error, Problem) else Problem("LOG_UNAVAILABLE", "the log could not be written")
            )
            for ticket in batch:
                ticket.answer.set_exception(problem)
            return
        for ticket in batch:
            ticket.answer.set_result(list(range(start, start + len(ticket.entries))))
            start += len(ticket.entries)

    def _commit(self, bodies: list[bytes]) -> int:
        """Make entries durable and return the index of the first."""
        if self._is_uncertain:
            self._find_out()
        start = self.tree.size
        leaves = [leaf_hash(body) for body in bodies]
        after = _frontier_after(self.tree, leaves)
        try:
            with self._writing() as connection:
                if self._is_postgresql:
                    known = (start, b"".join(self.tree.frontier()))
                    if not store.append_in_one(connection, self._deadline_s, known, leaves, bodies, after):
                        _check_head(connection, self.tree)
                        raise Problem("LOG_UNAVAILABLE", "the stored log is not the one known")
                else:
                    _check_head(connection, self.tree)
                    store.insert_run(connection, start, leaves, bodies, after)
            # If we die before the commit: none of it is there. After it: the entries are durable
            # and nobody was told; the next start finds them with their frontier and goes on.
        except SQLAlchemyError:
            self._is_uncertain = True
            self._find_out()  # raises as well if the database is gone
            if self.tree.size != start + len(leaves):
                raise
            return start
        self.tree.extend(leaves)
        return start

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """Open one transaction for writing, on a connection that the writer keeps while it is busy.

        On PostgreSQL, asking whether a connection is alive costs as much as the commit. One that lay idle, or that failed, is
        given back, and the next one is asked. SQLite keeps prepared statements with the connection.
        """
        if time.monotonic() - self._last_used > IDLE_S:
            self._let_go()
        if self._held is None:
            self._held = self._engine.connect()
            if self._wal is not None:
                self._wal.adopt(self._held)
        try:
            with self._held.begin():
                if not self._is_postgresql:
                    self._held.exec_driver_sql("BEGIN IMMEDIATE")
                yield self._held
        except BaseException:
            self._let_go()
            raise
        self._last_used = time.monotonic()
        if self._wal is not None:
            self._wal.note()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def _find_out(self) -> None:
        """Read whether a commit that raised has happened after all."""
        with writing(self._sessions) as session:
            store.take_writer_lock(session)
            try:
                _read_on(session, self.tree)
            except SetupError as error:
                raise Problem("LOG_UNAVAILABLE", error.cause) from None
        self._is_uncertain = False


def _read_on(session: Session, tree: Tree) -> None:
    """Extend a tree by what is stored beyond it, and compare with the stored frontier."""
    size, frontier = store.head(session)
    with _uncollected():
        for rows in store.batches(session, tree.size):
            if rows:
                tree.extend(_leaves_of(rows, tree.size, size))
    if tree.size != size:
        raise _broken(f"there are {tree.size} entries, the stored size is {size}")
    if b"".join(tree.frontier()) != frontier:
        raise _broken(f"the frontier of {size} does not fit the entries")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave cyclic garbage alone for a while: a million rows would set off collections of the whole process, for a third of the
    time of a start, and rows are no cycles.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _leaves_of(rows: Sequence[tuple[int, bytes, bytes]], start: int, size: int) -> Sequence[bytes]:
    """Return the leaf hashes of stored rows that follow ``start`` and are what they were; whole columns at a time."""
    indexes, stored, bodies = zip(*rows, strict=True)
    sha256 = hashlib.sha256
    try:
        leaves = tuple([sha256(b"\x00" + body).digest() for body in bodies])
    except TypeError:  # an entry that somebody made a text or a number
        leaves = ()
    if leaves == stored and indexes == tuple(range(start, start + len(rows))) and indexes[-1] < size:
        return leaves
    for at, (index, leaf, body) in enumerate(rows, start):
        if index != at:
            raise _broken(f"entry {at} is missing")
        if not isinstance(body, bytes) or leaf_hash(body) != leaf:
            raise _broken(f"entry {index} is not what it was")
        if index >= size:
            raise _broken(f"entry {index} is beyond the stored size {size}")
    raise _broken("its entries cannot be read")


def _check_head(connection: Connection, tree: Tree) -> None:
    """Refuse to append to anything but the tree in memory."""
    size, frontier, last = store.head_and_last(connection)
    if size != tree.size or frontier != b"".join(tree.frontier()):
        raise Problem("LOG_UNAVAILABLE", f"the stored frontier of {size} is not the one of {tree.size} known")
    if last != tree.size - 1:
        raise Problem("LOG_UNAVAILABLE", f"the last stored entry is {last}, not {tree.size - 1}")


def _frontier_after(tree: Tree, leaves: Sequence[bytes]) -> list[bytes]:
    """Return the frontier that the tree will have after these leaves; the tree stays as it is."""
    peaks, size = tree.frontier(), tree.size
    for leaf in leaves:
        node, bits = leaf, size
        while bits & 1:
            node = node_hash(peaks.pop(), node)
            bits >>= 1
        peaks.append(node)
        size += 1
    return peaks


def _broken(cause: str) -> SetupError:
    return SetupError(
        "LOG_BROKEN",
        f"the log in the database does not fit together: {cause}",
        fix="Restore the database from a copy that the witnesses have cosigned; do not edit it.",
    )
