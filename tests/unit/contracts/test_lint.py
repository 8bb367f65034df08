"""Lint: templates are clean, each fault of the list is found where it is, and all faults come at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.build import Member
from convoy_contracts.canonical import b64u
from convoy_contracts.cli import EXIT_FAULT, EXIT_OK, main
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.lint import lint
from convoy_contracts.templates import draft

OEM, CPO, TRUSTEE = "did:web:oem", "did:web:cpo", "did:web:trustee"
INSURERS = [f"did:web:insurer-{n}" for n in "abc"]
PIA = ("PIA-1", "2028-06-01T00:00:00+08:00")
KEY = b64u(bytes(range(32)))
MEMBERS = [
    Member(OEM, "oem", "CN-SH", mask_key=KEY, pia=PIA),
    *(Member(party, "insurer", "CN-BJ", mask_key=KEY, pia=PIA) for party in INSURERS),
    Member(CPO, "charging", "CN-GD", mask_key=KEY, pia=PIA),
    Member(TRUSTEE, "trustee", "CN-SH", mask_key=KEY),
]
TERM = {
    "offer_until": "2026-12-20T00:00:00+08:00", "not_before": "2027-01-01T00:00:00+08:00",
    "not_after": "2028-01-01T00:00:00+08:00",
}  # fmt: skip
Document = dict[str, Any]


def made(template: str = "risk") -> Document:
    """A draft from a template, as fresh JSON values."""
    document = draft(template, uid="urn:convoy:contract:x", nonce="n", parties=MEMBERS, **TERM)
    return dict(json.loads(json.dumps(document)))


def codes(document: Document) -> set[str]:
    """The codes that lint finds, the text's aside: any change unbinds it."""
    return {fault.code for fault in lint(json.dumps(document, ensure_ascii=False))} - {"TEXT_NOT_BOUND"}


def first_field(document: Document) -> Document:
    """The first scheduled field."""
    field: Document = document["data"][0]["fields"][0]
    return field


@pytest.mark.parametrize("template", ["risk", "recommendation", "bundle"])
def test_a_template_has_no_faults(template: str) -> None:
    """What ``convoy-contracts new`` prints can be signed."""
    assert lint(json.dumps(made(template), ensure_ascii=False)) == []


def test_a_template_says_whom_it_lacks() -> None:
    """Parties that are missing are named before anything is drafted."""
    with pytest.raises(ArgumentRefused, match="insurer"):
        draft("risk", uid="u", nonce="n", parties=MEMBERS[:2], **TERM)


