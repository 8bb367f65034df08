"""The YAML file that describes a portfolio: what it says, and every fault of it at once.

``form.read_description`` checks form only; ``towers`` and ``pairs`` make the specifications that partners
would sign. Cuts and levels are public and belong in the file; where they are left out they are read
from the learning rows, which a note says: such a run is a trial, not a private one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from convoy_contracts.specification import PairsSpecification, RiskSpecification
from convoy_models.accounting import mu_of

Spec = TypeVar("Spec", RiskSpecification, PairsSpecification)
MEMBERS = {"name", "path", "claims"}
OPTIONAL = {
    "extends", "exposure", "exposureUnit", "person", "split", "insurers", "towers", "settings", "features", "boosting", "unit",
    "references", "rivals", "leaveOut",
}  # fmt: skip
UNITS = {"years": 1.0, "months": 1 / 12, "days": 1 / 365.25}
"""Units of exposure, in years."""
FEATURE_MEMBERS = {"name", "knots", "levels", "scale", "cuts", "coarse", "bins", "range", "other", "missing"}
DECIMALS = {"priorRate", "priorScale", "smoothness", "mainScale", "pairScale", "modelCap"}
SETTINGS = {
    "priorScale": "0.2", "smoothness": "0.8", "sweeps": 5, "labelShareMilli": 600,
    "deltaNano": 1000,
}  # fmt: skip
BOOSTING = {"deltaNano": 1000}
SCALE_UNIT, LEAST_SCALE, MOST_SCALE = 0.06, 0.05, 0.8
"""Prior scale of tables of one feature where none is named: unit x root of claims per cell, between two ends (models/LOG.md)."""
LARGEST_PAIR, MOST_PAIRS, PERSONS_PER_PAIR = 400, 36, 8_000
"""Cells of a pair table, pairs at most, and persons x mu a pair, where the description names no pairs."""
AUTO_CELLS, AUTO_COARSE, AUTO_LEVELS = 24, 9, 60
MISSING, OTHER = "(missing)", "(other)"
USUAL_INSURERS, USUAL_KNOTS = 5, 10


class DescriptionRefused(Exception):
    """The YAML file, or the data it names, cannot be used; the message says what to correct."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to correct: where (file or column), what is wrong, what to do."""

    place: str
    cause: str
    fix: str


