"""A portfolio described by a YAML file, split into the frames that its parties would hold.

The description names a Parquet or CSV file, the columns of each kind of party with public knots or
levels, claim count, exposure, the split and how rows belong to insurers; see ``bench/data/*.yaml``.
Every customer of an insurer is also known to the OEM here (joint cohort only).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import yaml
from pydantic import ValidationError

from convoy_contracts.specification import RiskSpecification

Columns = dict[str, npt.NDArray[Any]]
MEMBERS = {"name", "path", "claims", "exposure", "split", "insurers", "towers", "settings"}
OPTIONAL = {"unit", "references"}


class DescriptionRefused(Exception):
    """The YAML file, or the data it names, cannot be used; the message says what to correct."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """All rows of a portfolio with what is needed to cut it into parties.

    columns: (N,) by name; insurer: (N,) index into insurers; learn: (N,) bool; references:
    published test deviances x 100 by model, only shown.
    """

    name: str
    unit: str
    specification: RiskSpecification
    columns: Columns
    insurers: tuple[str, ...]
    insurer: npt.NDArray[np.int64]
    learn: npt.NDArray[np.bool_]
    references: Mapping[str, float]

    @property
    def claims(self) -> npt.NDArray[np.float64]:
        """Claim counts, (N,)."""
        return self.columns[self.specification.claims].astype(np.float64)

    @property
    def years(self) -> npt.NDArray[np.float64]:
        """Exposure in years, (N,)."""
        return self.columns[self.specification.exposure].astype(np.float64)

    def rows(self, which: npt.NDArray[np.bool_]) -> Columns:
        """Return all columns of some rows."""
        return {name: values[which] for name, values in self.columns.items()}

    def party_frames(self) -> dict[str, Columns]:
        """Return the learning rows as the parties hold them, by 'oem' and insurer name.

        Column ``row`` is the common row number; a caller who builds nodes turns it into link ids.
        """
        towers = {tower.role: tower for tower in self.specification.towers}
        held = {role: [feature.name for feature in tower.features] for role, tower in towers.items()}
        held["insurer"] += [self.specification.claims, self.specification.exposure]
        numbers = np.arange(self.learn.size)
        frames = {}
        for index, name in enumerate(self.insurers):
            mine = self.learn & (self.insurer == index)
            frames[name] = {key: self.columns[key][mine] for key in held["insurer"]}
            frames[name]["row"] = numbers[mine]
        if "oem" in held:
            frames["oem"] = {key: self.columns[key][self.learn] for key in held["oem"]}
            frames["oem"]["row"] = numbers[self.learn]
        return frames


def read_portfolio(description: Path, data: Path | None, epsilon: float) -> Portfolio:
    """Read a description and its data.

    Args:
        description: the YAML file.
        data: folder of the data file; by default $CONVOY_SHARED/data, else ../shared/data.
        epsilon: of one run.

    Raises:
        DescriptionRefused: with what to correct.
    """
    try:
        text = yaml.safe_load(description.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DescriptionRefused(f"{description}: {error}") from error
    if not isinstance(text, dict):
        raise DescriptionRefused(f"{description}: a mapping is due; see bench/data/*.yaml")
    unknown, missing = set(text) - MEMBERS - OPTIONAL, MEMBERS - set(text)
    if unknown or missing:
        raise DescriptionRefused(f"{description}: unknown members {sorted(unknown)}, missing members {sorted(missing)}")
    specification = _specification(text, epsilon)
    columns = _columns(_locate(str(text["path"]), data), text, specification)
    names, index = _insurers(columns, text["insurers"])
    split = text["split"]
    learn = np.isin(columns[split["column"]], np.array(split["learn"]))
    if not learn.any() or learn.all():
        raise DescriptionRefused(
            f"split: column {split['column']!r} makes {int(learn.sum())} learning rows of {learn.size};"
            " name values of 'learn' that leave some rows for the test"
        )
    return Portfolio(
        name=str(text["name"]),
        unit=str(text.get("unit", "one row")),
        specification=specification,
        columns=columns,
        insurers=names,
        insurer=index,
        learn=learn,
        references={str(k): float(v) for k, v in (text.get("references") or {}).items()},
    )


def _specification(text: Mapping[str, Any], epsilon: float) -> RiskSpecification:
    towers = []
    for role, tower in text["towers"].items():
        features = []
        for feature in tower["features"]:
            made = {key: value for key, value in feature.items() if key != "knots"}
            if "knots" in feature:
                made |= {"kind": "knots", "knots": [f"{float(k):.12g}" for k in feature["knots"]]}
            else:
                made |= {"kind": "levels", "levels": [str(level) for level in feature["levels"]]}
            features.append(made)
        towers.append({"role": role, "features": features} | {"cap": str(tower["cap"])})
    document = {
        "kind": "risk-towers/1",
        "towers": towers,
        "claims": text["claims"],
        "exposure": text["exposure"],
        "patterns": "joint-only",
        "epsilonMicro": round(epsilon * 1e6),
        **text["settings"],
    }
    try:
        return RiskSpecification.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise DescriptionRefused(f"towers or settings: {error}") from error


def _locate(path: str, data: Path | None) -> Path:
    root = Path(__file__).resolve().parent.parent
    shared = Path(os.environ.get("CONVOY_SHARED", root.parent / "shared")) / "data"
    place = (data if data is not None else shared) / path
    if not place.is_file():
        raise DescriptionRefused(f"no file {place}; give its folder with --data")
    return place


def _columns(place: Path, text: Mapping[str, Any], specification: RiskSpecification) -> Columns:
    wanted = [feature.name for tower in specification.towers for feature in tower.features]
    wanted += [text["claims"], text["exposure"], text["split"]["column"]]
    wanted = list(dict.fromkeys([*wanted, text["insurers"]["column"]]))
    try:
        is_csv = place.suffix == ".csv"
        table = pyarrow.csv.read_csv(place) if is_csv else pyarrow.parquet.read_table(place)
    except pa.ArrowException as error:
        raise DescriptionRefused(f"{place.name}: {error}") from error
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise DescriptionRefused(f"{place.name} has no column {', '.join(map(repr, absent))}")
    out = {}
    for name in wanted:
        column = table.column(name).combine_chunks()
        if column.null_count:
            raise DescriptionRefused(f"column {name!r} has {column.null_count} missing values")
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        out[name] = np.asarray(column.to_numpy(zero_copy_only=False))
    return out


def _insurers(columns: Columns, rule: Mapping[str, Any]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    values = columns[rule["column"]].astype(np.str_)
    groups = rule.get("groups") or {value: [value] for value in np.unique(values).tolist()}
    index = np.full(values.size, -1, dtype=np.int64)
    for number, members in enumerate(groups.values()):
        index[np.isin(values, np.array([str(member) for member in members]))] = number
    if np.any(index < 0):
        lost = np.unique(values[index < 0])[:5].tolist()
        raise DescriptionRefused(f"insurers: no group holds {lost} of column {rule['column']!r}")
    return tuple(str(name) for name in groups), index
