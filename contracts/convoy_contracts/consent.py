"""Consent as a record: the members of ISO/IEC TS 27560:2023 with the words of the W3C DPV guide, and the notice it rests on.

    Terms(...)                       what a person was told and said, as pure values
    state_of(...) -> dict            the part of it that an epoch commits to (``convoy_audit.consent``)
    record_json(...) -> dict         a consent record
    notice(contract, party) -> Notice    generated from the contract's own schedule, zh-CN and en, so that the two cannot differ

Pure: no clock, no files. A record is never edited; a change is a new record that names the one before.
What may never change: the members of ``state_of``; every epoch in the log commits to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from convoy_contracts.canonical import Json, digest
from convoy_contracts.document import Contract

RECORD_SCHEMA: Final = "convoy-consent/1 (ISO/IEC TS 27560:2023)"
State = Literal["requested", "given", "refused", "withdrawn"]
REASK_DAYS: Final = 180
"""Days after a refusal in which the person is not asked again, where the contract does not say."""
_DPV: Final = {
    "requested": "dpv:ConsentRequested",
    "given": "dpv:ConsentGiven",
    "refused": "dpv:ConsentRefused",
    "withdrawn": "dpv:ConsentWithdrawn",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What one person was told and said about one contract.

    Times are timestamps with an offset (FORMAT.md §1). ``until`` None: open-ended. ``age`` None: unknown, so the person counts
    nowhere. ``recipients``: sorted, by name.
    """

    notice: str
    purpose: str
    recipients: tuple[str, ...]
    given: str | None
    until: str | None
    withdrawn: str | None
    separate: bool
    age: int | None
    guardian: bool
    refused: bool

    @property
    def state(self) -> State:
        """The state as an event word; whether a term has run out is for the reader's clock."""
        if self.withdrawn is not None:
            return "withdrawn"
        if self.given is not None:
            return "given"
        return "refused" if self.refused else "requested"


def state_of(record: str, terms: Terms) -> dict[str, Json]:
    """Return what an epoch commits to; ``record`` is the record's id."""
    return {
        "record": record,
        "state": terms.state,
        "given": terms.given,
        "until": terms.until,
        "withdrawn": terms.withdrawn,
        "notice": terms.notice,
        "purpose": terms.purpose,
        "recipients": list(terms.recipients),
        "separate": terms.separate,
    }


