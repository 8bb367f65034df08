"""What must hold before a model is trained, and before it is released. Pure functions, no figures of their own.

    cohort_floor(mu2, terms, ...)   -> persons below which DP noise eats the gain
    insurers_gate(K)                -> K >= 3, or the other insurer's sum is what is opened
    utility_gate(evaluation, ...)   -> better than alone, and how surely

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
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

from convoy_models.card import Text
from convoy_models.errors import ModelsError
from convoy_models.holdout import Evaluation

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


def utility_gate(evaluation: Evaluation, confidence: float = 0.8) -> Verdict:
    """Judge a model on the DP-evaluated hold-out: the lower end of the gain must be above zero.

    Args:
        evaluation: with the noise and the chance of its figure.
        confidence: one-sided, in [.5, 1); a public term of the contract.
    """
    low = evaluation.gain - NormalDist().inv_cdf(confidence) * evaluation.sd
    wide = evaluation.interval()
    figures = f"{evaluation.gain:+.1f} nats (95 %: {wide[0]:+.1f} … {wide[1]:+.1f})"
    if low > 0:
        return Verdict(
            True, "PASSED",
            Text(f"在留出样本上优于各家单独建模：{figures}。", f"Better than alone on the hold-out: {figures}."),
        )  # fmt: skip
    return Verdict(
        False,
        "UTILITY_GATE",
        Text(
            f"在差分隐私评估的留出样本上未能以 {confidence:.0%} 的把握优于单独建模：{figures}。不予发布。",
            f"Not better than alone on the DP-evaluated hold-out, at {confidence:.0%} confidence: {figures}. Not released.",
        ),
    )
