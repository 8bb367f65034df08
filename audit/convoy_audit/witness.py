"""The witness: remembers the last checkpoint of each log and cosigns only what extends it.

    Witness(signers, logs, store)          logs: pinned verifier keys, or those of each origin
      .add_checkpoint(note: bytes, old_size: int, proof: Sequence[bytes], time_s: int) -> Cosigned
      .answer(request: bytes, time_s: int) -> bytes     body of tlog-witness add-checkpoint
      .size(origin) -> int      .latest(origin) -> bytes | None      .verifiers
    judge(remembered, offered, old_size, proof) -> None           the pure rule
    WitnessStore: Protocol with load, replace, keep_alarm        Remembered, Alarm

Guarantees (SPEC.md §6): checks and stores in one step (``replace`` compares and sets), stores
before it answers, refuses rollback and fork and then keeps both signed notes. Raises
``WitnessRefusal``. What it does not see: whether an entry is true; two histories shown to two
groups of witnesses that never speak to each other and both lack a quorum. Pure but for the store:
the clock is an argument. Source: C2SP tlog-witness v1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, cast

from convoy_audit.canonical import b64, canonical_bytes, decimal, digest, is_version, octets, parse_canonical, unb64
from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import (
    FormatError,
    LogSignatureWrong,
    OriginUnknown,
    ProofError,
    SignatureError,
    StoreConflict,
    WitnessInconsistent,
    WitnessRefusal,
    WitnessRollback,
    WitnessStale,
)
from convoy_audit.merkle import EMPTY_ROOT, HASH_BYTES, verify_consistency
from convoy_audit.note import Note, Signer, Verifier, open_note, split_note

MAX_PROOF_LINES: Final = 63
ATTEMPTS: Final = 8
LATE_S: Final = 10
Finding = Literal["rollback", "fork", "inconsistent"]


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last checkpoint that was cosigned for an origin: the note with log and own signatures."""

    note: bytes

    @property
    def checkpoint(self) -> Checkpoint:
        """Size and root; the note was verified before it was stored."""
        return peek(self.note)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Two notes that the log has signed and that do not fit together.

    A ``fork`` (one size, two roots) convicts the log by itself. ``rollback`` and ``inconsistent``
    show a log that could not or did not prove that it only grew; the log may still answer with a
    proof.
    """

    origin: str
    finding: Finding
    known: bytes
    offered: bytes

    @property
    def identity(self) -> str:
        """What makes two alarms the same one: the texts, not the signatures, which vary."""
        texts = [split_note(note)[0].hex() for note in (self.known, self.offered)]
        return digest(canonical_bytes([self.finding, *texts]))

    def to_bytes(self) -> bytes:
        """Return the alarm as a file."""
        return canonical_bytes(
            {
                "v": 1,
                "origin": self.origin,
                "finding": self.finding,
                "known": self.known.decode(),
                "offered": self.offered.decode(),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Alarm:
        """Read an alarm; its notes are not verified.

        Raises:
            FormatError: it is no alarm.
        """
        value = parse_canonical(data)
        finding = value.get("finding")
        texts = [value.get(name) for name in ("origin", "known", "offered")]
        if finding not in ("rollback", "fork", "inconsistent") or not is_version(value.get("v"), 1):
            raise FormatError("an alarm of an unknown kind or version")
        if len(value) != 5 or not all(isinstance(text, str) for text in texts):
            raise FormatError("an alarm with other members")
        origin, known, offered = map(str, texts)
        return cls(origin, cast("Finding", finding), known.encode(), offered.encode())


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What a witness answers: its signature lines, and the size it now remembers."""

    lines: str
    size: int