def record_json(
    record: str,
    terms: Terms,
    *,
    contract: str,
    controller: str,
    subject: str,
    at: str,
    channel: str,
    previous: str | None = None,
    link_id: str | None = None,
    counterpart: str = "",
    evidence: str | None = None,
) -> dict[str, Json]:
    """Return a consent record with the sections of ISO/IEC TS 27560.

    Args:
        record: its id.
        terms: what was told and said.
        contract: uid of the contract.
        controller: the party that keeps the record.
        subject: the party's own id of the person; the record never leaves the node with it.
        at: when it was recorded.
        channel: how, such as app, car, hotline or import.
        previous: the record that this one follows.
        link_id: hex of the id that both holders were handed.
        counterpart: the other holder.
        evidence: digest of what shows the person's act, if any.
    """
    return {
        "schema": RECORD_SCHEMA,
        "recordId": record,
        "previousRecordId": previous,
        "piiPrincipal": {"id": subject, "ageAtConsent": terms.age, "guardianConsented": terms.guardian},
        "piiController": controller,
        "notice": {"id": terms.notice},
        "processing": {
            "contract": contract,
            "legalBasis": "dpv:Consent",
            "purpose": terms.purpose,
            "recipients": list(terms.recipients),
            "separateConsent": terms.separate,
            "linkId": link_id,
            "counterpart": counterpart or None,
        },
        "event": {
            "state": terms.state,
            "dpvState": _DPV[terms.state],
            "recordedAt": at,
            "channel": channel,
            "evidence": evidence,
            "given": terms.given,
            "validUntil": terms.until if terms.until is not None else "open-ended",
            "withdrawn": terms.withdrawn,
        },
    }


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person is shown before the consent: ``texts`` by language, bound by ``digest``."""

    contract: str
    version: int
    party: str
    texts: dict[str, str]
    digest: str


def asked_for(contract: Contract) -> tuple[list[str], list[str]]:
    """Return the purposes and the recipients that a contract asks a person to agree to, sorted."""
    purposes = sorted({purpose for rule in contract.permission for purpose in _purposes(rule.constraint)})
    return purposes, sorted({to for output in contract.outputs for to in output.recipients})


def notice(contract: Contract, party: str) -> Notice:
    """Write the notice of a contract for the persons of one party.

    Every line comes from the contract: purposes from its permissions, data from the schedule with precision and sensitivity,
    recipients by name, place, term, privacy budget, and when a withdrawal takes effect (PIPL Art. 14-17, 23, 30).
    """
    rows = [row for row in contract.data if row.provider == party]
    purposes, recipients = asked_for(contract)
    fields = [field for row in rows for field in row.fields]
    sensitive = [field.name for field in fields if field.sensitive]
    budgets = [contract.privacy[row.asset] for row in rows if row.asset in contract.privacy]
    epsilon = max((budget.totalMicro for budget in budgets), default=0)
    delta = max((budget.deltaNano for budget in budgets), default=0)
    facts: dict[str, Any] = {
        "title": contract.title or contract.uid,
        "uid": contract.uid,
        "version": contract.version,
        "party": party,
        "others": ", ".join(p.id for p in contract.parties if p.id != party),
        "purposes": ", ".join(purposes) or "-",
        "recipients": ", ".join(recipients) or "-",
        "places": ", ".join(contract.location.processing),
        "begin": contract.term.notBefore,
        "end": contract.term.notAfter,
        "epsilon": f"{epsilon / 1e6:.6f}".rstrip("0").rstrip("."),
        "delta": f"{delta / 1e9:g}",
        "sensitive": ", ".join(sensitive),
        "kinds": ", ".join(output.kind for output in contract.outputs),
    }
    at_once = contract.withdrawal.effective == "immediate"
    texts = {
        lang: _text(lang, facts, [(f.name, f.step, f.grade, f.sensitive) for f in fields], at_once) for lang in _WORDS
    }
    return Notice(contract.uid, contract.version, party, texts, digest(texts))


def _text(lang: str, facts: dict[str, Any], fields: Sequence[tuple[str, str, str, bool]], at_once: bool) -> str:
    words, mark = _WORDS[lang], _WORDS[lang]["mark"]
    before = ["head", "who", "purpose", "data"]
    after = ["how", "recipients", "place", "term", *(["separate"] if facts["sensitive"] else []), "withdraw"]
    after += ["at_once" if at_once else "next", "rights", "age"]
    listed = [
        words["field"].format(name=name, step=step, grade=grade, mark=mark if is_sensitive else "")
        for name, step, grade, is_sensitive in fields
    ]
    lines = [words[key].format(**facts) for key in before] + listed + [words[key].format(**facts) for key in after]
    return "\n".join(lines) + "\n"


_WORDS: Final = {
    "en": {
        "head": "Notice for {title} (contract {uid}, version {version})",
        "who": "Who asks: {party}. The other parties: {others}.",
        "purpose": "What for: {purposes}.",
        "data": "Which data, with the finest precision that is used and its grade:",
        "field": "  - {name}: step {step}, grade {grade}{mark}",
        "mark": ", sensitive",
        "how": "How: {party} computes on your data at its own place. What it sends is masked or sealed and can be read only as noisy"
        " sums over many persons; over the whole contract one person costs at most epsilon {epsilon} at delta {delta}, towards the"
        " coordinator and every recipient. What comes out: {kinds}.",
        "recipients": "Who receives what comes out: {recipients}.",
        "place": "Where it is processed: {places}.",
        "term": "The contract runs from {begin} until {end}. You set the end of your consent yourself.",
        "separate": "Sensitive data ({sensitive}) need your separate consent.",
        "withdraw": "You may withdraw at any time, as easily as you consented, without a reason and without a disadvantage.",
        "at_once": "A withdrawal takes effect at once: no run goes on with you in it, and none that is authorised later has you.",
        "next": "A withdrawal takes effect from the next run: none that is authorised later has you.",
        "rights": "You may ask which contracts, runs and model versions used your data, and have your data deleted.",
        "age": "Under 14 years a guardian has to consent. Saying no has no consequence; you will not be asked again soon.",
    },
    "zh-CN": {
        "head": "《{title}》告知书（合约 {uid}，第 {version} 版）",
        "who": "征求同意方：{party}。其他参与方：{others}。",
        "purpose": "处理目的：{purposes}。",
        "data": "所涉数据、所用的最高精度及分级：",
        "field": "  - {name}：步长 {step}，分级 {grade}{mark}",
        "mark": "，敏感",
        "how": "处理方式：{party} 在其自有场所处理您的数据；对外发送的内容均经掩码或密封，只能以覆盖众多个人且加入噪声的汇总值被读取；"
        "在整个合约期内，相对于协调方和每个接收方，每个人的隐私消耗不超过 ε = {epsilon}（δ = {delta}）。产出：{kinds}。",
        "recipients": "产出的接收方：{recipients}。",
        "place": "处理地域：{places}。",
        "term": "合约期限：自 {begin} 起至 {end} 止。您可自行设定同意的截止时间。",
        "separate": "敏感数据（{sensitive}）须取得您的单独同意。",
        "withdraw": "您可随时撤回同意，与给出同意同样便捷，无须说明理由，也不会因此受到不利对待。",
        "at_once": "撤回立即生效：进行中的训练不再继续使用您的数据，此后授权的训练均不包含您。",
        "next": "撤回自下一次训练起生效：此后授权的训练均不包含您。",
        "rights": "您可查询哪些合约、训练和模型版本使用过您的数据，并可要求删除您的数据。",
        "age": "未满十四周岁须由监护人同意。拒绝不会产生任何后果，且短期内不会再次询问。",
    },
}


def _purposes(constraints: Sequence[dict[str, Any]]) -> list[str]:
    found: list[str] = []
    for constraint in constraints:
        if constraint.get("leftOperand") == "purpose":
            right = constraint.get("rightOperand")
            found += [str(p) for p in (right if isinstance(right, list) else [right])]
    return found
