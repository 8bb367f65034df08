"""Timestamps and decimals as FORMAT.md §1 writes them; pure and total."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,6}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")
MICROSECONDS = 1_000_000


def instant(text: object) -> int | None:
    """Return a timestamp as microseconds on one UTC axis (year 1 = day 1), or None if it is no timestamp.

    An integer, because ``0001-01-01T00:00:00+08:00`` is a valid timestamp that ``datetime`` cannot hold in UTC.
    """
    return read_instant(text) if isinstance(text, str) else None


@lru_cache(maxsize=4096)
def read_instant(text: str) -> int | None:
    """Return ``instant(text)``; the same few timestamps come back in every decision."""
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, off_hour, off_minute = found.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        return None
    seconds = ((days * 24 + int(hour)) * 60 + int(minute)) * 60 + int(second)
    if sign is not None:
        offset = (int(off_hour) * 60 + int(off_minute)) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * MICROSECONDS + int((fraction or "").ljust(6, "0") or "0")


def timestamp(moment: datetime) -> str:
    """Write an aware datetime as a timestamp with its own offset, to the microsecond.

    Raises:
        ValueError: the datetime is naive.
    """
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs an offset")
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def decimal(text: object) -> Decimal | None:
    """Return a decimal string as an exact number, or None if it is none."""
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        return None
    return Decimal(text)
