"""The columns that a contract's specification expects of a party, by name and kind.

expected_columns(specification, role) -> (Column, ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from convoy_contracts.specification import (
    Cuts,
    Knots,
    Levels,
    PairsSpecification,
    RecommendSpecification,
    SeveritySpecification,
    Specification,
    TowersSpecification,
)

Kind = Literal["numeric", "integer", "text", "list", "claims", "exposure"]

HISTORY: Final = "items"
"""The charging operator's column: a list of item ids per person; in CSV, separated by ``;``."""
MAX_EXPOSURE_YEARS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Column:
    """A column that the contract expects.

    ``kind``: *claims* is a whole number >= 0, *exposure* years in (0, 10]. ``levels``: the values
    that a text may have; empty means any.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()


def expected_columns(specification: Specification, role: str) -> tuple[Column, ...]:
    """Return what a party of this role must have for a specification; () if it holds no data."""
    if isinstance(specification, RecommendSpecification):
        if role == "charging":
            return (Column(HISTORY, "list", specification.items),)
        return tuple(Column(f.name, "numeric") for f in specification.profile) if role == "oem" else ()
    features: list[Knots | Cuts | Levels] = []
    if isinstance(specification, TowersSpecification):
        return (
            (Column(HISTORY, "list", specification.items), *map(_column, specification.profile))
            if role == "charging"
            else ()
        )
    if isinstance(specification, PairsSpecification):
        features += specification.features if role == "insurer" else ()
    else:
        features += [feature for tower in specification.towers if tower.role == role for feature in tower.features]
    columns = [_column(feature) for feature in features]
    if role == "insurer":
        seen = (
            Column(specification.amount, "numeric")
            if isinstance(specification, SeveritySpecification)
            else Column(specification.exposure, "exposure")
        )
        columns += [Column(specification.claims, "claims"), seen]
    return tuple(columns)


def _column(feature: Knots | Cuts | Levels) -> Column:
    if isinstance(feature, Levels):
        return Column(feature.name, "text", () if feature.other is not None else feature.levels)
    return Column(feature.name, "numeric")
