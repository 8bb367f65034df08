"""Train a described portfolio through the real federation: coordinator, log, contract, nodes, masks, ledgers, noise.

``federation(portfolio, specification, folder)`` founds, in a folder, what the portfolio describes: its insurers (charging
operators for two towers), an auditor and, for the vertical model, a carmaker, each with own keys, rows, consents and ledger,
under one contract that all have signed.
``train()`` queues a run and returns the released model, verified as a recipient verifies it. Every node runs in this process
(embedded runtime); the messages, the arithmetic and the noise are those of production.

LIMIT: the contract's budget is wide (``RUNS`` runs), so that several draws of the noise can be compared. Partners would never sign that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from flwr.app import Context, RecordDict
from portfolio import Columns, Portfolio

from convoy_contracts.build import Asset, Member, pairs_contract, risk_contract, severity_contract, towers_contract
from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.instants import timestamp
from convoy_contracts.specification import (
    PairsSpecification,
    RiskSpecification,
    SeveritySpecification,
    TowersSpecification,
)
from convoy_coordinator.federation.flower.local_grid import LocalGrid
from convoy_coordinator.federation.server_app import app as server_app
from convoy_coordinator.keys import read_keys
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home as create_coordinator
from convoy_coordinator.setup import public_facts
from convoy_demo.api import Api
from convoy_demo.party_data import CONSENT_SCHEMA
from convoy_demo.ports import free_port
from convoy_demo.runtimes import coordinator_thread
from convoy_models.bundle import read_bundle
from convoy_models.noise import NoiseSource
from convoy_models.recommend.towers import TowersModel
from convoy_models.risk.cann import tables_model
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.severity import SeverityModel
from convoy_node.client_app import make_client_app
from convoy_node.identity import Card
from convoy_node.register import Register
from convoy_node.runtime import NodeRuntime
from convoy_node.setup import create_home, pin, sign_contract

UID, NAME = "urn:convoy:contract:bench-risk", "risk"
NOTICE = "bench-notice@1"
OEM, TRUSTEE = "oem", "auditor"
RUNS = 200
"""How many runs the contract's budget allows."""
AGE = 30
"""Age in every consent record; the portfolio describes no minors."""
Specification = RiskSpecification | SeveritySpecification | PairsSpecification | TowersSpecification
ENDED = frozenset({"finished", "failed", "refused", "cancelled"})


class RunEnded(Exception):
    """A run did not finish; the message names party, cause and fix."""


def party_of(short: str) -> str:
    """Return the party id of a short name."""
    return f"did:web:{short}.example"


def _purpose(specification: Specification) -> str:
    return "convoy:Recommendation" if isinstance(specification, TowersSpecification) else "convoy:RiskModelTraining"


def _role(short: str, specification: Specification) -> str:
    """Return the role of a holder of rows."""
    if short == OEM:
        return OEM
    return "charging" if isinstance(specification, TowersSpecification) else "insurer"


def _asset(short: str) -> str:
    return f"urn:convoy:asset:{short}:bench:1"


