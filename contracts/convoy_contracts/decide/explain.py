"""A decision in words: every gate, whether it passed, the clause it rests on, and what to do about a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from convoy_contracts.decide.clauses import CLAUSES, NONE
from convoy_contracts.decide.decision import Decision
from convoy_contracts.decide.reasons import REASONS, Reason
from convoy_contracts.instants import instant

Language = Literal["zh", "en"]
STOPPING = ("CLOCK_UNTRUSTED", "INPUT_MALFORMED", "DOCUMENT_MALFORMED")
"""Codes that may stand for a decision in which no later gate was reached."""
_MARKS = {"en": ("pass", "REFUSED", "not reached"), "zh": ("通过", "拒绝", "未检查")}


def explain(decision: Decision, language: Language, *, now: object = "") -> str:
    """Return one line a gate, with the fix below each refusal, then the obligations.

    Args:
        decision: what was decided.
        language: zh or en.
        now: the world's ``now``, if the reader has it; None where the input has none and so is no world: the decision's code is
            then that of the clock (FORMAT.md §6, 1a), and the explanation names the input.
    """
    zh = language == "zh"
    passed, refused, unreached = _MARKS[language]
    stop: int | None
    if now is None and decision.reasons == STOPPING[:1]:
        decision, stop = replace(decision, reasons=STOPPING[1:2]), 0
    else:
        is_read = now == "" or (isinstance(now, str) and instant(now) is not None)
        stop = _stopped_at(decision) if is_read else REASONS[STOPPING[0]].number
    if decision.allow:
        lines = ["允许：所有关口均通过。" if zh else "Allowed: every gate passed."]
    else:
        lines = [f"拒绝：{len(decision.reasons)} 个原因。" if zh else f"Refused, {len(decision.reasons)} reason(s)."]
    for code, reason in REASONS.items():
        is_hit = code in decision.reasons
        mark = refused if is_hit else unreached if stop is not None and reason.number > stop else passed
        lines.append(f"{reason.number:3}  {mark:<11}  {code}: {_title(reason, zh)}  [{_clause(reason, zh)}]")
        if is_hit:
            lines.append(f"     {'处理' if zh else 'fix'}: {reason.fix_zh if zh else reason.fix_en}")
    lines += [f"{'义务' if zh else 'obligation'}: {item}" for item in decision.obligations]
    return "\n".join(lines)


def _stopped_at(decision: Decision) -> int | None:
    """Return the number of the gate that ended the decision, if one did.

    An untrusted clock alone may also be case 1 (b), after which every gate has run; the two look the same from outside.
    """
    if len(decision.reasons) == 1 and decision.reasons[0] in STOPPING[1:]:
        return REASONS[decision.reasons[0]].number
    return None


def _title(reason: Reason, zh: bool) -> str:
    return reason.title_zh if zh else reason.title_en


def _clause(reason: Reason, zh: bool) -> str:
    section = "" if reason.section == "6" else f"§{reason.section}, "
    clause, member = CLAUSES[reason.code]
    named = "" if clause == NONE else f"; {'条款' if zh else 'clause'} {clause}: {member}"
    return f"FORMAT.md {section}§6 no. {reason.number}{named}"
