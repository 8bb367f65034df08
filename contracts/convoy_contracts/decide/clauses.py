"""Which clause of a contract each reason rests on: the clause of its text for people, and the member of the document.

``table`` is what ``docs/contracts/README.md`` shows; a test compares them, so the page for lawyers cannot fall behind.
Clauses are those that ``convoy_contracts.lawyers`` prints; ``-`` stands for what no contract says: the node's own knowledge or
the request itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from convoy_contracts.decide.reasons import REASONS

NONE = "-"
CLAUSES: Mapping[str, tuple[str, str]] = {
    "CLOCK_UNTRUSTED": (NONE, "now, node.clockOk"),
    "INPUT_MALFORMED": (NONE, "the request and the node's own records"),
    "DOCUMENT_MALFORMED": ("all", "the whole document"),
    "CONTRACT_DIGEST_MISMATCH": ("all", "digest of the document"),
    "VOCABULARY_MISMATCH": ("3, 4", "vocab.purposes"),
    "SIGNATURE_MISSING": ("1", "parties; signatures"),
    "SIGNATURE_KEY_NOT_OF_PARTY": ("1", "parties; keys"),
    "SIGNATURE_INVALID": ("1", "signatures"),
    "CERT_NOT_VALID_AT_SIGNING": ("1", "keys"),
    "KEY_COMPROMISED": ("1", "keys"),
    "KEY_REVOKED_BEFORE_SIGNING": ("1", "keys"),
    "SIGNED_AFTER_OFFER_LAPSED": ("heading", "offerUntil"),
    "TERM_NOT_STARTED": ("heading", "term.notBefore"),
    "TERM_ENDED": ("heading", "term.notAfter"),
    "CONTRACT_TERMINATED": ("heading", "event terminate"),
    "CONTRACT_SUPERSEDED": ("heading", "event supersede; version; limits.maxRoundSeconds"),
    "CONTRACT_SUSPENDED": ("heading", "event suspend *"),
    "PARTY_SUSPENDED": ("1", "event suspend of a party"),
    "PARTY_NOT_IN_CONTRACT": ("1", "parties.id"),
    "PROVIDER_MISMATCH": ("2", "data.provider"),
    "REQUEST_STALE": (NONE, "request.issuedAt"),
    "REQUEST_REPLAYED": (NONE, "request.nonce"),
    "ROUND_NOT_MONOTONIC": (NONE, "request.round"),
    "ROUND_NOT_AUTHORISED": (NONE, "node.authorised"),
    "PURPOSE_UNKNOWN": ("3", "vocab.purposes; request.purpose"),
    "UNKNOWN_TERM": ("3, 4", "permission.constraint; prohibition"),
    "PURPOSE_NOT_COVERED": ("3", "permission.constraint purpose"),
    "ALGORITHM_NOT_ALLOWED": ("3, 5", "permission.constraint algorithm; algorithms.id"),
    "NO_MATCHING_PERMISSION": ("3", "permission"),
    "PROHIBITION_HIT": ("4", "prohibition"),
    "ASSET_NOT_IN_SCHEDULE": ("2", "data.asset"),
    "ASSET_OWNER_CHANGED": ("2", "data.provider; catalogue owner"),
    "FIELD_NOT_IN_SCHEDULE": ("2", "data.fields.name"),
    "FIELD_NOT_IN_CATALOG": ("2", "data.fields.name; catalogue"),
    "GRADE_RAISED_SINCE_SIGNING": ("2", "data.fields.grade; catalogue"),
    "CORE_DATA_NEVER": ("2", "data.fields.grade"),
    "GRADE_EXCEEDS": ("2, 8", "data.fields.grade; limits.maxGrade"),
    "PRECISION_TOO_FINE": ("2", "data.fields.step"),
    "PURPOSE_BARRED_FOR_SENSITIVE": ("2, 3", "data.fields.sensitive; barred purposes"),
    "ALGORITHM_DIGEST_MISMATCH": ("5", "algorithms.digest"),
    "ALGORITHM_ARG_UNKNOWN": ("5", "algorithms.args"),
    "ALGORITHM_ARG_OUT_OF_RANGE": ("5", "algorithms.args"),
    "OUTPUT_NOT_IN_CONTRACT": ("6", "outputs.kind"),
    "RECIPIENT_NOT_ALLOWED": ("6", "outputs.recipients"),
    "EXPORT_NOT_ASSESSED": ("7", "location.export; parties.region"),
    "REGION_NOT_ALLOWED": ("7", "location.processing"),
    "COHORT_TOO_SMALL": ("9, 10", "consent.notices; cohort.minSubjects"),
    "TOO_FEW_PROVIDERS": ("10", "cohort.minProviders"),
    "WITHDRAWAL_SINCE_AUTHORISATION": ("11", "withdrawal.effective"),
    "BUDGET_NOT_DEFINED": ("12", "privacy"),
    "BUDGET_NOT_STATED": ("12", "request.epsilonMicro, deltaNano"),
    "BUDGET_PER_ROUND": ("12", "privacy.perRoundMicro"),
    "BUDGET_EXHAUSTED": ("12", "privacy.totalMicro; the asset's cap over all contracts"),
    "DELTA_EXHAUSTED": ("12", "privacy.deltaNano"),
    "PIA_EXPIRED": ("1", "parties.pia.validUntil"),
    "PIA_MISSING": ("1", "parties.pia"),
    "DUTY_OVERDUE": ("13", "duties"),
}
"""Code to (clause of the text, members of the document)."""
GATES: tuple[tuple[int, int, str, str], ...] = (
    (1, 3, "readable and on time", "可读且时钟可信"),
    (4, 5, "this contract, these purposes", "合约与目的词表一致"),
    (6, 12, "signed by every party", "各方签署"),
    (13, 18, "in force", "处于有效期内"),
    (19, 20, "between its parties", "限于合约方"),
    (21, 24, "a fresh round", "请求新鲜、轮次递增"),
    (25, 30, "permitted and not forbidden", "已许可且未被禁止"),
    (31, 34, "scheduled data", "清单内数据"),
    (35, 39, "grade, precision, sensitivity", "级别、精度与敏感性"),
    (40, 42, "the signed algorithm", "所签署的算法"),
    (43, 46, "what comes out, for whom, where", "产出、接收方与地域"),
    (47, 49, "enough people, none withdrawn", "人数足够且无人撤回"),
    (50, 54, "privacy budget", "隐私预算"),
    (55, 57, "assessments and duties", "影响评估与义务"),
)
"""Families of gates: first number, last number, name in English and Chinese."""


def gate_of(number: int) -> tuple[str, str]:
    """Return the name of a code's family in English and Chinese."""
    return next((en, zh) for first, last, en, zh in GATES if first <= number <= last)


def table(language: Literal["zh", "en"]) -> str:
    """Return the whole mapping clause, gate, code as a Markdown table."""
    zh = language == "zh"
    heads = ("条款", "合约成员", "关口", "编号", "原因代码", "含义", "处理") if zh else (
        "clause", "member of the document", "gate", "no.", "reason code", "what it means", "what to do"
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for code, reason in REASONS.items():
        clause, member = CLAUSES[code]
        gate = gate_of(reason.number)[1 if zh else 0]
        title, fix = (reason.title_zh, reason.fix_zh) if zh else (reason.title_en, reason.fix_en)
        lines.append(f"| {clause} | `{member}` | {gate} | {reason.number} | `{code}` | {title} | {fix} |")
    return "\n".join(lines) + "\n"
