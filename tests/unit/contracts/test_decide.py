"""The decision engine on the worked examples and on the edges of single rules."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.decide import REASONS, decide
from convoy_contracts.decide.gates import territory


@pytest.fixture
def cases(shared: Path) -> list[dict[str, Any]]:
    """The public worked examples."""
    files = sorted((shared / "contract-cases" / "public").glob("*.json"))
    return [json.loads(f.read_text(encoding="utf-8")) for f in files]


@pytest.fixture
def baseline(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """C01: everything is allowed."""
    return copy.deepcopy(next(c["world"] for c in cases if c["id"] == "C01"))


def test_every_worked_example_is_decided_as_expected(cases: list[dict[str, Any]]) -> None:
    """All public examples: allow, ordered reasons, obligations."""
    assert len(cases) >= 45
    for case in cases:
        got = decide(case["world"]).as_json()
        want = case["expect"] | {"obligations": sorted(case["expect"]["obligations"])}
        assert got == want, case["id"]


def test_there_are_57_reason_codes_in_order() -> None:
    """The table of FORMAT.md §6 is complete."""
    assert [r.number for r in REASONS.values()] == list(range(1, 58))


@pytest.mark.parametrize("junk", [None, 1, "x", [], {}, {"now": 3}, {"now": "2027-03-01T10:00:00"}])
def test_a_world_without_a_readable_instant_is_refused_first(junk: object) -> None:
    """Code 1 (a) wins over everything else."""
    assert decide(junk).reasons == ("CLOCK_UNTRUSTED",)


def test_a_doubtful_clock_does_not_hide_other_reasons(baseline: dict[str, Any]) -> None:
    """Code 1 (b) goes on."""
    baseline["node"]["clockOk"] = False
    baseline["request"]["round"] = 6
    assert decide(baseline).reasons == ("CLOCK_UNTRUSTED", "ROUND_NOT_MONOTONIC")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w["request"].update(round=7.0),
        lambda w: w["request"].update(round=True),
        lambda w: w["request"].update(assets=[]),
        lambda w: w["request"]["fields"].update(other=["x"]),
        lambda w: w["vocabulary"]["purposes"].update({"convoy:Any": "convoy:DirectMarketing"}),
        lambda w: w["vocabulary"]["purposes"].update({"a": "nowhere"}),
        lambda w: w["events"].append(
            {"uid": "u", "seq": 1, "type": "explode", "by": "*", "at": w["now"]},
        ),
        lambda w: w["node"].pop("lastRound"),
        lambda w: w["node"]["consent"]["subjects"][0].update(n=0),
        lambda w: w["node"]["budget"]["urn:convoy:asset:cpo:charge:2"].update(spent=-1),
        lambda w: w["request"].update(precision={"night_share": "0.10e1"}),
        lambda w: w["request"].update(issuedAt="2027-03-01T09:59:60+08:00"),
        lambda w: w["request"].update(purpose="\ud800"),
        lambda w: w["request"].update(unread=3600.0),
        lambda w: w["node"].update(unread=[{"deep": 1e3}]),
        lambda w: w["vocabulary"].update(unread=2**53),
        lambda w: w["keys"]["k-oem-1"].update(unread=0.5) if "k-oem-1" in w["keys"] else w["keys"].update(a=1),
        lambda w: w["request"].update(contractDigest=w["request"]["contractDigest"].upper()),
        lambda w: w["request"].update(nodeRegions=[]),
        lambda w: w["request"].update(recipients=[""]),
        lambda w: w["request"].update(round=0),
        lambda w: w["request"].update(deltaNano=None),
        lambda w: w["node"].update(seenNonces=None),
        lambda w: w["node"].update(authorised={"07": {"at": w["now"], "scope": "sha256:" + "0" * 64}}),
        lambda w: w["node"].update(clockOk=1),
        lambda w: w["node"]["consent"]["subjects"][0].update(person="p", n=2),
        lambda w: w["node"]["consent"]["subjects"][0].pop("given"),
        lambda w: w.pop("duties"),
        lambda w: w.update(contract_text=None),
    ],
)
def test_a_malformed_world_has_that_one_reason(baseline: dict[str, Any], spoil: Any) -> None:
    """Code 2 stops."""
    spoil(baseline)
    decision = decide(baseline)
    assert decision.reasons == ("INPUT_MALFORMED",)
    assert decision.obligations == ()


@pytest.mark.parametrize(
    "add",
    [
        lambda w: w.update(remark="unread"),
        lambda w: w["request"].update(remark={"a": [1, None, True]}),
        lambda w: w["node"].update(remark=-(2**53) + 1),
        lambda w: w["signatures"].append({"party": "did:web:nobody", "sigT": 1.5}),
        lambda w: w["signatures"][0].update(remark=0.5),
        lambda w: w["events"].append({"uid": "urn:other", "seq": 1, "type": "terminate", "by": "*", "at": w["now"]}),
    ],
)
def test_unknown_members_and_what_concerns_others_are_ignored(baseline: dict[str, Any], add: Any) -> None:
    """The world is open where the contract is closed (FORMAT.md §1)."""
    add(baseline)
    assert decide(baseline).allow


@pytest.mark.parametrize(
    ("region", "expected"),
    [("CN-SH", "CN"), ("CN", "CN"), ("CN-HK", "HK"), ("CN-HK-1", "HK"), ("CN-HKX", "CN"), ("DE-BY", "DE")],
)
def test_territories_follow_the_table(region: str, expected: str) -> None:
    """CN-HK, CN-MO and CN-TW are territories of their own."""
    assert territory(region) == expected


def test_equality_with_a_budget_is_allowed_and_one_more_is_not(baseline: dict[str, Any]) -> None:
    """Gates 52-54 allow equality."""
    asset = "urn:convoy:asset:oem:drive:4"
    baseline["request"]["epsilonMicro"][asset] = 200_000
    baseline["node"]["budget"][asset]["spent"] = 2_800_000
    assert decide(baseline).allow
    baseline["node"]["budget"][asset]["spent"] += 1
    assert decide(baseline).reasons == ("BUDGET_EXHAUSTED",)


def test_the_command_explains_in_both_languages(shared: Path, tmp_path: Path) -> None:
    """``--explain`` names clause and fix; ``--exit-code`` makes a refusal exit 3."""
    case = json.loads((shared / "contract-cases/public/C75.json").read_text(encoding="utf-8"))
    world = tmp_path / "world.json"
    world.write_text(json.dumps(case["world"]), encoding="utf-8")
    for language, word in (("en", "fix:"), ("zh", "处理")):
        done = subprocess.run(
            [sys.executable, "-m", "convoy_contracts.cli", "decide", str(world), "--explain", language, "--exit-code"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 3
        assert word in done.stdout
        assert "COHORT_TOO_SMALL" in done.stdout