class WitnessStore(Protocol):
    """Where a witness remembers; every method is durable when it returns."""

    def load(self, origin: str) -> Remembered | None:
        """Return what is remembered of a log, None if nothing."""

    def replace(self, origin: str, old: Remembered | None, new: Remembered) -> None:
        """Put ``new`` in the place of ``old``, in one step.

        Raises:
            StoreConflict: something else than ``old`` is there now; nothing is changed.
            StoreError: it could not be made durable.
        """

    def keep_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm for good; the same one again changes nothing."""

    def alarms(self) -> tuple[Alarm, ...]:
        """Return every alarm that was kept."""


class Witness:
    """A witness of one or more logs.

    Args:
        signers: the witness's cosigning keys, one of each type; all sign every checkpoint.
        logs: pinned verifier keys of the known logs, by origin; or only the keys, where each is named
            as its log's origin (some logs, such as sum.golang.org, sign under another name).
        store: what it remembers.
    """

    def __init__(
        self,
        signers: Sequence[Signer],
        logs: Iterable[Verifier] | Mapping[str, Sequence[Verifier]],
        store: WitnessStore,
    ) -> None:
        self._signers = tuple(signers)
        self._logs: dict[str, tuple[Verifier, ...]] = {}
        if isinstance(logs, Mapping):
            self._logs = {origin: tuple(keys) for origin, keys in logs.items()}
        else:
            for key in logs:
                self._logs[key.name] = (*self._logs.get(key.name, ()), key)
        self._store = store
        if not self._signers or not all(s.kind.is_cosignature for s in self._signers):
            raise FormatError("a witness needs keys of the cosignature types, and at least one")

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The public halves of the witness's keys."""
        return tuple(signer.verifier for signer in self._signers)

    @property
    def origins(self) -> tuple[str, ...]:
        """The logs whose keys are pinned."""
        return tuple(self._logs)

    def size(self, origin: str) -> int:
        """Return the size that was last cosigned; 0 if none."""
        remembered = self._store.load(origin)
        return remembered.checkpoint.size if remembered else 0

    def latest(self, origin: str) -> bytes | None:
        """Return the last cosigned checkpoint of a log, with the log's and the own signatures."""
        remembered = self._store.load(origin)
        return remembered.note if remembered else None

    def alarms(self) -> tuple[Alarm, ...]:
        """Return every alarm that was kept."""
        return self._store.alarms()

    def add_checkpoint(self, note: bytes, old_size: int, proof: Sequence[bytes], time_s: int) -> Cosigned:
        """Check a checkpoint against what is remembered, remember it, cosign it.

        Args:
            note: the signed checkpoint.
            old_size: the size that the proof starts from.
            proof: consistency proof; empty if ``old_size`` is 0 or the checkpoint's own size.
            time_s: the witness's clock, POSIX seconds.

        Raises:
            FormatError: not a signed checkpoint, or ``time_s`` is no time.
            WitnessRefusal: see ``convoy_audit.errors``; on rollback and fork both notes are kept.
            StoreError: it could not be stored; nothing was cosigned.
        """
        if type(time_s) is not int or time_s < 1:
            raise FormatError("a witness states the time, in whole seconds since 1970; 0 is none")
        checkpoint, signed = self._open(note)
        for _ in range(ATTEMPTS):
            remembered = self._store.load(checkpoint.origin)
            try:
                judge(remembered, checkpoint, old_size, proof)
            except WitnessRefusal as refusal:
                self._alarm(refusal, checkpoint, remembered, signed, time_s)
                raise
            lines = "".join(signer.line(checkpoint.text, time_s) for signer in self._signers)
            new = Remembered(signed + lines.encode())
            try:
                # If we die before this: nothing happened. After it: we remember a checkpoint whose
                # cosignature nobody got; the log asks again from the size that we then tell it.
                self._store.replace(checkpoint.origin, remembered, new)
            except StoreConflict:
                continue  # somebody else was faster; judge again against what they stored
            return Cosigned(lines, checkpoint.size)
        raise WitnessStale("too many checkpoints at once", size=self.size(checkpoint.origin))

    def answer(self, request: bytes, time_s: int) -> bytes:
        """Answer the body of a tlog-witness ``add-checkpoint`` request.

        Raises:
            FormatError: not such a body (status 400).
            WitnessRefusal: ``status`` says what to answer; with 409 the body is ``size``.
        """
        old_size, proof, note = parse_request(request)
        try:
            size = peek(note).size
        except FormatError:
            self._refuse_false_empty(note, old_size)
            raise
        if old_size > size:
            self._note_rollback(note, time_s)  # 404 and 403 come first
            raise FormatError("the old size is larger than the checkpoint")
        return self.add_checkpoint(note, old_size, proof, time_s).lines.encode()

    def _note_rollback(self, note: bytes, time_s: int) -> None:
        """Keep an alarm if a signed checkpoint is smaller than what is remembered, however the request is formed."""
        checkpoint, signed = self._open(note)
        remembered = self._store.load(checkpoint.origin)
        if remembered is not None and checkpoint.size < (known := remembered.checkpoint.size):
            self._alarm(WitnessRollback("smaller", size=known), checkpoint, remembered, signed, time_s)

    def _refuse_false_empty(self, note: bytes, old_size: int) -> None:
        """Answer 422, not 400, to a signed checkpoint of size 0 whose root is not the empty tree's; after 400 and 409."""
        lines = split_note(note)[0].split(b"\n")
        if len(lines) < 4 or lines[1] != b"0":
            return
        origin = lines[0].decode()
        self._signed(origin, note)
        if old_size > 0:
            raise FormatError("the old size is larger than the checkpoint")
        if (known := self.size(origin)) != 0:
            raise WitnessStale(f"the proof starts at 0, the witness has {known}", size=known)
        raise WitnessInconsistent("an empty tree with a root that is not that of the empty tree", size=0)

    def check_signed(self, origin: str, note: bytes) -> bytes:
        """Return a note with the verified signatures of a pinned log only; remembers and cosigns nothing.

        Raises:
            FormatError, OriginUnknown, LogSignatureWrong: it is not a checkpoint of this log.
        """
        if peek(note).origin != origin:
            raise OriginUnknown("a checkpoint of another log")
        return self._open(note)[1]

    def _open(self, note: bytes) -> tuple[Checkpoint, bytes]:
        """Return the checkpoint and the note with the log's verified signatures only."""
        checkpoint = peek(note)
        opened = self._signed(checkpoint.origin, note)
        lines = "".join(str(signature.line) for signature in opened.signatures)
        return checkpoint, opened.text + b"\n" + lines.encode()

    def _signed(self, origin: str, note: bytes) -> Note:
        """Check that the log has signed with a key of every type that is pinned for it."""
        pinned = self._logs.get(origin, ())
        if not pinned:
            raise OriginUnknown(f"no key is pinned for the log {origin[:80]!r}")
        try:
            opened = open_note(note, pinned)
        except SignatureError as error:
            raise LogSignatureWrong(error.cause) from None
        missing = {key.kind for key in pinned} - {key.kind for key in pinned if opened.signed_by(key)}
        if missing:
            raise LogSignatureWrong("the log has not signed with " + ", ".join(sorted(kind.name for kind in missing)))
        return opened

    def _alarm(
        self,
        refusal: WitnessRefusal,
        checkpoint: Checkpoint,
        remembered: Remembered | None,
        offered: bytes,
        time_s: int,
    ) -> None:
        if remembered is None:
            return
        if isinstance(refusal, WitnessRollback) and self._is_late(checkpoint.origin, offered, remembered, time_s):
            return
        known = remembered.checkpoint
        finding: Finding | None = None
        if known.size == checkpoint.size and known.root != checkpoint.root:
            finding = "fork"
        elif isinstance(refusal, WitnessRollback):
            finding = "rollback"
        elif isinstance(refusal, WitnessInconsistent):
            finding = "inconsistent"
        if finding is not None:
            self._store.keep_alarm(Alarm(checkpoint.origin, finding, remembered.note, offered))

    def _is_late(self, origin: str, offered: bytes, remembered: Remembered, time_s: int) -> bool:
        """Tell whether a smaller checkpoint was merely overtaken: signed before the remembered one, seconds ago.

        Two ways lead to a witness (push and pull), so a checkpoint can arrive after its successor. It is refused all the
        same; it is no alarm, unless it still comes ``LATE_S`` later, as from a restored backup. Logs whose signatures carry
        no time get no such grace.
        """
        before, after = (self._signed_at(origin, note) for note in (offered, remembered.note))
        return before is not None and after is not None and before <= after <= time_s <= after + LATE_S

    def _signed_at(self, origin: str, note: bytes) -> int | None:
        times = [s.time_s for s in open_note(note, self._logs[origin]).signatures if s.time_s]
        return max(times, default=None)


