"""What must hold before a model is trained, and before it is released. Pure functions, no figures of their own.

    cohort_floor(mu, terms)         -> persons below which DP noise eats the gain
    floor_of(specification)         -> the same, or the number that the contract signs
    insurers_gate(K)                -> K >= 3, or the other insurer's sum is what is opened
    utility_gate(evaluation, words) -> better than alone, and how surely

Cohort floor. Per person the noise of ``terms`` free numbers costs about ``terms v / (2 mu^2 n^2 h)`` nats
of log likelihood, where ``v`` is the sensitivity of a block in squared units and ``h`` the information
per person; the gain per person does not depend on n. So the smallest n at which the noise eats at most
a share ``s`` of a gain ``g`` is ``n = sqrt(terms v / (2 mu^2 h g s))``: proportional to ``1 / mu`` and to
the square root of the number of terms. ``SCALE`` holds all that is not eps and terms; it is set by what
was measured on generated drivers (private_ml.md §10, models/LOG.md): 112 terms at eps 4 (mu .838) want
12,000 persons in the joint cohort.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from convoy_contracts.specification import RiskSpecification, Specification
from convoy_models.accounting import mu_of
from convoy_models.card import Text
from convoy_models.errors import ModelsError
from convoy_models.holdout import Evaluation, Word

MIN_INSURERS: Final = 3
MEASURED_PERSONS: Final = 12_000
MEASURED_TERMS: Final = 112
MEASURED_MU: Final = 0.838
SCALE: Final = MEASURED_PERSONS * MEASURED_MU / math.sqrt(MEASURED_TERMS)
GateCode = Literal["PASSED", "UTILITY_GATE", "COHORT_TOO_SMALL", "INSURERS_TOO_FEW"]


class GateRefused(ModelsError):
    """A gate did not open; the model is not released, and the run says so."""

    code = "UTILITY_GATE"
    fix = "Nothing was released. Wait for more consents, agree a model with fewer terms, or go on alone."
    fix_zh = "未发布任何内容。请等待更多同意、约定参数更少的模型，或各自继续使用本地模型。"

    def __init__(self, cause: str, *, code: str = "UTILITY_GATE") -> None:
        self.code = code
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says. ``text`` explains it in both languages."""

    passed: bool
    code: GateCode
    text: Text

    def check(self) -> None:
        """Do nothing where the gate is open.

        Raises:
            GateRefused: with the gate's code and words.
        """
        if not self.passed:
            raise GateRefused(self.text.en, code=self.code)


def cohort_floor(mu: float, terms: int) -> int:
    """Return the least number of persons for ``terms`` free numbers at total ``mu``; rounded up to 100.

    At eps 4 (mu .838): 12,000 for 112 terms, 6,000 for 28. Half the epsilon needs about twice the persons.

    Raises:
        GateRefused: mu or terms not positive.
    """
    if not (math.isfinite(mu) and mu > 0 and terms > 0):
        raise GateRefused("mu and the number of terms must be positive", code="COHORT_TOO_SMALL")
    return math.ceil(SCALE * math.sqrt(terms) / mu / 100) * 100


def floor_of(specification: Specification) -> int:
    """Return the least joint cohort of a run: the signed number, or what epsilon and the number of terms ask for."""
    if specification.cohortFloor is not None:
        return specification.cohortFloor
    mu = mu_of(specification.epsilonMicro / 1e6, specification.deltaNano / 1e9)
    towers = specification.towers if isinstance(specification, RiskSpecification) else ()
    return cohort_floor(mu, max(sum(feature.width for tower in towers for feature in tower.features), 1))


def terms_within(mu: float, persons: int) -> int:
    """Return how many free numbers a cohort can carry at total ``mu``; what to agree when the floor is not met."""
    return int((persons * mu / SCALE) ** 2)


