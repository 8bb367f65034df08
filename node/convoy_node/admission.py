"""From an authorisation message to a run at this node - or a denial, or a refusal.

    Admission(home, noise, clock)
      .examine(ask) -> Case             1. the contract, signed here; its plan; 2. the log knows this very run
      .decide(case) -> Decision         3. before any data are read; remembers nonce and round
      .begin(case) -> Run               4. data, all faults at once; then the ledger
      .release(run) -> Decision         again before anything leaves

Guarantees: a message can only name what the signed contract already fixed. Queries, clips and sigma come from the plan that
this node computes itself, and a request that states another price than that plan is refused. The whole cost of the plan is
reserved before the run's first answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from convoy_audit.note import Verifier
from convoy_contracts.canonical import unb64u
from convoy_contracts.decide import Decision
from convoy_contracts.document import Contract
from convoy_contracts.instants import timestamp
from convoy_contracts.roles import roles_of
from convoy_contracts.specification import RiskSpecification, Specification
from convoy_models import accounting
from convoy_models.home_attack import held_back_milli
from convoy_models.masks import PairKeys
from convoy_models.noise import NoiseSource
from convoy_models.plan import Plan, PlannedQuery, plan
from convoy_models.sums import DealerSession, PartySession
from convoy_node import dataset, guard
from convoy_node.desk import Entry
from convoy_node.errors import ActionRefused
from convoy_node.held_back import hold_back
from convoy_node.home import NodeHome
from convoy_node.ledger import Charge, charge_tail, charge_units, sampled_charges
from convoy_node.ledger_view import BudgetStatement
from convoy_node.memory import KnownRun
from convoy_node.register import Cohort
from convoy_node.rounds import Part, charged_to, make_part, queries_of
from convoy_node.sessions import make_dealer, make_session

Clock = Callable[[], datetime]


@dataclass(slots=True)
class Case:
    """An authorisation that was examined and is to be decided; ``now`` is the instant of the decision.

    ``asset``: this party's asset in the contract, empty where it holds no persons. ``charged``: the queries that its persons
    pay for.
    """

    ask: guard.Ask
    contract: Contract
    specification: Specification
    plan: Plan
    now: datetime
    clock_ok: bool
    asset: str
    charged: tuple[PlannedQuery, ...]
    budget: dict[str, BudgetStatement] = field(default_factory=dict)
    asset_cap: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """One authorised run at this node: a holder has session and part, the trustee a dealer."""

    case: Case
    known: KnownRun
    part: Part | None
    session: PartySession | None
    dealer: DealerSession | None
    aligned: bool = False
    people: Cohort = field(default_factory=lambda: Cohort((), {}))
    kept: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict)

    @property
    def ends(self) -> datetime:
        """The instant from which this node answers nothing more about the run."""
        return self.case.now + timedelta(seconds=self.case.contract.limits.maxRoundSeconds)


class Admission:
    """The way into a run at one node.

    Args:
        home: the node's opened folder.
        noise: what its sums are protected with.
        clock: returns the present instant, aware.
    """

    def __init__(self, home: NodeHome, noise: NoiseSource, clock: Clock) -> None:
        self._home = home
        self._noise = noise
        self._clock = clock
        self._party = home.settings.party
        self._holds_persons = home.settings.role != "trustee"

    def examine(self, ask: guard.Ask) -> Case:
        """Steps 1 and 2: what is asked, under which contract, and whether the log knows it.

        Raises:
            ContractsError: the text is no contract.
            ActionRefused: not signed here, no such algorithm, or not proven by the log.
            ModelsError: the specification makes no plan.
        """
        contract = Contract.parse(ask.text)
        if contract.digest not in self._home.contracts():
            raise self._refused(
                f"this node has not signed contract {contract.digest[:23]}….",
                "CONTRACT_NOT_SIGNED_HERE",
                "Sign it with `convoy-node sign`, or ask under the contract that was signed.",
            )
        wanted = ask.request.get("algorithm")
        name = wanted.get("id") if isinstance(wanted, Mapping) else None
        entry = next((a for a in contract.algorithms if a.id == name), None)
        if entry is None or entry.specification is None:
            raise self._refused(
                "the contract has no such algorithm with a specification.",
                "ALGORITHM_UNKNOWN",
                "Ask for an algorithm that the contract lists.",
            )
        planned = plan(entry.specification, roles_of(contract))
        policy, own = self._home.policy(contract), self._own_witness(contract)
        proven = guard.check_evidence(ask, contract, planned, policy, own, self._party)
        now = self._clock()
        asset = self._home.own_asset(contract) if self._holds_persons else None
        return Case(
            ask=ask,
            contract=contract,
            specification=entry.specification,
            plan=planned,
            now=now,
            clock_ok=guard.is_clock_near(now, proven),
            asset=asset or "",
            charged=charged_to(planned, self._party) if asset else (),
        )

    def decide(self, case: Case) -> Decision:
        """Step 3; a permit is durable, with the nonce and the round used up, when this returns.

        Raises:
            ActionRefused: a permit for something else than the plan of the contract.
        """
        ask, request = case.ask, case.ask.request
        self._state_budget(case)
        decision = self._judge(case, request, case.now)
        self._home.memory.remember_nonce(str(request.get("nonce", "")))
        if not decision.allow:
            return decision
        if self._home.memory.knows_run(ask.run, ask.attempt):
            raise self._refused(f"run {ask.run} was here before.", "REQUEST_REPLAYED", "Give each run a new uid.")
        self._check_request(case)
        scope = guard.request_scope(request, self._party)
        self._home.memory.remember_authorisation(case.contract.uid, int(request["round"]), timestamp(case.now), scope)
        return decision

    def begin(self, case: Case) -> Run:
        """Step 4: read the data, reserve the whole plan, open the session.

        Raises:
            NodeError: data that do not fit, or a budget that would be passed; nothing is reserved then.
            ModelsError: values that make no design.
        """
        ask, contract = case.ask, case.contract
        spec = case.specification
        known = KnownRun(ask.run, ask.attempt, contract.uid, contract.digest, case.asset, spec.deltaNano / 1e9)
        keys = self._pair_keys(contract)
        part, session, dealer, people = None, None, None, Cohort((), {})
        if not self._holds_persons:
            dealer = make_dealer(spec, ask.run, ask.attempt, keys)
        elif case.charged:
            trustee = next(iter(roles_of(contract).get("trustee", ())), None)
            peers = peers_of(case.plan, self._party)
            part, people = self._part(case, peers)
            session = make_session(
                spec,
                ask.run,
                ask.attempt,
                keys,
                peers=sorted(peers),
                trustee=trustee if peers else None,
                noise=self._noise,
                lister=lister_of(spec, contract),
            )
            self._home.ledger.reserve(
                ask.run,
                ask.attempt,
                contract.uid,
                case.asset,
                case.now.year,
                known.delta,
                charges(case.charged, known.delta),
                contract_cap_micro=contract.privacy[case.asset].totalMicro,
                asset_cap_micro=self._home.settings.asset_year_cap_micro,
            )
            self._home.influence.begin(self._entry(case), people.persons)
        # If we die here: the reservation is released when the ledger is opened again; nothing has left.
        self._home.memory.remember_run(known)
        return Run(case, known, part, session, dealer, people=people)

    def release(self, run: Run) -> Decision:
        """Decide whether this run may go on now, as of this instant's consents, events and term."""
        now = self._clock()
        request = dict(run.case.ask.request) | {
            "phase": "release",
            "nonce": f"{run.case.ask.request['nonce']}/release/{secrets.token_hex(8)}",
            "issuedAt": timestamp(now),
        }
        return self._judge(run.case, request, now)

    # Inside --------------------------------------------------------------------------------------------------------------

    def _judge(self, case: Case, request: Mapping[str, object], now: datetime) -> Decision:
        home = self._home
        standing = guard.Standing(
            now=now,
            keys=home.settings.world_keys(),
            catalogue=home.settings.catalogue(),
            subjects=home.register.subjects(case.contract.uid, now),
            budget=case.budget,
            asset_cap=case.asset_cap,
            memory=home.memory.world(case.contract.uid),
            duties=home.duties.world(case.contract.uid, now),
            clock_ok=case.clock_ok,
        )
        given = guard.world(case.ask, request, standing, case.contract)
        decision = guard.judge(given, holds_persons=self._holds_persons)
        if home.office.is_stale():
            return Decision(False, ("REGISTER_STALE", *decision.reasons), decision.obligations)
        return decision

    def _state_budget(self, case: Case) -> None:
        """State the own ledger so that the linear gate decides exactly the GDP filter."""
        asset, ledger = case.asset, self._home.ledger
        if not case.charged or asset not in case.contract.privacy:
            return
        uid, delta = case.contract.uid, case.specification.deltaNano / 1e9
        request = charges(case.charged, delta)
        cost, tail = accounting.mu2_of_units(charge_units(request)), charge_tail(request)
        case.budget[asset] = ledger.statement(asset, uid, case.specification.epsilonMicro, cost, delta, tail)
        case.asset_cap[asset] = ledger.stated_asset_cap_micro(
            asset, uid, case.now.year, self._home.settings.asset_year_cap_micro, cost, delta, tail
        )

    def _check_request(self, case: Case) -> None:
        """Refuse a permitted request that is not the plan's: another price, or fewer fields than the model reads."""
        if not case.charged:
            return
        request, asset, spec = case.ask.request, case.asset, case.specification
        prices = (request["epsilonMicro"].get(asset), request["deltaNano"].get(asset))
        if prices != (spec.epsilonMicro, spec.deltaNano):
            raise self._refused(
                "the request states another epsilon or delta than the specification.",
                "REQUEST_OUTSIDE_PLAN",
                "State the specification's epsilonMicro and deltaNano for each asset.",
            )
        asked = set(request["fields"].get(asset, ()))
        wanted = dataset.expected_columns(spec, self._home.settings.role)
        missing = sorted({column.name for column in wanted} - asked)
        if missing:
            raise self._refused(
                f"the request leaves out fields that the model reads: {', '.join(missing)}.",
                "FIELDS_INCOMPLETE",
                "Ask for every field of the specification.",
            )

    def _entry(self, case: Case) -> Entry:
        """Return the run as the influence index keeps it."""
        columns = dataset.expected_columns(case.specification, self._home.settings.role)
        return Entry(
            run=case.ask.run,
            attempt=case.ask.attempt,
            contract=case.contract.uid,
            version=case.contract.version,
            purpose=str(case.ask.request["purpose"]),
            algorithm=str(case.ask.request["algorithm"]["id"]),
            asset=case.asset,
            fields=tuple(sorted(column.name for column in columns)),
            at=timestamp(case.now),
        )

    def _part(self, case: Case, peers: frozenset[str]) -> tuple[Part, Cohort]:
        settings, request = self._home.settings, case.ask.request
        row = case.contract.schedule(case.asset)
        sensitive = {f.name for f in row.fields if f.sensitive} if row else set()
        cohort = self._home.register.cohort(
            case.contract.uid,
            purpose=str(request["purpose"]),
            recipients=list(request["recipients"]),
            notices=case.contract.consent.notices,
            now=case.now,
            sensitive=bool(sensitive.intersection(request["fields"].get(case.asset, ()))),
        )
        if settings.data is None:
            raise self._refused("node.toml names no data.", "DATA_MISSING", "Name the file in node.toml.")
        wanted = dataset.expected_columns(case.specification, settings.role)
        table = dataset.PersonTable.load(
            settings.data.open(self._party),
            wanted,
            self._party,
            person_column=settings.person_column,
            persons=cohort.persons,
        )
        cohort = cohort.within(table.present(cohort.persons))
        # A link to somebody who takes no part in this contract's sums is of no use here.
        links = {peer: cohort.links.get(peer, ()) for peer in sorted(peers)}
        if lister_of(case.specification, case.contract) == self._party:
            # The whole list for everybody: with whom a person is, the register of this party need not know.
            whole = tuple(sorted((pair for pairs in cohort.links.values() for pair in pairs), key=lambda pair: pair[1]))
            links = dict.fromkeys(links, whole)
        solo = cohort.solo if peers else tuple(sorted(cohort.persons))
        # Where two holders meet, only an insurer learns from persons without a counterpart.
        used = Cohort(solo if settings.role == "insurer" or not peers else (), links)
        back = hold_back(
            self._home.identity.identity_seed,
            case.contract.uid,
            held_back_milli(case.specification, len(roles_of(case.contract)[settings.role])),
        )
        return make_part(case.specification, settings.role, links, solo, table, back), used

    def _own_witness(self, contract: Contract) -> tuple[Verifier, ...]:
        own = self._home.witnesses.of(contract)
        if not own:
            raise self._refused(
                "the contract pins witness keys that this node does not have.",
                "WITNESS_KEY_MISMATCH",
                "Agree a new version with the node's present keys.",
            )
        return own

    def _pair_keys(self, contract: Contract) -> PairKeys:
        pinned = {p.id: unb64u(p.maskKey.x) for p in contract.parties if p.maskKey is not None}
        if self._home.identity.mask_of(pinned.get(self._party)) is None:
            raise self._refused(
                "the contract pins another mask key for this node.",
                "MASK_KEY_MISMATCH",
                "Agree a new version with the node's present key.",
            )
        return self._home.office.pair_keys(contract)

    def _refused(self, cause: str, code: str, fix: str) -> ActionRefused:
        return ActionRefused(cause, party=self._party, code=code, fix=fix)


