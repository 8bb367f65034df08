"""Six real nodes, a real log and a relay, in one process: what the coordinator does, step by step, so that a test can do it wrong.

Nothing is a stand-in: folders, keys, contracts, ledgers, registers, witnesses and sums are those of the program. Only the
transport is a dictionary, and the noise is ``NoNoise`` where a test compares with plain numbers.
LENGTH: over 500 lines: one world, shared by every test of the folder.
"""

from __future__ import annotations

import copy
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convoy_audit.canonical import b64
from convoy_audit.entry import encode
from convoy_audit.events import RunAuthorised
from convoy_audit.testing import MemoryLog
from convoy_contracts.build import Asset, Member, recommendation_contract, risk_contract
from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.decide.decision import scope
from convoy_contracts.document import Contract
from convoy_contracts.instants import timestamp
from convoy_contracts.roles import roles_of
from convoy_contracts.specification import RecommendSpecification, RiskSpecification
from convoy_demo.party_data import ConsentTerms, party_id, write_party_data
from convoy_demo.population import INSURERS, Histories, Population, generate, histories
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.messages import Payload, relay
from convoy_models.noise import NoiseSource
from convoy_models.plan import Plan, plan
from convoy_models.plan_digest import plan_digest
from convoy_models.recommend.model import RecommendFit, RecommendModel
from convoy_models.risk.fit import Ask, RiskFit, drive
from convoy_models.risk.model import RiskModel
from convoy_models.sums import open_sum
from convoy_models.testing import NoNoise
from convoy_node import dataset
from convoy_node.identity import Card
from convoy_node.runtime import NodeRuntime
from convoy_node.setup import create_home, pin, sign_contract

START = datetime.now(UTC).replace(microsecond=0)
"""The command line has a real clock, so the contracts are in force today."""
NOTICE = "convoy-demo@1"
RISK = "urn:convoy:contract:risk"
SIZE = 3000
ROLES = {"oem": "oem", **dict.fromkeys(INSURERS, "insurer"), "charging": "charging", "auditor": "trustee"}
YEAR_CAP = {"oem": 9_000_000}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the instant at which it stands."""
        return self.now

    def pass_by(self, **time: float) -> None:
        """Let time go by."""
        self.now += timedelta(**time)


class Refused(Exception):
    """A node said no."""

    def __init__(self, party: str, refusal: Mapping[str, Any]) -> None:
        super().__init__(f"{party}: {refusal}")
        self.party = party
        self.code = refusal["code"]
        self.reasons = list(refusal["reasons"])
        self.refusal = dict(refusal)


def days(number: int) -> str:
    """Return the timestamp so many days after the start."""
    return timestamp(START + timedelta(days=number))


def asset_of(short: str) -> str:
    """Return the uid of a party's asset."""
    return f"urn:convoy:asset:{short}:1"


def columns_of(specification: RiskSpecification | RecommendSpecification, role: str) -> list[str]:
    """Return the columns that a role brings."""
    return [column.name for column in dataset.expected_columns(specification, role)]


@dataclass
class Prepared:
    """Folders of six nodes before any run; copied for each test."""

    folder: Path
    population: Population
    histories: Histories
    log: MemoryLog
    cards: dict[str, Card]
    texts: dict[str, str]
    signatures: dict[str, list[dict[str, str]]]
    specifications: dict[str, RiskSpecification | RecommendSpecification]


@dataclass
class Run:
    """A run under way, from the coordinator's side."""

    uid: str
    kind: str
    contract: Contract
    text: str
    signatures: list[dict[str, str]]
    request: dict[str, Any]
    plan: Plan
    events: list[dict[str, Any]] = field(default_factory=list)
    attempt: int = 1

    @property
    def needed(self) -> list[str]:
        """The parties of this run."""
        holders = {p for query in self.plan.queries for p in query.participants}
        return sorted(holders | set(roles_of(self.contract)["trustee"]))


