"""From a trained model to the upload that the coordinator logs, signs and publishes."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convoy_contracts.build import specification_json
from convoy_contracts.specification import (
    Cuts,
    Knots,
    Levels,
    PairsSpecification,
    RiskSpecification,
    SeveritySpecification,
    Specification,
    TowersSpecification,
)
from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.evaluation import figures as evaluation_json
from convoy_coordinator.federation.evaluation import measures
from convoy_coordinator.federation.exchange import Figures
from convoy_coordinator.federation.lists import ListsJudged
from convoy_coordinator.federation.membership import attack_limits, attack_measures
from convoy_coordinator.federation.round_loop import Evaluated, Model
from convoy_models.bundle import Golden, ReleaseFacts, pack
from convoy_models.card import CardFacts, Measure, Text
from convoy_models.recommend.items import bounded
from convoy_models.recommend.towers import TowersModel
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.severity import SeverityModel

TITLES = {
    "risk-towers/1": Text("联合驾驶风险模型（赔案频率）", "Joint driver-risk model (claim frequency)"),
    "severity-towers/1": Text("联合赔案金额模型（案均赔款）", "Joint claim-amount model (mean amount of a claim)"),
    "risk-pairs/1": Text(
        "联合驾驶风险模型（单因素与双因素表）", "Joint driver-risk model (tables of one factor and of two)"
    ),
    "recommend-items/1": Text("联合推荐模型（充电与服务）", "Joint recommendation model (charging and services)"),
    "recommend-towers/1": Text("联合推荐模型（双塔网络）", "Joint recommendation model (two towers, a network)"),
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
NOT_EVALUATED = Text(
    "合约未约定留出样本：本次发布未经差分隐私评估。",
    "The contract holds nobody out: this release was not evaluated under differential privacy.",
)

LEVELS = Text(
    "上限与噪声会使高风险小群体（例如 25 岁以下）的价格整体偏离几个百分点；各保险公司应以自有客户按群体校正水平（docs/models.md）。",
    "Caps and noise move the price of small groups of high risks (drivers under 25, say) by some per cent: every insurer"
    " corrects its levels by group on its own customers (docs/models.md).",
)


def release_body(
    run: Assignment, model: Model, figures: Figures, rows: Mapping[str, Any], evidence: Mapping[str, Any],
    evaluated: Evaluated | ListsJudged,
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
        measures=[*_measures(run, evaluated), *attack_measures(evaluated.attacks)],
        limits=[
            *limits_of(spec, is_evaluated=isinstance(evaluated, ListsJudged) or evaluated.evaluation is not None),
            *attack_limits(spec, evaluated.attacks),
        ],
    )
    files = pack(
        facts,
        arrays=model.to_arrays(),
        specification=specification_json(spec),
        golden=[_golden(model)],
        card=card,
    )
    summary: dict[str, Any] = {"blobBytes": figures.blob_bytes, "exchanges": sum(figures.exchanges.values())}
    summary["membership"] = dict(evaluated.attacks)
    if isinstance(evaluated, ListsJudged):
        summary["lists"] = evaluated.figures()
    elif evaluated.evaluation is not None:
        summary["evaluation"] = evaluation_json(evaluated.evaluation, evaluated.words)
    return {
        "run": run.uid,
        "files": {name: b64encode(content).decode() for name, content in files.items()},
        "summary": summary,
    }


def limits_of(spec: Specification, *, is_evaluated: bool) -> tuple[Text, ...]:
    """Return what the card says about the weaknesses of a model."""
    levels = (LEVELS,) if isinstance(spec, RiskSpecification) else ()
    return (*LIMITS, *levels, *(() if is_evaluated else (NOT_EVALUATED,)))


def _measures(run: Assignment, evaluated: Evaluated | ListsJudged) -> Sequence[Measure]:
    if isinstance(evaluated, ListsJudged):
        spec = run.specification
        return evaluated.measures(spec.test.length) if isinstance(spec, TowersSpecification) else ()
    return measures(evaluated.evaluation, evaluated.words) if evaluated.evaluation is not None else ()


def _features(run: Assignment) -> list[tuple[str, list[str]]]:
    spec = run.specification
    if isinstance(spec, RiskSpecification | SeveritySpecification):
        return [(tower.role, [feature.name for feature in tower.features]) for tower in spec.towers]
    if isinstance(spec, PairsSpecification):
        network = [] if spec.residual is None else [f"network of {spec.residual.hidden} units, not a table"]
        tables = [feature.name for feature in spec.features] + [" × ".join(pair) for pair in spec.pairs]
        return [("insurer", tables + network)]
    if isinstance(spec, TowersSpecification):
        towers = f"network of {spec.network.units} units and {spec.network.space} dimensions, not a table"
        return [("charging", [*(feature.name for feature in spec.profile), f"{len(spec.items)} items", towers])]
    return [("oem", [feature.name for feature in spec.profile]), ("charging", [f"{len(spec.items)} items"])]


def _golden(model: Model) -> Golden:
    """Return inputs on and between public points with the model's own outputs."""
    if isinstance(model, RiskModel):
        cohort = "joint" if "joint" in model.cohorts else "all"
        columns = {f.name: _points(f) for tower in model.specification.towers for f in tower.features}
        return Golden(cohort, columns, [float(rate) for rate in model.rate(cohort, columns)])
    if isinstance(model, SeverityModel):
        cohort = "joint" if "joint" in model.inverse.cohorts else "all"
        columns = {f.name: _points(f) for tower in model.specification.towers for f in tower.features}
        return Golden(cohort, columns, [float(amount) for amount in model.mean(cohort, columns)])
    if isinstance(model, PairsModel):
        columns = {feature.name: _points(feature) for feature in model.specification.features}
        return Golden("all", columns, [float(rate) for rate in model.rate(columns)])
    if isinstance(model, TowersModel):
        spec = model.specification
        columns = {feature.name: _points(feature) for feature in spec.profile}
        one_item = [spec.items[0], spec.items[1], spec.items[0]]
        made = model.scores_of(columns, [[item] for item in one_item])
        return Golden("all", columns | {"items": list(one_item)}, [float(score) for score in made[:, :8].reshape(-1)])
    items = len(model.specification.items)
    rows = bounded(np.eye(items)[:2], float(model.specification.historyNorm))
    scores = model.warm(rows)
    history: dict[str, list[float | str]] = {"items": [model.specification.items[0], model.specification.items[1]]}
    return Golden("joint", history, [float(score) for score in scores[:, :8].reshape(-1)])


def _points(feature: Knots | Cuts | Levels) -> list[float | str]:
    """Return three values of a feature: its ends and one between."""
    if isinstance(feature, Levels):
        return [feature.levels[0], feature.levels[-1], feature.levels[0]]
    numbers = feature.knots if isinstance(feature, Knots) else feature.cuts
    low, high = float(numbers[0]), float(numbers[-1])
    return [low, (low + high) / 2, high]