FAULTS: list[tuple[str, Callable[[Document], object]]] = [
    ("GRADE_UNKNOWN", lambda d: first_field(d).update(grade="L9")),
    ("GRADE_EXCEEDS", lambda d: d["limits"].update(maxGrade="L1")),
    ("UNKNOWN_TERM", lambda d: d["permission"][0].update(action="convoy:dance")),
    ("UNKNOWN_TERM", lambda d: d["permission"][0]["constraint"].append(
        {"leftOperand": "purpose", "operator": "isA", "rightOperand": "convoy:Nonsense"})),
    ("UNKNOWN_TERM", lambda d: d["prohibition"].append({"uid": "all", "action": "convoy:use"})),
    ("ASSET_UNKNOWN", lambda d: d["prohibition"].append({"uid": "x9", "action": "convoy:price", "target": ["urn:no"]})),
    ("PARTY_UNKNOWN", lambda d: d["permission"][0]["assignee"].append("did:web:stranger")),
    ("ASSET_UNKNOWN", lambda d: d["permission"][0]["target"].append("urn:nothing")),
    ("ASSET_UNUSED", lambda d: [rule["target"].remove(d["data"][0]["asset"]) for rule in d["permission"]]),
    ("PERMISSION_UNREACHABLE", lambda d: d["permission"][0].update(assignee=[])),
    ("PERMISSION_UNREACHABLE", lambda d: d["permission"][0].update(target=[])),
    ("PERMISSION_UNREACHABLE", lambda d: d["permission"][0]["constraint"].append(
        {"leftOperand": "algorithm", "operator": "isAnyOf", "rightOperand": ["other"]})),
    ("PERMISSION_UNREACHABLE", lambda d: d["permission"][0]["constraint"].append(
        {"leftOperand": "elapsedRounds", "operator": "lteq", "rightOperand": 0})),
    ("PERMISSION_UNREACHABLE", lambda d: d["prohibition"].append({"uid": "all", "action": "convoy:train"})),
    ("FIELD_WITHOUT_NECESSITY", lambda d: first_field(d).pop("necessity")),
    ("SENSITIVE_WITHOUT_SEPARATE_CONSENT", lambda d: (first_field(d).update(sensitive=True),
                                                      d["consent"].pop("separateNotices", None))),
    ("TIER_EXCEEDED", lambda d: d["parties"][1].update(tier="T0")),
    ("EXPORT_WITHOUT_RECORD", lambda d: d["parties"][0].update(region="CN-HK")),
    ("EXPORT_WITHOUT_RECORD", lambda d: d["outputs"][0]["recipients"].append("did:web:abroad")),
    ("EXPORT_ENDS_EARLY", lambda d: d["location"].update(export={
        "mechanism": "contract", "validUntil": "2027-06-01T00:00:00+08:00", "recipients": [OEM]})),
    ("ASSET_WITHOUT_OWNER", lambda d: d["data"][0].update(provider="did:web:gone")),
    ("ASSET_EMPTY", lambda d: d["data"][0].update(fields=[])),
    ("BUDGET_NOT_DEFINED", lambda d: d["privacy"].pop(d["data"][0]["asset"])),
    ("BUDGET_CANNOT_COVER_ONE_RUN", lambda d: next(iter(d["privacy"].values())).update(totalMicro=1)),
    ("PIA_MISSING", lambda d: d["parties"][0].pop("pia")),
    ("OFFER_AFTER_TERM", lambda d: d.update(offerUntil="2029-01-01T00:00:00+08:00")),
    ("TOO_FEW_INSURERS", lambda d: [party.update(roles=["convoy:Controller"]) for party in d["parties"][1:3]]),
    ("TRUSTEE_MISSING", lambda d: d["parties"][-1].update(roles=["convoy:Auditor"])),
    ("MASK_KEY_MISSING", lambda d: d["parties"][0].pop("maskKey")),
    ("DOCUMENT_MALFORMED", lambda d: d.update(weather="fine")),
]  # fmt: skip


@pytest.mark.parametrize(("code", "spoil"), FAULTS, ids=[f"{n}-{row[0]}" for n, row in enumerate(FAULTS)])
def test_each_fault_is_found(code: str, spoil: Callable[[Document], object]) -> None:
    """One change to a clean draft, one code at least; every fault says where, what and what to do."""
    document = made()
    spoil(document)
    found = lint(json.dumps(document, ensure_ascii=False))
    assert code in {fault.code for fault in found}
    assert all(fault.where and fault.cause and fault.fix for fault in found)


def test_a_draft_with_many_faults_names_all_of_them_at_once() -> None:
    """Also those behind an unknown member, which does not hide the rest."""
    document = made()
    wanted = {
        "DOCUMENT_MALFORMED",
        "FIELD_WITHOUT_NECESSITY",
        "PIA_MISSING",
        "EXPORT_WITHOUT_RECORD",
        "MASK_KEY_MISSING",
    }
    document["weather"] = "fine"
    document["algorithms"][0]["specification"]["towers"][0]["mood"] = 3
    first_field(document).pop("necessity")
    first_field(document)["colour"] = "red"
    document["parties"][0].pop("pia")
    document["parties"][0].pop("maskKey")
    document["parties"][1]["region"] = "DE-BY"
    before = copy.deepcopy(document)
    assert wanted <= codes(document)
    assert document == before
    malformed = [fault for fault in lint(json.dumps(document)) if fault.code == "DOCUMENT_MALFORMED"]
    assert len(malformed) >= 3


def test_the_command_prints_every_fault_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text for people, JSON for programs, 0 without faults."""
    path = tmp_path / "draft.json"
    path.write_text(json.dumps(made(), ensure_ascii=False), encoding="utf-8")
    assert main(["lint", str(path)]) == EXIT_OK
    document = made()
    document["parties"][0].pop("pia")
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    capsys.readouterr()
    assert main(["lint", str(path), "--json"]) == EXIT_FAULT
    printed = json.loads(capsys.readouterr().out)
    assert {"PIA_MISSING", "TEXT_NOT_BOUND"} <= {fault["code"] for fault in printed}
    assert main(["lint", str(path)]) == EXIT_FAULT
    assert "fix:" in capsys.readouterr().out
    assert main(["lint", str(path), "--language", "zh"]) == EXIT_FAULT
    assert "PIA_MISSING" in (shown := capsys.readouterr().out)
    assert "处理：" in shown