@dataclass
class Federation:
    """A founded federation whose coordinator answers."""

    folder: Path
    specification: Specification
    digest: str
    recipient: str
    api: Api
    parties: tuple[str, ...]

    def train(
        self, noise: Callable[[str], NoiseSource] | None = None, limit_s: float = 3_600
    ) -> RiskModel | PairsModel | SeverityModel | TowersModel:
        """Run once and return the released model.

        Raises:
            RunEnded: the run was refused or failed.
        """
        nodes = {
            party_of(short): NodeRuntime(self.folder / "nodes" / short, noise=noise(party_of(short)) if noise else None)
            for short in self.parties
        }
        grid = LocalGrid({party: make_client_app(node) for party, node in nodes.items()})
        home = self.folder / "coordinator"
        try:
            uid = self.queue()
            settings = {
                "coordinator-url": self.api.url,
                "token-file": str((home / "keys" / "internal.token").resolve()),
                "run": uid,
            }
            server_app(grid, Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=settings))
        finally:
            grid.close()
            for node in nodes.values():
                node.close()
        run = self.ended(uid, limit_s)
        if run["state"] != "finished":
            raise RunEnded(f"run {uid} {run['state']}: {run['reason']} at {run['party']}: {run['cause']} {run['fix']}")
        key = Ed25519PublicKey.from_public_bytes(read_keys(home / "keys").release_public)
        bundle = read_bundle(
            home / "releases" / uid, key, recipient=self.recipient, contract_digest=self.digest, recalled=()
        ).value
        if isinstance(self.specification, PairsSpecification):
            return tables_model(self.specification, bundle.arrays)
        if isinstance(self.specification, TowersSpecification):
            return TowersModel.from_arrays(self.specification, bundle.arrays)
        if isinstance(self.specification, SeveritySpecification):
            return SeverityModel.from_arrays(self.specification, bundle.arrays)
        return RiskModel.from_arrays(self.specification, bundle.arrays)

    def queue(self) -> str:
        """Ask for a run; return its uid."""
        order = {
            "contractDigest": self.digest,
            "algorithm": self.specification.kind.removesuffix("/1"),
            "requester": self.recipient,
            "purpose": _purpose(self.specification),
        }
        return str(self.api.post("/v1/runs", order)["uid"])

    def ended(self, uid: str, limit_s: float = 3_600) -> Mapping[str, Any]:
        """Wait until a run has ended.

        Raises:
            RunEnded: it has not within ``limit_s``.
        """
        deadline = time.monotonic() + limit_s
        while True:
            run = self.api.get(f"/v1/runs/{uid}")
            if run["state"] in ENDED:
                return dict(run)
            if time.monotonic() > deadline:
                raise RunEnded(f"run {uid} did not end within {limit_s:.0f} s")
            time.sleep(0.1)


@contextlib.contextmanager
def federation(portfolio: Portfolio, specification: Specification, folder: Path) -> Iterator[Federation]:
    """Found a federation in an empty folder and serve its coordinator while the block runs."""
    create_coordinator(folder / "coordinator", name="Convoy bench", origin="convoy.example/bench", port=free_port())
    with (
        coordinator_thread(folder / "coordinator") as url,
        contextlib.closing(Api(url, folder / "coordinator" / "keys")) as api,
    ):
        api.wait_ready(60)
        frames = _short_names(portfolio, specification)
        cards = _found_nodes(portfolio, specification, frames, folder)
        for card in cards.values():
            api.post("/v1/parties", card.enrolment())
        now = datetime.now(UTC)
        text = canonical_bytes(_contract(specification, cards, frames, now)).decode()
        digest = str(api.post("/v1/contracts", {"text": text})["digest"])
        for short in cards:
            api.post(
                f"/v1/contracts/{digest}/signatures",
                {"entry": sign_contract(folder / "nodes" / short, text, datetime.now(UTC))},
            )
        recipient = party_of(next(short for short in frames if short != OEM))
        yield Federation(folder, specification, digest, recipient, api, tuple(cards))


def _short_names(portfolio: Portfolio, specification: Specification) -> dict[str, Columns]:
    """Return what each party holds, by a short name that is fit for an id; who has no learning rows takes no part."""
    frames = {name: frame for name, frame in portfolio.party_frames(specification).items() if frame["row"].size}
    absent = sorted(set(portfolio.insurers) - set(frames))
    if absent:
        portfolio.notes.append(f"through the real apps: {', '.join(absent)} have no learning rows and take no part")
    return {
        name if name == OEM else f"insurer-{number}": frames[name]
        for number, name in enumerate(sorted(frames, key=lambda name: (name == OEM, name)), start=1)
    }