@dataclass
class Description:
    """A read description. ``faults`` collects until ``stop_at_faults``; ``notes`` says what was assumed."""

    file: Path
    text: Mapping[str, Any]
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    absent: dict[str, int] = field(default_factory=dict)
    """Missing values by feature column, as counted in the data."""
    is_well_formed: bool = True
    """The form of the description has no fault, so specifications can be made of it."""

    def fault(self, fault: Fault) -> None:
        """Remember a fault."""
        self.faults.append(fault)

    def stop_at_faults(self) -> None:
        """Refuse if there are faults.

        Raises:
            DescriptionRefused: one line per fault.
        """
        if self.faults:
            lines = [f"{self.file.name}: {f.place}: {f.cause}. Fix: {f.fix}." for f in dict.fromkeys(self.faults)]
            raise DescriptionRefused("\n".join(lines))

    @property
    def name(self) -> str:
        """What the portfolio is called."""
        return str(self.text["name"])

    @property
    def unit(self) -> str:
        """What one person is here."""
        usual = "one row" if self.person is None else f"one person ({self.person})"
        return str(self.text.get("unit", usual))

    @property
    def person(self) -> str | None:
        """Column that names the person of a row, or None: every row is a person."""
        return None if self.text.get("person") is None else str(self.text["person"])

    @property
    def exposure_unit(self) -> float:
        """What one unit of exposure is, in years."""
        return UNITS.get(str(self.text.get("exposureUnit", "years")), 1.0)  # another unit is a fault of its own

    @property
    def claims(self) -> str:
        """Column of claim counts."""
        return str(self.text["claims"])

    @property
    def exposure(self) -> str | None:
        """Column of exposure in years, or None: every row is one year."""
        return None if self.text.get("exposure") is None else str(self.text["exposure"])

    @property
    def split(self) -> dict[str, Any]:
        """How test rows are chosen; {} is seeded."""
        return dict(self.text.get("split") or {})

    @property
    def insurers(self) -> dict[str, Any]:
        """How rows belong to insurers; without a rule they are dealt to five."""
        return dict(self.text.get("insurers") or {"count": USUAL_INSURERS})

    @property
    def references(self) -> dict[str, float]:
        """Published figures, only shown."""
        return {str(k): float(v) for k, v in (self.text.get("references") or {}).items()}

    @property
    def rivals(self) -> tuple[str, ...]:
        """Named rivals of this portfolio beyond the usual ones."""
        return tuple(str(name) for name in self.text.get("rivals") or ())

    @property
    def tower_features(self) -> list[dict[str, Any]]:
        """All features of all towers."""
        return [
            {"name": feature} if isinstance(feature, str) else feature
            for tower in (self.text.get("towers") or {}).values()
            for feature in tower["features"]
        ]

    @property
    def oem_names(self) -> list[str]:
        """Columns that the carmaker holds."""
        tower = (self.text.get("towers") or {}).get("oem") or {"features": []}
        return [str(feature if isinstance(feature, str) else feature["name"]) for feature in tower["features"]]

    @property
    def features(self) -> list[dict[str, Any]]:
        """Features of the tables: those of the file, else those of the towers."""
        named = self.text.get("features") or self.tower_features
        return [{"name": feature} if isinstance(feature, str) else dict(feature) for feature in named]

    @property
    def feature_names(self) -> list[str]:
        """Every feature of towers and tables, once."""
        return list(dict.fromkeys(str(f["name"]) for f in [*self.tower_features, *self.features]))

    def numbers_expected(self, name: str) -> bool | None:
        """Tell whether a feature is a number by description; None where it does not say."""
        kinds: set[bool] = set()
        for feature in [*self.tower_features, *self.features]:
            if feature["name"] == name:
                if feature.keys() & {"knots", "cuts", "bins", "range"}:
                    kinds.add(True)
                if "levels" in feature:
                    kinds.add(False)
        return True if True in kinds else False if kinds else None

    def stand_in(self, name: str) -> object | None:
        """Return what the description puts in place of a missing value, if it says."""
        for feature in [*self.features, *self.tower_features]:
            if feature["name"] == name and "missing" in feature:
                return feature["missing"]
        return None

    def towers(
        self, epsilon: float, columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_], *, is_partial: bool
    ) -> RiskSpecification | None:
        """Return the specification of the vertical model, or None without towers; faults are collected.

        Args:
            epsilon: of one run.
            columns: (N,) by name.
            learn: (N,) learning rows.
            is_partial: the carmaker knows some persons only, so there are two patterns of data.
        """
        if not self.text.get("towers"):
            return None
        prior = float(self._prior(columns, learn))
        towers = []
        for role, tower in self.text["towers"].items():
            named = [{"name": feature} if isinstance(feature, str) else feature for feature in tower["features"]]
            features = [self._tower_feature(feature, columns, learn) for feature in named]
            usual = "2" if role == "oem" else _decimal(max(0.3, 5 * prior))
            towers.append({"role": role, "features": features, "cap": str(tower.get("cap", usual))})
        document = {
            "kind": "risk-towers/1",
            "towers": towers,
            "claims": self.claims,
            "exposure": self.exposure or EXPOSURE,
            "patterns": "own" if is_partial else "joint-only",
            "epsilonMicro": round(epsilon * 1e6),
            **SETTINGS,
            "claimCap": _usual_claim_cap(prior),
            "priorRate": _decimal(prior),
            **_decimals(self.text.get("settings") or {}),
        }
        return self._validated(RiskSpecification, document, "towers or settings")

    def _tower_feature(
        self, feature: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        name = str(feature["name"])
        if not feature.keys() & {"knots", "levels"}:
            if columns[name].dtype.kind in "UO":
                return self._level_cells(name, feature, columns[name], learn)
            feature = {**feature, "knots": self._usual_knots(name, feature, columns[name][learn])}
        made = {key: feature[key] for key in ("name", "scale") if key in feature}
        if "knots" in feature:
            return made | {"kind": "knots", "knots": [_decimal(k) for k in feature["knots"]]}
        return self._level_cells(name, feature, columns[name], learn)

    def _usual_knots(self, name: str, feature: Mapping[str, Any], values: npt.NDArray[Any]) -> list[float]:
        if "range" in feature:
            low, high = (float(end) for end in feature["range"])
            return [float(f"{knot:.4g}") for knot in np.linspace(low, high, USUAL_KNOTS)]
        seen = values[np.isfinite(values) & (values > -1e299)].astype(np.float64)
        self.note(f"column {name!r} has no knots: read from the learning rows, agree public ones before signing")
        if not seen.size:
            return [0.0, 1.0]
        ends = [float(seen.min()), *_usual_cuts(seen, USUAL_KNOTS), float(seen.max())]
        knots = sorted({float(f"{end:.6g}") for end in ends})
        return knots if len(knots) > 1 else [knots[0], knots[0] + 1]

    def note(self, text: str) -> None:
        """Say once what was assumed."""
        if text not in self.notes:
            self.notes.append(text)

    def pairs(
        self, epsilon: float, columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_]
    ) -> PairsSpecification | None:
        """Return the specification of tables over all features, or None where ``boosting: false``."""
        wanted = self.text.get("boosting")
        if wanted is False:
            return None
        settings = {**BOOSTING, **_decimals(wanted or {})}
        features = [self._cells(feature, columns, learn) for feature in self.features]
        named = settings.pop("pairs", None)
        prior = float(self._prior(columns, learn))
        usual_cap = _usual_claim_cap(prior)
        if "mainScale" not in settings:
            settings["mainScale"] = self._usual_scale(features, float(columns[self.claims][learn].sum()))
        document = {
            "kind": "risk-pairs/1",
            "claimCap": usual_cap,
            "modelCap": _decimal(min(usual_cap, max(0.25, 4 * prior))),
            "features": features,
            "pairs": self._usual_pairs(features, int(learn.sum()) * mu_of(epsilon, 1e-6))
            if named is None
            else [list(pair) for pair in named],
            "claims": self.claims,
            "exposure": self.exposure or EXPOSURE,
            "priorRate": _decimal(prior),
            "epsilonMicro": round(epsilon * 1e6),
            **settings,
        }
        return self._validated(PairsSpecification, document, "features or boosting")

    def _prior(self, columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_]) -> str:
        """Return the public guess of the yearly claim rate: as described, else one digit of what the learning rows have."""
        named = (self.text.get("settings") or {}).get("priorRate")
        if named is not None:
            try:
                return _decimal(named)
            except ValueError:
                self.fault(Fault("settings", f"priorRate is {named!r}", "write a number of claims a year"))
                return "0.1"
        rate = float(columns[self.claims][learn].sum()) / float(columns[self.exposure or EXPOSURE][learn].sum())
        found = _decimal(f"{max(rate, 0.001):.1g}")
        self.note(f"no priorRate in 'settings': {found} is taken, one digit of the learning rows' rate")
        return found

    def _usual_scale(self, features: list[dict[str, Any]], claims: float) -> str:
        """Return how far tables of one feature may go: the fewer claims a cell has, the closer they stay to 1."""
        cells = sum(len(f["cuts"]) + 1 if "cuts" in f else len(f["levels"]) for f in features)
        scale = min(MOST_SCALE, max(LEAST_SCALE, SCALE_UNIT * math.sqrt(claims / cells)))
        found = _decimal(f"{scale:.1g}")
        self.note(f"no mainScale in 'boosting': {found} is taken, what {claims:.0f} claims in {cells} cells carry")
        return found

    def _usual_pairs(self, features: list[dict[str, Any]], strength: float) -> list[list[str]]:
        """Return as many pairs as a cohort of this strength (persons x mu) carries: the noise of a pair costs the same at any size."""
        widths = {f["name"]: len(f.get("coarse") or f.get("cuts") or f["levels"]) + 1 for f in features}
        fit = [pair for pair in combinations(widths, 2) if widths[pair[0]] * widths[pair[1]] <= LARGEST_PAIR]
        most = min(MOST_PAIRS, round(strength / PERSONS_PER_PAIR))
        if len(fit) > most:
            self.note(f"no 'pairs' in 'boosting': the first {most} of {len(fit)} are taken, what so many persons carry")
        return [list(pair) for pair in fit[:most]]

    def _cells(
        self, feature: Mapping[str, Any], columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        name = str(feature["name"])
        if columns[name].dtype.kind in "UO":
            return self._level_cells(name, feature, columns[name], learn)
        if "cuts" in feature:
            cuts, coarse = [float(c) for c in feature["cuts"]], feature.get("coarse")
        elif "knots" in feature:
            cuts, coarse = [float(k) for k in feature["knots"]][1:], feature.get("coarse")
        elif "range" in feature:
            low, high = (float(end) for end in feature["range"])
            ends = np.linspace(0, 1, int(feature.get("bins", AUTO_CELLS)) + 1)[1:-1]
            is_log = feature.get("scale") == "log1p"
            values = (
                np.expm1(np.log1p(low) + ends * (np.log1p(high) - np.log1p(low)))
                if is_log
                else low + ends * (high - low)
            )
            cuts, coarse = [float(f"{value:.4g}") for value in values], feature.get("coarse")
        else:
            values = columns[name].astype(np.float64)
            seen = values[learn & np.isfinite(values) & (values > -1e299)]
            cuts, coarse = _usual_cuts(seen, AUTO_CELLS), None
            self.note(f"column {name!r} has no cuts: read from the learning rows, agree public ones before signing")
        cuts = sorted(set(cuts))
        if coarse is None and len(cuts) > AUTO_COARSE + 2:
            coarse = cuts[:: max(1, len(cuts) // AUTO_COARSE)]
        if self.absent.get(name) and self.stand_in(name) is None:
            cuts = [cuts[0] - 1, *cuts]  # ``frames`` puts missing values below this cut
            coarse = [cuts[0], *coarse] if coarse else None
        made: dict[str, Any] = {"kind": "cuts", "name": name, "cuts": [_decimal(c) for c in cuts]}
        return made | ({"coarse": [_decimal(float(c)) for c in sorted(set(coarse))]} if coarse else {})

    def _level_cells(
        self, name: str, feature: Mapping[str, Any], values: npt.NDArray[Any], learn: npt.NDArray[np.bool_]
    ) -> dict[str, Any]:
        levels = [_level(level) for level in feature.get("levels", ())]
        other = _level(feature["other"]) if "other" in feature else None
        if not levels:
            names, counts = np.unique(values[learn].astype(np.str_), return_counts=True)
            order = np.argsort(-counts, kind="stable")[:AUTO_LEVELS]
            levels, other = [*sorted(names[order].tolist()), OTHER], OTHER
            self.note(
                f"column {name!r} has no levels: the {len(levels) - 1} commonest of the learning rows and {OTHER!r} are"
                " taken, agree public ones before signing"
            )
        elif self.absent.get(name) and MISSING not in levels and self.stand_in(name) is None:
            levels.append(MISSING)
        if other is None:
            other = self._other_for_unseen(name, levels, values, learn)
        if other is not None and other not in levels:
            levels.append(other)
        if len(levels) == 1:
            levels.append(OTHER)
        return {"kind": "levels", "name": name, "levels": levels} | ({"other": other} if other else {})

    def _other_for_unseen(
        self, name: str, levels: list[str], values: npt.NDArray[Any], learn: npt.NDArray[np.bool_]
    ) -> str | None:
        """Return a level for values that only test rows have; such values in learning rows are refused when encoded."""
        texts = np.unique(values[learn].astype(np.str_))
        late = set(np.unique(values[~learn].astype(np.str_)).tolist()) - set(levels)
        if not late or not set(texts.tolist()) <= set(levels):
            return None
        self.note(f"column {name!r}: {len(late)} values of test rows only are not among its levels; they are {OTHER!r}")
        return OTHER

    def _validated(self, model: type[Spec], document: Mapping[str, Any], place: str) -> Spec | None:
        try:
            return model.model_validate_json(json.dumps(document, default=str))
        except ValidationError as error:
            for found in error.errors():
                where = ".".join(str(part) for part in found["loc"])
                self.fault(Fault(place, f"{where or 'it'}: {_said(found)}", "see docs/benchmarks.md"))
            return None


def _said(found: Mapping[str, Any]) -> str:
    """Return what a validator says in words of the description."""
    if found["type"] == "string_pattern_mismatch":
        return f"{found['input']!r} is no number that a contract can hold"
    return str(found["msg"]).removeprefix("Value error, ")


EXPOSURE = "(exposure: one year)"
"""Name of the exposure column where the portfolio has none."""


def _usual_cuts(values: npt.NDArray[np.float64], cells: int) -> list[float]:
    """Return cuts between distinct values, each weighing the root of its count: a common value does not eat all cells."""
    if not values.size:
        return [0.0]
    found, counts = np.unique(values, return_counts=True)
    if found.size <= cells:
        return [float(f"{v:.10g}") for v in found[1:]] or [float(found[0])]
    weights = np.cumsum(np.sqrt(counts))
    places = np.searchsorted(weights, np.linspace(0, weights[-1], cells + 1)[1:-1])
    return sorted({float(f"{cut:.6g}") for cut in found[np.minimum(places + 1, found.size - 1)]})


def _usual_claim_cap(rate: float) -> int:
    """Return how many claims of a row count where the description does not say: twice what a year has, at least 1."""
    return min(20, max(1, math.ceil(2 * rate)))


def _decimals(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the numbers that a contract writes as text written so; whole numbers stay."""
    return {
        name: _decimal(v) if name in DECIMALS and isinstance(v, (int, float)) else v for name, v in settings.items()
    }


def _decimal(value: object) -> str:
    return np.format_float_positional(float(str(value)), trim="-")


def _level(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
