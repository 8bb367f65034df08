"""From a trained model to the upload that the coordinator logs, signs and publishes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import numpy as np

from convoy_contracts.build import specification_json
from convoy_contracts.specification import Knots, RiskSpecification
from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.exchange import Figures
from convoy_models.bundle import Golden, ReleaseFacts, pack
from convoy_models.card import CardFacts, Text
from convoy_models.recommend.items import bounded
from convoy_models.recommend.model import RecommendModel
from convoy_models.risk.model import RiskModel

TITLES = {
    "risk-towers/1": Text("联合驾驶风险模型（赔案频率）", "Joint driver-risk model (claim frequency)"),
    "recommend-items/1": Text("联合推荐模型（充电与服务）", "Joint recommendation model (charging and services)"),
}
LIMITS = (
    Text(
        "训练仅覆盖已同意的驾驶人；不得外推至未同意者，也不得因拒绝同意而加价。",
        "Trained on consenting drivers only: never extrapolate to others, never charge a refusal.",
    ),
    Text(
        "假定各节点按协议行事；主动作弊的参与方可能破坏车企数据的保护。",
        "Nodes are assumed to follow the protocol; an actively cheating party could break the protection of OEM data.",
    ),
)


def release_body(
    run: Assignment, model: RiskModel | RecommendModel, figures: Figures, rows: Mapping[str, Any],
    evidence: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return the body of ``POST /internal/releases``."""
    spec = run.specification
    facts = ReleaseFacts(
        run=run.uid,
        algorithm=str(run.request["algorithm"]["id"]),
        contract_digest=run.contract.digest,
        recipients=tuple(run.request["recipients"]),
        epsilon_micro=spec.epsilonMicro,
        delta_nano=spec.deltaNano,
        evidence=dict(evidence),
    )
    role_of = {party: role for role, parties in run.roles.items() for party in parties}
    card = CardFacts(
        title=TITLES[spec.kind],
        run=run.uid,
        contract_digest=run.contract.digest,
        algorithm=facts.algorithm,
        purpose=Text(str(run.request["purpose"]), str(run.request["purpose"])),
        parties=[(party.id, role_of.get(party.id, "witness")) for party in run.contract.parties],
        trustee=run.trustee,
        recipients=facts.recipients,
        epsilon_micro=spec.epsilonMicro,
        delta_nano=spec.deltaNano,
        queries=len(run.plan.queries),
        noise_rule=spec.noiseRule,
        rows=[(party, int(count)) for party, count in sorted(rows.items()) if int(count) > 0],
        features=_features(run),
        limits=LIMITS,
    )
    files = pack(
        facts,
        arrays=model.to_arrays(),
        specification=specification_json(spec),
        golden=[_golden(model)],
        card=card,
    )
    return {
        "run": run.uid,
        "files": {name: b64encode(content).decode() for name, content in files.items()},
        "summary": {"blobBytes": figures.blob_bytes, "exchanges": sum(figures.exchanges.values())},
    }


def _features(run: Assignment) -> list[tuple[str, list[str]]]:
    spec = run.specification
    if isinstance(spec, RiskSpecification):
        return [(tower.role, [feature.name for feature in tower.features]) for tower in spec.towers]
    return [("oem", [feature.name for feature in spec.profile]), ("charging", [f"{len(spec.items)} items"])]


def _golden(model: RiskModel | RecommendModel) -> Golden:
    """Return inputs on and between public points with the model's own outputs."""
    if isinstance(model, RiskModel):
        cohort = "joint" if "joint" in model.cohorts else "all"
        columns: dict[str, list[float | str]] = {}
        for tower in model.specification.towers:
            for feature in tower.features:
                if isinstance(feature, Knots):
                    low, high = float(feature.knots[0]), float(feature.knots[-1])
                    columns[feature.name] = [low, (low + high) / 2, high]
                else:
                    columns[feature.name] = [feature.levels[0], feature.levels[-1], feature.levels[0]]
        return Golden(cohort, columns, [float(rate) for rate in model.rate(cohort, columns)])
    items = len(model.specification.items)
    rows = bounded(np.eye(items)[:2], float(model.specification.historyNorm))
    scores = model.warm(rows)
    history: dict[str, list[float | str]] = {"items": [model.specification.items[0], model.specification.items[1]]}
    return Golden("joint", history, [float(score) for score in scores[:, :8].reshape(-1)])
