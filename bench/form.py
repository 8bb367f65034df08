"""Reading the YAML file of a portfolio: its form, with every fault of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from description import FEATURE_MEMBERS, MEMBERS, OPTIONAL, UNITS, Description, DescriptionRefused, Fault


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
        asked.fault(Fault("description", f"missing members: {name!r}", "add it; see docs/benchmarks.md"))
    if not text.get("towers") and not text.get("features"):
        asked.fault(Fault("description", "neither 'features' nor 'towers'", "name the rating factors"))
    if not _is_shaped(asked):
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
    for feature in [*(text.get("features") or ()), *asked.tower_features]:
        for member in ("knots", "levels", "cuts"):
            if isinstance(feature, dict) and member in feature and not isinstance(feature[member], list):
                asked.fault(Fault(f"feature {feature.get('name')!r}", f"{member} is not a list", "write [a, b, ...]"))
    _check_rules(asked)
    asked.stop_at_faults()
    return asked


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
        raise DescriptionRefused(f"{path.name}: a mapping is due. Fix: see docs/benchmarks.md.")
    return text
