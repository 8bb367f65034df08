"""Reading the YAML file of a portfolio: its form, with every fault of it at once."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from description import FEATURE_MEMBERS, MEMBERS, OPTIONAL, UNITS, Description, DescriptionRefused, Fault

from convoy_contracts.specification import PairsSpecification, RiskSpecification

MOST_BINS = 64
RIVALS = ("GLM3",)


def read_description(path: Path) -> Description:
    """Read a YAML file and check its form; faults are collected, so that those of the data can be told with them.

    Raises:
        DescriptionRefused: not a mapping, missing members, or parts of a form that nothing can be read from.
    """
    asked = Description(path, _extended(path))
    text = asked.text
    for name in sorted(map(str, set(text) - MEMBERS - OPTIONAL)):
        asked.fault(Fault("description", f"unknown members: {name!r}", f"use {sorted(MEMBERS | OPTIONAL)}"))
    for name in sorted(MEMBERS - set(text)):
        asked.fault(Fault("description", f"missing members: {name!r}", "add it; see docs/benchmarks.md"))
    if not text.get("towers") and not text.get("features"):
        asked.fault(Fault("description", "neither 'features' nor 'towers'", "name the rating factors"))
    for name in sorted(MEMBERS & set(text)):
        if not isinstance(text[name], str) or not text[name].strip():
            asked.fault(Fault(name, f"it is {text[name]!r}", "write one text, in quotes where it is a number"))
    if not _is_shaped(asked):
        asked.stop_at_faults()
    named = [*(text.get("features") or ()), *asked.tower_features]
    for feature in named:
        if isinstance(feature, str):
            continue
        if not isinstance(feature, dict) or "name" not in feature:
            asked.fault(Fault("features", f"{feature!r} has no 'name'", "write {name: COLUMN, ...}"))
        else:
            _check_feature(asked, feature)
    is_named = all(isinstance(feature, str) or (isinstance(feature, dict) and "name" in feature) for feature in named)
    _check_rules(asked)
    _check_numbers(asked)
    if not is_named or MEMBERS - set(text):
        asked.stop_at_faults()
    _check_names(asked)
    asked.is_well_formed = not asked.faults
    return asked


def _check_feature(asked: Description, feature: dict[str, Any]) -> None:
    place = f"feature {feature['name']!r}"
    if set(feature) - FEATURE_MEMBERS:
        wrong = sorted(map(str, set(feature) - FEATURE_MEMBERS))
        asked.fault(Fault(place, f"unknown members {wrong}", f"use {sorted(FEATURE_MEMBERS)}"))
    for member in ("knots", "levels", "cuts", "coarse", "range"):
        given = feature.get(member)
        if member not in feature or (member == "coarse" and given is None):
            continue
        if not isinstance(given, list) or not given:
            asked.fault(Fault(place, f"{member} is not a list", "write [a, b, ...]"))
        elif member == "levels":
            texts = [str(level) for level in given]
            if None in given or len(set(texts)) < len(texts):
                asked.fault(Fault(place, "levels repeat, or one is empty", "name each level once, in quotes"))
        elif any(_number(value) is None for value in given):
            asked.fault(Fault(place, f"{member} holds {[v for v in given if _number(v) is None]!r}", "write numbers"))
        elif member == "range" and (len(given) != 2 or float(given[0]) >= float(given[1])):
            asked.fault(Fault(place, f"range is {given!r}", "write [low, high]"))
        elif member in ("knots", "cuts", "coarse") and any(float(b) <= float(a) for a, b in pairwise(given)):
            asked.fault(Fault(place, f"{member} is {given!r}", "write them from low to high, each once"))
        elif member == "knots" and len(given) < 2:
            asked.fault(Fault(place, f"knots is {given!r}", "give at least two"))
        elif member in ("knots", "range") and feature.get("scale") == "log1p" and float(given[0]) < 0:
            asked.fault(
                Fault(place, f"{member} begins at {given[0]} with scale log1p", "begin at 0 or above, or use linear")
            )
    if "bins" in feature and not (type(feature["bins"]) is int and 2 <= feature["bins"] <= MOST_BINS):
        asked.fault(Fault(place, f"bins is {feature['bins']!r}", f"use a whole number from 2 to {MOST_BINS}"))
    if feature.get("scale", "linear") not in ("linear", "log1p"):
        asked.fault(Fault(place, f"scale is {feature['scale']!r}", "use linear or log1p"))


def _check_numbers(asked: Description) -> None:
    """Refuse what is no number where one is due; what contracts check of them is checked with the specification."""
    text = asked.text
    for member, rule in (("split", asked.split), ("insurers", asked.insurers)):
        if not (type(rule.get("seed", 1)) is int and rule.get("seed", 1) >= 0):
            asked.fault(Fault(member, f"seed is {rule['seed']!r}", "use a whole number from 0 on"))
    for name, value in (text.get("references") or {}).items():
        if _number(value) is None:
            asked.fault(Fault("references", f"{name!r} is {value!r}", "write a number"))
    if not isinstance(text.get("leaveOut", False), bool):
        asked.fault(Fault("leaveOut", f"it is {text['leaveOut']!r}", "write true or false"))
    if text.get("rivals") is not None and not isinstance(text["rivals"], list):
        asked.fault(Fault("rivals", "it is not a list", "write [GLM3], or leave it out"))
    for name in text["rivals"] if isinstance(text.get("rivals"), list) else ():
        if name not in RIVALS:
            asked.fault(
                Fault("rivals", f"there is no rival {name!r}", f"use {list(RIVALS)}; the usual ones need no name")
            )
    for role, tower in (text.get("towers") or {}).items():
        for member in sorted(map(str, set(tower) - {"features", "cap"})):
            asked.fault(Fault(f"towers.{role}", f"unknown member {member!r}", "use features and cap"))
        cap = _number(tower.get("cap", 1))
        if cap is None or cap <= 0:
            asked.fault(Fault(f"towers.{role}", f"cap is {tower['cap']!r}", "write a positive number"))
    prior = (text.get("settings") or {}).get("priorRate", 1)
    if (_number(prior) or 0) <= 0:
        asked.fault(Fault("settings", f"priorRate is {prior!r}", "write a positive number of claims a year"))


def _check_names(asked: Description) -> None:
    """Refuse pairs of what is no feature, and claims or exposure that are features as well."""
    for member in ("claims", "exposure"):
        if asked.text.get(member) is not None and str(asked.text[member]) in asked.feature_names:
            asked.fault(Fault(member, f"{asked.text[member]!r} is a rating factor too", "leave it out of the features"))
    pairs = (asked.text.get("boosting") or {}).get("pairs")
    if pairs is None:
        return
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        asked.fault(Fault("boosting", "pairs is no list of pairs", "write [[a, b], ...]"))
        return
    lost = sorted({str(name) for pair in pairs for name in pair} - {str(f["name"]) for f in asked.features})
    if lost:
        asked.fault(Fault("boosting", f"pairs name {lost}, which are no features", "name features of the tables"))


def _number(value: object) -> float | None:
    """Return a finite number, written as one or as text, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_shaped(asked: Description) -> bool:
    """Tell whether every member is a mapping or a list where one is due; what is not is a fault."""
    text, before = asked.text, len(asked.faults)
    for member in ("split", "insurers", "towers", "settings", "references"):
        if text.get(member) is not None and not isinstance(text[member], dict):
            asked.fault(Fault(member, "it is not a mapping", "see docs/benchmarks.md"))
    if text.get("features") is not None and not isinstance(text["features"], list):
        asked.fault(Fault("features", "it is not a list", "write a list of names or of {name: COLUMN, ...}"))
    if not isinstance(text.get("boosting") or {}, dict):
        asked.fault(Fault("boosting", "it is neither a mapping nor false", "see docs/benchmarks.md"))
    towers = text.get("towers")
    for role, tower in (towers if isinstance(towers, dict) else {}).items():
        if not isinstance(tower, dict) or not isinstance(tower.get("features"), list):
            asked.fault(Fault(f"towers.{role}", "it has no list 'features'", "see docs/benchmarks.md"))
    return len(asked.faults) == before


