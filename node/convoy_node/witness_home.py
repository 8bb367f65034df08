"""The witness of a node's folder, opened beside the node: other processes may have it open as well.

    open_witness(home) -> Witness      needs no ledger lock: the store keeps processes apart (flock, compare and set)
    KeptWitness(home, party, logs).now() -> Witness    the same; a rotation by another process is followed without a restart
    check_log_standing(home, receipts) raises ActionRefused if the log is convicted, or omits what this node stated

It cosigns the node's own log (``node.toml``) and the logs of others that its operator lists in ``witness-logs.txt``, one a
line: ``log <vkey>``, or ``log <vkey> <origin>`` for a log that signs under another name. Lines that begin with # are notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from convoy_audit.canonical import digest
from convoy_audit.checkpoint import peek
from convoy_audit.errors import AuditError
from convoy_audit.events import WitnessAlarm
from convoy_audit.note import Verifier
from convoy_audit.policy import Policy, make_policy
from convoy_audit.witness import Alarm, Witness
from convoy_audit.witness_store import FileWitnessStore
from convoy_contracts.document import Contract
from convoy_node.errors import ActionRefused, SettingsRefused
from convoy_node.identity import WITNESS, WITNESS_NEXT, Identity
from convoy_node.receipts import Receipts
from convoy_node.settings import Settings
from convoy_node.setup import contracts

LOGS_FILE: Final = "witness-logs.txt"
FOLDER: Final = "witness"


def open_witness(home: Path) -> Witness:
    """Open the witness of a node's folder.

    Raises:
        NodeError: settings or keys that cannot be used; ``reasons`` lists every wrong line of the list of logs.
        StoreError: its memory is lost or damaged; it does not start again from nothing (SPEC.md W4).
    """
    settings = Settings.load(home)
    return KeptWitness(home, settings.party, pinned_logs(home, settings)).now()


class KeptWitness:
    """The witness of a folder, with the keys that it has at each moment.

    It signs with the present keys, and with each former pair that a contract of this folder pins: nodes judge a run by the
    contract's keys, the log counts the present ones. While a change is under way it signs with every pair there is.

    Args:
        home: the node's folder.
        party: whose it is.
        logs: keys of the logs that it knows, by origin.

    Raises:
        NodeError, StoreError: as ``open_witness``.
    """

    def __init__(self, home: Path, party: str, logs: Mapping[str, Sequence[Verifier]]) -> None:
        self._home, self._party = home, party
        self._logs = logs
        self._store = FileWitnessStore.open(home / FOLDER)
        self._stamp = self._now_stamp()
        self._identity, self._witness = self._made()

    def now(self) -> Witness:
        """Return the witness."""
        stamp = self._now_stamp()
        if stamp != self._stamp:
            # Keys that changed in between are read again at the next call: the stamp is older than they.
            self._stamp = stamp
            self._identity, self._witness = self._made()
        return self._witness

    def of(self, contract: Contract) -> tuple[Verifier, ...]:
        """Return this witness's own keys, present or former, that a contract pins; none where it pins others."""
        self.now()
        return tuple(key.verifier for key in self._identity.witness_of(pinned_witness(contract, self._party)))

    def _made(self) -> tuple[Identity, Witness]:
        keys = self._home / "keys"
        identity = Identity.load(keys, self._party)
        former = identity.former_witnesses
        if former and not (keys / WITNESS_NEXT).exists():
            pinned = [pinned_witness(Contract.parse(text), self._party) for text in contracts(self._home).values()]
            former = tuple(own for own in former if any(identity.witness_of(keys) == own for keys in pinned))
        signers = [*identity.witness, *(key for own in former for key in own)]
        return identity, Witness(signers, self._logs, self._store)

    def _now_stamp(self) -> tuple[tuple[int, int], ...]:
        found = []
        for name in (WITNESS, WITNESS_NEXT):
            try:
                about = (self._home / "keys" / name).stat()
            except OSError:
                continue
            found.append((about.st_ino, about.st_mtime_ns))
        return tuple(found)


def pinned_witness(contract: Contract, party: str) -> tuple[str, ...]:
    """Return the witness keys that a contract pins for a party."""
    found = contract.party(party)
    return tuple(found.witnessKey.split("\n")) if found is not None and found.witnessKey is not None else ()


def contracts_policy(home: Path, settings: Settings) -> Policy | None:
    """Return the witness policy of the signed contract with the most witnesses, None where none was signed."""
    policies = []
    for text in contracts(home).values():
        keys = [p.witnessKey.split("\n") for p in Contract.parse(text).parties if p.witnessKey is not None]
        policies.append(make_policy(settings.log_keys, {Verifier.parse(own[0]).name: own for own in keys}))
    return max(policies, key=lambda policy: len(policy.quorum_members), default=None)


def check_log_standing(witness: Witness, receipts: Receipts, origin: str, party: str) -> None:
    """Refuse to work under a log that has shown two histories, or that leaves out what this node has stated.

    Raises:
        ActionRefused: LOG_CONVICTED or STATEMENT_OMITTED.
    """
    if any(alarm.origin == origin and alarm.finding == "fork" for alarm in witness.alarms()):
        raise ActionRefused(
            "the log has signed two histories; an alarm holds both notes.",
            party=party,
            code="LOG_CONVICTED",
            fix="Show the alarm (convoy-node witness alarms) to every partner; work goes on under a new log only.",
        )
    late = receipts.overdue()
    if late:
        raise ActionRefused(
            f"the log omits statement {late[0].number} of this party since {late[0].since}"
            + (f", and {len(late) - 1} more." if len(late) > 1 else "."),
            party=party,
            code="STATEMENT_OMITTED",
            fix="convoy-node statements lists them; the coordinator must log them before this node works again.",
        )


def alarm_event(alarm: Alarm, party: str, at: datetime) -> WitnessAlarm:
    """Return what a party states about an alarm: sizes and digests; the notes themselves stay in the witness's folder."""
    return WitnessAlarm(
        at=at,
        party=party,
        origin=alarm.origin,
        finding=alarm.finding,
        known_size=peek(alarm.known).size,
        known_note=digest(alarm.known),
        offered_size=peek(alarm.offered).size,
        offered_note=digest(alarm.offered),
    )


def pinned_logs(home: Path, settings: Settings) -> dict[str, tuple[Verifier, ...]]:
    """Return the keys of every log that this witness knows, by origin.

    Raises:
        SettingsRefused: lines that are no log.
    """
    logs = {settings.log_origin: tuple(Verifier.parse(key) for key in settings.log_keys)}
    faults = []
    for number, line in enumerate(_lines(home / LOGS_FILE), start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] != "log" or len(words) < 2:
                raise SettingsRefused("is not: log <vkey> [<origin>]")
            key = Verifier.parse(words[1])
        except (AuditError, SettingsRefused) as error:
            faults.append(f"{LOGS_FILE} line {number}: {error.cause}")
            continue
        origin = words[2].strip() if len(words) == 3 else key.name
        if origin == settings.log_origin:
            faults.append(f"{LOGS_FILE} line {number}: the node's own log is pinned in node.toml only")
            continue
        logs[origin] = (*logs.get(origin, ()), key)
    if faults:
        raise SettingsRefused(f"{LOGS_FILE} has {len(faults)} wrong lines.", party=settings.party, reasons=faults)
    return logs


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{path.name} cannot be read.") from error
