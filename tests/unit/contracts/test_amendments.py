"""What ``diff`` calls widening, narrowing and neutral, member by member."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.amendments import Effect, classify
from convoy_contracts.cli import main
from convoy_contracts.document import Contract
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.testing import OEM, example_document

Json = dict[str, Any]
DRIVE = "urn:convoy:asset:drive"
WIDER, NARROWER, SAME = Effect.WIDENING, Effect.NARROWING, Effect.NEUTRAL


def field(document: Json) -> Json:
    """The first scheduled field."""
    found: Json = document["data"][0]["fields"][0]
    return found


CASES: list[tuple[str, Effect, Callable[[Json], object]]] = [
    ("title", SAME, lambda d: d.update(title="Another name")),
    ("term.notAfter", WIDER, lambda d: d["term"].update(notAfter="2028-12-01T00:00:00+08:00")),
    ("term.notAfter", NARROWER, lambda d: d["term"].update(notAfter="2027-06-01T00:00:00+08:00")),
    ("term.notAfter", SAME, lambda d: d["term"].update(notAfter="2027-11-30T16:00:00Z")),
    ("term.notBefore", NARROWER, lambda d: d["term"].update(notBefore="2026-12-02T00:00:00+08:00")),
    ("limits.maxGrade", WIDER, lambda d: d["limits"].update(maxGrade="C")),
    ("limits.maxGrade", NARROWER, lambda d: d["limits"].update(maxGrade="L1")),
    ("limits.maxRoundSeconds", WIDER, lambda d: d["limits"].update(maxRoundSeconds=10**6)),
    ("withdrawal.effective", WIDER, lambda d: d["withdrawal"].update(effective="next-round")),
    ("consent.notices", WIDER, lambda d: d["consent"]["notices"].append("drive@2")),
    ("cohort.minSubjects", WIDER, lambda d: d["cohort"].update(minSubjects=1)),
    ("cohort.minSubjects", NARROWER, lambda d: d["cohort"].update(minSubjects=99_999)),
    (f"parties.{OEM}.region", WIDER, lambda d: d["parties"][0].update(region="CN-HK")),
    (f"parties.{OEM}.region", SAME, lambda d: d["parties"][0].update(region="CN-GD")),
    (f"parties.{OEM}.pia", WIDER, lambda d: d["parties"][0].pop("pia")),
    ("parties", WIDER, lambda d: d["parties"].append({"id": "did:web:new", "roles": [], "region": "CN-SH"})),
    (f"data.{DRIVE}.fields", WIDER, lambda d: d["data"][0]["fields"].append(field(d) | {"name": "speed"})),
    (f"data.{DRIVE}.fields.harsh_brake.step", WIDER, lambda d: field(d).update(step="0.01")),
    (f"data.{DRIVE}.fields.harsh_brake.step", NARROWER, lambda d: field(d).update(step="1")),
    (f"data.{DRIVE}.fields.harsh_brake.grade", WIDER, lambda d: field(d).update(grade="L3")),
    (f"data.{DRIVE}.fields.harsh_brake.sensitive", WIDER, lambda d: field(d).update(sensitive=True)),
    (f"privacy.{DRIVE}.totalMicro", WIDER, lambda d: d["privacy"][DRIVE].update(totalMicro=10**8)),
    (f"privacy.{DRIVE}.totalMicro", NARROWER, lambda d: d["privacy"][DRIVE].update(totalMicro=1)),
    ("outputs.convoy:GlobalModel.recipients", NARROWER, lambda d: d["outputs"][0]["recipients"].pop()),
    ("outputs.convoy:GlobalModel.recipients", WIDER, lambda d: d["outputs"][0]["recipients"].append("did:web:x")),
    ("location.processing", WIDER, lambda d: d["location"]["processing"].append("HK")),
    ("permission.p1", NARROWER, lambda d: d["permission"][0]["constraint"].append(
        {"leftOperand": "elapsedRounds", "operator": "lteq", "rightOperand": 3})),
    ("permission.p1", WIDER, lambda d: d["permission"][0].update(action="use")),
    ("prohibition.added", NARROWER, lambda d: d["prohibition"].append({"uid": "added", "action": "convoy:infer"})),
    (f"prohibition.{example_document()['prohibition'][0]['uid']}", WIDER, lambda d: d["prohibition"].pop(0)),
    ("consent.reaskAfterDays", WIDER, lambda d: d["consent"].update(reaskAfterDays=30)),
    ("consent.reaskAfterDays", NARROWER, lambda d: d["consent"].update(reaskAfterDays=365)),
    ("duties.d9", NARROWER, lambda d: d.update(duties=[
        {"id": "d9", "bearer": "*", "kind": "delete", "trigger": "end", "withinHours": 1, "blocking": True}])),
]  # fmt: skip


def two(change: Callable[[Json], object]) -> tuple[Contract, Contract]:
    """The example and its second version with one change."""
    old = example_document()
    new = json.loads(json.dumps(old)) | {"version": 2}
    change(new)
    return Contract.parse(json.dumps(old)), Contract.parse(json.dumps(new))


@pytest.mark.parametrize(("where", "effect", "change"), CASES, ids=[f"{n}-{row[0]}" for n, row in enumerate(CASES)])
def test_a_change_is_named_with_its_effect(where: str, effect: Effect, change: Callable[[Json], object]) -> None:
    """One change, its place and what it does; persons are asked again exactly for a widening."""
    found = classify(*two(change))
    assert (where, effect) in {(one.where, one.effect) for one in found.changes}
    assert found.needs_consent == any(one.effect is WIDER for one in found.changes)


def test_the_same_contract_under_another_version_changes_nothing() -> None:
    """And order of members or spacing is no change."""
    assert classify(*two(lambda _: None)).changes == ()


def test_only_a_later_version_of_the_same_contract_is_compared() -> None:
    """Anything else is refused."""
    old, new = two(lambda _: None)
    with pytest.raises(ArgumentRefused, match="does not follow"):
        classify(new, old)
    with pytest.raises(ArgumentRefused, match="two contracts"):
        classify(old, two(lambda d: d.update(uid="urn:other"))[1])


def test_the_command_says_whether_persons_are_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text, JSON, and exit code 3 for scripts."""
    old = example_document()
    new = copy.deepcopy(old) | {"version": 2}
    new["limits"] = {"maxGrade": "C", "maxRoundSeconds": 60}
    for name, document in (("old", old), ("new", new)):
        (tmp_path / name).write_text(json.dumps(document), encoding="utf-8")
    files = [str(tmp_path / "old"), str(tmp_path / "new")]
    assert main(["diff", *files]) == 0
    text = capsys.readouterr().out
    assert "widening   limits.maxGrade" in text
    assert "re-consent" in text
    assert main(["diff", *files, "--json", "--exit-code"]) == 3
    assert json.loads(capsys.readouterr().out)["reconsent"] is True
