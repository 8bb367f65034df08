"""Follow a log from outside: remember its last checkpoint, check that it only grows, cry when it does not.

    look(memory, note, tree_of, policy, now, stale_s) -> Look        one look; pure
    Memory(note, seen_at)     Look: .memory, .alarms, .grown, .said
    fetcher(source: str, timeout_s) -> read(path) -> bytes | None        folder, or http(s) address

A monitor needs no key and cosigns nothing. It finds: two trees of one size (fork), a smaller tree
(rollback), a tree that does not extend the remembered one, wrong or missing signatures, a missing quorum,
and a checkpoint that nobody has cosigned for too long (stale). LIMIT: the first look is believed, as far as
the policy's signatures go; a log that is split between this monitor and others shows only when they
compare checkpoints (every quorum needs most witnesses, so both halves cannot have one).
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import AuditError, FormatError, ProofError
from convoy_audit.merkle import Tree, verify_consistency
from convoy_audit.policy import Policy, Standing

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
STOP_CODES: Final = frozenset({"FORK", "ROLLBACK", "INCONSISTENT", "SIGNATURE"})
"""Alarms after which nobody may work on this log; QUORUM and STALE can pass."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a monitor remembers: the last good checkpoint, and when it first saw one of this size."""

    note: bytes
    seen_at_s: int

    @property
    def checkpoint(self) -> Checkpoint:
        """Size and root."""
        return peek(self.note)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that must be told: FORK, ROLLBACK, INCONSISTENT, SIGNATURE, QUORUM or STALE."""

    code: str
    cause: str

    @property
    def must_stop(self) -> bool:
        """Tell whether nobody may work on this log any more."""
        return self.code in STOP_CODES


@dataclass(frozen=True, slots=True)
class Look:
    """What one look gave; ``memory`` is what to remember from now on."""

    memory: Memory | None
    checkpoint: Checkpoint
    grown: int
    alarms: tuple[Alarm, ...]


def look(
    memory: Memory | None,
    note: bytes,
    tree_of: Callable[[int], Tree],
    policy: Policy | None,
    now_s: int,
    stale_s: int,
) -> Look:
    """Judge a checkpoint against what is remembered, in this order.

    1. The log's signatures, and the quorum, if there is a policy.
    2. One origin, no smaller size, no other root of the same size.
    3. A consistency proof, made from the tiles, from the remembered checkpoint to this one.
    4. Its age by the witnesses' clocks, or by when this size was first seen.

    Args:
        tree_of: gives the tree of a size; its nodes need not be trusted.
        now_s: the monitor's clock, POSIX seconds.
        stale_s: how old the newest cosignature may be.

    Raises:
        FormatError: not a signed checkpoint, or tiles that are missing.
    """
    offered = peek(note)
    standing: Standing | None = None
    alarms: list[Alarm] = []
    if policy is not None:
        try:
            standing = policy.standing(note)
        except FormatError:
            raise
        except AuditError as error:
            return Look(memory, offered, 0, (Alarm("SIGNATURE", error.cause),))
        if not standing.has_quorum:
            have = len(standing.cosigned)
            alarms.append(Alarm("QUORUM", f"cosigned by {have} of the {standing.needed} witnesses that are needed"))
    broken = _broken(memory, offered, tree_of)
    if broken is not None:
        return Look(memory, offered, 0, (broken, *alarms))
    before = memory.checkpoint.size if memory else 0
    is_new = memory is None or offered.size > before
    seen_at_s = now_s if is_new or memory is None else memory.seen_at_s
    cosigned_at = max(standing.times_s, default=0) if standing else 0
    age_s = now_s - (cosigned_at or seen_at_s)
    if age_s > stale_s:
        alarms.append(Alarm("STALE", f"the newest cosignature is {age_s} s old"))
    return Look(Memory(note, seen_at_s), offered, offered.size - before if memory else 0, tuple(alarms))


def _broken(memory: Memory | None, offered: Checkpoint, tree_of: Callable[[int], Tree]) -> Alarm | None:
    if memory is None:
        return None
    known = memory.checkpoint
    if known.origin != offered.origin:
        return Alarm("INCONSISTENT", f"this is the log {offered.origin[:80]!r}, not {known.origin[:80]!r}")
    if offered.size < known.size:
        return Alarm("ROLLBACK", f"the log has {offered.size} entries, it had signed {known.size}")
    if offered.size == known.size:
        if offered.root != known.root:
            return Alarm("FORK", f"the log has signed two different trees of size {known.size}")
        return None
    if known.size == 0:
        return None
    proof = tree_of(offered.size).consistency_proof(known.size)
    try:
        verify_consistency(known.size, offered.size, proof, known.root, offered.root)
    except ProofError as error:
        return Alarm("INCONSISTENT", error.cause)
    return None


def fetcher(source: str, timeout_s: float = 10.0) -> Callable[[str], bytes | None]:
    """Return what reads a log's files below a folder, or below an http(s) address.

    Reading raises:
        FormatError: the log cannot be reached, or answers with too much.
    """
    if source.startswith(("http://", "https://")):
        base = source.rstrip("/")
        return lambda path: _get(f"{base}/{path}", timeout_s)
    folder = Path(source)

    def read(path: str) -> bytes | None:
        file = folder / path
        try:
            return file.read_bytes() if file.is_file() else None
        except OSError as error:
            raise FormatError(f"{path} cannot be read: {error.strerror}") from None

    return read


def _get(url: str, timeout_s: float) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - ``fetcher`` checked the scheme
            data: bytes = answer.read(MAX_ANSWER_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise FormatError(f"the log answers with status {error.code}") from None
    except (http.client.HTTPException, OSError, ValueError) as error:  # URLError is an OSError
        raise FormatError(f"the log cannot be reached: {str(error)[:120]}") from None
    if len(data) > MAX_ANSWER_BYTES:
        raise FormatError("the log answers with too much")
    return data
