"""Follow the log: cosign what extends it, compare with what peers saw, keep alarms, fetch receipts, mirror.

    Follower(witness, reader, clock, peers=(), receipts=None, mirror=None).once() -> Round

For nodes behind NAT: everything is fetched, nothing has to listen. One turn:

1. the newest checkpoint and its proof go through the witness, which stores before it cosigns; the lines are posted back;
2. each peer's last cosigned checkpoint is compared: equal size, equal root; else the log must prove that one extends the
   other. A log that cannot has shown two histories: the alarm holds both notes and convicts it anywhere;
3. each peer's alarms are verified and kept as one's own, so that every honest node knows what one has seen;
4. a receipt is demanded for each own statement (``receipts``); 5. new entries are copied (``mirror``), if wanted.

A peer or log that does not answer proves nothing and stops nothing; what is refused by the witness is raised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from convoy_audit.canonical import canonical_bytes
from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.errors import AuditError, ProofError, WitnessInconsistent, WitnessRollback
from convoy_audit.merkle import verify_consistency
from convoy_audit.witness import Alarm, Witness, WitnessStore
from convoy_node.log_reader import LogReader, LogUnreachable
from convoy_node.mirror import Mirror
from convoy_node.receipts import Receipts

MAX_ALARMS: Final = 100
TIMEOUT_S: Final = 5.0


@dataclass(slots=True)
class Round:
    """What one turn did."""

    size: int = 0
    quorum: bool = False
    alarms: int = 0
    peers: int = 0
    receipts: int = 0
    overdue: int = 0
    mirrored: int = 0
    trouble: list[str] = field(default_factory=list)


class Follower:
    """The follower of one log.

    Args:
        witness: this node's.
        store: where the witness remembers; alarms go there.
        reader: the log.
        origin: the log's.
        clock: POSIX seconds.
        peers: addresses of other witnesses' services.
        receipts: own statements; None at a witness that states nothing.
        mirror: where to copy the log to; None keeps no copy.
        client: for the peers.
    """

    def __init__(
        self,
        witness: Witness,
        store: WitnessStore,
        reader: LogReader,
        origin: str,
        clock: Callable[[], float],
        *,
        peers: Sequence[str] = (),
        receipts: Receipts | None = None,
        mirror: Mirror | None = None,
        client: httpx.Client | None = None,
    ) -> None:
        self._witness = witness
        self._store = store
        self._reader = reader
        self._origin = origin
        self._clock = clock
        self._peers = tuple(peers)
        self._receipts = receipts
        self._mirror = mirror
        self._client = client or httpx.Client(timeout=TIMEOUT_S)

    def once(self) -> Round:
        """Do one turn.

        Raises:
            WitnessRefusal: the log was rolled back or rewritten; the alarm is kept, and the log is told what it signed.
            LogUnreachable: no answer from the log.
            StoreError: nothing was cosigned.
        """
        done = Round()
        try:
            self._cosign(done)
        except (WitnessRollback, WitnessInconsistent):
            self._confront(done)
            raise
        for url in self._peers:
            try:
                self._compare(url)
                done.peers += 1
            except LogUnreachable as error:
                done.trouble.append(error.cause)
        if self._receipts is not None:
            done.receipts, done.overdue = self._receipts.demand(self._reader)
        if self._mirror is not None:
            done.mirrored = self._mirror.copy(self._reader, self._reader.latest())
        done.alarms = len(self._witness.alarms())
        return done

    def _cosign(self, done: Round) -> None:
        note = self._reader.newest()
        size, old = peek(note).size, self._witness.size(self._origin)
        proof = self._reader.consistency(old, size)
        cosigned = self._witness.add_checkpoint(note, min(old, size), proof, max(1, int(self._clock())))
        done.size = cosigned.size
        done.quorum = self._reader.cosign(note.decode() + cosigned.lines).get("quorum") is True

    def _confront(self, done: Round) -> None:
        """Show the log what it has signed: an honest one that was restored from a backup stops then."""
        remembered = self._witness.latest(self._origin)
        if remembered is not None:
            try:
                self._reader.cosign(remembered.decode())
            except LogUnreachable as error:
                done.trouble.append(error.cause)

    # Peers ---------------------------------------------------------------------------------------------------------------

    def _compare(self, url: str) -> None:
        """Compare a peer's view with the own one, and take over the alarms that hold."""
        for value in self._alarms(url):
            alarm = Alarm.from_bytes(canonical_bytes(value))
            if self._convicts(alarm):
                self._store.keep_alarm(alarm)
        theirs = self._fetch(url, f"{hashlib.sha256(self._origin.encode()).hexdigest()}/checkpoint")
        own = self._witness.latest(self._origin)
        if theirs is None or own is None:
            return
        try:
            signed = self._witness.check_signed(self._origin, theirs)
        except AuditError:
            return  # not this log's: it says nothing about it
        first, second = sorted((peek(own), peek(theirs)), key=lambda checkpoint: checkpoint.size)
        finding = self._difference(first, second)
        if finding is None:
            return
        self._store.keep_alarm(Alarm(self._origin, finding, own, signed))
        raise WitnessInconsistent(
            f"a peer has cosigned another history of {first.size} to {second.size} entries", size=peek(own).size
        )

    def _difference(self, first: Checkpoint, second: Checkpoint) -> Literal["fork", "inconsistent"] | None:
        if first.size == second.size:
            return None if first.root == second.root else "fork"
        if first.size == 0:
            return None
        proof = self._reader.consistency(first.size, second.size)
        try:
            verify_consistency(first.size, second.size, proof, first.root, second.root)
        except ProofError:
            return "inconsistent"
        return None

    def _convicts(self, alarm: Alarm) -> bool:
        """Tell whether an alarm holds by itself: both notes signed by this log, one size, two roots."""
        if alarm.origin != self._origin or alarm.finding != "fork":
            return False
        try:
            self._witness.check_signed(self._origin, alarm.known)
            self._witness.check_signed(self._origin, alarm.offered)
            known, offered = peek(alarm.known), peek(alarm.offered)
        except AuditError:
            return False
        return known.size == offered.size and known.root != offered.root

    def _alarms(self, url: str) -> list[dict[str, Any]]:
        content = self._fetch(url, "alarms")
        try:
            value = json.loads(content) if content is not None else {}
        except ValueError:
            raise LogUnreachable("a peer answered no JSON.") from None
        rows = value.get("alarms") if isinstance(value, dict) else None
        return [row for row in rows if isinstance(row, dict)][:MAX_ALARMS] if isinstance(rows, list) else []

    def _fetch(self, url: str, path: str) -> bytes | None:
        try:
            response = self._client.get(f"{url.rstrip('/')}/{path}")
        except httpx.HTTPError as error:
            raise LogUnreachable(f"a peer cannot be reached ({type(error).__name__}).") from error
        if response.status_code == 404:
            return None
        if response.is_error or len(response.content) > 4 * 1024 * 1024:
            raise LogUnreachable(f"a peer answered {response.status_code}.")
        return response.content
