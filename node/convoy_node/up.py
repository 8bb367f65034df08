"""Run a node: the partner channel, the witness, and Flower's SuperNode where the coordinator has a SuperLink.

    Node(home, ...).run()       until stopped, or until going on makes no sense (shut out, left, not the coordinator)

One process, outwards only. The channel is a loop: connect, say hello, bring statements, follow the stream of events,
cosign each new checkpoint that extends what this witness remembers. Whatever fails in between is tried again with
growing pauses; nothing is lost, since statements, position and the witness's memory are on disk. The SuperNode is a
child process that is started again when it ends, and stopped at once when this node is shut out.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import grpc

from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError, LogSignatureWrong, WitnessRefusal, WitnessStale
from convoy_audit.events import AuthorityAnnounced, ContractChanged
from convoy_audit.note import Verifier
from convoy_audit.witness import Witness
from convoy_contracts.document import Contract
from convoy_contracts.wire import PROTOCOLS, partner_pb2
from convoy_node import join
from convoy_node.backup.standing import check_current, check_log
from convoy_node.channel import ChannelRefused, ChannelUnreachable, CoordinatorUntrusted, Line, proxy_of, refusal
from convoy_node.channel_authority import NotYet, follow
from convoy_node.channel_home import LEFT, LINK_CA, POSITION, Connection, Credentials, read_json, write
from convoy_node.channel_keys import KEYS, MEMORY, open_line, renew, send_statements
from convoy_node.channel_roots import newest
from convoy_node.consent.office import ConsentOffice
from convoy_node.duties import DutyDesk
from convoy_node.errors import HomeRefused, NodeError
from convoy_node.flower.approved import approved_apps
from convoy_node.identity import SUPERNODE
from convoy_node.journal import Journal
from convoy_node.memory import Memory
from convoy_node.settings import Settings
from convoy_node.setup import contracts
from convoy_node.witness_home import KeptWitness

ENDS: Final = frozenset(
    {
        *("PARTY_REVOKED", "CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED", "CERTIFICATE_UNKNOWN", "ROLE_NOT_ENROLLED"),
        *("PROTOCOL_UNSUPPORTED", "REQUEST_DENIED", "TICKET_UNKNOWN", "TICKET_EXPIRED", "TICKET_USED"),
        *("COORDINATOR_UNTRUSTED", "STATEMENT_FORKED", "LOG_CONVICTED", "NODE_RESTORED"),
    }
)
"""The refusals after which trying again makes no sense; a human has to act."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
ASK_S: Final = 1.0
ALIVE: Final = "log/alive"
"""Touched while the channel is open; ``convoy-node alive`` looks at its age, for health checks."""
ALIVE_EVERY_S: Final = 5.0
ALIVE_FOR_S: Final = 30.0
SETTLE_S: Final = 2.0
"""Least time between two starts of the SuperNode."""
STOP_S: Final = 10.0
RULES: Final = ("node.toml", "pins.toml")
CARD: Final = "card.json"
CLIENT_APP: Final = "convoy_node.client_app:create"
_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def is_alive(home: Path, now: datetime) -> bool:
    """Tell whether a running node of this folder has had its channel open in the last half minute."""
    try:
        return now.timestamp() - (home / ALIVE).stat().st_mtime <= ALIVE_FOR_S
    except OSError:
        return False


def _proxied(connection: Connection) -> dict[str, str]:
    """Return what makes a child process take the proxy of this node to the SuperLink; its own loopback stays without."""
    proxy = proxy_of(connection.link, connection.proxy)
    return {"HTTPS_PROXY": proxy, "https_proxy": proxy} if proxy else {}


def rules_in_force(home: Path, approved: frozenset[str]) -> str:
    """Return a short digest of what a SuperNode reads once, when it starts: settings, pins, own keys, approved apps.

    Its witness keys are not among them: it reads those again when they change, so that no run ends for them.
    """
    digest = hashlib.sha256(" ".join(sorted(approved)).encode())
    for name in RULES:
        digest.update(hashlib.sha256((home / name).read_bytes()).digest())
    card = {name: value for name, value in (read_json(home / CARD) or {}).items() if name != "witnessKey"}
    digest.update(json.dumps(card, sort_keys=True).encode())
    return digest.hexdigest()[:8]


