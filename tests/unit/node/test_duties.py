"""The duty desk of a node: the Chinese calendar, and what a signed contract makes stricter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from convoy_audit.testing import MemoryLog
from convoy_contracts.document import Contract
from convoy_contracts.duties import CHINA
from convoy_contracts.testing import INSURERS, example_document
from convoy_node.consent.office import ConsentOffice
from convoy_node.duties import DutyDesk, is_working_day
from convoy_node.setup import create_home

NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
PARTY = INSURERS[0]
AGREED: list[dict[str, Any]] = [
    {"id": "d1", "bearer": "*", "kind": "delete", "trigger": "withdrawal", "withinWorkingDays": 2, "blocking": True},
    {"id": "d2", "bearer": PARTY, "kind": "explain", "trigger": "price", "withinHours": 24, "blocking": True},
]


@pytest.mark.parametrize(
    ("day", "works"),
    [
        ((2026, 2, 14), True),  # a Saturday that is worked for the Spring Festival
        ((2026, 2, 15), False),
        ((2026, 2, 23), False),
        ((2026, 2, 24), True),
        ((2026, 2, 28), True),
        ((2026, 9, 20), True),  # a Sunday that is worked for the National Day
        ((2026, 10, 7), False),
        ((2026, 10, 8), True),
        ((2026, 12, 5), False),
    ],
)
def test_the_calendar_knows_holidays_and_shifted_weekends(day: tuple[int, int, int], works: bool) -> None:
    """As the State Council announced them for 2026."""
    assert is_working_day(date(*day)) is works


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[DutyDesk]:
    """The desk of a node that has signed the example with duties of its own."""
    home = tmp_path / "home"
    create_home(
        home, party=PARTY, role="insurer", region="CN-SH", log_keys=[MemoryLog("duties.example/log").vkeys[0]],
        data_source="rows.csv", asset="urn:convoy:asset:book:0", asset_fields={}, asset_year_cap_micro=6_000_000, now=NOW,
    )  # fmt: skip
    text = json.dumps(
        example_document() | {"duties": AGREED, "consent": example_document()["consent"] | {"reaskAfterDays": 3}}
    )
    folder = home / "contracts" / Contract.parse(text).digest.removeprefix("sha256:")
    folder.mkdir(parents=True)
    (folder / "contract.json").write_text(text, encoding="utf-8")
    with ConsentOffice.open(home, lambda: NOW) as office, DutyDesk.open(home, office) as opened:
        yield opened


def test_the_signed_contract_makes_deadlines_shorter_and_duties_blocking(desk: DutyDesk) -> None:
    """Two working days instead of ten, one day instead of three; the decision's world has what was agreed."""
    uid = example_document()["uid"]
    deletion = desk.raise_duty("delete", uid, NOW, subject="P1", state=False)
    assert deletion.due == datetime(2027, 3, 4, tzinfo=CHINA)
    explained = desk.raise_duty("explain", uid, NOW, state=False)
    assert (explained.due - NOW).total_seconds() == 24 * 3600
    world = {one["id"]: one["blocking"] for one in desk.world(uid, NOW)}
    assert world[deletion.id]
    assert world[explained.id]
    elsewhere = desk.raise_duty("explain", "urn:other", NOW, state=False)
    assert ((elsewhere.due - NOW).total_seconds(), elsewhere.is_blocking) == (72 * 3600, False)


def test_a_refusal_silences_the_question_for_the_contracts_own_time(desk: DutyDesk) -> None:
    """Three days here; half a year where no contract says anything."""
    office = desk._office
    assert office.reask_days(example_document()["uid"]) == 3
    assert office.reask_days("urn:other") == 180