def _check_rules(asked: Description) -> None:
    split, insurers = asked.split, asked.insurers
    if str(asked.text.get("exposureUnit", "years")) not in UNITS:
        asked.fault(Fault("exposureUnit", f"it is {asked.text['exposureUnit']!r}", f"use one of {sorted(UNITS)}"))
    for role in sorted(map(str, set(asked.text.get("towers") or {}) - {"insurer", "oem"})):
        asked.fault(Fault(f"towers.{role}", "there is no such role", "use insurer and oem"))
    if asked.text.get("towers") and "insurer" not in asked.text["towers"]:
        asked.fault(Fault("towers", "there is no tower 'insurer'", "add it: claims and exposure are the insurers'"))
    for member, known in (("settings", RiskSpecification), ("boosting", PairsSpecification)):
        allowed = set(known.model_fields) - {
            "kind",
            "towers",
            "features",
            "claims",
            "exposure",
            "patterns",
            "epsilonMicro",
        }
        for name in sorted(map(str, set(asked.text.get(member) or {}) - allowed)):
            asked.fault(Fault(member, f"unknown member {name!r}", f"use {sorted(allowed)}"))
    if asked.text.get("boosting") is False and not asked.text.get("towers"):
        asked.fault(
            Fault("boosting", "it is false and there are no towers: nothing is trained", "leave one of them in")
        )
    if "column" in split and set(split) & {"testShare", "seed", "groupBy"}:
        asked.fault(Fault("split", "a column beside testShare, seed or groupBy", "say one or the other"))
    if "column" in split and "learn" not in split:
        asked.fault(Fault("split", "a column without 'learn'", "name the values whose rows are learned from"))
    share = split.get("testShare", 0.2)
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        asked.fault(Fault("split", f"testShare is {share!r}", "use a number between 0 and 1"))
    for member in sorted(set(split) - {"column", "learn", "seed", "testShare", "groupBy"}):
        asked.fault(Fault("split", f"unknown member {member!r}", "use column and learn, or seed, testShare, groupBy"))
    for member in sorted(set(insurers) - {"column", "groups", "count", "seed"}):
        asked.fault(Fault("insurers", f"unknown member {member!r}", "use column and groups, or count and seed"))
    if not insurers.keys() & {"column", "count"}:
        asked.fault(Fault("insurers", "neither 'column' nor 'count'", "name the column, or say {count: 5}"))
    count = insurers.get("count", 1)
    if not isinstance(count, int) or count < 1:
        asked.fault(Fault("insurers", f"count is {count!r}", "use a whole number from 1 on"))
    if insurers.get("groups") is not None and not isinstance(insurers["groups"], dict):
        asked.fault(Fault("insurers", "groups is not a mapping", "write groups: {name: [values]}"))


def _extended(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a description with what it extends, step by step."""
    if path.resolve() in seen:
        raise DescriptionRefused(f"{path.name}: extends: it extends itself. Fix: name another file.")
    text = _mapping(path)
    if "extends" not in text:
        return text
    return {**_extended(path.parent / str(text["extends"]), (*seen, path.resolve())), **text}


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"{', '.join(map(repr, twice))} is there twice{node.start_mark}")
        return dict(super().construct_mapping(node, deep))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DescriptionRefused(f"{path.name}: it cannot be read as YAML: {error}. Fix: correct the file.") from error
    if not isinstance(text, dict):
        raise DescriptionRefused(f"{path.name}: a mapping is due. Fix: see docs/benchmarks.md.")
    return text
