"""The node at work: answers the federation's actions (docs/protocol.md), and refuses everything else.

``NodeRuntime.handle(action, payload)`` never raises: a refusal is a payload with code, party, cause and fix, free of row
values, ids and exception texts; the diagnostic goes to the node's own log. The order inside an action is the promise:
evidence before decision, decision before data are read, reservation before the first answer, ``decide(release)`` and a durable
spend before every share that leaves.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from convoy_audit.errors import AuditError, WitnessRefusal
from convoy_audit.events import DecisionMade, RunSettled, StatedEvent
from convoy_audit.statement import sign_statement
from convoy_contracts.canonical import unb64u
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError
from convoy_contracts.instants import timestamp
from convoy_contracts.roles import roles_of
from convoy_models import accounting
from convoy_models.errors import ModelsError
from convoy_models.masks import PairKeys
from convoy_models.messages import PROTOCOL_VERSION, Payload
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.plan import Plan, PlannedQuery, plan
from convoy_models.sums import DealerSession, PartySession
from convoy_node import dataset, guard
from convoy_node.errors import ActionRefused, NodeError
from convoy_node.home import NodeHome
from convoy_node.ledger import Charge, charge_units
from convoy_node.rounds import Part, make_part, queries_of

log = logging.getLogger(__name__)
BUCKET = 50
"""Row counts leave the node only in buckets of this size, rounded down."""
Clock = Callable[[], datetime]


@dataclass(slots=True)
class Run:
    """One authorised run at this node."""

    ask: guard.Ask
    contract: Contract
    plan: Plan
    role: str
    trustee: str | None
    budget: Mapping[str, Mapping[str, int]]
    asset_cap: Mapping[str, int]
    part: Part | None
    session: PartySession | None
    dealer: DealerSession | None
    aligned: bool = False


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


class NodeRuntime:
    """One node; at most one process at a time opens a folder.

    Args:
        home: the node's folder.
        noise: another source of noise, for tests; never chosen by configuration or by a message.
        clock: returns the present instant, aware.
    """

    def __init__(self, home: Path, *, noise: NoiseSource | None = None, clock: Clock = utc_now) -> None:
        self.home = NodeHome.open(home, clock=clock)
        self.party = self.home.settings.party
        self._noise = noise or DiscreteGaussian()
        self._clock = clock
        self._guard = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._actions: dict[str, Callable[[Payload], Payload]] = {
            "hello": self._hello,
            "witness": self._witness,
            "authorise": self._authorise,
            "align": self._align,
            "matrix": self._matrix,
            "deal": self._deal,
            "open": self._open,
            "share": self._share,
            "close": self._close,
            "finish": self._finish,
            "abort": self._abort,
        }

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions that this node answers."""
        return tuple(self._actions)

    def close(self) -> None:
        """Close the node's files; open reservations are settled at the next start."""
        self.home.close()

    def handle(self, action: str, payload: Payload) -> Payload:
        """Answer one message; one at a time."""
        started = time.monotonic()
        try:
            with self._guard:
                answer = self._actions[action](payload)
        except KeyError:
            return self._refuse(action, ActionRefused(f"there is no action {action[:40]!r}.", code="ACTION_UNKNOWN"))
        except NodeError as error:
            return self._refuse(action, error)
        except (ModelsError, ContractsError, AuditError) as error:
            return self._refuse(action, error)
        except (OSError, ValueError, TypeError, ArithmeticError, LookupError) as error:
            reference = secrets.token_hex(4)
            log.exception("action %s failed, reference %s", action, reference)
            return self._refuse(
                action,
                ActionRefused(
                    f"the node failed inside ({type(error).__name__}, reference {reference}).",
                    code="NODE_FAILED",
                    fix="The node's operator finds the diagnostic in its log under this reference.",
                ),
            )
        log.info("action %s answered in %.0f ms", action, (time.monotonic() - started) * 1e3)
        return answer

    # Before a run ----------------------------------------------------------------------------------------------------

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
        data = payload.data
        note = str(data.get("checkpoint", "")).encode()
        proof = [b64decode(node) for node in data.get("proof", ())]
        try:
            cosigned = self.home.witness.add_checkpoint(
                note, int(data.get("oldSize", 0)), proof, int(self._clock().timestamp())
            )
        except WitnessRefusal as refusal:
            log.error("witness: %s", refusal.cause)
            raise
        return Payload({"cosignatures": cosigned.lines, "size": cosigned.size})

    def _authorise(self, payload: Payload) -> Payload:
        ask = guard.Ask.read(payload.data, self.party)
        if ask.run in self._runs:
            raise ActionRefused(f"run {ask.run} is authorised already.", party=self.party, code="REQUEST_REPLAYED")
        # 1. The contract's bytes, and that this node itself has signed it.
        contract = Contract.parse(ask.text)
        if contract.digest not in self.home.contracts():
            raise ActionRefused(
                f"this node has not signed contract {contract.digest[:23]}….",
                party=self.party,
                code="CONTRACT_NOT_SIGNED_HERE",
                fix="Sign it with `convoy-node sign`, or ask under the contract that was signed.",
            )
        planned, specification = self._plan_of(ask, contract)
        # 2. The log knows this very run, and this node has cosigned that.
        guard.check_evidence(
            ask, contract, planned, self.home.policy(contract), self.home.witness.verifiers, self.party
        )
        # 3. The decision, before any data are read.
        role = self.home.settings.role
        holds = role != "trustee"
        mine = queries_of(planned, self.party)
        standing = self._standing(contract, mine, ask.request)
        given = guard.world(ask, ask.request, standing, contract)
        decision = guard.judge(given, holds_persons=holds)
        self.home.memory.remember_nonce(str(ask.request.get("nonce", "")))
        if not decision.allow:
            log.warning("run %s: deny, %s", ask.run, ", ".join(decision.reasons))
            return self._decided(ask, contract, decision.reasons, decision.obligations, rows=0)
        scope = guard.request_scope(ask.request, self.party)
        self.home.memory.remember_authorisation(contract.uid, int(ask.request["round"]), timestamp(standing.now), scope)
        # 4. Data, all faults at once; then the ledger. If we die between the two, the round is used up, nothing is spent.
        run = self._begin(ask, contract, planned, specification, standing, mine)
        self._runs[ask.run] = run
        rows = sum(map(len, run.part.links.values())) if run.part is not None else 0
        return self._decided(ask, contract, (), decision.obligations, rows=rows)

    def _plan_of(self, ask: guard.Ask, contract: Contract) -> tuple[Plan, Any]:
        wanted = ask.request.get("algorithm")
        name = wanted.get("id") if isinstance(wanted, Mapping) else None
        entry = next((a for a in contract.algorithms if a.id == name), None)
        if entry is None or entry.specification is None:
            raise ActionRefused(
                "the contract has no such algorithm with a specification.", party=self.party, code="ALGORITHM_UNKNOWN"
            )
        return plan(entry.specification, roles_of(contract)), entry.specification

    def _standing(
        self, contract: Contract, mine: tuple[PlannedQuery, ...], asked_for: Mapping[str, Any]
    ) -> guard.Standing:
        home = self.home
        now = self._clock()
        budget: dict[str, Any] = {}
        caps: dict[str, int] = {}
        own = home.own_asset(contract)
        if own is not None and mine and own in contract.privacy:
            asset, agreed = own, contract.privacy[own]
            delta = agreed.deltaNano / 1e9
            request = accounting.mu2_of_units(charge_units(_charges(mine)))
            stated = asked_for.get("epsilonMicro")
            epsilon = stated.get(asset) if isinstance(stated, Mapping) else None
            asked = epsilon if type(epsilon) is int and epsilon > 0 else agreed.perRoundMicro
            budget[asset] = home.ledger.statement(asset, contract.uid, asked, request, delta)
            caps[asset] = home.ledger.stated_asset_cap_micro(
                asset, contract.uid, now.year, home.settings.asset_year_cap_micro, request, delta
            )
        return self._world_now(contract, now, budget, caps)

    def _world_now(
        self, contract: Contract, now: datetime, budget: Mapping[str, Mapping[str, int]], caps: Mapping[str, int]
    ) -> guard.Standing:
        home = self.home
        return guard.Standing(
            now=now,
            keys=home.settings.world_keys(),
            catalogue=home.settings.catalogue(),
            subjects=home.register.subjects(contract.uid),
            budget=budget,
            asset_cap=caps,
            memory=home.memory.world(contract.uid),
        )

    def _begin(
        self, ask: guard.Ask, contract: Contract, planned: Plan, specification: Any, standing: guard.Standing,
        mine: tuple[PlannedQuery, ...],
    ) -> Run:  # fmt: skip
        settings = self.home.settings
        own = self.home.own_asset(contract)
        roles = roles_of(contract)
        trustee = next(iter(roles.get("trustee", ())), None)
        keys = self._pair_keys(contract)
        part, session, dealer = None, None, None
        if settings.role == "trustee":
            dealer = DealerSession(ask.run, ask.attempt, keys)
        elif mine and own is not None:
            part = self._part(ask, contract, own, specification, standing)
            peers = sorted({p for q in mine if q.kind != "LOCAL" for p in _counterparts(q, self.party)})
            session = PartySession(
                ask.run, ask.attempt, keys, peers=peers, trustee=trustee if peers else None, noise=self._noise
            )
            agreed = contract.privacy[own]
            self.home.ledger.reserve(
                ask.run,
                ask.attempt,
                contract.uid,
                own,
                standing.now.year,
                agreed.deltaNano / 1e9,
                _charges(mine),
                contract_cap_micro=agreed.totalMicro,
                asset_cap_micro=settings.asset_year_cap_micro,
            )
        return Run(
            ask, contract, planned, settings.role, trustee, standing.budget, standing.asset_cap, part, session, dealer
        )  # fmt: skip

    def _part(
        self, ask: guard.Ask, contract: Contract, asset: str, specification: Any, standing: guard.Standing
    ) -> Part:
        settings, request = self.home.settings, ask.request
        wanted = dataset.expected_columns(specification, settings.role)
        asked = set(request.get("fields", {}).get(asset, ()))
        missing = sorted({column.name for column in wanted} - asked)
        if missing:
            raise ActionRefused(
                f"the request leaves out fields that the model reads: {', '.join(missing)}.",
                party=self.party,
                code="FIELDS_INCOMPLETE",
                fix="Ask for every field of the specification.",
            )
        row = contract.schedule(asset)
        sensitive = {f.name for f in row.fields if f.sensitive} if row else set()
        cohort = self.home.register.cohort(
            contract.uid,
            purpose=str(request["purpose"]),
            recipients=list(request["recipients"]),
            notices=contract.consent.notices,
            now=standing.now,
            sensitive=bool(sensitive & asked),
        )
        log.info("run %s: %d persons count", ask.run, cohort.size)
        if settings.data is None:
            raise ActionRefused("node.toml names no data.", party=self.party, code="DATA_MISSING")
        persons = {*cohort.solo, *(local for ids in cohort.links.values() for local, _ in ids)}
        table = dataset.PersonTable.load(
            settings.data, wanted, self.party, person_column=settings.person_column, persons=persons
        )
        links = {peer: [pair for pair in ids if pair[0] in table] for peer, ids in cohort.links.items()}
        solo = [local for local in cohort.solo if local in table]
        return make_part(specification, settings.role, links, solo, table)

    def _pair_keys(self, contract: Contract) -> PairKeys:
        pinned = {p.id: unb64u(p.maskKey.x) for p in contract.parties if p.maskKey is not None}
        own = self.home.identity.mask.public_key().public_bytes_raw()
        if pinned.get(self.party) != own:
            raise ActionRefused(
                "the contract pins another mask key for this node.",
                party=self.party,
                code="MASK_KEY_MISMATCH",
                fix="Agree a new version with the node's present key.",
            )
        peers = {party: key for party, key in pinned.items() if party != self.party}
        return PairKeys(self.party, self.home.identity.mask, peers, contract.digest)

    def _decided(
        self, ask: guard.Ask, contract: Contract, reasons: tuple[str, ...], obligations: tuple[str, ...], rows: int
    ) -> Payload:
        event = DecisionMade(
            at=self._clock(),
            party=self.party,
            run=ask.run,
            contract=contract.digest,
            phase="authorise",
            scope=guard.request_scope(ask.request, self.party),
            outcome="deny" if reasons else "allow",
            reasons=reasons,
        )
        return Payload(
            {
                "decision": {"allow": not reasons, "reasons": list(reasons), "obligations": list(obligations)},
                "statement": self._state(event),
                "rows": rows // BUCKET * BUCKET,
            }
        )

    def _state(self, event: StatedEvent) -> str:
        raw = self.home.memory.state(
            lambda number, previous: sign_statement(
                event, number=number, previous=previous, seed=self.home.identity.identity_seed
            )
        )
        return b64encode(raw).decode()

    # In a run ----------------------------------------------------------------------------------------------------------

    def _align(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = self._working(run)
        blobs: dict[str, bytes] = {}
        for peer, ids in part.links.items():
            blobs |= session.links(peer, ids)
        return Payload({}, blobs)

    def _matrix(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = self._working(run)
        session.receive(payload.blobs)
        if not run.aligned:
            for peer in part.links:
                session.hold(peer, part.aligned(peer, session.align(peer)))
            run.aligned = True
        return Payload({"chunks": session.chunks}, session.matrix(_number(payload, "chunk")))

    def _deal(self, payload: Payload) -> Payload:
        run = self._run(payload)
        if run.dealer is None:
            raise ActionRefused("this node is no trustee.", party=self.party, code="ROLE_WITHOUT_PART")
        run.dealer.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for name in payload.data.get("queries", ()):
            blobs |= run.dealer.deal(run.plan[str(name)])
        return Payload({}, blobs)

    def _open(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = self._working(run)
        session.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for query, weights in self._asks(run, payload):
            factors, cap = part.factors(query, weights)
            blobs |= session.open(query, factors, cap)
        return Payload({}, blobs)

    def _share(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = self._working(run)
        session.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for query, _ in self._asks(run, payload):
            if query.kind == "DOT" and self.party not in query.matrix.parties:
                vectors, cap = part.vectors(query)
                blobs |= session.share(query, vectors, cap)
            else:
                blobs |= session.share(query)
        return Payload({}, blobs)

    def _close(self, payload: Payload) -> Payload:
        run = self._run(payload)
        session, part = self._working(run)
        session.receive(payload.blobs)
        asks = self._asks(run, payload)
        for query, _ in asks:
            session.check_ready(query)
        self._may_release(run)
        arrays = {}
        for query, weights in asks:
            local = part.local(query, weights) if query.kind == "LOCAL" else None
            # Durable before the share exists. If we die here: spent, and nothing has left.
            self.home.ledger.spend(run.ask.run, query.id, run.ask.attempt)
            arrays[query.id] = session.close(query, local)
        return Payload({}, {}, arrays)

    def _may_release(self, run: Run) -> None:
        """Decide on the release of this run as of now.

        Raises:
            ActionRefused: code of the first reason; ``reasons`` has all of them.
        """
        now = self._clock()
        request = dict(run.ask.request) | {
            "phase": "release",
            "nonce": f"{run.ask.request['nonce']}/release/{secrets.token_hex(8)}",
            "issuedAt": timestamp(now),
        }
        standing = self._world_now(run.contract, now, run.budget, run.asset_cap)
        given = guard.world(run.ask, request, standing, run.contract)
        decision = guard.judge(given, holds_persons=run.role != "trustee")
        if not decision.allow:
            event = DecisionMade(
                at=now, party=self.party, run=run.ask.run, contract=run.contract.digest, phase="release",
                outcome="deny", reasons=decision.reasons,
            )  # fmt: skip
            self._state(event)
            raise ActionRefused(
                f"release refused: {', '.join(decision.reasons)}.",
                party=self.party,
                code=decision.reasons[0],
                reasons=decision.reasons,
                fix="convoy-contracts decide --explain shows each gate and its fix.",
            )

    # After a run -------------------------------------------------------------------------------------------------------

    def _finish(self, payload: Payload) -> Payload:
        manifest = payload.data.get("release")
        return self._settle(payload, "finished", str(manifest) if manifest else None, ())

    def _abort(self, payload: Payload) -> Payload:
        return self._settle(payload, "aborted", None, (str(payload.data.get("reason", "ABORTED"))[:64],))

    def _settle(self, payload: Payload, outcome: Any, manifest: str | None, reasons: tuple[str, ...]) -> Payload:
        name = str(payload.data.get("run", ""))
        run = self._runs.pop(name, None)
        if run is None:
            return Payload({"settled": False})
        home, own = self.home, self.home.own_asset(run.contract)
        charged: dict[str, int] = {}
        total: dict[str, int] = {}
        if run.session is not None and own is not None:
            asset = own
            home.ledger.settle(name, outcome)
            agreed = run.contract.privacy[asset]
            delta = agreed.deltaNano / 1e9
            charged[asset] = accounting.micro(accounting.epsilon_of(self._run_mu2(name), delta))
            used = home.ledger.mu2(asset, run.contract.uid)
            total[asset] = accounting.micro(accounting.epsilon_of(used, delta))
        event = RunSettled(
            at=self._clock(),
            party=self.party,
            run=name,
            contract=run.contract.digest,
            outcome=outcome,
            manifest=manifest,
            epsilon_micro=charged,
            total_micro=total,
            reasons=reasons,
        )
        return Payload({"settled": True, "statement": self._state(event), "epsilonMicro": charged, "totalMicro": total})

    def _run_mu2(self, run: str) -> float:
        """Return what a run has spent: per attempt the larger of the cohorts' sums, attempts add up."""
        cohorts: dict[int, dict[str, float]] = {}
        for event in self.home.ledger.events():
            if event.run == run:
                of = cohorts.setdefault(event.attempt, {"joint": 0.0, "solo": 0.0})
                for name in of if event.cohort == "all" else (event.cohort,):
                    of[name] += event.mu2
        return sum(max(of.values()) for of in cohorts.values())

    # Readers -----------------------------------------------------------------------------------------------------------

    def _run(self, payload: Payload) -> Run:
        run = self._runs.get(str(payload.data.get("run", "")))
        if run is None or payload.data.get("attempt", run.ask.attempt) != run.ask.attempt:
            raise ActionRefused(
                "this run is not authorised here.",
                party=self.party,
                code="RUN_NOT_AUTHORISED",
                fix="Start a new run; after a restart a node forgets the masks of an old one, on purpose.",
            )
        return run

    def _working(self, run: Run) -> tuple[PartySession, Part]:
        if run.session is None or run.part is None:
            raise ActionRefused("this node holds no data in this run.", party=self.party, code="ROLE_WITHOUT_PART")
        return run.session, run.part

    def _asks(self, run: Run, payload: Payload) -> list[tuple[PlannedQuery, Mapping[str, Any]]]:
        asks = []
        for ask in payload.data.get("asks", ()):
            query = run.plan[str(ask["query"])]
            if self.party not in query.participants:
                raise ActionRefused(f"{query.id} is not for this node.", party=self.party, code="QUERY_WITHOUT_PART")
            asks.append((query, ask.get("weights") or {}))
        return asks

    def _refuse(self, action: str, error: NodeError | ModelsError | ContractsError | AuditError) -> Payload:
        if isinstance(error, NodeError):
            refusal: dict[str, Any] = dict(error.refusal())
        else:
            refusal = {
                "code": str(error.code),
                "party": str(getattr(error, "party", "") or ""),
                "cause": str(getattr(error, "cause", "")) or type(error).__name__,
                "fix": str(getattr(error, "fix", "")),
                "reasons": [str(reason) for reason in getattr(error, "problems", ())],
            }
        refusal["party"] = refusal["party"] or self.party
        size = getattr(error, "size", None)
        extra = {"size": size} if isinstance(size, int) else {}
        log.warning("action %s refused: %s %s", action, refusal["code"], "; ".join(refusal["reasons"]))
        return Payload({"refused": refusal | extra})


def _charges(queries: tuple[PlannedQuery, ...]) -> list[Charge]:
    return [Charge(q.id, q.cohort, q.mu2, q.sigma, q.clip) for q in queries]


def _counterparts(query: PlannedQuery, party: str) -> set[str]:
    """Parties on the other side of a paired query."""
    own = next(side for side in query.sides if party in side.parties)
    return {p for side in query.sides if side.role != own.role for p in side.parties}


def _number(payload: Payload, name: str) -> int:
    value = payload.data.get(name)
    if type(value) is not int or value < 0:
        raise ActionRefused(f"{name} is no number.", code="MESSAGE_MALFORMED")
    return value
