"""The text for people: the contract in sentences, in Chinese and English, rendered from the document and bound to it by digest.

``render`` writes every member that a decision looks at; two documents that decide differently have different texts, up to what a
digest stands for (specifications). ``bind_text`` puts the digests of both texts into a draft; ``text_faults`` says whether a
document's digests are those of its own texts. Rendering leaves ``legalText`` itself out, so the digest can be part of what is signed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

from convoy_contracts.document import Contract, Permission
from convoy_contracts.vocabulary import LABELS

Language = Literal["zh-CN", "en"]
LANGUAGES: tuple[Language, Language] = ("zh-CN", "en")
_WORDS: Mapping[str, tuple[str, str]] = {
    "contract": ("Contract", "合约"),
    "version": ("version", "版本"),
    "offer": ("The offer stands until", "要约有效至"),
    "term": ("Term (from, up to but not including)", "期限（自起始时刻，至终止时刻前）"),
    "parties": ("Parties", "参与方"),
    "roles": ("roles", "角色"),
    "region": ("region", "地区"),
    "tier": ("tier", "等级"),
    "pia": ("impact assessment", "影响评估"),
    "until": ("valid until", "有效至"),
    "data": ("Data that may be used", "可使用的数据"),
    "by": ("provided by", "提供方"),
    "grade": ("grade", "级别"),
    "sensitive": ("sensitive personal information", "敏感个人信息"),
    "step": ("no finer than", "精度不细于"),
    "because": ("because", "必要性"),
    "may": ("What is permitted", "许可"),
    "maynot": ("What is forbidden to everybody, whatever is permitted", "禁止（优先于任何许可）"),
    "if": ("only if all of these hold", "须同时满足"),
    "every": ("every asset", "全部资产"),
    "algorithms": ("Algorithms", "算法"),
    "outputs": ("What may come out, and for whom", "产出与接收方"),
    "location": ("Processed in", "处理地"),
    "export": ("Assessed export", "出境评估"),
    "none": ("none", "无"),
    "limits": ("Limits", "限制"),
    "highest": ("highest grade", "最高级别"),
    "seconds": ("longest run, seconds", "单次运行最长秒数"),
    "consent": ("Consent: accepted notices", "同意：认可的告知文本"),
    "separate": ("of these with separate consent", "其中为单独同意"),
    "reask": ("after a refusal nobody is asked again for days", "拒绝后不再询问的天数"),
    "cohort": ("At least persons / providers", "最少人数／提供方数"),
    "withdrawal": ("A withdrawal has effect", "撤回同意的生效"),
    "next-round": ("from the next run on", "自下一次运行起"),
    "immediate": ("at once, also for a run in progress", "立即生效，包括进行中的运行"),
    "privacy": ("Privacy budget per person: epsilon per run / in total / delta", "每人隐私预算：单次 ε／总 ε／δ"),
    "duties": ("Duties", "义务"),
    "hours": ("hours", "小时内"),
    "days": ("working days", "个工作日内"),
    "stops": ("stops all runs when overdue", "逾期即停止运行"),
}


def render(contract: Contract, language: Language) -> str:
    """Return the contract as plain text, one clause a line."""
    zh = language == "zh-CN"

    def word(name: str) -> str:
        return _WORDS[name][1 if zh else 0]

    def label(term: str) -> str:
        found = LABELS.get(term)
        return f"{found[1 if zh else 0]} ({term})" if found else term

    lines = [
        f"{word('contract')} {contract.uid}, {word('version')} {contract.version}" + (f": {contract.title}" if contract.title else ""),
        f"{word('offer')} {contract.offerUntil}",
        f"{word('term')}: {contract.term.notBefore} - {contract.term.notAfter}",
        "", f"1. {word('parties')}",
    ]  # fmt: skip
    for party in contract.parties:
        tier = f"; {word('tier')} {party.tier}" if party.tier else ""
        pia = f"{party.pia.ref}, {word('until')} {party.pia.validUntil}" if party.pia else word("none")
        roles = ", ".join(party.roles)
        lines.append(
            f"   {party.id}; {word('roles')} {roles}; {word('region')} {party.region}{tier}; {word('pia')}: {pia}"
        )
    lines += ["", f"2. {word('data')}"]
    for row in contract.data:
        lines.append(f"   {row.asset}, {word('by')} {row.provider}")
        for item in row.fields:
            sensitive = f"; {word('sensitive')}" if item.sensitive else ""
            because = f"; {word('because')}: {item.necessity}" if item.necessity else ""
            lines.append(
                f"     {item.name}: {word('grade')} {label(item.grade)}; {word('step')} {item.step}{sensitive}{because}"
            )
    for number, name, rules in ((3, "may", contract.permission), (4, "maynot", contract.prohibition)):
        lines += ["", f"{number}. {word(name)}"]
        for rule in rules:
            who = f"{', '.join(rule.assignee)}: " if isinstance(rule, Permission) else ""
            lines.append(f"   {rule.uid}: {who}{label(rule.action)}: {', '.join(rule.target) or word('every')}")
            lines += [f"     {word('if')}: {_constraint(c, label)}" for c in rule.constraint]
    lines += ["", f"5. {word('algorithms')}"]
    for algorithm in contract.algorithms:
        ranges = "".join(f"; {name} {low}..{high}" for name, (low, high) in sorted(algorithm.args.items()))
        lines.append(f"   {algorithm.id} {algorithm.digest}{ranges}")
    lines += ["", f"6. {word('outputs')}"]
    lines += [f"   {output.kind}: {', '.join(output.recipients)}" for output in contract.outputs]
    export = contract.location.export
    shown = (
        f"{export.mechanism}, {word('until')} {export.validUntil}: {', '.join(export.recipients)}"
        if export
        else word("none")
    )
    separate = ", ".join(contract.consent.separateNotices or []) or word("none")
    days = contract.consent.reaskAfterDays
    reask = f"; {word('reask')} {days}" if days else ""
    lines += [
        "", f"7. {word('location')}: {', '.join(contract.location.processing)}; {word('export')}: {shown}",
        f"8. {word('limits')}: {word('highest')} {label(contract.limits.maxGrade)}; {word('seconds')} {contract.limits.maxRoundSeconds}",
        f"9. {word('consent')}: {', '.join(contract.consent.notices)}; {word('separate')}: {separate}{reask}",
        f"10. {word('cohort')}: {contract.cohort.minSubjects} / {contract.cohort.minProviders}",
        f"11. {word('withdrawal')} {word(contract.withdrawal.effective)}",
        f"12. {word('privacy')}",
    ]  # fmt: skip
    for asset, budget in sorted(contract.privacy.items()):
        lines.append(
            f"   {asset}: {_micro(budget.perRoundMicro)} / {_micro(budget.totalMicro)} / {budget.deltaNano} x 10^-9"
        )
    lines += ["", f"13. {word('duties')}"]
    for duty in contract.duties or ():
        time = f"{duty.withinHours} {word('hours')}" if duty.withinHours else f"{duty.withinWorkingDays} {word('days')}"
        stops = f"; {word('stops')}" if duty.blocking else ""
        lines.append(f"   {duty.id}: {duty.bearer}: {duty.kind}, {duty.trigger}, {time}{stops}")
    return "\n".join(lines) + "\n"


def text_digest(text: str) -> str:
    """Return the digest of a text's UTF-8 bytes."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def bind_text(contract: Contract, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the digests of its texts; the Chinese text prevails."""
    digests = {language: text_digest(render(contract, language)) for language in LANGUAGES}
    return dict(document) | {"legalText": {"digests": digests, "prevails": "zh-CN"}}


def text_faults(contract: Contract, texts: Mapping[str, str] | None = None) -> list[str]:
    """Return which bound digests are not those of the given texts, or of the rendered ones."""
    if contract.legalText is None:
        return ["no text for people is bound"]
    faults = []
    for language in LANGUAGES:
        bound = contract.legalText.digests.get(language)
        text = (texts or {}).get(language) or render(contract, language)
        if bound is None:
            faults.append(f"no {language} text is bound")
        elif bound != text_digest(text):
            faults.append(f"the {language} text is not the one whose digest is bound")
    return faults


def _micro(value: int) -> str:
    return f"{value // 1_000_000}.{value % 1_000_000:06d}".rstrip("0").rstrip(".")


def _constraint(constraint: Mapping[str, Any], label: Any) -> str:
    right = constraint.get("rightOperand")
    terms = right if isinstance(right, list) else [right]
    shown = ", ".join(label(term) if isinstance(term, str) else str(term) for term in terms)
    return f"{constraint.get('leftOperand')} {constraint.get('operator')} {shown}"
