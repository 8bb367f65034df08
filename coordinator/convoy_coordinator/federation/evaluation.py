"""The gates of a run: before it starts, K insurers; after the fit, the DP-evaluated hold-out and the insurers' veto.

A gate that stays shut raises: the run ends as *failed* with the gate's code and words, every node settles, and nothing is
published. What the evaluation opened is in the run's progress either way, so a refusal can be read with its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import (
    Knots,
    PairsSpecification,
    RecommendSpecification,
    RiskSpecification,
    SeveritySpecification,
    TowersSpecification,
)
from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.errors import NodeRefused
from convoy_models.card import Measure, Text
from convoy_models.gates import insurers_gate, utility_gate
from convoy_models.holdout import BAND_EDGES, Evaluation, Gain, Level, Word, read_evaluation
from convoy_models.plan import plan
from convoy_models.risk.fit import Ask
from convoy_models.risk.model import RiskModel

Attacked = Literal["passed", "alarm", "not run"]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
HOLDOUT = Text(
    "未参与训练的同意驾驶人（留出样本），差分隐私求和，计入本次 ε",
    "consenting drivers held out of training, noisy sums, inside this run's epsilon",
)
AT_HOME = Text(
    "各公司自有留出客户，在本地比较；结论由该公司作出，不在 ε 范围内",
    "each insurer's own held-out customers, compared at home; the insurer's own decision, outside epsilon",
)


@dataclass(frozen=True, slots=True)
class Opened:
    """Sums of one exchange by query id; ``withheld``: shares of sums that one party opens at home, by party and query."""

    sums: Mapping[str, Floats]
    withheld: Mapping[str, Mapping[str, Words]]


def check_insurers(run: Assignment) -> None:
    """Refuse a joint risk run with fewer than three insurers.

    Raises:
        GateRefused: INSURERS_TOO_FEW.
    """
    if isinstance(run.specification, RiskSpecification | SeveritySpecification | PairsSpecification):
        insurers_gate(len(run.roles.get("insurer", ()))).check()


@dataclass(frozen=True, slots=True)
class Found:
    """An evaluation, the public numbers it was asked with, and the shares that insurers add up at home."""

    evaluation: Evaluation
    weights: dict[str, Any]
    shares: Mapping[str, Mapping[str, Words]]


def evaluate(run: Assignment, model: object, ask: Callable[[list[Ask]], Opened]) -> Found | None:
    """Ask the planned sums about the hold-out; None where the specification holds nobody out."""
    spec = run.specification
    if not isinstance(spec, RiskSpecification) or not isinstance(model, RiskModel) or spec.evaluation is None:
        return None
    made = plan(spec, run.roles)
    weights = public_weights(model)
    less = [q for q in made.evaluation.queries if q.purpose.startswith("holdout-less")]
    first = ask([Ask(q.id, weights) for q in made.evaluation.queries if q not in less])
    tower = next(tower for tower in spec.towers if tower.role == "insurer")
    feature = next(feature for feature in tower.features if feature.name == spec.evaluation.audit)
    names = feature.knots if isinstance(feature, Knots) else feature.levels
    found = read_evaluation(made, first.sums, feature.name, names, spec.claimCap)
    if less:
        base = max(float(first.sums["joint/holdout-base"].sum()), 1.0)
        ratio = max(float(first.sums["joint/holdout-levels"].sum()), 1.0) / base
        rest = ask([Ask(q.id, weights | {"ratio": [ratio]}) for q in less])
        found = read_evaluation(made, first.sums, feature.name, names, spec.claimCap, rest.sums)
    return Found(found, weights | {"mean": [found.carmaker_mean]}, first.withheld)


def public_weights(model: RiskModel) -> dict[str, Any]:
    """Return what an ask of the evaluation carries: the joint cohort's log weights (the level is in the insurer tower's first
    feature), the insurers' model without the carmaker as ``base``, and the edges of the bands in claims a year."""
    cohort = model.cohorts["joint"]
    out: dict[str, Any] = {role: _lists(weights) for role, weights in cohort.weights.items()}
    _lift(out["insurer"], cohort.level)
    alone = model.cohorts.get("solo", cohort)
    out["base"] = _lists(alone.weights["insurer"])
    _lift(out["base"], alone.level)
    out["bands"] = [math.exp(cohort.level + edge) for edge in BAND_EDGES]
    return out


def _lists(weights: Mapping[str, Floats]) -> dict[str, list[float]]:
    return {name: [float(v) for v in values] for name, values in weights.items()}


def _lift(weights: dict[str, list[float]], level: float) -> None:
    first = next(iter(weights))
    weights[first] = [value + level for value in weights[first]]


def check_utility(run: Assignment, evaluation: Evaluation, words: Mapping[str, Word]) -> None:
    """Refuse a model that is not better than alone.

    Raises:
        GateRefused: UTILITY_GATE, with the figures.
    """
    spec = run.specification
    if isinstance(spec, RiskSpecification) and spec.evaluation is not None:
        utility_gate(evaluation, words, spec.evaluation.confidenceMilli / 1000).check()


def words_of(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Word]:
    """Return the insurers' verdicts; whoever says nothing is undecided."""
    known: tuple[Word, ...] = ("better", "worse", "undecided")
    said = {party: answer.get("word") for party, answer in answers.items()}
    return {party: next((word for word in known if word == value), "undecided") for party, value in said.items()}


