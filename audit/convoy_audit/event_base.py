"""What every event has: the base classes of the catalogue (``convoy_audit.events``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from convoy_audit import shapes
from convoy_audit.shapes import Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened; ``at`` is the author's clock, kept to the millisecond."""

    TYPE: ClassVar[str] = ""
    TITLES: ClassVar[tuple[str, str]] = ("", "")

    at: datetime

    def __post_init__(self) -> None:
        shapes.check(self)
        self.check_rules()

    def check_rules(self) -> None:
        """Check what the members say to each other; most events have no such rule.

        Raises:
            FormatError: they contradict each other.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedEvent(Event):
    """Something that a party did and answers for."""

    party: Token
