"""Two towers through the real apps: contract, log, ledgers, masks, noise, gate, bundle; then a list at the partner."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_module import bench_module
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

from convoy_contracts.specification import Levels, ListTest, Network, TowersSpecification
from convoy_coordinator.keys import read_keys
from convoy_coordinator.runs.commands import lines
from convoy_models.accounting import epsilon_of
from convoy_models.bundle import read_bundle
from convoy_models.evaluation import hit_rate
from convoy_models.mechanisms import left_of
from convoy_models.plan import plan
from convoy_models.recommend.towers import TowersModel
from convoy_models.testing import NoNoise
from convoy_node.cli import app
from convoy_node.errors import NodeError
from convoy_node.ledger_view import LedgerView
from convoy_node.offers import Asked, list_for, set_opt_out

ITEMS = tuple(f"site-{n:02d}" for n in range(12))
# noiseMilli and costMicro: what the accountant says of eight sampled steps (``planned.cost_micro``: 164,510)
SAMPLED = Network(
    units=8, space=4, steps=8, rateMicro=200_000, batch=280, noiseMilli=2_000, costMicro=165_000, learningRate="2"
)
EVERYBODY = SAMPLED.model_copy(update={"steps": 2, "rateMicro": 1_000_000, "noiseMilli": 9_000, "costMicro": 25_000})
SPEC = TowersSpecification(
    kind="recommend-towers/1", items=ITEMS, profile=(Levels(kind="levels", name="plan", levels=("home", "road")),),
    network=SAMPLED, test=ListTest(length=3), epsilonMicro=4_000_000, deltaNano=1_000, cohortFloor=1_000,
)  # fmt: skip


def _world(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return plans and (size, 4) items, the last of which a test hides: the plan decides which half of the items is liked."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, size)
    liked = (np.arange(12)[None, :] < 6) == (side[:, None] == 0)
    order = np.argsort(-(3.0 * liked + rng.gumbel(size=(size, 12))), axis=1)[:, :4]
    return np.where(side == 0, "home", "road"), order


@dataclass
class Operators:
    """What ``federation`` founds: three charging operators with the same columns about different customers."""

    size: int = 2_100
    taste: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def insurers(self) -> tuple[str, ...]:
        """Return their names."""
        return ("a", "b", "c")

    @property
    def learn(self) -> np.ndarray:
        """Return everybody."""
        return np.arange(self.size)

    @property
    def linked(self) -> np.ndarray:
        """Return nobody: no carmaker takes part."""
        return np.zeros(self.size, dtype=bool)

    def party_frames(self, _specification: Any) -> dict[str, dict[str, Any]]:
        """Return each operator's customers."""
        plans, order = _world(self.size, 1)
        if not self.taste:
            order = np.tile(np.arange(4), (self.size, 1))
        rows = {name: np.flatnonzero(self.learn % 3 == place) for place, name in enumerate(self.insurers)}
        return {
            name: {"row": mine, "plan": plans[mine], "items": [[ITEMS[i] for i in order[row]] for row in mine]}
            for name, mine in rows.items()
        }


def test_towers_are_trained_judged_released_and_listed(tmp_path: Path) -> None:
    """Far above popularity on fresh customers, within epsilon, with tail and steps in the ledger; a node lists the release."""
    with bench_module("federated").federation(Operators(), SPEC, tmp_path) as founded:
        model = founded.train()
        assert isinstance(model, TowersModel)
        plans, order = _world(1_000, 9)
        rest = [[ITEMS[i] for i in row[:3]] for row in order]
        used = np.array([[item in history for item in ITEMS] for history in rest])
        popular = hit_rate(np.tile(model.popularity, (1_000, 1)), used, order[:, 3], 3)
        assert hit_rate(model.scores_of({"plan": plans}, rest), used, order[:, 3], 3) > popular + 0.2
        made = plan(SPEC, {"charging": list(founded.parties)[:-1]})
        for short in founded.parties[:-1]:
            with LedgerView(founded.folder / "nodes" / short / "ledger.db") as ledger:
                spent = ledger.mu2(f"urn:convoy:asset:{short}:bench:1")
            assert 0.95 * made.charge < spent <= made.charge
            assert epsilon_of(spent, left_of(1e-6, 2e-8)) <= 4.0
        (run,) = founded.api.get("/v1/runs")["runs"]
        told = "\n".join(lines(founded.api.get(f"/v1/runs/{run['uid']}")))
        assert "hidden item in the personal list" in told
        assert told.count("than its own model") == 3
        (release,) = (founded.folder / "coordinator" / "releases").iterdir()
        card = (release / "card.md").read_text(encoding="utf-8")
        assert "general list" in card
        assert "not a table" in card
        _lists(founded, release)
        _preview(founded.folder / "nodes" / founded.parties[1])


def _preview(home: Path) -> None:
    """What a run would send is listed sum by sum, with the columns that it reads."""
    done = CliRunner().invoke(app, ["preview", "--home", str(home), "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["runs"][0]["lines"]
    assert [row["columns"] for row in rows] == [["items"], *[["plan", "items"]] * 9]
    assert {row["kind"] for row in rows} == {"LOCAL"}


def _lists(founded: Any, release: Path) -> None:
    """The node's own function behind ``convoy-node offers``: personal, and the general list after an opt-out."""
    home = founded.folder / "nodes" / founded.parties[0]
    public = Ed25519PublicKey.from_public_bytes(read_keys(founded.folder / "coordinator" / "keys").release_public)
    bundle = read_bundle(
        release, public, recipient=founded.recipient, contract_digest=founded.digest, recalled=()
    ).value
    asked = Asked("P000000000", length=3, variety=0.0)
    personal = list_for(bundle, home, None, asked)
    assert {row.reason for row in personal} == {"personal"}
    assert len(personal) == 3
    with pytest.raises(NodeError, match="no row"):
        list_for(bundle, home, None, Asked("nobody"))
    set_opt_out(home, asked.person, is_out=True)
    general = list_for(bundle, home, None, asked)
    assert [(row.id, row.reason) for row in general] == [
        (ITEMS[item], "popular") for item in np.argsort(-bundle.arrays["popularity"])[:3]
    ]
    config = home / "node.toml"
    config.write_text(config.read_text(encoding="utf-8").replace('"charging"', '"oem"'), encoding="utf-8")
    set_opt_out(home, asked.person, is_out=False)
    with pytest.raises(NodeError, match="histories of a charging operator"):
        list_for(bundle, home, None, asked)


def test_towers_that_learn_nothing_are_not_released(tmp_path: Path) -> None:
    """Everybody uses the same four items: no list can beat the general one, the gate says so, nothing is out."""
    federated = bench_module("federated")
    spec = SPEC.model_copy(update={"network": EVERYBODY, "cohortFloor": 300})
    with (
        federated.federation(Operators(600, taste=False), spec, tmp_path) as founded,
        pytest.raises(federated.RunEnded, match="Not better than the general list"),
    ):
        founded.train(lambda _: NoNoise())
    assert not list((tmp_path / "coordinator" / "releases").iterdir())
