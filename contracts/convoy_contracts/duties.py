"""Duties with due dates: what follows from a contract, a withdrawal or an incident, and by when.

    KINDS                                   the catalogue: title (en, zh), what it rests on, its time, whether it blocks runs
    agreed(contract, party, kind)           what a contract's own ``duties`` (clause 13) say about a kind
    due_at(kind, since, is_working_day)     for a duty that an event triggers
    standing(contract, party, roles, now)   for duties that the contract and the calendar bring about by themselves
    at_end(contract, party, end)            for the deletion that the end of a contract brings about, at its term or before

What a contract agrees can only be stricter than the catalogue: the earlier of the two times counts, and a duty blocks runs if
either says so. Pure: the calendar of working days is a function that the caller hands in. Days are days in China (UTC+8), and a
time is over at its due instant (half-open, FORMAT.md §1): "by 15 December" is due at midnight after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final, Literal

from convoy_contracts.document import Contract
from convoy_contracts.document import Duty as AgreedDuty
from convoy_contracts.errors import ArgumentRefused
from convoy_contracts.instants import timestamp

CHINA: Final = timezone(timedelta(hours=8))
Unit = Literal["hours", "working-days", "yearly", "date"]
IsWorkingDay = Callable[[date], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of duty; ``amount`` counts its unit, ``roles`` are who bears it where the calendar triggers it."""

    name: str
    titles: tuple[str, str]
    basis: str
    unit: Unit
    amount: int
    is_blocking: bool
    roles: tuple[str, ...] = ()


_LIST: Final = (
    Kind(
        "explain",
        ("Explain a decision to the person", "向个人说明自动化决策"),
        "PIPL Art. 24(3), 44-48",
        "hours",
        72,
        is_blocking=False,
    ),
    Kind(
        "delete",
        ("Delete a withdrawn person's data", "删除撤回同意者的数据"),
        "Automotive provisions Art. 9; PIPL Art. 47",
        "working-days",
        10,
        is_blocking=True,
    ),
    Kind(
        "notify",
        ("Tell the partners of an incident", "向合作方通报安全事件"),
        "PIPL Art. 57",
        "hours",
        2,
        is_blocking=False,
    ),
    Kind(
        "delete-at-end",
        ("Delete features when the contract has ended", "合约终止后删除特征数据"),
        "PIPL Art. 21, 47",
        "working-days",
        10,
        is_blocking=True,
    ),
    Kind(
        "impact-assessment",
        ("Renew the impact assessment", "更新个人信息保护影响评估"),
        "PIPL Art. 55-56",
        "date",
        0,
        is_blocking=True,
    ),
    Kind(
        "fairness-report",
        ("Report on fairness by group", "提交分组公平性报告"),
        "PIPL Art. 24(1)",
        "yearly",
        0,
        is_blocking=False,
        roles=("insurer",),
    ),
    Kind(
        "annual-automotive-report",
        ("Annual report on automotive data, by 15 December", "汽车数据安全管理年度报告（12月15日前）"),
        "Automotive provisions Art. 13",
        "yearly",
        0,
        is_blocking=False,
        roles=("oem", "charging"),
    ),
)
KINDS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _LIST}


@dataclass(frozen=True, slots=True)
class Duty:
    """One duty of one party; ``id`` says nothing about a person. ``due`` is a timestamp (FORMAT.md §1)."""

    id: str
    kind: str
    bearer: str
    contract: str
    due: datetime
    is_blocking: bool
    is_fulfilled: bool = False

    def is_overdue(self, now: datetime) -> bool:
        """Whether the time is over and nothing shows that the duty was done."""
        return not self.is_fulfilled and self.due <= now

    def world(self) -> dict[str, Any]:
        """Return the duty as a decision's world has it (FORMAT.md §2)."""
        return {
            "id": self.id,
            "bearer": self.bearer,
            "due": timestamp(self.due),
            "blocking": self.is_blocking,
            "fulfilled": self.is_fulfilled,
        }


EVERY_PARTY: Final = "*"
AT_END: Final = "end"
"""The trigger of a contract's ``delete`` duty that makes it one for the end of the contract; every other one is for a person."""


def kind_of(duty: AgreedDuty) -> str:
    """Return the catalogue's name for the kind of a contract's duty."""
    if duty.kind == "delete" and duty.trigger == AT_END:
        return "delete-at-end"
    return "annual-automotive-report" if duty.kind == "annual-report" else duty.kind


def agreed(contract: Contract | None, party: str, kind: str) -> list[AgreedDuty]:
    """Return the duties of a kind that a contract has a party bear; none without a contract."""
    listed = (contract.duties or ()) if contract is not None else ()
    return [duty for duty in listed if kind_of(duty) == kind and duty.bearer in (party, EVERY_PARTY)]


def blocks(kind: str, own: Sequence[AgreedDuty] = ()) -> bool:
    """Whether a duty of this kind stops all runs when it is overdue."""
    return KINDS[kind].is_blocking or any(duty.blocking for duty in own)


