"""Price curves that people read, and what changed between two versions of a model.

    changes(before, after) -> (Change, ...)       largest first; every factor of both models, exactly
    report(before, after)  -> Markdown            what a reviewer looks at before a release

A risk model is nothing but its factors (``RiskModel.table``, ``PairsModel.table``), so a diff of factors is a diff of the
model: nothing can change that is not listed. Released factors only; no privacy cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from convoy_models.risk.model import Factor

NOTICEABLE = 0.02
"""A change of a factor by less than this share is listed as a count only."""


class Priced(Protocol):
    """A model that is its table of factors."""

    def table(self) -> tuple[Factor, ...]:
        """Return the whole model as price factors."""


@dataclass(frozen=True, slots=True)
class Change:
    """One factor in two versions; None where a version does not have it."""

    cohort: str
    tower: str
    feature: str
    point: str
    before: float | None
    after: float | None

    @property
    def ratio(self) -> float:
        """The new factor over the old one; an absent factor counts as 1: it changes no price."""
        return (self.after if self.after is not None else 1.0) / (self.before if self.before is not None else 1.0)

    @property
    def size(self) -> float:
        """How far the price moves at this point, as |log ratio|."""
        return abs(math.log(self.ratio)) if self.ratio > 0 else math.inf


def changes(before: Priced, after: Priced) -> tuple[Change, ...]:
    """Return every factor of either version, the largest change first."""
    old = {(row.cohort, row.tower, row.feature, row.point): row.factor for row in before.table()}
    new = {(row.cohort, row.tower, row.feature, row.point): row.factor for row in after.table()}
    found = [Change(*place, old.get(place), new.get(place)) for place in dict.fromkeys([*old, *new])]
    return tuple(sorted(found, key=lambda change: -change.size))


def report(before: Priced, after: Priced, most: int = 40) -> str:
    """Return the diff as Markdown: the noticeable changes, largest first, and how many factors stayed."""
    found = changes(before, after)
    shown = [change for change in found if change.size > math.log1p(NOTICEABLE)]
    lines = [
        f"{len(shown)} of {len(found)} factors changed by more than {NOTICEABLE:.0%}",
        "",
        "| cohort | tower | feature | point | before | after | change |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.cohort} | {c.tower} | {c.feature} | {c.point} | {_text(c.before)} | {_text(c.after)} | {c.ratio - 1:+.1%} |"
        for c in shown[:most]
    ]
    if len(shown) > most:
        lines.append(f"| … | | {len(shown) - most} more | | | | |")
    return "\n".join(lines)


def curve(model: Priced, feature: str, cohort: str = "all", width: int = 40) -> str:
    """Return one feature's factors as lines of text with bars; ``|`` is factor 1."""
    rows = [row for row in model.table() if row.feature == feature and row.cohort == cohort]
    reach = max((abs(math.log(row.factor)) for row in rows), default=0.0) or 1.0
    longest = max((len(row.point) for row in rows), default=0)
    lines = []
    for row in rows:
        length = round(abs(math.log(row.factor)) / reach * width / 2)
        bar = (
            " " * (width // 2 - length) + "#" * length + "|"
            if row.factor < 1
            else " " * (width // 2) + "|" + "#" * length
        )
        lines.append(f"{row.point:<{longest}}  {row.factor:7.3f}  {bar}".rstrip())
    return "\n".join(lines)


def _text(factor: float | None) -> str:
    return "absent" if factor is None else f"{factor:.3f}"
