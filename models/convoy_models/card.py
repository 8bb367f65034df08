"""The model card: what a model is, what it cost in privacy, and what it must not be used for.

Generated from facts, Chinese and English, never written by hand. The privacy wording is fixed:
epsilon is never shown without its unit (person), delta, scope, adversary and assumptions
(private_ml.md §5.5), and rounded up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from convoy_models.errors import BundleMalformed

Language = Literal["zh", "en"]


@dataclass(frozen=True, slots=True)
class Text:
    """The same words in both languages."""

    zh: str
    en: str

    def in_(self, language: Language) -> str:
        """Return the words of one language."""
        return self.zh if language == "zh" else self.en


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: what, how much, and on whom and how it was measured."""

    name: Text
    value: str
    basis: Text


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card is generated from.

    Attributes:
        title: of the model.
        run: uid; ``contract_digest``; ``algorithm``: ids as in the contract.
        purpose: what the contract allows the model for.
        parties: (party id, role) of everybody who took part; ``trustee``: party id or None.
        recipients: party ids that may load it.
        epsilon_micro: per person for this run, millionths; ``delta_nano``: billionths.
        spent: per party: (party id, epsilon micro spent so far, epsilon micro allowed).
        queries: how many noisy sums were opened; ``noise_rule``: its name.
        rows: (cohort, bucketed persons).
        features: (tower or block, features).
        measures: figures.
        limits: what is known to be weak.
    """

    title: Text
    run: str
    contract_digest: str
    algorithm: str
    purpose: Text
    parties: Sequence[tuple[str, str]]
    trustee: str | None
    recipients: Sequence[str]
    epsilon_micro: int
    delta_nano: int
    spent: Sequence[tuple[str, int, int]] = ()
    queries: int = 0
    noise_rule: str = "honest-one/1"
    rows: Sequence[tuple[str, int]] = ()
    features: Sequence[tuple[str, Sequence[str]]] = ()
    measures: Sequence[Measure] = ()
    limits: Sequence[Text] = ()


def show_epsilon(micro: int) -> str:
    """Return epsilon with two decimals, rounded up."""
    hundredths = -(-micro // 10_000)
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def show_delta(nano: int) -> str:
    """Return delta as a power form, e.g. ``1e-06`` as ``1e-6``."""
    mantissa, exponent = f"{nano:.3e}".split("e")
    trimmed = mantissa.rstrip("0").rstrip(".")
    return f"{trimmed}e{int(exponent) - 9}"


def privacy_claim(facts: CardFacts, language: Language) -> str:
    """Return the claim that may be made, in full (private_ml.md §5.5)."""
    epsilon, delta = show_epsilon(facts.epsilon_micro), show_delta(facts.delta_nano)
    honest = _HONESTY[facts.noise_rule].in_(language)
    trustee = facts.trustee or "-"
    return _CLAIM.in_(language).format(
        contract=facts.contract_digest, epsilon=epsilon, delta=delta, trustee=trustee, honest=honest
    )


def render(facts: CardFacts) -> str:
    """Return the card: Markdown, Chinese first, then English.

    Raises:
        BundleMalformed: a noise rule without wording, or an epsilon or delta that is not positive.
    """
    if facts.noise_rule not in _HONESTY:
        raise BundleMalformed(f"there is no wording for noise rule {facts.noise_rule!r}.")
    if facts.epsilon_micro <= 0 or facts.delta_nano <= 0:
        raise BundleMalformed("a card without a positive epsilon and delta makes no claim.")
    return "\n".join([*_section(facts, "zh"), "", "---", "", *_section(facts, "en"), ""])


def _section(facts: CardFacts, language: Language) -> list[str]:
    def say(text: Text) -> str:
        return text.in_(language)

    lines = [f"# {say(facts.title)}", ""]
    lines += _table(
        [say(_ITEM), say(_VALUE)],
        [
            (say(_RUN), f"`{facts.run}`"),
            (say(_CONTRACT), f"`{facts.contract_digest}`"),
            (say(_ALGORITHM), f"`{facts.algorithm}`"),
            (say(_PURPOSE), say(facts.purpose)),
            (say(_PARTIES), ", ".join(f"{name} ({role})" for name, role in facts.parties)),
            (say(_RECIPIENTS), ", ".join(facts.recipients)),
            (say(_QUERIES), str(facts.queries)),
            *((f"{say(_ROWS)}: {cohort}", f"≈ {count}") for cohort, count in facts.rows),
        ],
    )
    lines += [f"## {say(_PRIVACY)}", "", privacy_claim(facts, language), "", say(_OTHER_HOLDER)]
    lines += ["", say(_NOT_COVERED), ""]
    if facts.spent:
        rows = [(p, show_epsilon(spent), show_epsilon(cap)) for p, spent, cap in facts.spent]
        lines += _table([say(_PARTY), say(_SPENT), say(_ALLOWED)], rows)
    if facts.features:
        lines += [f"## {say(_INPUTS)}", ""]
        lines += [f"- {tower}: {', '.join(names)}" for tower, names in facts.features] + [""]
    if facts.measures:
        lines += [f"## {say(_RESULTS)}", ""]
        measured = [(say(m.name), m.value, say(m.basis)) for m in facts.measures]
        lines += _table([say(_MEASURE), say(_VALUE), say(_BASIS)], measured)
    lines += [f"## {say(_LIMITS)}", ""]
    lines += [f"- {say(limit)}" for limit in (*_ALWAYS_LIMITS, *facts.limits)]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_cell(c) for c in row) + " |" for row in cells] + [""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


_ITEM, _VALUE = Text("项目", "Item"), Text("内容", "Value")
_RUN, _CONTRACT = Text("训练任务", "Run"), Text("合约", "Contract")
_ALGORITHM, _PURPOSE = Text("算法", "Algorithm"), Text("用途", "Purpose")
_PARTIES, _RECIPIENTS = Text("参与方", "Parties"), Text("接收方", "Recipients")
_QUERIES, _ROWS = Text("公开的含噪求和次数", "Noisy sums opened"), Text("人数", "Persons")
_PRIVACY, _PARTY = Text("隐私", "Privacy"), Text("参与方", "Party")
_SPENT = Text("已用 ε（每人，向上取整）", "epsilon spent (per person, rounded up)")
_ALLOWED = Text("允许 ε", "epsilon allowed")
_INPUTS, _RESULTS = Text("输入", "Inputs"), Text("结果", "Results")
_MEASURE, _BASIS = Text("指标", "Measure"), Text("测量依据", "Measured on")
_LIMITS = Text("局限与禁用", "Limits and what it must not be used for")

_CLAIM: Final = Text(
    zh=(
        "对于合约 {contract}：协调方和每个接收方从所有公开的求和结果中得知的一切，以及由此导出的"
        "权重、解释和指标，对“加入或删除一位同意的驾驶人在所有节点上的全部记录”满足 ({epsilon}, "
        "{delta})-差分隐私（单位：个人；范围：本次训练任务；ε 向上取整）。前提：各节点遵守协议；"
        "受托方 {trustee} 不与任何节点串通；{honest}"
    ),
    en=(
        "For contract {contract}, everything the coordinator and every recipient learns from all "
        "released sums, and so from weights, explanations and metrics derived from them, is "
        "({epsilon}, {delta})-differentially private for adding or removing all records of one "
        "consenting driver at all nodes (unit: person; scope: this run; epsilon rounded up). "
        "This assumes nodes follow the protocol, the trustee {trustee} does not collude with a "
        "node, and {honest}"
    ),
)
_HONESTY: Final = {
    "honest-one/1": Text(
        zh=(
            "除至多一方外，其余各方都如约加入自己的噪声（规则 honest-one/1）；仅由一方持有的求和只依靠该方自己的噪声。"
        ),
        en=(
            "all parties but at most one add their noise (rule honest-one/1); a sum that one "
            "party holds alone rests on that party's own noise."
        ),
    )
}
_OTHER_HOLDER: Final = Text(
    zh=(
        "对另一数据持有方（其因驾驶人的同意已知该驾驶人参与）：对方所持该驾驶人的数值以同样的 "
        "(ε, δ) 受到保护，含义是将这些数值替换为零。"
    ),
    en=(
        "Towards the other data holder, who knows of the membership by consent: the values held "
        "by the other party about one driver are protected at the same (epsilon, delta), in the "
        "sense of replacing them by zeros."
    ),
)
_NOT_COVERED: Final = Text(
    zh=(
        "不包括：使用模型时保险公司得知驾驶人评分（依据同意，而非差分隐私）；主动作弊、超出约定上"
        "限放大某一行数据的节点；受托方与数据持有方的串通。多次训练的 ε 会累加，"
        "以各节点账本为准。"
    ),
    en=(
        "Not covered: at inference an insurer learns the driver's score, by consent and not "
        "under differential privacy; a node that actively cheats and boosts a row beyond the "
        "agreed caps; a trustee that colludes with a data holder. Epsilon adds up over runs; the "
        "nodes' ledgers are authoritative."
    ),
)
_ALWAYS_LIMITS: Final = (
    Text(
        zh="不得用于未同意的驾驶人，不得因拒绝同意而不利对待；同意者并非随机样本。",
        en=(
            "Not for drivers who did not consent, and never to penalise refusal: those who "
            "consent are not a random sample."
        ),
    ),
    Text(
        zh="不得作为仅凭自动化处理作出的决定；须保留人工复核和申诉渠道。",
        en="Not for decisions by automated means alone: keep human review and a way to contest.",
    ),
    Text(
        zh="不得用于合约所列用途和接收方之外。",
        en="Not outside the purposes and recipients that the contract names.",
    ),
)