def due_at(kind: str, since: datetime, is_working_day: IsWorkingDay, own: Sequence[AgreedDuty] = ()) -> datetime:
    """Return by when a duty is due that something triggered at ``since``.

    Args:
        kind: one that an event triggers.
        since: aware.
        is_working_day: the calendar.
        own: what the contract agrees about it (``agreed``); the earliest time counts.

    Raises:
        ArgumentRefused: no kind that an event triggers.
    """
    found = KINDS.get(kind)
    if found is None or found.unit not in ("hours", "working-days"):
        raise ArgumentRefused(
            f"{kind!r} is no duty that an event triggers.",
            fix=f"Use one of {', '.join(k.name for k in _LIST if k.unit in ('hours', 'working-days'))}.",
        )
    times: list[tuple[int | None, int | None]]
    times = [(found.amount, None) if found.unit == "hours" else (None, found.amount)]
    times += [(duty.withinHours, duty.withinWorkingDays) for duty in own]
    return min(_over(since, hours, days, is_working_day) for hours, days in times)


def _over(since: datetime, hours: int | None, days: int | None, is_working_day: IsWorkingDay) -> datetime:
    """Return the instant at which a time is over that has hours or working days."""
    return since + timedelta(hours=hours) if hours else after_working_days(since, days or 0, is_working_day)


def after_working_days(since: datetime, days: int, is_working_day: IsWorkingDay) -> datetime:
    """Return the midnight (China) that ends the ``days``-th working day after the day of ``since``."""
    day = since.astimezone(CHINA).date()
    while days > 0:
        day += timedelta(days=1)
        days -= is_working_day(day)
    return midnight_after(day)


def midnight_after(day: date) -> datetime:
    """Return the instant at which a day in China is over."""
    return datetime.combine(day + timedelta(days=1), time(), CHINA)


def standing(contract: Contract, party: str, role: str, now: datetime, is_working_day: IsWorkingDay) -> list[Duty]:
    """Return the duties that a contract and the calendar bring a party: those of the past and of this year.

    Args:
        contract: signed by the party.
        party: its id.
        role: oem, insurer, charging or trustee.
        now: aware.
        is_working_day: the calendar.
    """
    begin, end = datetime.fromisoformat(contract.term.notBefore), datetime.fromisoformat(contract.term.notAfter)
    found = []

    def add(kind: str, number: str, due: datetime) -> None:
        own = agreed(contract, party, kind)
        if KINDS[kind].roles and role not in KINDS[kind].roles and not own:
            return
        found.append(Duty(_name(contract, kind, number), kind, party, contract.uid, due, blocks(kind, own)))

    member = contract.party(party)
    if member is not None and member.pia is not None:
        add("impact-assessment", f"v{contract.version}", datetime.fromisoformat(member.pia.validUntil))
    for year in range(begin.astimezone(CHINA).year, min(now.astimezone(CHINA).year, end.astimezone(CHINA).year) + 1):
        report = midnight_after(date(year, 12, 15))
        if begin < report:
            add("annual-automotive-report", str(year), report)
    for number in range(1, 30):
        yearly = _years_later(begin, number)
        if yearly > min(end, now + timedelta(days=366)):
            break
        reports = [  # no law names a day, so the contract's own time counts
            _over(yearly, duty.withinHours, duty.withinWorkingDays, is_working_day)
            for duty in agreed(contract, party, "fairness-report")
        ]
        add("fairness-report", str(number), min(reports, default=yearly))
    if end <= now and (deletion := at_end(contract, party, end, is_working_day)) is not None:
        found.append(deletion)
    return found


def at_end(contract: Contract, party: str, end: datetime, is_working_day: IsWorkingDay) -> Duty | None:
    """Return the deletion that a contract's end asks of a party that provides data or is named as its bearer; None of others.

    Args:
        contract: signed by the party.
        party: its id.
        end: aware; of the term, or the instant of a termination before it. The duty's id is the same for both.
        is_working_day: the calendar.
    """
    kind: Final = "delete-at-end"
    own = agreed(contract, party, kind)
    if not own and all(row.provider != party for row in contract.data):
        return None
    name = _name(contract, kind, f"v{contract.version}")
    return Duty(name, kind, party, contract.uid, due_at(kind, end, is_working_day, own), blocks(kind, own))


def titles(kinds: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return the titles of some kinds, English and Chinese."""
    return {name: KINDS[name].titles for name in kinds}


def _name(contract: Contract, kind: str, number: str) -> str:
    return f"{kind}:{number}:{contract.digest.removeprefix('sha256:')[:12]}"


def _years_later(moment: datetime, years: int) -> datetime:
    try:
        return moment.replace(year=moment.year + years)
    except ValueError:  # 29 February
        return moment.replace(year=moment.year + years, day=28)