def cohort_gate(persons: int, mu: float, terms: int) -> Verdict:
    """Judge a cohort by its bucketed size."""
    floor = cohort_floor(mu, terms)
    if persons >= floor:
        return Verdict(
            True, "PASSED", Text(f"约 {persons} 人，下限 {floor}。", f"About {persons} persons; the floor is {floor}.")
        )
    fewer = terms_within(mu, persons)
    return Verdict(
        False,
        "COHORT_TOO_SMALL",
        Text(
            f"约 {persons} 人，{terms} 个参数在此 ε 下至少需要 {floor} 人；该规模最多支持 {fewer} 个参数。",
            f"About {persons} persons; {terms} terms need {floor} at this epsilon. This cohort carries {fewer} terms.",
        ),
    )


def insurers_gate(insurers: int) -> Verdict:
    """Judge the number of insurers: with two, each learns the other's sum up to its noise."""
    if insurers >= MIN_INSURERS:
        return Verdict(True, "PASSED", Text(f"{insurers} 家保险公司。", f"{insurers} insurers."))
    return Verdict(
        False,
        "INSURERS_TOO_FEW",
        Text(
            f"只有 {insurers} 家保险公司；少于 {MIN_INSURERS} 家时，一家可由总和推出另一家的数据。",
            f"{insurers} insurer(s); with fewer than {MIN_INSURERS} one insurer can tell another's sum from the total.",
        ),
    )


def utility_gate(evaluation: Evaluation, words: Mapping[str, Word], confidence: float = 0.8) -> Verdict:
    """Judge a model after its evaluation. It is released if all of these hold:

    * on the hold-out of all insurers it is better than the insurers' own model without the carmaker: the lower end of the gain
      is above zero;
    * at least one insurer found it better than its own model, and none found it worse (each at home, at a confidence that is
      shared among them: 1 - (1 - confidence) / K);
    * with K >= 4, it is not clearly worse (95 %) once one insurer's customers are left out: no single book carries it.

    Args:
        evaluation: with the noise and the chance of its figures.
        words: of the insurers, by party.
        confidence: one-sided, in [.5, 1); a public term of the contract.
    """
    wide = evaluation.together.interval()
    figures = f"{evaluation.together.value:+.1f} nats (95 %: {wide[0]:+.1f} … {wide[1]:+.1f})"
    worse = sorted(party for party, word in words.items() if word == "worse")
    better = sorted(party for party, word in words.items() if word == "better")
    carried = sorted(party for party, gain in (evaluation.without or {}).items() if gain.interval()[1] < 0)
    if evaluation.together.low(confidence) <= 0:
        return _shut(
            f"在差分隐私评估的留出样本上未能以 {confidence:.0%} 的把握优于不含车企数据的联合模型：{figures}。不予发布。",
            f"Not better than the insurers without the carmaker on the DP-evaluated hold-out, at {confidence:.0%} confidence: "
            f"{figures}. Not released.",
        )
    if worse or not better:
        who = ", ".join(worse) or "no insurer"
        return _shut(
            f"未能优于单独建模：{'、'.join(worse) or '没有任何保险公司'}"
            f"{'在自有留出客户上认为更差' if worse else '在自有留出客户上认为更好'}。不予发布。",
            f"Not better than alone: {who} found it {'worse' if worse else 'better'} than its own model on its own held-out "
            "customers. Not released.",
        )
    if carried:
        return _shut(
            f"去掉 {'、'.join(carried)} 的客户后模型明显更差：结论只依赖一家的数据。不予发布。",
            f"Clearly worse once the customers of {', '.join(carried)} are left out: one book alone carries the verdict. "
            "Not released.",
        )
    return Verdict(
        True,
        "PASSED",
        Text(
            f"在留出样本上优于不含车企数据的模型：{figures}；{len(better)} 家保险公司确认优于单独建模。",
            f"Better than without the carmaker on the hold-out: {figures}; {len(better)} of {len(words)} insurers found it "
            "better than their own model.",
        ),
    )


def each_confidence(confidence: float, insurers: int) -> float:
    """Return the one-sided confidence of one insurer's word, so that all together have ``confidence`` (Bonferroni)."""
    return 1 - (1 - confidence) / max(insurers, 1)


def _shut(zh: str, en: str) -> Verdict:
    return Verdict(False, "UTILITY_GATE", Text(zh, en))
