"""When duties are due: the catalogue's times, the contract's own, whichever is stricter, over a calendar of working days."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from convoy_contracts.document import Contract
from convoy_contracts.duties import CHINA, agreed, at_end, blocks, due_at, standing
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.testing import INSURERS, OEM, example_document

A = INSURERS[0]
FRIDAY = datetime(2027, 3, 5, 23, 59, tzinfo=CHINA)
WORKED_SATURDAY, HOLIDAY = date(2027, 3, 6), date(2027, 3, 8)


def calendar(day: date) -> bool:
    """Monday to Friday, with one shifted weekend and one holiday."""
    return day == WORKED_SATURDAY or (day.weekday() < 5 and day != HOLIDAY)


def duty(kind: str, trigger: str = "x", **members: Any) -> dict[str, Any]:
    """Return a duty of a contract; ten hours of everybody, unless said."""
    when = {} if "withinWorkingDays" in members else {"withinHours": 10}
    return (
        {"id": f"{kind}-{trigger}", "bearer": "*", "kind": kind, "trigger": trigger, "blocking": False} | when | members
    )


def contract(*duties: dict[str, Any]) -> Contract:
    """Return the example with these duties."""
    return Contract.parse(json.dumps(example_document() | {"duties": list(duties)}))


def test_working_days_count_shifted_weekends_and_leave_holidays_out() -> None:
    """The day itself does not count; the last day counts until its end in China."""
    # Saturday 6, Tuesday 9 to Friday 12, Monday 15 to Friday 19: ten, and Friday 19 is over at midnight.
    assert due_at("delete", FRIDAY, calendar) == datetime(2027, 3, 20, tzinfo=CHINA)


def test_hours_run_through_nights_and_holidays() -> None:
    """An incident does not wait for Monday."""
    assert due_at("notify", FRIDAY, calendar) == FRIDAY + timedelta(hours=2)


@pytest.mark.parametrize("kind", ["annual-automotive-report", "impact-assessment", "lunch"])
def test_what_the_calendar_brings_nobody_triggers(kind: str) -> None:
    """Only kinds that an event triggers have a time after it."""
    with pytest.raises(ArgumentRefused):
        due_at(kind, FRIDAY, calendar)


def test_a_contract_makes_a_duty_stricter_and_never_laxer() -> None:
    """The earlier time counts, in hours or working days; a duty blocks if catalogue or contract says so."""
    strict = agreed(contract(duty("delete", "withdrawal", withinWorkingDays=3, blocking=False)), A, "delete")
    assert due_at("delete", FRIDAY, calendar, strict) == datetime(2027, 3, 11, tzinfo=CHINA)
    assert blocks("delete", strict)
    lax = agreed(contract(duty("notify", withinHours=48)), A, "notify")
    assert due_at("notify", FRIDAY, calendar, lax) == FRIDAY + timedelta(hours=2)
    assert not blocks("notify", lax)
    assert blocks("explain", agreed(contract(duty("explain", blocking=True)), A, "explain"))


def test_a_duty_binds_its_bearer_and_its_kind_only() -> None:
    """Another party's, another kind's and, for deletions, another trigger's do not count."""
    found = contract(
        duty("delete", "end"),
        duty("delete", "withdrawal", bearer=OEM),
        duty("annual-report"),
        duty("explain", bearer=A),
    )
    assert [one.trigger for one in agreed(found, A, "delete-at-end")] == ["end"]
    assert agreed(found, A, "delete") == []
    assert [one.trigger for one in agreed(found, OEM, "delete")] == ["withdrawal"]
    assert len(agreed(found, OEM, "annual-automotive-report")) == 1
    assert len(agreed(found, A, "explain")) == 1
    assert agreed(found, OEM, "explain") == []
    assert agreed(None, A, "explain") == []


def kinds(found: Contract, party: str, role: str, now: datetime) -> dict[str, tuple[datetime, bool]]:
    """Return due instant and whether it blocks by kind; of several of a kind, the last."""
    return {one.kind: (one.due, one.is_blocking) for one in standing(found, party, role, now, calendar)}


def test_contract_and_calendar_bring_standing_duties_about() -> None:
    """The report by 15 December, fairness at each anniversary, the assessment's end, deletion after the term."""
    plain = contract()
    begin, end = (datetime.fromisoformat(text) for text in (plain.term.notBefore, plain.term.notAfter))
    running = kinds(plain, OEM, "oem", begin + timedelta(days=30))
    assert running["annual-automotive-report"][0].astimezone(CHINA) == datetime(
        (begin + timedelta(days=30)).astimezone(CHINA).year, 12, 16, tzinfo=CHINA
    )
    assert "fairness-report" not in running
    assert "delete-at-end" not in running
    assert "annual-automotive-report" not in kinds(plain, A, "insurer", begin + timedelta(days=30))
    over = kinds(plain, OEM, "oem", end)
    assert over["delete-at-end"] == (due_at("delete-at-end", end, calendar), True)


def test_a_contract_that_ends_before_its_term_asks_for_one_deletion() -> None:
    """From the instant of its end, under the id that the end of the term would give; of nobody who holds nothing of it."""
    plain = contract()
    begin, end = (datetime.fromisoformat(text) for text in (plain.term.notBefore, plain.term.notAfter))
    early = at_end(plain, OEM, begin + timedelta(days=30), calendar)
    assert early is not None
    assert early.due == due_at("delete-at-end", begin + timedelta(days=30), calendar)
    assert early.is_blocking
    assert early.id in {one.id for one in standing(plain, OEM, "oem", end, calendar)}
    assert at_end(plain, "did:web:trustee.example", end, calendar) is None
    named = contract(duty("delete", "end", bearer="*", withinHours=24))
    bound = at_end(named, "did:web:trustee.example", end, calendar)
    assert bound is not None
    assert bound.due == end + timedelta(hours=24)


def test_a_contract_may_name_other_bearers_and_times_of_standing_duties() -> None:
    """A carmaker that owes the fairness report by contract has it; the contract's own time after the year counts."""
    agreed_by_all = contract(
        duty("fairness-report", "year", withinWorkingDays=5, blocking=True), duty("delete", "end", withinWorkingDays=1)
    )
    end = datetime.fromisoformat(agreed_by_all.term.notAfter)
    year = datetime.fromisoformat(agreed_by_all.term.notBefore)
    year = year.replace(year=year.year + 1)
    found = kinds(agreed_by_all, OEM, "oem", end)
    due, is_blocking = found["fairness-report"]
    assert is_blocking
    assert due > year
    assert found["delete-at-end"][0] < due_at("delete-at-end", end, calendar)