def triers(run: Assignment) -> tuple[str, ...]:
    """Return the parties that try a candidate before its release: who holds claims, or histories."""
    is_offers = isinstance(run.specification, RecommendSpecification | TowersSpecification)
    role = "charging" if is_offers else "insurer"
    return tuple(run.roles[role])


def attacks_of(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Attacked]:
    """Return what came of the parties' membership attacks; who says nothing has run none."""
    known: tuple[Attacked, ...] = ("passed", "alarm", "not run")
    said = {party: answer.get("attack") for party, answer in sorted(answers.items())}
    return {party: next((word for word in known if word == value), "not run") for party, value in said.items()}


def check_vetoes(answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a model that tells its members, or that a party has tried on its own customers and does not want.

    Raises:
        NodeRefused: MEMBERS_TOLD or VETOED, with the parties that said so.
    """
    told = [party for party, word in attacks_of(answers).items() if word == "alarm"]
    if told:
        raise NodeRefused(
            f"a membership attack at {', '.join(told)}, with real persons and others who were not trained on, proves more than "
            "this run's epsilon and delta allow",
            party=told[0],
            code="MEMBERS_TOLD",
            reasons=["MEMBERS_TOLD"],
            fix="Nothing was released; give the opened sums to nobody. Some noise, clip or share of it was missing: compare "
            "versions and plans of all nodes, and run again only once the cause is found.",
        )
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


def figures(evaluation: Evaluation, words: Mapping[str, Word] | None = None) -> dict[str, Any]:
    """Return an evaluation as JSON: what the run's page, the release and the card show."""
    out = {
        "unit": "nats on the hold-out; D2 in per cent of the deviance of one rate; noisy sums, inside the run's epsilon",
        "claims": round(evaluation.claims, 1),
        "devianceNats": round(evaluation.deviance, 1),
        "d2Joint": round(evaluation.d2_joint, 2),
        "d2InsurersTogether": round(evaluation.d2_insurers, 2),
        "joiningCarmaker": _gain(evaluation, evaluation.together),
        "insurersOverOneRate": _gain(evaluation, evaluation.insurers),
        "carmakerOverOneRate": _gain(evaluation, evaluation.carmaker),
        "moduleShares": {role: round(value, 2) for role, value in evaluation.shares.items()},
        "audited": evaluation.audited,
        "levels": [_level(level) for level in evaluation.levels],
        "bands": [_level(level) for level in evaluation.bands],
    }
    if evaluation.without is not None:
        out["withoutOneInsurer"] = {
            party: _gain(evaluation, gain) for party, gain in sorted(evaluation.without.items())
        }
    if words is not None:
        out["againstAlone"] = dict(sorted(words.items()))
    return out


def _gain(evaluation: Evaluation, gain: Gain) -> dict[str, Any]:
    low, high = gain.interval()
    return {
        "gainNats": round(gain.value, 2),
        "interval95": [round(low, 2), round(high, 2)],
        "noiseSd": round(gain.noise_sd, 2),
        "chanceSd": round(gain.chance_sd, 2),
        "d2Points": round(evaluation.d2(gain.value), 2),
        "d2Interval95": [round(evaluation.d2(low), 2), round(evaluation.d2(high), 2)],
    }


def _level(level: Level) -> dict[str, Any]:
    return {
        "level": level.name,
        "observed": round(level.observed, 1),
        "expected": round(level.expected, 1),
        "ratio": _number(level.ratio),
        "ratioSd": _number(level.ratio_sd),
    }


def measures(evaluation: Evaluation, words: Mapping[str, Word]) -> list[Measure]:
    """Return the model card's lines."""
    low, high = (evaluation.d2(value) for value in evaluation.together.interval())
    shares = evaluation.shares
    better = [party for party, word in sorted(words.items()) if word == "better"]
    out = [
        Measure(
            Text("解释偏差 D2：联合模型", "deviance explained (D2), joint model"),
            f"{evaluation.d2_joint:.1f} %",
            HOLDOUT,
        ),
        Measure(
            Text(
                "解释偏差 D2：各保险公司联合、不含车企",
                "deviance explained (D2), insurers together without the carmaker",
            ),
            f"{evaluation.d2_insurers:.1f} %",
            HOLDOUT,
        ),
        Measure(
            Text("加入车企数据的增益（D2 百分点）", "gain by the carmaker's data, D2 points"),
            f"{evaluation.d2(evaluation.together.value):+.1f} ({low:+.1f} … {high:+.1f}, 95 %)",
            HOLDOUT,
        ),
        Measure(
            Text("谁带来了什么（Shapley，D2 百分点）", "who brought what (Shapley over modules, D2 points)"),
            f"oem {shares['oem']:.1f}, insurer {shares['insurer']:.1f}",
            HOLDOUT,
        ),
        Measure(
            Text("优于单独建模的保险公司", "insurers that found it better than their own model"),
            f"{len(better)} / {len(words)}",
            AT_HOME,
        ),
    ]
    out += [
        Measure(
            Text(f"去掉 {party} 的客户后的增益", f"the same gain without the customers of {party}"),
            f"{evaluation.d2(gain.value):+.1f}",
            HOLDOUT,
        )
        for party, gain in sorted((evaluation.without or {}).items())
    ]
    for name, levels in ((evaluation.audited, evaluation.levels), ("price band", evaluation.bands)):
        out += [
            Measure(
                Text(f"实际/预期 {name} {level.name}", f"observed / expected, {name} {level.name}"),
                f"{level.ratio:.2f} ± {level.ratio_sd:.2f}",
                HOLDOUT,
            )
            for level in levels
            if not math.isnan(level.ratio)
        ]
    return out


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)
