"""The YAML file that describes a portfolio: what it says, and every fault of it at once.

``read_description`` checks form only; ``towers`` and ``pairs`` make the specifications that partners
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
import yaml
from pydantic import ValidationError

from convoy_contracts.specification import PairsSpecification, RiskSpecification

Spec = TypeVar("Spec", RiskSpecification, PairsSpecification)
MEMBERS = {"name", "path", "claims"}
OPTIONAL = {
    "extends", "exposure", "split", "insurers", "towers", "settings", "features", "boosting", "unit", "references", "rivals",
}  # fmt: skip
FEATURE_MEMBERS = {"name", "knots", "levels", "scale", "cuts", "coarse", "bins", "range", "other", "missing"}
SETTINGS = {
    "claimCap": 1, "priorRate": "0.1", "priorScale": "0.2", "smoothness": "0.8", "sweeps": 5, "labelShareMilli": 600,
    "deltaNano": 1000,
}  # fmt: skip
BOOSTING = {"mainScale": "0.5", "deltaNano": 1000}
LARGEST_PAIR, MOST_PAIRS = 400, 28
"""Cells of a pair table, and pairs, that are taken when the description names no pairs."""
AUTO_CELLS, AUTO_COARSE, AUTO_LEVELS = 16, 8, 60
MISSING, OTHER = "(missing)", "(other)"


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
        return str(self.text.get("unit", "one row"))

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
        """How rows belong to insurers; {} is one insurer."""
        return dict(self.text.get("insurers") or {})

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
        return [feature for tower in (self.text.get("towers") or {}).values() for feature in tower["features"]]

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

    def towers(self, epsilon: float) -> RiskSpecification | None:
        """Return the specification of the vertical model, or None without towers; faults are collected."""
        if not self.text.get("towers"):
            return None
        towers = []
        for role, tower in self.text["towers"].items():
            features = [self._tower_feature(feature) for feature in tower["features"]]
            towers.append({"role": role, "features": features, "cap": str(tower.get("cap", "2"))})
        document = {
            "kind": "risk-towers/1",
            "towers": towers,
            "claims": self.claims,
            "exposure": self.exposure or EXPOSURE,
            "patterns": "joint-only",
            "epsilonMicro": round(epsilon * 1e6),
            **SETTINGS,
            **(self.text.get("settings") or {}),
        }
        return self._validated(RiskSpecification, document, "towers or settings")

    def _tower_feature(self, feature: Mapping[str, Any]) -> dict[str, Any]:
        made = {key: feature[key] for key in ("name", "scale") if key in feature}
        if "knots" in feature:
            return made | {"kind": "knots", "knots": [_decimal(k) for k in feature["knots"]]}
        levels = [_level(level) for level in feature.get("levels", ())]
        made = {"name": feature["name"], "kind": "levels", "levels": levels}
        if self.absent.get(str(feature["name"])) and MISSING not in levels and self.stand_in(feature["name"]) is None:
            levels.append(MISSING)
        return made | ({"other": _level(feature["other"])} if "other" in feature else {})

    def pairs(
        self, epsilon: float, columns: Mapping[str, npt.NDArray[Any]], learn: npt.NDArray[np.bool_]
    ) -> PairsSpecification | None:
        """Return the specification of tables over all features, or None where ``boosting: false``."""
        wanted = self.text.get("boosting")
        if wanted is False:
            return None
        settings = {**BOOSTING, **(wanted or {})}
        features = [self._cells(feature, columns, learn) for feature in self.features]
        named = settings.pop("pairs", None)
        claims, years = columns[self.claims][learn], columns[self.exposure or EXPOSURE][learn]
        rate = float(claims.sum()) / float(years.sum())
        prior = (self.text.get("settings") or {}).get("priorRate")
        if prior is None:
            prior = f"{max(rate, 1e-4):.1g}" if rate >= 0.001 else "0.001"
            prior = _decimal(float(prior))
            self.notes.append(f"no priorRate in 'settings': {prior} is taken, one digit of the learning rows' rate")
        usual_cap = max(1, math.ceil(2 * float(prior)))
        document = {
            "kind": "risk-pairs/1",
            "claimCap": usual_cap,
            "modelCap": _decimal(min(usual_cap, max(0.25, 4 * float(prior)))),
            "features": features,
            "pairs": self._usual_pairs(features) if named is None else [list(pair) for pair in named],
            "claims": self.claims,
            "exposure": self.exposure or EXPOSURE,
            "priorRate": str(prior),
            "epsilonMicro": round(epsilon * 1e6),
            **settings,
        }
        return self._validated(PairsSpecification, document, "features or boosting")

    def _usual_pairs(self, features: list[dict[str, Any]]) -> list[list[str]]:
        widths = {f["name"]: len(f.get("coarse") or f.get("cuts") or f["levels"]) + 1 for f in features}
        fit = [pair for pair in combinations(widths, 2) if widths[pair[0]] * widths[pair[1]] <= LARGEST_PAIR]
        if len(fit) > MOST_PAIRS:
            self.notes.append(f"no 'pairs' in 'boosting': the first {MOST_PAIRS} of {len(fit)} are taken")
        return [list(pair) for pair in fit[:MOST_PAIRS]]

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
            seen = columns[name][learn & np.isfinite(columns[name].astype(np.float64))].astype(np.float64)
            cuts, coarse = _quantile_cuts(seen, AUTO_CELLS), None
            self.notes.append(
                f"column {name!r} has no cuts: read from the learning rows, agree public ones before signing"
            )
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
            self.notes.append(
                f"column {name!r} has no levels: the {len(levels) - 1} commonest of the learning rows and {OTHER!r} are"
                " taken, agree public ones before signing"
            )
        elif self.absent.get(name) and MISSING not in levels and self.stand_in(name) is None:
            levels.append(MISSING)
        if other is not None and other not in levels:
            levels.append(other)
        if len(levels) == 1:
            levels.append(OTHER)
        return {"kind": "levels", "name": name, "levels": levels} | ({"other": other} if other else {})

    def _validated(self, model: type[Spec], document: Mapping[str, Any], place: str) -> Spec | None:
        try:
            return model.model_validate_json(json.dumps(document, default=str))
        except ValidationError as error:
            for found in error.errors():
                where = ".".join(str(part) for part in found["loc"])
                self.fault(Fault(place, f"{where or 'it'}: {found['msg']}", "see bench/data/README.md"))
            return None


EXPOSURE = "(exposure: one year)"
"""Name of the exposure column where the portfolio has none."""


def read_description(path: Path) -> Description:
    """Read a YAML file and check its form.

    Raises:
        DescriptionRefused: not a mapping, unknown or missing members, or parts of a wrong form.
    """
    text = _mapping(path)
    if "extends" in text:
        base = _mapping(path.parent / str(text["extends"]))
        text = {**base, **text}
    asked = Description(path, text)
    for name in sorted(map(str, set(text) - MEMBERS - OPTIONAL)):
        asked.fault(Fault("description", f"unknown members: {name!r}", f"use {sorted(MEMBERS | OPTIONAL)}"))
    for name in sorted(MEMBERS - set(text)):
        asked.fault(Fault("description", f"missing members: {name!r}", "add it; see bench/data/README.md"))
    if not text.get("towers") and not text.get("features"):
        asked.fault(Fault("description", "neither 'features' nor 'towers'", "name the rating factors"))
    for member in ("split", "insurers", "towers", "settings", "references"):
        if text.get(member) is not None and not isinstance(text[member], dict):
            asked.fault(Fault(member, "it is not a mapping", "see bench/data/README.md"))
    asked.stop_at_faults()
    for role, tower in (text.get("towers") or {}).items():
        if not isinstance(tower, dict) or not isinstance(tower.get("features"), list):
            asked.fault(Fault(f"towers.{role}", "it has no list 'features'", "see bench/data/README.md"))
    asked.stop_at_faults()
    for feature in [*(text.get("features") or ()), *asked.tower_features]:
        if isinstance(feature, str):
            continue
        if not isinstance(feature, dict) or "name" not in feature:
            asked.fault(Fault("features", f"{feature!r} has no 'name'", "write {name: COLUMN, ...}"))
        elif set(feature) - FEATURE_MEMBERS:
            wrong = sorted(map(str, set(feature) - FEATURE_MEMBERS))
            asked.fault(
                Fault(f"feature {feature['name']!r}", f"unknown members {wrong}", f"use {sorted(FEATURE_MEMBERS)}")
            )
    for feature in asked.tower_features:
        if isinstance(feature, dict) and not feature.keys() & {"knots", "levels"}:
            asked.fault(
                Fault(f"feature {feature.get('name')!r}", "a tower needs 'knots' or 'levels'", "add one of them")
            )
    _check_rules(asked)
    asked.stop_at_faults()
    return asked


def _check_rules(asked: Description) -> None:
    split, insurers = asked.split, asked.insurers
    if "column" in split and "learn" not in split:
        asked.fault(Fault("split", "a column without 'learn'", "name the values whose rows are learned from"))
    share = split.get("testShare", 0.2)
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        asked.fault(Fault("split", f"testShare is {share!r}", "use a number between 0 and 1"))
    for member in sorted(set(split) - {"column", "learn", "seed", "testShare", "groupBy"}):
        asked.fault(Fault("split", f"unknown member {member!r}", "use column and learn, or seed, testShare, groupBy"))
    for member in sorted(set(insurers) - {"column", "groups", "count", "seed"}):
        asked.fault(Fault("insurers", f"unknown member {member!r}", "use column and groups, or count and seed"))
    count = insurers.get("count", 1)
    if not isinstance(count, int) or count < 1:
        asked.fault(Fault("insurers", f"count is {count!r}", "use a whole number from 1 on"))
    if insurers.get("groups") is not None and not isinstance(insurers["groups"], dict):
        asked.fault(Fault("insurers", "groups is not a mapping", "write groups: {name: [values]}"))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DescriptionRefused(f"{path.name}: it cannot be read as YAML: {error}. Fix: correct the file.") from error
    if not isinstance(text, dict):
        raise DescriptionRefused(f"{path.name}: a mapping is due. Fix: see bench/data/README.md.")
    return text


def _quantile_cuts(values: npt.NDArray[np.float64], cells: int) -> list[float]:
    if not values.size:
        return [0.0]
    found = np.unique(values)
    if found.size <= cells:
        return [float(f"{v:.10g}") for v in found[1:]] or [float(found[0])]
    cuts = np.unique(np.quantile(values, np.linspace(0, 1, cells + 1)[1:-1]))
    return [float(f"{cut:.4g}") for cut in cuts]


def _decimal(value: object) -> str:
    return np.format_float_positional(float(str(value)), trim="-")


def _level(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