def _found_nodes(
    portfolio: Portfolio, specification: Specification, frames: Mapping[str, Columns], folder: Path
) -> dict[str, Card]:
    log_keys = list(public_facts(read_settings(folder / "coordinator"))["logKeys"])
    links = np.random.default_rng(1).integers(0, 256, (portfolio.learn.size, 16), dtype=np.uint8)
    holders = np.full(portfolio.learn.size, "", dtype=object)
    for short, frame in frames.items():
        if short != OEM:
            holders[frame["row"]] = party_of(short)
    now = datetime.now(UTC)
    recipients = sorted(map(party_of, frames))
    cards: dict[str, Card] = {}
    for short in (*frames, TRUSTEE):
        home = folder / "nodes" / short
        held = short in frames
        fields = [name for name in frames[short] if name != "row"] if held else []
        cards[short] = create_home(
            home,
            party=party_of(short),
            role=_role(short, specification) if held else "trustee",
            region="CN-SH",
            name=short,
            log_keys=log_keys,
            data_source="data/data.parquet" if held else "",
            asset=_asset(short) if held else "",
            asset_fields=dict.fromkeys(fields, "L3"),
            asset_year_cap_micro=RUNS * specification.epsilonMicro if held else 0,
            contract_names={NAME: UID},
        )
        if held:
            rows = frames[short]["row"]
            has_link = portfolio.linked[rows] if OEM in frames else np.zeros(rows.size, dtype=np.bool_)
            counterpart = holders[rows] if short == OEM else np.full(rows.size, party_of(OEM), dtype=object)
            purpose = _purpose(specification)
            _write(home, frames[short], fields, links[rows], counterpart, recipients, now, has_link, purpose)
            with Register(home / "register.db", party=party_of(short)) as register:
                register.import_table(home / "data" / "consents.parquet", {NAME: UID})
    for short in cards:
        pin(folder / "nodes" / short, cards.values())
    return cards


def _write(
    home: Path,
    frame: Columns,
    fields: list[str],
    links: Any,
    counterpart: Any,
    recipients: list[str],
    now: datetime,
    has_link: Any,
    purpose: str,
) -> None:
    (home / "data").mkdir(mode=0o700)
    ids = pa.array([f"P{row:09d}" for row in frame["row"]])
    table = {"person_id": ids} | {name: pa.array(frame[name]) for name in fields}
    pq.write_table(pa.table(table), home / "data" / "data.parquet", compression="zstd")
    size = len(ids)
    consents = {
        "local_id": ids,
        "contract": pa.repeat(NAME, size),
        "link_id": pa.array(
            [link.tobytes() if has else None for link, has in zip(links, has_link, strict=True)], pa.binary(16)
        ),
        "counterpart": pa.array(np.where(has_link, counterpart, None), pa.string()),
        "given": pa.repeat(timestamp(now - timedelta(days=30)), size),
        "until": pa.repeat(timestamp(now + timedelta(days=365)), size),
        "withdrawn": pa.nulls(size, pa.string()),
        "notice": pa.repeat(NOTICE, size),
        "purpose": pa.repeat(purpose, size),
        "recipients": pa.repeat(pa.scalar(recipients, pa.list_(pa.string())), size),
        "separate": pa.repeat(True, size),
        "age": pa.repeat(pa.scalar(AGE, pa.int32()), size),
        "guardian": pa.repeat(False, size),
    }
    pq.write_table(pa.table(consents, schema=CONSENT_SCHEMA), home / "data" / "consents.parquet", compression="zstd")


def _contract(
    specification: Specification, cards: Mapping[str, Card], frames: Mapping[str, Columns], now: datetime
) -> dict[str, Any]:
    holders = sorted(map(party_of, frames))
    parties = [
        Member(
            id=party_of(short),
            role=_role(short, specification) if short in frames else "trustee",
            region="CN-SH",
            mask_key=card.mask_key,
            witness_key=card.witness_key,
            pia=(f"PIA-{short}", timestamp(now + timedelta(days=366))) if short in frames else None,
        )
        for short, card in cards.items()
    ]
    builders = {
        "risk-pairs/1": pairs_contract,
        "severity-towers/1": severity_contract,
        "recommend-towers/1": towers_contract,
    }
    return builders.get(specification.kind, risk_contract)(
        uid=UID,
        version=1,
        nonce="bench-1",
        title="Risk benchmark",
        offer_until=timestamp(now + timedelta(days=7)),
        not_before=timestamp(now - timedelta(days=1)),
        not_after=timestamp(now + timedelta(days=365)),
        parties=parties,
        assets=[
            Asset(_asset(short), party_of(short), [(name, "L3", False, "0.000001") for name in frame if name != "row"])
            for short, frame in frames.items()
        ],
        specification=specification,
        assignees=holders,
        recipients=holders,
        notices=[NOTICE],
        total_micro=RUNS * specification.epsilonMicro,
        min_subjects=1,
        min_providers=len(frames),
        max_runs=RUNS,
    )