def judge(remembered: Remembered | None, offered: Checkpoint, old_size: int, proof: Sequence[bytes]) -> None:
    """Decide whether a verified checkpoint may be cosigned.

    Raises:
        WitnessRollback: smaller than what is remembered.
        WitnessStale: the proof does not start at what is remembered.
        WitnessInconsistent: it does not extend what is remembered.
    """
    known = remembered.checkpoint if remembered else Checkpoint(offered.origin, 0, EMPTY_ROOT)
    if offered.size < known.size:
        raise WitnessRollback(f"the log has {offered.size} entries, it had signed {known.size}", size=known.size)
    if old_size != known.size:
        raise WitnessStale(f"the proof starts at {old_size}, the witness has {known.size}", size=known.size)
    if old_size == 0:
        if proof or (offered.size == 0 and offered.root != EMPTY_ROOT):
            raise WitnessInconsistent("a proof from size 0 must be empty", size=known.size)
        return
    try:
        verify_consistency(known.size, offered.size, proof, known.root, offered.root)
    except ProofError as error:
        raise WitnessInconsistent(error.cause, size=known.size) from None


def parse_request(body: bytes) -> tuple[int, list[bytes], bytes]:
    """Read the body of ``add-checkpoint``: old size, proof, checkpoint.

    Raises:
        FormatError: not such a body.
    """
    head, blank, note = octets(body, "a request").partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError("a request that is not ASCII before its checkpoint") from None
    if not blank or not lines[0].startswith("old "):
        raise FormatError("a request starts with the old size and an empty line ends its proof")
    old_size = decimal(lines[0].removeprefix("old "), "the old size")
    if len(lines) - 1 > MAX_PROOF_LINES:
        raise FormatError(f"a proof of more than {MAX_PROOF_LINES} hashes")
    proof = [unb64(line) for line in lines[1:]]
    if any(len(node) != HASH_BYTES for node in proof):
        raise FormatError("a hash that is not 32 bytes")
    split_note(note)
    return old_size, proof, note


def make_request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Write the body of ``add-checkpoint``."""
    lines = [f"old {old_size}", *(b64(node) for node in proof)]
    return ("\n".join(lines) + "\n\n").encode() + note
