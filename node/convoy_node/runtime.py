"""The node at work: answers the federation's actions (docs/protocol.md), and refuses everything else.

``NodeRuntime.handle(action, payload)`` never raises: a refusal is a payload with code, party, cause and fix, free of row
values, ids and exception texts; the diagnostic goes to the node's own log. The order inside an action is the promise:
evidence before decision, decision before data are read, reservation before the first answer, ``decide(release)`` and a durable
spend before anything that depends on a person leaves.

A node works on one run of a contract at a time: a newer round that the log has authorised settles an older one that was left
open. After a restart the masks of an open run are gone, on purpose; it is settled then, with a statement.
LENGTH: over 500 lines: one method for each action, and the order inside them is judged by reading them side by side.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from convoy_audit.canonical import is_digest
from convoy_audit.errors import AuditError, WitnessRefusal
from convoy_audit.events import DecisionMade, StatedEvent
from convoy_audit.statement import sign_statement
from convoy_contracts.decide import Decision
from convoy_contracts.errors import ContractsError
from convoy_models.errors import ModelsError
from convoy_models.gates import floor_of
from convoy_models.messages import PROTOCOL_VERSION, Payload
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.plan import PlannedQuery
from convoy_models.sums import PartySession
from convoy_node import guard, row_audit, worth
from convoy_node.admission import Admission, Case, Run, lister_of
from convoy_node.backup.standing import check_log
from convoy_node.errors import ActionRefused, NodeError
from convoy_node.home import NodeHome
from convoy_node.journal import Journal
from convoy_node.memory import KnownRun
from convoy_node.receipts import Receipts
from convoy_node.rounds import Part, queries_of
from convoy_node.settlement import settled
from convoy_node.towers_part import TowersPart
from convoy_node.witness_home import alarm_event, check_log_standing, contracts_policy

BUCKET: Final = 50
"""Row counts leave the node only in buckets of this size, rounded down."""
ACTIONS: Final = (
    "hello", "witness", "statements", "authorise", "align", "matrix", "deal", "open", "share", "close", "candidate",
    "report", "reveal", "disclose", "judge", "finish", "abort",
)  # fmt: skip
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_INSIDE = (
    OSError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, MemoryError, sqlite3.Error,
)  # fmt: skip
"""What a fault of the program, the disk or a library raises; told to nobody but the node's own log."""
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


