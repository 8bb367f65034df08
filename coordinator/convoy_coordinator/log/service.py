"""The log as the rest of the coordinator uses it.

    LogService(sessions, origin, signers, *, witnesses=…, clock=…, deadline_s=2.0)
      append(entry: bytes) -> int                     durable when it returns
      append_many(entries) -> list[int]               all or none
      checkpoint() -> str                             signed note over every durable entry
      add_cosignatures(note: str) -> Cosigning        verified and kept; says if it is the quorum
      latest() -> str | None                          last one with the quorum; without any, the last
      newest() -> str | None                          last one that was signed; at(size) any of them
      level_of(index) -> Level                        wait(index, level, deadline_s)
      inclusion(index, size) -> list[bytes]           consistency(old, new) -> list[bytes]
      entries(start, end) -> list[bytes]              size() -> int
      policy() -> Policy                              witness_size(party) -> int
      evidence(index) -> Evidence                     under the latest checkpoint
      checkpoints() -> list[str]                      every one that was signed
      refuse_behind(notes) / refuse_smaller_than(sizes)    raise if a witness has seen more
      stop_if_behind(note, party)                     the same while running: nothing more is written
      close()

Guarantees: SPEC.md L1 to L6. Entries are checked to be canonical and of the catalogue before they
are taken. A checkpoint is stored before it is returned, and it is compared with the one before.
LENGTH: over 500 lines: one class, because SPEC.md's invariants are promises of all its methods together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from convoy_audit.checkpoint import Checkpoint, open_checkpoint, peek
from convoy_audit.entry import MAX_ENTRY_BYTES, parse_entry
from convoy_audit.errors import AuditError, FormatError, ProofError, SignatureError
from convoy_audit.evidence import Evidence
from convoy_audit.merkle import leaf_hash
from convoy_audit.note import MAX_SIGNATURES, Signature, Signer, Verifier, open_note, sign_note, split_note
from convoy_audit.policy import Policy, make_policy
from convoy_audit.tiles import HEIGHT, WIDTH, Span, tile_data
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Problem, SetupError
from convoy_coordinator.log import store
from convoy_coordinator.log.levels import Level, Levels
from convoy_coordinator.log.sequencer import Sequencer
from convoy_coordinator.log.tables import LogCheckpoint, LogCosignature

SCANNED = 200
"""How many of the last checkpoints are looked at for the quorum after a start."""
COMPARED = 10_000
"""How many of the last checkpoints are compared with the tree at a start; a busy log signs one a second."""
Witnesses = Callable[[], Mapping[str, Sequence[str]]]
"""Returns the verifier keys of every witness, by party."""


def no_witnesses() -> Mapping[str, Sequence[str]]:
    """Return that nobody is enrolled."""
    return {}


def now_utc() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Cosigning:
    """Who has cosigned a checkpoint, and whether that is enough."""

    size: int
    parties: tuple[str, ...]
    needed: int
    has_quorum: bool

    def as_json(self) -> dict[str, Any]:
        """Return what the internal route answers."""
        return {
            "size": self.size,
            "cosigned": len(self.parties),
            "parties": list(self.parties),
            "needed": self.needed,
            "quorum": self.has_quorum,
        }


class LogService:
    """One log with its checkpoints and cosignatures.

    Args:
        sessions: the database; its tables must be there.
        origin: the origin line; also the name of every signer.
        signers: the log's keys, Ed25519 and ML-DSA-44; all sign every checkpoint.
        witnesses: party -> vkeys, asked each time, because parties enrol while the log runs; it may
            look at services that are made after the log, as ``lambda: {p.id: …}`` does.
        others: as ``witnesses``; their cosignatures are kept, and do not count for the quorum.
        clock: for the time in ML-DSA-44 signatures.
        deadline_s: how long an append may take.

    Raises:
        SetupError: LOG_BROKEN, or a signer of another origin.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        origin: str,
        signers: Sequence[Signer],
        *,
        witnesses: Witnesses = no_witnesses,
        others: Witnesses = no_witnesses,
        clock: Callable[[], datetime] = now_utc,
        deadline_s: float = 2.0,
    ) -> None:
        if not signers or any(signer.name != origin for signer in signers):
            raise SetupError(
                "LOG_KEY_WRONG",
                f"the log needs keys under its own name {origin!r}",
                fix="Make the log's keys with the origin as their name.",
            )
        self.origin = origin
        self._sessions = sessions
        self._signers = tuple(signers)
        self._witnesses = witnesses
        self._others = others
        self._clock = clock
        self._stopped: Problem | None = None
        self._is_scanned = False
        self.levels = Levels()
        self._signing = threading.Lock()
        self._sequencer = Sequencer(sessions, deadline_s=deadline_s)
        self._tree = self._sequencer.tree
        published = self._check_signed()
        self.levels.reached(Level.DURABLE, self.size())
        self.levels.reached(Level.PUBLISHED, published)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The log's verifier keys, for partners to pin."""
        return tuple(signer.vkey for signer in self._signers)

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The public halves of the log's keys."""
        return tuple(signer.verifier for signer in self._signers)

    # Entries -------------------------------------------------------------------------------------

    def append(self, entry: bytes) -> int:
        """Append one entry; return its index once it is durable.

        Raises:
            FormatError: not an entry of the catalogue.
            Problem: LOG_UNAVAILABLE.
        """
        return self.append_many([entry])[0]

    def append_many(self, entries: Sequence[bytes]) -> list[int]:
        """Append entries next to each other, all or none; return once they are durable.

        Raises:
            FormatError: one of them is not an entry of the catalogue; nothing is appended.
            Problem: LOG_UNAVAILABLE.
        """
        for entry in entries:
            if len(entry) > MAX_ENTRY_BYTES:
                raise FormatError(f"an entry of {len(entry)} bytes; the limit is {MAX_ENTRY_BYTES}")
            parse_entry(entry)
        self._check_running()
        if not entries:
            return []
        indexes = self._sequencer.append(entries)
        self.levels.reached(Level.DURABLE, indexes[-1] + 1)
        return indexes

    def level_of(self, index: int) -> Level:
        """Return how far an entry has come; a witnessed one stays witnessed."""
        self._scan()
        self.levels.reached(Level.DURABLE, self.size())
        return self.levels.of(index)

    def wait(self, index: int, level: Level, deadline_s: float) -> None:
        """Return once an entry has come to a level.

        Raises:
            Problem: LOG_NOT_WITNESSED after the deadline; the act must then be taken as refused.
        """
        if self.level_of(index) < level:
            self.levels.wait(index, level, deadline_s)

    def size(self) -> int:
        """Return the number of durable entries."""
        return self._tree.size

    def entries(self, start: int, end: int) -> list[bytes]:
        """Return the entries [start, end).

        Raises:
            ProofError: outside the log.
            Problem: LOG_UNAVAILABLE, an entry in the database is not what was logged.
        """
        if not 0 <= start <= end <= self.size():
            raise ProofError(f"no entries {start} to {end} in a log of {self.size()}")
        with self._sessions() as session:
            found = store.entries(session, start, end)
        if len(found) != end - start or any(
            not isinstance(body, bytes) or leaf_hash(body) != self._tree.leaf(start + at)
            for at, body in enumerate(found)
        ):
            raise Problem("LOG_UNAVAILABLE", "an entry in the database is not what was logged")
        return found

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash of an entry.

        Raises:
            ProofError: outside the log.
        """
        if not 0 <= index < self.size():
            raise ProofError(f"no entry {index} in a log of {self.size()}")
        return self._tree.leaf(index)

    def bundle(self, span: Span) -> list[bytes]:
        """Return the entries of a bundle.

        Raises:
            ProofError: outside the log.
        """
        start = span.index * WIDTH
        return self.entries(start, start + span.width)

    # Proofs --------------------------------------------------------------------------------------

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Prove that entry ``index`` is in the tree of ``size``.

        Raises:
            ProofError: outside the log.
        """
        return self._tree.inclusion_proof(index, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Prove that the tree of ``new`` extends that of ``old``; empty from 0 and between equals.

        Raises:
            ProofError: outside the log.
        """
        if old == 0 and 0 <= new <= self.size():
            return []
        return self._tree.consistency_proof(old, new)

    def tile(self, span: Span) -> bytes:
        """Return the hashes of a tile.

        Raises:
            ProofError: outside the log.
        """
        if (span.index * WIDTH + span.width) << (HEIGHT * span.level) > self.size():
            raise ProofError("no such tile yet")
        return tile_data(self._tree, span)

    def evidence(self, index: int) -> Evidence:
        """Return the evidence of an entry under the latest checkpoint.

        Raises:
            ProofError: the latest checkpoint does not cover it.
            Problem: NOT_FOUND, there is no checkpoint.
        """
        latest = self.latest()
        if latest is None:
            raise Problem("NOT_FOUND", "the log has no checkpoint yet")
        note = latest.encode()
        proof = self.inclusion(index, peek(note).size)
        return Evidence(note, index, self.entries(index, index + 1)[0], tuple(proof))

    # Checkpoints ---------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """Sign every durable entry; the same size gives the same note again.

        Raises:
            SetupError: LOG_BROKEN, the tree does not extend what was signed before; nothing is
                signed then.
            Problem: LOG_BEHIND_WITNESS, a witness has shown more than there is.
        """
        self._check_running()
        with self._signing, _kept():
            size = self.size()
            with self._sessions() as session:
                last = store.latest_checkpoint(session)
            if last is not None:
                self._check_extends(peek(last.note.encode()))
                if last.size == size:
                    return last.note
            checkpoint = Checkpoint(self.origin, size, self._tree.root(size))
            time_s = int(self._clock().timestamp())
            note = sign_note(checkpoint.text, self._signers, time_s).decode()
            with writing(self._sessions) as session:
                session.execute(insert(LogCheckpoint), {"size": size, "root": checkpoint.root, "note": note})
            # If we die here: a checkpoint is stored that nobody has seen; it is consistent with all
            # that follow, and the next call returns it.
            self.levels.reached(Level.PUBLISHED, size)
            return note

    def latest(self) -> str | None:
        """Return the last checkpoint that has had the quorum; without any, the last; None before the first."""
        self._scan()
        size = self.levels.size(Level.WITNESSED)
        return self.at(size) if size else self.newest()

    def newest(self) -> str | None:
        """Return the last checkpoint that was signed, with the cosignatures it has so far."""
        with self._sessions() as session:
            last = store.latest_checkpoint(session)
            return None if last is None else _with_cosignatures(session, last)

    def at(self, size: int, reader: str = "") -> str | None:
        """Return the checkpoint of a size with the cosignatures it has so far, None if none was signed.

        A note has no room for those of more than 49 witnesses; those of ``reader``, a party, are always among them.
        """
        with self._sessions() as session:
            row = store.checkpoint_of(session, size)
            return None if row is None else _with_cosignatures(session, row, reader)

    def checkpoint_sizes(self) -> list[int]:
        """Return the size of every checkpoint that was signed, ascending."""
        with self._sessions() as session:
            return store.checkpoint_sizes(session)

    def checkpoints(self) -> list[str]:
        """Return every checkpoint that was signed, with cosignatures, by ascending size."""
        with self._sessions() as session:
            return [_with_cosignatures(session, row) for row in store.all_checkpoints(session)]

    def add_cosignatures(self, note: str) -> Cosigning:
        """Keep the cosignatures that a note carries.

        Lines of unknown keys are ignored; a line of a known witness that does not hold refuses all.

        Raises:
            FormatError: not a checkpoint, or not one that this log signed.
            SignatureError: a known witness's signature does not hold, or there is none.
            Problem: LOG_BEHIND_WITNESS, this log has signed such a checkpoint and does not know it any more.
        """
        raw = note.encode()
        text, _ = split_note(raw)
        size = Checkpoint.parse(text).size
        with _kept(), self._sessions() as session:
            row = store.checkpoint_of(session, size)
        if row is None or split_note(row.note.encode())[0] != text:
            self.stop_if_behind(raw, None)
            raise FormatError(f"this log has not signed such a checkpoint of {size}")
        owners = self._owners()
        if not owners:
            raise SignatureError(
                "no witness is enrolled, so no cosignature can be verified (LogService(witnesses=…))",
                code="SIGNATURE_MISSING",
            )
        opened = open_note(raw, owners)
        with _kept(), writing(self._sessions) as session:
            have = {(c.name, c.key_id) for c in store.cosignatures(session, size)}
            fresh = [
                _cosignature_row(size, owners[s.verifier], s)
                for s in opened.signatures
                if (s.verifier.name, s.verifier.key_id.hex()) not in have
            ]
            if fresh:
                session.execute(insert(LogCosignature), fresh)
        standing = self.cosigning(size)
        if standing.has_quorum and standing.needed:
            self.levels.reached(Level.WITNESSED, size)
        return standing

    def check_cosignature(self, note: bytes, lines: str, party: str) -> None:
        """Check that lines are a party's cosignatures of a note, before they are mixed with those of others.

        Raises:
            FormatError, SignatureError: they are not.
        """
        keys = [key for key, owner in self._owners().items() if owner == party]
        open_note(note + lines.encode(), keys)

    def cosigning(self, size: int) -> Cosigning:
        """Tell who has cosigned the checkpoint of a size.

        Raises:
            FormatError: this log has not signed one.
        """
        with self._sessions() as session:
            row = store.checkpoint_of(session, size)
            if row is None:
                raise FormatError(f"this log has not signed a checkpoint of {size}")
            note = _with_cosignatures(session, row)
        standing = self.policy().standing(note.encode())
        return Cosigning(size, standing.cosigned, standing.needed, standing.has_quorum)

    def policy(self) -> Policy:
        """Return the policy of now: the log's keys, every enrolled witness, k >= 1 + floor(2n/3)."""
        policy, others = make_policy(self.vkeys, self._witnesses()), self._others()
        if not others:
            return policy
        lines = policy.text.decode().splitlines()
        more = [
            f"witness {party}{'' if len(keys) == 1 else f'/{number}'} {key}"
            for party, keys in sorted(others.items())
            for number, key in enumerate(keys)
        ]
        return Policy.parse("\n".join([*lines[:-1], *more, lines[-1], ""]).encode())

    def witness_size(self, party: str) -> int:
        """Return the largest size that a party is known to have cosigned; 0 if none."""
        with self._sessions() as session:
            return store.witness_size(session, party)

    # Rollback ------------------------------------------------------------------------------------

    def refuse_behind(self, notes: Iterable[bytes]) -> None:
        """Refuse to go on if a witness holds a checkpoint of this log that it does not extend.

        Args:
            notes: what witnesses remember; each must carry this log's signature.

        Raises:
            SetupError: LOG_BEHIND_WITNESS.
            SignatureError: a note that this log has not signed.
        """
        for note in notes:
            checkpoint, _ = open_checkpoint(note, self.verifiers)
            self._check_extends(checkpoint)

    def refuse_smaller_than(self, sizes: Mapping[str, int]) -> None:
        """Refuse to go on if a party's witness has seen more entries than there are.

        Raises:
            SetupError: LOG_BEHIND_WITNESS, naming the party.
        """
        for party, size in sorted(sizes.items()):
            if size > self.size():
                raise _behind(f"{party} has cosigned {size} entries, there are {self.size()}", party)

    def stop_if_behind(self, note: bytes, party: str | None) -> None:
        """Stop for good if a note of this log tells more, or something else, than the log has.

        A note that this log has not signed tells nothing. Only a new start, after the operator restored what is missing,
        lifts the stop.

        Raises:
            Problem: LOG_BEHIND_WITNESS.
        """
        try:
            self.refuse_behind([note])
        except AuditError:
            return
        except SetupError as error:
            self._stopped = Problem("LOG_BEHIND_WITNESS", error.cause, party=party)
            raise self._stopped from None

    def close(self) -> None:
        """Write what is queued and stop the writer."""
        self._sequencer.close()

    def _check_running(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def _scan(self) -> None:
        """After a start: find the last checkpoint that has the quorum."""
        if self._is_scanned:
            return
        policy = self.policy()
        with self._sessions() as session:
            for row in store.last_checkpoints(session, SCANNED) if policy.needed else ():
                if policy.standing(_with_cosignatures(session, row).encode()).has_quorum:
                    self.levels.reached(Level.WITNESSED, row.size)
                    break
        self._is_scanned = True

    def _check_signed(self) -> int:
        """Compare the tree with what was signed before and return the size of that; 0 if nothing was.

        The last note speaks for all before it, because none was signed that did not extend the one before (L3). The stored roots
        of the ``COMPARED`` before are compared as well; ``convoy-audit fsck`` compares every one.
        """
        with self._sessions() as session:
            last = store.latest_checkpoint(session)
            roots = store.checkpoint_roots(session, COMPARED)
        if last is None:
            return 0
        for size, root in roots:
            self._check_root(size, root)
        self._check_extends(signed := peek(last.note.encode()))
        return signed.size

    def _check_extends(self, earlier: Checkpoint) -> None:
        if earlier.origin != self.origin:
            raise _behind(f"a checkpoint of another log, {earlier.origin[:80]!r}", None)
        self._check_root(earlier.size, earlier.root)

    def _check_root(self, size: int, root: bytes) -> None:
        if size > self.size():
            raise _behind(f"{size} entries were signed, there are {self.size()}", None)
        if self._tree.root(size) != root:
            raise _behind(f"the first {size} entries are not those that were signed", None)

    def _owners(self) -> dict[Verifier, str]:
        """Return every witness key with its party; a key that cannot be read is left out."""
        owners: dict[Verifier, str] = {}
        for party, vkeys in {**self._others(), **self._witnesses()}.items():
            for vkey in vkeys:
                try:
                    owners[Verifier.parse(vkey)] = party
                except AuditError:
                    continue  # enrolment refuses such keys; an old row must not stop the others
        return owners


@contextmanager
def _kept() -> Iterator[None]:
    """Turn a database that fails into a refusal; nobody was told of what it may have kept all the same."""
    try:
        yield
    except SQLAlchemyError as error:
        raise Problem("LOG_UNAVAILABLE", f"the log could not be read or written ({type(error).__name__})") from None


def _with_cosignatures(session: Session, row: LogCheckpoint, reader: str = "") -> str:
    """Return a checkpoint with as many cosignatures as a note may carry: 49 parties with two keys, a quorum of up to 73."""
    room = MAX_SIGNATURES - row.note.partition("\n\n")[2].count("\n")
    # A former pair of a party stands under ``former/<party>/<index>``, after everybody's present ones.
    cosigned = sorted(store.cosignatures(session, row.size), key=lambda c: reader not in c.party.split("/"))
    return row.note + "".join(c.line for c in cosigned[:room])


def _cosignature_row(size: int, party: str, signature: Signature) -> dict[str, Any]:
    if signature.time_s is None:
        raise SignatureError("a witness signs with a cosignature type", party=party)
    return {
        "size": size,
        "name": signature.verifier.name,
        "key_id": signature.verifier.key_id.hex(),
        "party": party,
        "time_s": signature.time_s,
        "line": str(signature.line),
    }


def _behind(cause: str, party: str | None) -> SetupError:
    return SetupError(
        "LOG_BEHIND_WITNESS",
        cause,
        party=party,
        fix="Restore the missing entries from a copy. If they are lost, retire this origin and open "
        "a successor; never sign over the gap.",
    )