def charges(queries: Sequence[PlannedQuery], delta: float) -> list[Charge]:
    """Return planned queries as entries of the ledger; the steps of a sampled training under one lead."""
    trainings: dict[str, list[PlannedQuery]] = {}
    out = []
    for query in queries:
        if query.lead is None:
            out.append(Charge(query.id, query.cohort, query.mu2, query.sigma, query.clip, rate=query.rate))
        else:
            trainings.setdefault(query.lead, []).append(query)
    for lead, steps in trainings.items():
        first = steps[0]
        names = [step.id for step in steps]
        out += sampled_charges(lead, names, first.cohort, first.clip, first.sigma, first.rate, delta)
    return out


def lister_of(specification: Specification, contract: Contract) -> str | None:
    """Return the party whose whole list makes the rows where the specification asks for padded ones, or None."""
    is_padded = isinstance(specification, RiskSpecification) and specification.alignment == "padded"
    return next(iter(roles_of(contract).get("oem", ())), None) if is_padded else None


def peers_of(planned: Plan, party: str) -> frozenset[str]:
    """Return the parties with which a party shares persons: the other sides of its paired queries."""
    peers: set[str] = set()
    for query in queries_of(planned, party):
        own = next(side for side in query.sides if party in side.parties)
        peers |= {p for side in query.sides if side.role != own.role for p in side.parties}
    return frozenset(peers)
