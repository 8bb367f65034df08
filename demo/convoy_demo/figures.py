"""The demo's figures: what joining was worth on held-out drivers, what it cost, and whether the log verifies."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from convoy_coordinator.keys import read_keys
from convoy_demo import agreements
from convoy_demo.api import DemoFailed
from convoy_demo.places import INSURER_SHORTS, MEMBERS, Places
from convoy_demo.population import Population, histories
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_demo.worth import alone_worth, joint_worth
from convoy_models.accounting import epsilon_of
from convoy_models.bundle import Bundle, read_bundle
from convoy_models.evaluation import hit_rate
from convoy_models.recommend.items import bounded, profile_rows
from convoy_models.recommend.model import RecommendModel
from convoy_models.risk.model import RiskModel
from convoy_node.ledger_view import LedgerView

LIST = 10
"""Length of a recommended list."""


def load_release(places: Places, run: str, contract: str, digest: str) -> Bundle:
    """Load a release as a recipient does: signature, files, contract, recipient."""
    key = Ed25519PublicKey.from_public_bytes(read_keys(places.coordinator / "keys").release_public)
    folder = places.coordinator / "releases" / run
    recipient = agreements.recipients_of(contract)[0]
    verified = read_bundle(folder, key, recipient=recipient, contract_digest=digest, recalled=())
    return verified.value


def risk_figures(bundle: Bundle, training: Population, holdout: Population) -> dict[str, Any]:
    """Compare the released risk model with each insurer alone, on the same held-out drivers."""
    model = RiskModel.from_arrays(risk_specification(), bundle.arrays)
    alone = alone_worth(risk_specification(), training, holdout)
    return {
        "joint": asdict(joint_worth(model, training, holdout)),
        "alone": {short: asdict(alone[short]) for short in INSURER_SHORTS},
    }


def recommendation_figures(bundle: Bundle, training: Population, holdout: Population, seed: int) -> dict[str, float]:
    """Return HR@10 of the released model and of popularity for held-out charging customers who have consented."""
    spec = recommend_specification()
    model = RecommendModel.from_arrays(spec, bundle.arrays)
    customers = histories(holdout, seed + 1)
    agreed = holdout.has_charging[customers.drivers]
    used, held_out = customers.used[agreed], customers.held_out[agreed]
    rows = bounded(used.astype(float), float(spec.historyNorm))
    drivers = customers.drivers[agreed]
    profiles = profile_rows(spec, {name: values[drivers] for name, values in holdout.columns.items()})
    popularity = histories(training, seed).used.sum(axis=0).astype(float)
    ranked = popularity[None, :].repeat(used.shape[0], axis=0)
    return {
        "hr10": hit_rate(model.blend(rows, profiles), used, held_out, LIST),
        "popularity": hit_rate(ranked, used, held_out, LIST),
    }


def epsilon_figures(places: Places) -> dict[str, dict[str, float]]:
    """Return epsilon spent and allowed per party, read from each party's own ledger.

    Per person of the party's asset, over all contracts of the year, at delta 1e-6; rounded up.
    """
    figures = {}
    for member in MEMBERS:
        if member.asset:
            with LedgerView(places.node(member.short) / "ledger.db") as ledger:
                spent = epsilon_of(ledger.spent_mu2(member.asset), risk_specification().deltaNano / 1e9)
            figures[member.short] = {"spent": spent, "allowed": member.cap_micro / 1e6}
    return figures


def audit_figures(pack: Path) -> dict[str, Any]:
    """Have the offline verifier, a process of its own, check the evidence pack.

    Raises:
        DemoFailed: the pack does not verify.
    """
    done = subprocess.run(
        [sys.executable, "-m", "convoy_audit.cli", "verify", str(pack), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoFailed(
            f"the evidence pack does not verify (exit {done.returncode}): {done.stdout[-600:]}{done.stderr[-300:]}"
        )
    verdict: dict[str, Any] = json.loads(done.stdout)
    return verdict