class NodeRuntime:
    """One node; at most one process at a time opens a folder.

    Args:
        home: the node's folder.
        noise: another source of noise, for tests; never chosen by configuration or by a message.
        clock: returns the present instant, aware.

    Raises:
        NodeError: settings, keys or files that cannot be used; another process holds the ledger.
    """

    def __init__(self, home: Path, *, noise: NoiseSource | None = None, clock: Clock = utc_now) -> None:
        self.home = NodeHome.open(home, clock=clock)
        self.party = self.home.settings.party
        self.journal = Journal(home / "log", clock)
        self._clock = clock
        self._guard = threading.Lock()
        self._admission = Admission(self.home, noise or DiscreteGaussian(), clock)
        self._receipts = Receipts(home, self.party, lambda: contracts_policy(home, self.home.settings), clock)
        self._runs: dict[str, Run] = {}
        self._actions: dict[str, Callable[[Payload], Payload]] = {
            action: getattr(self, f"_{action}") for action in ACTIONS
        }
        # The ledger has released what the last process left open; now the log shall learn of it.
        for known in self.home.memory.open_runs():
            self._settle(known, "aborted", None, "NODE_RESTARTED")
        self.journal.note("started", party=self.party, role=self.home.settings.role)

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions that this node answers."""
        return ACTIONS

    def close(self) -> None:
        """Close the node's files; open runs are settled at the next start."""
        self.journal.note("stopped")
        self.home.close()

    def handle(self, action: str, payload: Payload) -> Payload:
        """Answer one message; one at a time."""
        started = time.monotonic()
        answered = self._actions.get(action)
        try:
            if answered is None:
                raise ActionRefused("there is no such action.", code="ACTION_UNKNOWN")
            with self._guard:
                answer = answered(payload)
        except (NodeError, ModelsError, ContractsError, AuditError) as error:
            return self.refuse(action, error)
        except _INSIDE as error:
            reference = self.journal.failure("failed", error, action=action)
            fault = ActionRefused(
                f"the node failed inside (reference {reference}).",
                code="NODE_FAILED",
                fix="The node's operator finds the diagnostic in its log under this reference.",
            )
            return self.refuse(action, fault)
        self.journal.note("answered", action=action, ms=round((time.monotonic() - started) * 1e3))
        return answer

    def refuse(self, action: str, error: NodeError | ModelsError | ContractsError | AuditError) -> Payload:
        """Return an error as what the other parties may read about it."""
        reasons = error.reasons if isinstance(error, NodeError) else getattr(error, "problems", ())
        refusal: dict[str, Any] = {
            "code": error.code,
            "party": getattr(error, "party", None) or self.party,
            "cause": error.cause,
            "fix": error.fix,
            "reasons": [str(reason) for reason in reasons],
        }
        if isinstance(error, WitnessRefusal):
            refusal["size"] = error.size
        self.journal.note("refused", action=action if action in ACTIONS else "?", code=error.code)
        if error.__cause__ is not None:
            self.journal.failure("refused because of", error.__cause__)
        return Payload({"refused": refusal})

    # Before a run --------------------------------------------------------------------------------------------------------

    def _hello(self, _payload: Payload) -> Payload:
        return Payload(
            {
                "party": self.party,
                "role": self.home.settings.role,
                "protocol": PROTOCOL_VERSION,
                "versions": {"convoy-node": version("convoy-node")},
                "witness": {"size": self.home.witness.size(self.home.origin)},
                "contracts": self.home.contracts(),
            }
        )

    def _witness(self, payload: Payload) -> Payload:
        note, proof = payload.data.get("checkpoint"), payload.data.get("proof")
        if not isinstance(note, str) or not isinstance(proof, list) or not all(isinstance(node, str) for node in proof):
            raise _malformed("checkpoint or proof")
        try:
            hashes = [b64decode(node, validate=True) for node in proof]
        except Base64Error as error:
            raise _malformed("proof") from error
        time_s = int(self._clock().timestamp())
        known = {alarm.identity for alarm in self.home.witness.alarms()}
        try:
            cosigned = self.home.witness.add_checkpoint(note.encode(), _number(payload, "oldSize"), hashes, time_s)
        except WitnessRefusal:
            for alarm in self.home.witness.alarms():
                if alarm.identity not in known:
                    self.journal.note("alarm", finding=alarm.finding)
                    self._state(alarm_event(alarm, self.party, self._clock()))
            raise
        return Payload({"cosignatures": cosigned.lines, "size": cosigned.size})

    def _statements(self, payload: Payload) -> Payload:
        after = _number(payload, "after")
        return Payload({"statements": [b64encode(raw).decode() for raw in self.home.memory.statements(after)]})

    def _authorise(self, payload: Payload) -> Payload:
        ask = guard.Ask.read(payload.data, self.party)
        if ask.run in self._runs:
            raise ActionRefused(f"run {ask.run} is authorised already.", party=self.party, code="REQUEST_REPLAYED")
        check_log_standing(self.home.witness, self._receipts, self.home.origin, self.party)
        case = self._admission.examine(ask)
        self._check_not_restored(payload)
        for older in self.home.memory.open_runs(contract=case.contract.uid):
            self._settle(older, "aborted", None, "NEWER_ROUND")
        self._prepare_consents(case)
        decision = self._admission.decide(case)
        self.journal.note("decided", run=ask.run, phase="authorise", reasons=list(decision.reasons))
        if not decision.allow:
            return self._decided(case, decision, 0)
        run = self._admission.begin(case)
        self._runs[ask.run] = run
        linked = run.part.links if run.part is not None else {}
        # Where rows are aligned with nobody, everyone who counts takes part.
        rows = sum(map(len, linked.values())) if linked else run.people.size
        return self._decided(case, decision, rows)

    def _check_not_restored(self, payload: Payload) -> None:
        """Refuse, before anything is stated, where the log has an epoch of this node that its memory lacks."""
        told, last = payload.data.get("consentEpochs", []), 0
        for text in told if isinstance(told, list) else []:
            try:
                last = max(last, self.home.office.learn_epoch(b64decode(str(text), validate=True)))
            except Base64Error as error:
                raise _malformed("consentEpochs") from error
        check_log(self.home.path, self.home.memory, last, self.party)

    def _prepare_consents(self, case: Case) -> None:
        """State what the decision rests on: consents as of now, as an epoch of the log, and duties that became overdue."""
        self.home.duties.state_overdue(case.now)
        if not self.home.office.is_stale():
            self.home.office.epoch(case.contract.uid)

    def _decided(self, case: Case, decision: Decision, rows: int) -> Payload:
        self._state(_decision_made(case, decision, "authorise", self.party, self._clock()))
        return self._with_statements({"decision": decision.as_json(), "rows": rows // BUCKET * BUCKET})

    # In a run ------------------------------------------------------------------------------------------------------------

    def _align(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = _working(run)
        blobs: dict[str, bytes] = {}
        for peer, ids in part.links.items():
            blobs |= session.links(peer, ids)
        self._may_release(run)
        answered = queries_of(run.case.plan, self.party)
        for query in run.case.charged:
            if query not in answered:
                # Others answer it about the joint cohort, which these links bring about: spent before they leave.
                self.home.ledger.spend(run.known.run, query.id, run.known.attempt)
        return Payload({}, blobs)

    def _matrix(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = _working(run)
        session.receive(payload.blobs)
        if not run.aligned:
            common = {peer: session.align(peer) for peer in part.links}
            self._check_floor(run, [len(rows) for rows in common.values()])
            for peer, rows in common.items():
                session.hold(peer, part.aligned(peer, rows))
                committed = row_audit.commit(run, self.party, peer, self._clock())
                if committed is not None:
                    self._state(committed)
            # If we die here: the index names everybody who was let in, which is too many and never too few.
            self.home.influence.align(run.known.run, run.known.attempt, _present(run, common))
            run.aligned = True
        stated = self._with_statements({"chunks": session.chunks})
        return Payload(stated.data, session.matrix(_number(payload, "chunk")))

    def _check_floor(self, run: Run, rows: list[int]) -> None:
        """Refuse a joint cohort below the specification's floor.

        The one party of a side sees all of the cohort. Where rows are padded the lister sees only its own list, and each of the K
        parties of the other side only its part: then each wants its part to reach floor / K, which is stricter.
        """
        sides = {side for query in queries_of(run.case.plan, self.party) for side in query.sides}
        parts = max((len(side.parties) for side in sides if self.party in side.parties), default=1)
        lister = lister_of(run.case.specification, run.case.contract)
        floor = floor_of(run.case.specification)
        persons = max(rows, default=0) if lister == self.party else sum(rows) * parts
        if (parts == 1 or lister is not None) and persons < floor:
            raise ActionRefused(
                f"fewer than {floor} persons are in the joint cohort.",
                party=self.party,
                code="COHORT_TOO_SMALL",
                fix="Wait for more consents, or agree a specification with fewer terms.",
            )

    def _deal(self, payload: Payload) -> Payload:
        run = self._run(payload)
        if run.dealer is None:
            raise ActionRefused("this node is no trustee.", party=self.party, code="ROLE_WITHOUT_PART")
        run.dealer.receive(payload.blobs)
        names = payload.data.get("queries")
        if not isinstance(names, list):
            raise _malformed("queries")
        blobs: dict[str, bytes] = {}
        for name in names:
            blobs |= run.dealer.deal(run.case.plan[str(name)])
        return Payload({}, blobs)

    def _open(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = _working(run)
        session.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for query, weights in self._asks(run, payload):
            if query.kind != "DOT":
                factors, cap = part.factors(query, weights)
            else:
                factors, cap = ({}, 1.0) if self.party in query.matrix.parties else part.vectors(query)
            blobs |= session.open(query, {p: v for p, v in factors.items() if p in query.participants}, cap)
        return Payload({}, blobs)

    def _share(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = _working(run)
        session.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for query, _ in self._asks(run, payload):
            if query.kind == "DOT" and self.party not in query.matrix.parties and not session.opens_dot:
                vectors, cap = part.vectors(query)
                blobs |= session.share(query, vectors, cap)
            else:
                blobs |= session.share(query)
        return Payload({}, blobs)

    def _close(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = _working(run)
        session.receive(payload.blobs)
        # All that can be refused is refused before the first charge.
        ready = []
        for query, weights in self._asks(run, payload):
            session.check_ready(query)
            ready.append((query, part.local(query, weights) if query.kind == "LOCAL" else None))
        self._may_release(run)
        arrays = {}
        for query, local in ready:
            # Durable before the share exists. If we die here: spent, and nothing has left.
            self.home.ledger.spend(run.known.run, query.id, run.known.attempt)
            if query.purpose == worth.OWN and self.party in query.matrix.parties:
                run.kept[query.id] = session.keep(query)  # opened here; without it nobody can read the sum
            else:
                arrays[query.id] = session.close(query, local)
        return Payload({}, {}, arrays)

    def _candidate(self, payload: Payload) -> Payload:
        """Try the fitted model on own customers; the answer is a veto or none, a word about own use and one about an attack
        with own persons, never a figure."""
        run = self._run(payload)
        _, part = _working(run)
        candidate = worth.candidate_of(payload)
        attacks = worth.attacks_of(part, candidate)
        attack = worth.verdict(attacks)
        reason = worth.TOLD if attack == "alarm" else worth.standing_veto(self.home.path, run.case.contract.digest)
        reason = reason or part.try_candidate(candidate)
        value = worth.own(run, part, self.party, payload)
        data: dict[str, Any] = {"veto": reason is not None, "attack": attack, **({"cause": reason} if reason else {})}
        if value is not None:
            data["word"] = worth.word(run, value)
        elif isinstance(part, TowersPart):
            data["word"] = part.word(candidate, len(run.case.plan.queries[0].participants))
        worth.keep(self.home.path, run, value, attacks, data, self._clock())
        self.journal.note("tried candidate", run=run.known.run, veto=reason, word=data.get("word"), attack=attack)
        return Payload(data)

    def _report(self, payload: Payload) -> Payload:
        """Tell the trustee what the peers sent, at its challenges; this node takes no further step of any query."""
        run = self._run(payload)
        return Payload({}, row_audit.audited_session(run, self.party).report())

    def _reveal(self, payload: Payload) -> Payload:
        """Name, at the trustee, the rows that are to be opened to it."""
        dealer = row_audit.auditing_dealer(self._run(payload), self.party)
        dealer.receive(payload.blobs)
        return Payload({}, dealer.reveal())

    def _disclose(self, payload: Payload) -> Payload:
        """Open the named rows to the trustee, who is a recipient under the contract's ``rowAudit``."""
        run = self._run(payload)
        session = row_audit.audited_session(run, self.party)
        session.receive(payload.blobs)
        self._may_release(run)
        return Payload({}, session.disclose())

    def _judge(self, payload: Payload) -> Payload:
        """Judge, at the trustee, what the holders disclosed; the outcome is stated before it is told."""
        run = self._run(payload)
        row_audit.auditing_dealer(run, self.party).receive(payload.blobs)
        stated, findings = row_audit.judge(run, self.party, payload, self._clock())
        self._state(stated)
        self.journal.note("audited rows", run=run.known.run, outcome=stated.outcome, parties=list(stated.parties))
        return self._with_statements({"verdict": stated.outcome, "findings": findings})

    def _may_release(self, run: Run) -> None:
        """Decide on the release of this run as of now.

        Raises:
            ActionRefused: code of the first reason; ``reasons`` has all of them.
        """
        decision = self._admission.release(run)
        self.journal.note("decided", run=run.known.run, phase="release", reasons=list(decision.reasons))
        self._state(_decision_made(run.case, decision, "release", self.party, self._clock()))
        if not decision.allow:
            raise ActionRefused(
                f"release refused: {', '.join(decision.reasons)}.",
                party=self.party,
                code=decision.reasons[0],
                reasons=decision.reasons,
                fix="convoy-contracts decide --explain shows each gate and its fix.",
            )

    # After a run ---------------------------------------------------------------------------------------------------------

    def _finish(self, payload: Payload) -> Payload:
        manifest = payload.data.get("release")
        if not isinstance(manifest, str) or not is_digest(manifest):
            raise _malformed("release")
        return self._end(payload, "finished", manifest, None)

    def _abort(self, payload: Payload) -> Payload:
        reason = payload.data.get("reason")
        is_code = isinstance(reason, str) and _CODE.fullmatch(reason) is not None
        return self._end(payload, "aborted", None, str(reason) if is_code else "ABORTED")

    def _end(
        self, payload: Payload, outcome: Literal["finished", "aborted"], manifest: str | None, reason: str | None
    ) -> Payload:
        name = payload.data.get("run")
        if not isinstance(name, str):
            raise _malformed("run")
        for known in self.home.memory.open_runs(run=name):
            self._settle(known, outcome, manifest, reason)
        settlement = self.home.memory.settlement(name)
        if settlement is None:
            return self._with_statements({"settled": False})
        return self._with_statements({"settled": True, "statement": b64encode(settlement).decode()})

    def _settle(
        self, known: KnownRun, outcome: Literal["finished", "aborted"], manifest: str | None, reason: str | None
    ) -> None:
        """Release what the run has not spent and state what it has; nothing to do the second time."""
        self._runs.pop(known.run, None)
        # If we die between the two: the ledger is settled, and the statement is made at the next start.
        self.home.ledger.settle(known.run, reason or outcome)
        event = settled(self.home.ledger, known, self.party, self._clock(), outcome, manifest, reason)
        self._state(event, settles=known)
        self.journal.note("settled", run=known.run, outcome=outcome, reason=reason)

    # Statements and messages ---------------------------------------------------------------------------------------------

    def _state(self, event: StatedEvent, settles: KnownRun | None = None) -> bytes:
        seed = self.home.identity.identity_seed
        return self.home.memory.state(
            lambda number, previous: sign_statement(event, number=number, previous=previous, seed=seed), settles
        )

    def _with_statements(self, data: dict[str, Any]) -> Payload:
        """Add every statement that no answer has carried yet, in order; ``statement`` is the one that this answer is about."""
        fresh = [b64encode(raw).decode() for raw in self.home.memory.report()]
        return Payload(({"statement": fresh[-1]} if fresh else {}) | data | {"statements": fresh})

    def _run(self, payload: Payload) -> Run:
        name = payload.data.get("run")
        run = self._runs.get(name) if isinstance(name, str) else None
        if run is None or payload.data.get("attempt", run.known.attempt) != run.known.attempt:
            raise ActionRefused(
                "this run is not authorised here.",
                party=self.party,
                code="RUN_NOT_AUTHORISED",
                fix="Start a new run; after a restart a node forgets the masks of an old one, on purpose.",
            )
        if self._clock() >= run.ends:
            raise ActionRefused(
                "this run has lasted longer than the contract allows.",
                party=self.party,
                code="RUN_EXPIRED",
                fix="Start a new run, or agree a larger maxRoundSeconds.",
            )
        return run

    def _asks(self, run: Run, payload: Payload) -> list[tuple[PlannedQuery, object]]:
        given = payload.data.get("asks")
        if not isinstance(given, list) or not all(isinstance(ask, Mapping) for ask in given):
            raise _malformed("asks")
        asks: list[tuple[PlannedQuery, object]] = []
        for ask in given:
            query = run.case.plan[str(ask.get("query"))]
            if self.party not in query.participants:
                raise ActionRefused(f"{query.id} is not for this node.", party=self.party, code="QUERY_WITHOUT_PART")
            asks.append((query, ask.get("weights")))
        return asks


def _working(run: Run) -> tuple[PartySession, Part]:
    if run.session is None or run.part is None:
        raise ActionRefused("this node holds no data in this run.", code="ROLE_WITHOUT_PART")
    return run.session, run.part


def _present(run: Run, common: Mapping[str, npt.NDArray[np.int64]]) -> set[str]:
    """Return the persons who are in a run's sums: solo, and those whom a peer knows too, by local id."""
    persons = set(run.people.solo)
    for peer, rows in common.items():
        ids = run.people.links.get(peer, ())
        persons.update(ids[row][0] for row in rows.tolist() if row >= 0)
    return persons


def _decision_made(
    case: Case, decision: Decision, phase: Literal["authorise", "release"], party: str, now: datetime
) -> DecisionMade:
    return DecisionMade(
        at=now,
        party=party,
        run=case.ask.run,
        contract=case.contract.digest,
        phase=phase,
        scope=guard.request_scope(case.ask.request, party),
        outcome="allow" if decision.allow else "deny",
        reasons=decision.reasons,
    )


def _malformed(what: str) -> ActionRefused:
    return ActionRefused(
        f"a message without a usable {what}.",
        code="MESSAGE_MALFORMED",
        fix="The coordinator and this node may run different versions.",
    )


def _number(payload: Payload, name: str) -> int:
    value = payload.data.get(name)
    if type(value) is not int or value < 0:
        raise _malformed(name)
    return value