class Node:
    """One running node.

    Args:
        home: the node's folder.
        tell: hears what people want to know.
        clock: the present instant.
        client_app: what the SuperNode's worker runs, ``module:factory``.
    """

    def __init__(
        self,
        home: Path,
        *,
        tell: Callable[[str], None] = _log.info,
        clock: Callable[[], datetime] = utc_now,
        client_app: str = CLIENT_APP,
    ) -> None:
        self._home = home
        self._tell = tell
        self._clock = clock
        self._client_app = client_app
        self._stopped = threading.Event()
        self._stream: Any = None
        self._child: subprocess.Popen[bytes] | None = None
        self._child_started = 0.0
        self._child_rules = ""
        self._marked = 0.0
        self._told_apps: frozenset[str] = frozenset()

    def stop(self) -> None:
        """End; from any thread or a signal handler."""
        self._stopped.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def run(self) -> None:
        """Run until stopped.

        Raises:
            NodeError: going on makes no sense; the fix says who has to act.
        """
        if (self._home / LEFT).exists():
            raise HomeRefused(
                "this node has left.", code="NODE_LEFT", fix="Join again with a new ticket and --recover."
            )
        check_current(self._home)
        self._wait_enrolled()
        if self._stopped.is_set():
            return
        settings = Settings.load(self._home)
        journal = Journal(self._home / "log", self._clock)
        memory = Memory(self._home / MEMORY)
        try:
            self._loop(settings, journal, memory)
        except NodeError as error:
            journal.note("channel ended", code=error.code)
            raise
        finally:
            memory.close()
            self._stop_child()

    def _wait_enrolled(self) -> None:
        pause, told = ASK_S, False
        while not self._stopped.is_set():
            try:
                standing = join.ask(self._home)
            except ChannelUnreachable as error:
                self._tell(f"{error.code}: {error.cause} Trying again.")
            except ChannelRefused as error:
                if error.code in ENDS:
                    raise
                self._tell(f"{error.code}: {error.cause} Trying again.")
            else:
                if standing.state == "enrolled":
                    return
                if not told:
                    self._tell(f"Waiting for the approval of {standing.fingerprint}")
                    told = True
            self._stopped.wait(pause)

    def _loop(self, settings: Settings, journal: Journal, memory: Memory) -> None:
        pause = FIRST_PAUSE_S
        while not self._stopped.is_set():
            try:
                with open_line(self._home, settings.party, self._clock()) as line:
                    for _ in self._talk(line, settings, journal, memory):
                        pause = FIRST_PAUSE_S
            except NodeError as error:
                if error.code in ENDS:
                    raise
                journal.note("channel lost", code=error.code)
                self._tell(f"{error.code}: {error.cause} Trying again in {pause:.0f} s.")
            self._keep_child(settings)
            self._stopped.wait(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads reconnections
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def _talk(self, line: Line, settings: Settings, journal: Journal, memory: Memory) -> Any:
        """Speak with the coordinator until the stream ends; yields at every event."""
        logs = [Verifier.parse(key) for key in settings.log_keys]
        witness = KeptWitness(self._home, settings.party, {settings.log_origin: logs})
        hello = self._hello(line, settings)
        check_log(self._home, memory, int(hello.last_statement), settings.party)
        join.told(self._home, Connection.load(self._home), hello.endpoints)
        journal.note("connected", protocol=hello.protocol, coordinator=hello.software)
        self._tell(f"Connected as {hello.party} ({hello.role}); certificate until {hello.certificate_not_after}")
        self._renew_if_old(line, settings.party, journal)
        self._keep_child(settings)
        is_announced = bool(hello.authority)
        stream = line.partner.Events(partner_pb2.EventsRequest(after=self._position()))
        self._stream = stream
        try:
            for event in stream:
                if self._stopped.is_set():
                    return
                self._mark_alive()
                if event.kind == partner_pb2.PartnerEvent.LOG_ENTRY:
                    is_announced = self._heard(event, journal) or is_announced
                elif event.kind == partner_pb2.PartnerEvent.CHECKPOINT:
                    self._cosign(line, witness.now(), settings, journal)
                    write(self._home / POSITION, str(event.size).encode())
                if is_announced:
                    is_announced = not self._follow_authority(line, witness.now(), settings, journal)
                send_statements(line, memory)
                self._keep_child(settings)
                yield event
        except grpc.RpcError as error:
            if self._stopped.is_set():
                return
            raise refusal(error, settings.party) from None
        finally:
            self._stream = None
            stream.cancel()

    def _hello(self, line: Line, settings: Settings) -> Any:
        software = f"convoy-node {version('convoy-node')}"
        request = partner_pb2.HelloRequest(protocols=PROTOCOLS, role=settings.role, software=software)
        return line.ask(line.partner.Hello, request)

    def _follow_authority(self, line: Line, witness: Witness, settings: Settings, journal: Journal) -> bool:
        """Follow the coordinator to another certificate authority; False where that has to wait for witnesses."""
        raw = self._hello(line, settings).authority
        try:
            if raw and follow(self._home, settings, raw, witness.verifiers, self._clock()):
                journal.note("authority announced")
                self._tell("The coordinator's certificate authority changes; the pinned one has signed for the next.")
        except NotYet:
            return False
        except CoordinatorUntrusted as error:
            # The pinned one goes on to count, and no other does.
            journal.note("alarm", code=error.code)
            self._tell(f"{error.code}: {error.cause}")
            return True
        self._renew_if_old(line, settings.party, journal)
        return True

    def _heard(self, event: Any, journal: Journal) -> bool:
        """Note an entry of the log; True where it announces another certificate authority."""
        try:
            content = parse_entry(event.entry)
        except AuditError:
            journal.note("event unreadable", index=int(event.index))
            return False
        kind = getattr(content, "TYPE", "statement")
        journal.note("heard", index=int(event.index), type=kind, party=str(getattr(content, "party", "") or ""))
        if isinstance(content, ContractChanged) and content.change == "terminate":
            self._owe_deletion(content, journal)
        return isinstance(content, AuthorityAnnounced)

    def _owe_deletion(self, ended: ContractChanged, journal: Journal) -> None:
        """Raise the duty that a contract's early end asks for; an entry that is heard again raises nothing."""
        if all(Contract.parse(text).uid != ended.uid for text in contracts(self._home).values()):
            return
        try:
            with ConsentOffice.open(self._home, self._clock) as office, DutyDesk.open(self._home, office) as desk:
                duty = desk.on_termination(ended.uid, ended.at)
        except NodeError as error:  # the witness goes on; the operator is told what to do instead
            journal.note("duty not raised", code=error.code, contract=ended.uid)
            command = f"convoy-node duties raise delete-at-end --contract {ended.uid} --since {ended.at.isoformat()}"
            self._tell(f"{error.code}: {error.cause} Once that is mended: {command}")
            return
        if duty is not None:
            journal.note("duty raised", kind=duty.kind, contract=ended.uid, due=duty.due.isoformat())
            self._tell(f"{ended.uid} was terminated: its data are to be deleted by {duty.due.isoformat()} ({duty.id}).")

    def _cosign(self, line: Line, witness: Witness, settings: Settings, journal: Journal) -> None:
        origin = settings.log_origin
        reply = line.ask(line.partner.Checkpoint, partner_pb2.CheckpointRequest(known_size=witness.size(origin)))
        try:
            done = witness.add_checkpoint(
                reply.note.encode(), int(reply.old_size), list(reply.proof), int(self._clock().timestamp())
            )
        except WitnessStale:
            return  # the SuperNode's worker was faster; the next checkpoint comes
        except LogSignatureWrong as error:
            journal.note("alarm", code="LOG_KEY_UNKNOWN")
            raise CoordinatorUntrusted("the log's checkpoint is not signed by its pinned keys.") from error
        except WitnessRefusal as error:
            journal.note("alarm", code=error.code)
            raise NodeError(
                f"the log was caught: {error.cause}",
                party=settings.party,
                code="LOG_CONVICTED",
                fix="Keep the folder witness/alarms, stop, and call the auditor.",
            ) from error
        note = reply.note if reply.note.endswith("\n") else reply.note + "\n"
        text = note.split("\n\n")[0] + "\n\n"
        signed = "".join(f"{row}\n" for row in note[len(text) :].splitlines() if row)
        line.ask(line.partner.Cosign, partner_pb2.CosignRequest(note=text + signed + done.lines))

    def _renew_if_old(self, line: Line, party: str, journal: Journal) -> None:
        own, now = Credentials.load(self._home, party), self._clock()
        if own.is_old(now) or not own.is_by(newest(self._home, now)):
            fresh = renew(self._home, line, party)
            journal.note("certificate renewed", until=fresh.x509.not_valid_after_utc.isoformat())

    def _mark_alive(self) -> None:
        if time.monotonic() - self._marked >= ALIVE_EVERY_S:
            self._marked = time.monotonic()
            (self._home / ALIVE).touch(mode=0o600)

    def _position(self) -> int:
        try:
            return int((self._home / POSITION).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    # Flower ------------------------------------------------------------------------------------------------------------------

    def _keep_child(self, settings: Settings) -> None:
        """Start the SuperNode, or start it again once it has ended or its operator has decided otherwise."""
        connection = Connection.load(self._home)
        if not connection.link or not connection.app_hashes or self._stopped.is_set():
            return
        approved = approved_apps(contracts(self._home).values())
        rules = rules_in_force(self._home, approved)
        if self._child is not None and self._child.poll() is None:
            if rules == self._child_rules or time.monotonic() - self._child_started < SETTLE_S:
                return
            self._tell("Settings, pins, keys or approved apps have changed: the SuperNode is started again with them.")
            self._stop_child()
        offered = frozenset(connection.app_hashes)
        if not offered & approved:
            if offered != self._told_apps:
                self._told_apps = offered
                self._tell(
                    "APP_NOT_APPROVED: the coordinator runs an app bundle that no contract of this node names "
                    f"({', '.join(sorted(offered))[:140]}). Upgrade the older side, or agree a contract that names it."
                )
            return
        if time.monotonic() - self._child_started < SETTLE_S:
            return
        self._child_started = time.monotonic()
        arguments = [
            *("--home", str(self._home), "--link", connection.link, "--ca", str(self._home / LINK_CA)),
            *("--key", str(self._home / KEYS / SUPERNODE), "--client-app", self._client_app),
            *(part for app_hash in sorted(approved) for part in ("--app-hash", app_hash)),
            *("--rules", rules, "--stop-with-stdin"),
        ]
        self._child_rules = rules
        with (self._home / "log" / "supernode.log").open("ab") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "convoy_node.flower.supernode", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **_proxied(connection)},
            )
        self._tell(f"SuperNode of {settings.party} started for {connection.link}, rules {rules}")

    def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()  # it ends with its line; a signal beside it would cut short the farewell at the SuperLink
        for step in (child.terminate, child.kill):
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                step()
        child.wait()