class Federation:
    """The coordinator's side: a log, and a relay between nodes."""

    def __init__(self, prepared: Prepared, folder: Path, noise: NoiseSource | None) -> None:
        shutil.copytree(prepared.folder, folder, dirs_exist_ok=True)
        self.prepared = prepared
        self.folder = folder
        self.clock = Clock()
        self.noise = noise
        self.log = copy.deepcopy(prepared.log)
        self.nodes: dict[str, NodeRuntime] = {}
        self.mail: dict[str, dict[str, bytes]] = {}
        self.statements: list[bytes] = []
        self.rounds = {"risk": 0, "recommendation": 0}
        for short in ROLES:
            self.start(short)

    # Nodes ---------------------------------------------------------------------------------------------------------------

    def home(self, short: str) -> Path:
        """Return a node's folder."""
        return self.folder / short

    def start(self, short: str) -> None:
        """Open a node, or open it again after ``kill``."""
        self.nodes[party_id(short)] = NodeRuntime(self.home(short), noise=self.noise, clock=self.clock)

    def kill(self, short: str) -> None:
        """Lose a node with all that it had in memory."""
        self.nodes.pop(party_id(short)).close()

    def node(self, short: str) -> NodeRuntime:
        """Return a running node."""
        return self.nodes[party_id(short)]

    def close(self) -> None:
        """Stop every node."""
        for node in self.nodes.values():
            node.close()

    # Messages ------------------------------------------------------------------------------------------------------------

    def tell(self, party: str, action: str, data: Mapping[str, Any]) -> Payload:
        """Ask one node with its waiting mail; return its answer whatever it is."""
        return self.nodes[party].handle(action, Payload(dict(data), self.mail.pop(party, {})))

    def ask(self, action: str, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, Payload]:
        """Ask nodes; raise what the first of them refuses; relay their mail."""
        answers = {}
        for party, data in sorted(questions.items()):
            answer = self.tell(party, action, data)
            if answer.refused is not None:
                raise Refused(party, answer.refused)
            answers[party] = answer
        for party, blobs in relay(answers).items():
            self.mail.setdefault(party, {}).update(blobs)
        self._keep_statements(answers)
        return answers

    # Steps ---------------------------------------------------------------------------------------------------------------

    def prepare(self, kind: str = "risk", **changes: Any) -> Run:
        """Make a run of the next round; ``changes`` replace members of the request."""
        self.rounds[kind] += 1
        text = self.prepared.texts[kind]
        contract = Contract.parse(text)
        algorithm = contract.algorithms[0]
        assert algorithm.specification is not None
        request = {
            "phase": "authorise",
            "contractDigest": contract.digest,
            "requester": party_id("oem"),
            "action": "convoy:train",
            "purpose": "convoy:RiskModelTraining" if kind == "risk" else "convoy:Recommendation",
            "providers": sorted(row.provider for row in contract.data),
            "nodeRegions": ["CN-SH"],
            "assets": [row.asset for row in contract.data],
            "fields": {row.asset: [f.name for f in row.fields] for row in contract.data},
            "algorithm": {"id": algorithm.id, "digest": algorithm.digest},
            "output": "convoy:GlobalModel",
            "recipients": list(contract.outputs[0].recipients),
            "round": self.rounds[kind],
            "nonce": f"nonce-{kind}-{self.rounds[kind]}",
            "issuedAt": timestamp(self.clock.now),
            "epsilonMicro": {row.asset: algorithm.specification.epsilonMicro for row in contract.data},
            "deltaNano": {row.asset: algorithm.specification.deltaNano for row in contract.data},
        } | changes
        planned = plan(algorithm.specification, roles_of(contract))
        uid = f"run-{kind}-{self.rounds[kind]}"
        return Run(uid, kind, contract, text, copy.deepcopy(self.prepared.signatures[kind]), request, planned)

    def entry(self, run: Run, /, **changes: Any) -> bytes:
        """Return the log entry that authorises a run."""
        members: dict[str, Any] = {
            "at": self.clock.now,
            "run": run.uid,
            "contract": run.contract.digest,
            "scope": scope(run.request),
            "algorithm": run.request["algorithm"]["digest"],
            "plan": plan_digest(run.plan),
            "round": run.request["round"],
            "attempt": run.attempt,
            "requester": run.request["requester"],
            "purpose": run.request["purpose"],
            "providers": tuple(run.request["providers"]),
            "epsilon_micro": run.request["epsilonMicro"],
            "delta_nano": run.request["deltaNano"],
        }
        return encode(RunAuthorised(**(members | changes)))

    def witnessed(self, without: Sequence[str] = ()) -> bytes:
        """Return a checkpoint of the whole log, cosigned by every node but those left out."""
        note = self.log.checkpoint(time_s=int(self.clock.now.timestamp()))
        size = self.log.tree.size
        for party, node in self.nodes.items():
            if party in without:
                continue
            old = node.handle("hello", Payload()).data["witness"]["size"]
            answer = self.ask("witness", {party: self.checkpoint_question(note, old, size)})[party]
            note += answer.data["cosignatures"].encode()
        return note

    def checkpoint_question(self, note: bytes, old: int, size: int) -> dict[str, Any]:
        """Return the data of a ``witness`` message."""
        proof = self.log.consistency(old) if 0 < old < size else []
        return {"checkpoint": note.decode(), "oldSize": old, "proof": [b64(node) for node in proof]}

    def evidence(self, run: Run, /, **changes: Any) -> dict[str, Any]:
        """Log a run's authorisation, have it witnessed, and return the evidence."""
        index = self.log.append(self.entry(run, **changes)) - 1
        return self.log.evidence(index, self.witnessed()).to_json()

    def question(self, run: Run, evidence: Mapping[str, Any]) -> dict[str, Any]:
        """Return the data of an ``authorise`` message."""
        return {
            "run": run.uid,
            "attempt": run.attempt,
            "contractDigest": run.contract.digest,
            "contractText": run.text,
            "signatures": run.signatures,
            "events": run.events,
            "request": run.request,
            "evidence": dict(evidence),
        }

    def authorise(self, run: Run, parties: Sequence[str] | None = None) -> dict[str, Payload]:
        """Have nodes authorise a run; a denial is an answer, not an exception."""
        question = self.question(run, self.evidence(run))
        return self.ask("authorise", dict.fromkeys(parties or run.needed, question))

    def decisions(self, run: Run, parties: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Authorise and return the reasons of each node that denies."""
        answers = self.authorise(run, parties)
        return {p: a.data["decision"]["reasons"] for p, a in answers.items() if not a.data["decision"]["allow"]}

    def begin(self, kind: str = "risk") -> Run:
        """Authorise a run everywhere and exchange rows and matrices."""
        run = self.prepare(kind)
        assert self.decisions(run) == {}
        self.exchange_matrices(run)
        return run

    def exchange_matrices(self, run: Run) -> None:
        """Align, then move every masked matrix."""
        base = {"run": run.uid, "attempt": run.attempt}
        holders = sorted({p for query in run.plan.queries if query.kind != "LOCAL" for p in query.participants})
        self.ask("align", dict.fromkeys(holders, base))
        self.ask("matrix", {key: {**base, "chunk": 0} for key in holders})

    def batch(self, run: Run, asks: Sequence[Ask], *, until: str = "close") -> dict[str, np.ndarray[Any, Any]]:
        """Take a batch of queries through deal, open, share and close; return the opened sums."""
        base = {"run": run.uid, "attempt": run.attempt}
        planned = [(ask, run.plan[ask.query]) for ask in asks]
        paired = [(ask, query) for ask, query in planned if query.kind != "LOCAL"]
        weighted = [(ask, query) for ask, query in planned if query.kind == "WEIGHTED"]
        trustee = party_id("auditor")
        if paired:
            self.ask("deal", {trustee: {**base, "queries": [query.id for _, query in paired]}})
        answers: dict[str, Payload] = {}
        for action, chosen in (("open", weighted), ("share", paired), ("close", planned)):
            if chosen:
                answers = self.ask(action, self.questions(run, chosen))
            if action == until != "close":
                return {}
        return {
            query.id: open_sum(query, {p: answers[p].arrays[query.id] for p in query.participants})
            for _, query in planned
        }

    def questions(self, run: Run, chosen: Sequence[tuple[Ask, Any]]) -> dict[str, dict[str, Any]]:
        """Return one message for each participant of some queries."""
        return {
            party: {
                "run": run.uid,
                "attempt": run.attempt,
                "asks": [{"query": a.query, "weights": a.weights} for a, q in chosen if party in q.participants],
            }
            for party in sorted({p for _, query in chosen for p in query.participants})
        }

    def fit(self, run: Run) -> RiskModel | RecommendModel:
        """Ask every planned query and return the model."""
        specification = self.prepared.specifications[run.kind]
        steps: Any = (
            RiskFit(specification, run.plan).steps()
            if isinstance(specification, RiskSpecification)
            else RecommendFit(specification, run.plan).steps()
        )
        return drive(steps, lambda asks: self.batch(run, asks))

    def first_batch(self, run: Run) -> list[Ask]:
        """Return what the optimiser asks first."""
        specification = self.prepared.specifications[run.kind]
        assert isinstance(specification, RiskSpecification)
        return next(RiskFit(specification, run.plan).steps())

    def finish(self, run: Run) -> dict[str, Payload]:
        """Tell every node that the run is over."""
        return self.ask("finish", {key: {"run": run.uid, "release": "sha256:" + "0" * 64} for key in run.needed})

    def complete(self, kind: str = "risk") -> RiskModel | RecommendModel:
        """Carry out a whole run."""
        run = self.begin(kind)
        model = self.fit(run)
        self.finish(run)
        return model

    def _keep_statements(self, answers: Mapping[str, Payload]) -> None:
        from base64 import b64decode

        self.statements += [b64decode(text) for a in answers.values() for text in a.data.get("statements", ())]


def _specifications() -> dict[str, RiskSpecification | RecommendSpecification]:
    risk = risk_specification().model_copy(update={"sweeps": 1, "soloSweeps": 1, "cohortFloor": 500})
    return {"risk": risk, "recommendation": recommend_specification().model_copy(update={"cohortFloor": 50})}


def _document(kind: str, specification: Any, cards: Mapping[str, Card]) -> str:
    shorts = ["oem", *INSURERS] if kind == "risk" else ["oem", "charging"]
    build: Callable[..., dict[str, Any]] = risk_contract if kind == "risk" else recommendation_contract
    document = build(
        uid=f"urn:convoy:contract:{kind}",
        version=1,
        nonce=f"offer-{kind}",
        offer_until=days(31),
        not_before=days(-60),
        not_after=days(300),
        title=kind,
        parties=[
            Member(
                party_id(short), ROLES[short], "CN-SH", cards[short].mask_key, cards[short].witness_key,
                ("PIA-1", days(300)),
            )
            for short in [*shorts, "auditor"]
        ],
        assets=[
            Asset(
                asset_of(short), party_id(short),
                [(name, "L3", False, "0.01") for name in columns_of(specification, ROLES[short])],
            )
            for short in shorts
        ],
        specification=specification,
        assignees=[party_id(short) for short in shorts],
        recipients=[party_id(short) for short in shorts],
        notices=[NOTICE],
        total_micro=6_000_000,
        min_subjects=50,
        min_providers=2,
    )  # fmt: skip
    return canonical_bytes(document).decode()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Six folders with keys, data, consents, pins and two signed contracts."""
    folder = tmp_path_factory.mktemp("federation")
    population = generate(SIZE, seed=11)
    past = histories(population, seed=11)
    specifications = _specifications()
    log = MemoryLog("log.example/convoy")
    names = {kind: f"urn:convoy:contract:{kind}" for kind in specifications}
    everyone = tuple(party_id(short) for short in ROLES if short != "auditor")
    terms = {
        "risk": ConsentTerms(NOTICE, "convoy:RiskModelTraining", everyone, days(-45), days(310)),
        "recommendation": ConsentTerms(NOTICE, "convoy:Recommendation", everyone, days(-45), days(310)),
    }
    files = write_party_data(folder / "handed-over", population, past, **terms, seed=11)
    cards = {}
    for short, role in ROLES.items():
        holds = role != "trustee"
        fields = {name: "L3" for spec in specifications.values() for name in columns_of(spec, role)}
        cards[short] = create_home(
            folder / short,
            party=party_id(short),
            role=role,
            region="CN-SH",
            log_keys=log.vkeys,
            data_source="data/data.parquet" if holds else "",
            asset=asset_of(short) if holds else "",
            asset_fields=fields,
            asset_year_cap_micro=YEAR_CAP.get(short, 6_000_000) if holds else 0,
            contract_names=names,
            now=START - timedelta(days=30),
        )
        if holds:
            (folder / short / "data").mkdir()
            shutil.copy(files[short].data, folder / short / "data" / "data.parquet")
            from convoy_node.register import Register

            with Register(folder / short / "register.db", party=party_id(short)) as register:
                register.import_table(files[short].consents, names)
    shutil.rmtree(folder / "handed-over")
    for short in ROLES:
        pin(folder / short, cards.values())
    texts = {kind: _document(kind, spec, cards) for kind, spec in specifications.items()}
    signatures: dict[str, list[dict[str, str]]] = {
        kind: [
            sign_contract(
                folder / party.id.removeprefix("did:web:").removesuffix(".example"), text, START - timedelta(days=20)
            )
            for party in Contract.parse(text).parties
        ]
        for kind, text in texts.items()
    }
    return Prepared(folder, population, past, log, cards, texts, signatures, specifications)


@pytest.fixture
def federation(prepared: Prepared, tmp_path: Path) -> Iterator[Federation]:
    """Six running nodes without noise: a test compares with plain numbers."""
    made = Federation(prepared, tmp_path / "nodes", NoNoise())
    yield made
    made.close()


@pytest.fixture
def noisy_federation(prepared: Prepared, tmp_path: Path) -> Iterator[Federation]:
    """Six running nodes as in production."""
    made = Federation(prepared, tmp_path / "nodes", None)
    yield made
    made.close()


@pytest.fixture
def padded(prepared: Prepared, tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Make nodes under a risk contract with padded rows; the OEM's register does not say who insures whom."""
    made: list[Federation] = []

    def make(floor: int) -> Federation:
        agreed = tmp_path / "agreed"
        shutil.copytree(prepared.folder, agreed)
        spec = prepared.specifications["risk"].model_copy(update={"alignment": "padded", "cohortFloor": floor})
        text = _document("risk", spec, prepared.cards)
        shorts = [party.id.removeprefix("did:web:").removesuffix(".example") for party in Contract.parse(text).parties]
        signed = [sign_contract(agreed / short, text, START - timedelta(days=20)) for short in shorts]
        with closing(sqlite3.connect(agreed / "oem" / "register.db")) as db, db:
            db.execute("UPDATE consent SET counterpart = '*' WHERE link_id NOT NULL AND contract = ?", (RISK,))
        changed = replace(
            prepared,
            folder=agreed,
            texts=prepared.texts | {"risk": text},
            signatures=prepared.signatures | {"risk": signed},
            specifications=prepared.specifications | {"risk": spec},
        )
        made.append(Federation(changed, tmp_path / "padded", NoNoise()))
        return made[-1]

    yield make
    for federation in made:
        federation.close()
