"""The gates of a run: before it starts, K insurers; after the fit, the DP-evaluated hold-out and the insurers' veto.

A gate that stays shut raises: the run ends as *failed* with the gate's code and words, every node settles, and nothing is
published. What the evaluation opened is in the run's progress either way, so a refusal can be read with its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import Knots, PairsSpecification, RiskSpecification, SeveritySpecification
from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.errors import NodeRefused
from convoy_models.card import Measure, Text
from convoy_models.gates import insurers_gate, utility_gate
from convoy_models.holdout import Evaluation, read_evaluation
from convoy_models.plan import plan
from convoy_models.recommend.model import RecommendModel
from convoy_models.risk.fit import Ask
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel

Floats = npt.NDArray[np.float64]
Batch = Callable[[list[Ask]], dict[str, Floats]]
Model = RiskModel | PairsModel | RecommendModel
HOLDOUT = Text(
    "未参与训练的同意驾驶人（留出样本），差分隐私求和，计入本次 ε",
    "consenting drivers held out of training, noisy sums, inside this run's epsilon",
)


def check_insurers(run: Assignment) -> None:
    """Refuse a joint risk run with fewer than three insurers.

    Raises:
        GateRefused: INSURERS_TOO_FEW.
    """
    if isinstance(run.specification, RiskSpecification | SeveritySpecification | PairsSpecification):
        insurers_gate(len(run.roles.get("insurer", ()))).check()


def evaluate(run: Assignment, model: Model, batch: Batch) -> Evaluation | None:
    """Ask the planned sums about the hold-out; None where the specification holds nobody out."""
    spec = run.specification
    if not isinstance(spec, RiskSpecification) or not isinstance(model, RiskModel) or spec.evaluation is None:
        return None
    made = plan(spec, run.roles)
    weights = public_weights(model)
    opened = batch([Ask(query.id, weights) for query in made.evaluation.queries])
    tower = next(tower for tower in spec.towers if tower.role == "insurer")
    feature = next(feature for feature in tower.features if feature.name == spec.evaluation.audit)
    names = feature.knots if isinstance(feature, Knots) else feature.levels
    return read_evaluation(made, opened, feature.name, names, spec.claimCap)


def public_weights(model: RiskModel) -> dict[str, dict[str, list[float]]]:
    """Return the joint cohort's log weights as an ask carries them; the level is in the insurer tower's first feature."""
    cohort = model.cohorts["joint"]
    out = {
        role: {name: [float(v) for v in values] for name, values in weights.items()}
        for role, weights in cohort.weights.items()
    }
    first = next(iter(out["insurer"]))
    out["insurer"][first] = [value + cohort.level for value in out["insurer"][first]]
    return out


def check_utility(run: Assignment, evaluation: Evaluation | None) -> None:
    """Refuse a model that is not better than alone.

    Raises:
        GateRefused: UTILITY_GATE, with the figures.
    """
    spec = run.specification
    if evaluation is not None and isinstance(spec, RiskSpecification) and spec.evaluation is not None:
        utility_gate(evaluation, spec.evaluation.confidenceMilli / 1000).check()


def check_vetoes(answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a model that an insurer has tried on its own customers and does not want.

    Raises:
        NodeRefused: VETOED, with the insurers that said so.
    """
    vetoes = {party: answer for party, answer in sorted(answers.items()) if answer.get("veto") is True}
    if vetoes:
        party, answer = next(iter(vetoes.items()))
        raise NodeRefused(
            f"veto after trying the candidate on its own customers: {answer.get('cause', '')}"
            + (f" (also: {', '.join(list(vetoes)[1:])})" if len(vetoes) > 1 else ""),
            party=party,
            code="VETOED",
            reasons=["VETOED"],
            fix="Nothing was released. Look at the price curves of the candidate's parties and train again.",
        )


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON: what the run's page, the release and the card show."""
    low, high = evaluation.interval()
    return {
        "gainNats": round(evaluation.gain, 2),
        "interval95": [round(low, 2), round(high, 2)],
        "noiseSd": round(evaluation.noise_sd, 2),
        "chanceSd": round(evaluation.chance_sd, 2),
        "claims": round(evaluation.claims, 1),
        "audited": evaluation.audited,
        "levels": [
            {
                "level": level.name,
                "observed": round(level.observed, 1),
                "expected": round(level.expected, 1),
                "ratio": _number(level.ratio),
                "ratioSd": _number(level.ratio_sd),
            }
            for level in evaluation.levels
        ],
    }


def measures(evaluation: Evaluation) -> list[Measure]:
    """Return the model card's lines."""
    low, high = evaluation.interval()
    per_claim = evaluation.gain / max(evaluation.claims, 1.0)
    out = [
        Measure(
            Text("比单独建模多出的对数似然", "log likelihood gained over each insurer alone"),
            f"{evaluation.gain:+.1f} ({low:+.1f} … {high:+.1f}, 95 %)",
            HOLDOUT,
        ),
        Measure(Text("每起赔案的增益", "the same per claim"), f"{per_claim:+.4f}", HOLDOUT),
    ]
    out += [
        Measure(
            Text(
                f"实际/预期 {evaluation.audited} = {level.name}",
                f"observed / expected, {evaluation.audited} {level.name}",
            ),
            f"{level.ratio:.2f} ± {level.ratio_sd:.2f}",
            HOLDOUT,
        )
        for level in evaluation.levels
        if not math.isnan(level.ratio)
    ]
    return out


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
