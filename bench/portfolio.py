"""A portfolio described by a YAML file, split into the frames that its parties would hold.

The description names a Parquet or CSV file, the columns with public knots, cuts or levels, claim
count, exposure, the split and how rows belong to insurers; ``docs/benchmarks.md`` is its
reference. Every fault of description and data that can be seen is reported at once, with file,
column, cause and fix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from description import Description, DescriptionRefused, Fault
from form import read_description
from frames import at_parties, read_frame
from persons import LONGEST_YEARS, one_row_per_person

from convoy_contracts.specification import Cells, Cuts, Feature, Levels, PairsSpecification, RiskSpecification
from convoy_models.gates import MIN_INSURERS

__all__ = ["Columns", "DescriptionRefused", "Portfolio", "read_portfolio"]

Columns = dict[str, npt.NDArray[Any]]
LARGEST_GROUP_COUNT = 512
"""More insurers than this are taken for a mistake in the description."""
FEWEST_TEST_ROWS, FEW_LEARNING_ROWS = 10, 100
MOST_SHOWN = 3
"""Unknown values that a fault names."""
YES_AND_NO = frozenset({"yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True)
class Portfolio:
    """All rows of a portfolio with what is needed to cut it into parties.

    columns: (N,) by name; insurer: (N,) index into insurers; learn: (N,) bool; specification: of
    the vertical model (None without towers); pairs: of the model of tables (None if not asked);
    linked: (N,) the carmaker knows the person; references: published test deviances x 100 by model,
    only shown; notes: what was assumed.
    """

    name: str
    unit: str
    specification: RiskSpecification | None
    pairs: PairsSpecification | None
    columns: Columns
    claims_name: str
    exposure_name: str
    insurers: tuple[str, ...]
    insurer: npt.NDArray[np.int64]
    learn: npt.NDArray[np.bool_]
    linked: npt.NDArray[np.bool_]
    references: Mapping[str, float]
    notes: list[str] = field(default_factory=list)
    rivals: tuple[str, ...] = field(default=())

    @property
    def claims(self) -> npt.NDArray[np.float64]:
        """Claim counts, (N,)."""
        return self.columns[self.claims_name].astype(np.float64)

    @property
    def years(self) -> npt.NDArray[np.float64]:
        """Exposure in years, (N,)."""
        return self.columns[self.exposure_name].astype(np.float64)

    @property
    def towers(self) -> RiskSpecification:
        """The specification of the vertical model.

        Raises:
            DescriptionRefused: the description has no towers.
        """
        if self.specification is None:
            raise DescriptionRefused(f"{self.name}: the description has no 'towers'; add them or do not ask for them")
        return self.specification

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Every rating factor, once."""
        towers = self.specification.towers if self.specification is not None else ()
        names = [feature.name for tower in towers for feature in tower.features]
        names += [feature.name for feature in self.pairs.features] if self.pairs is not None else []
        return tuple(dict.fromkeys(names))

    def rows(self, which: npt.NDArray[np.bool_]) -> Columns:
        """Return all columns of some rows."""
        return {name: values[which] for name, values in self.columns.items()}

    def party_frames(self, specification: RiskSpecification | PairsSpecification | None = None) -> dict[str, Columns]:
        """Return the learning rows as the parties hold them, by 'oem' and insurer name.

        Column ``row`` is the common row number; a caller who builds nodes turns it into link ids.

        Args:
            specification: of the run; by default the vertical model. Tables are wholly at the insurers.
        """
        spec = specification if specification is not None else self.towers
        if isinstance(spec, PairsSpecification):
            held = {"insurer": [feature.name for feature in spec.features]}
        else:
            held = {tower.role: [feature.name for feature in tower.features] for tower in spec.towers}
        held["insurer"] += [self.claims_name, self.exposure_name]
        numbers = np.arange(self.learn.size)
        frames = {}
        for index, name in enumerate(self.insurers):
            mine = self.learn & (self.insurer == index)
            frames[name] = {key: self.columns[key][mine] for key in held["insurer"]}
            frames[name]["row"] = numbers[mine]
        if "oem" in held:
            known = self.learn & self.linked
            frames["oem"] = {key: self.columns[key][known] for key in held["oem"]}
            frames["oem"]["row"] = numbers[known]
        return frames


def read_portfolio(description: Path, data: Path | None, epsilon: float) -> Portfolio:
    """Read a description and its data.

    Args:
        description: the YAML file.
        data: folder of the data file; by default the description's own folder if the file is there, else
            $CONVOY_SHARED/data, else ../shared/data.
        epsilon: of one run.

    Raises:
        DescriptionRefused: every fault at once, each with what to correct.
    """
    asked = read_description(description)
    frame = read_frame(asked, data)
    learn = _split(asked, frame.columns)
    names, insurer = _insurers(asked, frame.columns)
    linked, columns = frame.linked, frame.columns
    if not asked.faults and not columns[asked.claims][learn].any():
        cause = f"none of the {int(learn.sum())} learning rows has a claim"
        asked.fault(Fault(f"column {asked.claims!r}", cause, "split in another way, or give more rows"))
    if not asked.faults:
        _check_test(asked, columns, learn)
        _check_insurers(asked, names, insurer, learn)
    if not learn.any():
        asked.stop_at_faults()
    if asked.person is not None and not asked.faults:
        before = int(learn.sum())
        keep, cut = one_row_per_person(columns, columns[asked.person], insurer, learn, asked.claims, frame.exposure)
        columns = {name: values[keep] for name, values in columns.items()}
        insurer, learn, linked = insurer[keep], learn[keep], linked[keep]
        asked.note(f"{before} learning rows are {int(learn.sum())} persons: claims and years added, for rivals too")
        if cut:
            asked.note(f"{cut} persons have more than {LONGEST_YEARS:.0f} years in all: so many count, and claims in the same"
                       " proportion")  # fmt: skip
    specification = asked.towers(epsilon, columns, learn, is_partial=not bool(linked.all()))
    pairs = asked.pairs(epsilon, columns, learn)
    owners = np.array(names)[insurer]
    _check_levels(asked, [specification, pairs], columns, owners, learn, learn & linked)
    asked.stop_at_faults()
    if pairs is not None:
        _note_constant(asked, pairs, columns, learn)
    return Portfolio(
        name=asked.name,
        unit=asked.unit,
        specification=specification,
        pairs=pairs,
        columns=columns,
        claims_name=asked.claims,
        exposure_name=frame.exposure,
        insurers=names,
        insurer=insurer,
        learn=learn,
        linked=linked,
        references=asked.references,
        notes=asked.notes,
        rivals=asked.rivals,
    )


def _check_test(asked: Description, columns: Columns, learn: npt.NDArray[np.bool_]) -> None:
    """Refuse test rows that nothing can be judged on."""
    size, claims = int((~learn).sum()), columns[asked.claims][~learn]
    fix = "split in another way, or give more rows"
    if size < FEWEST_TEST_ROWS:
        asked.fault(Fault("split", f"{size} test rows; at least {FEWEST_TEST_ROWS} are needed to judge", fix))
    elif not claims.any():
        asked.fault(Fault(f"column {asked.claims!r}", f"none of the {size} test rows has a claim", fix))


def _check_insurers(
    asked: Description, names: Sequence[str], insurer: npt.NDArray[np.int64], learn: npt.NDArray[np.bool_]
) -> None:
    """Refuse insurers without rows; say of a market what nodes would refuse."""
    rows = np.bincount(insurer[learn], minlength=len(names))
    for name, size in zip(names, np.bincount(insurer, minlength=len(names)).tolist(), strict=True):
        if not size:
            fix = "correct its values, leave it out, or deal fewer insurers"
            asked.fault(Fault("insurers", f"{name!r} has no row", fix))
    few = [f"{name}: {int(rows[k])}" for k, name in enumerate(names) if rows[k] < FEW_LEARNING_ROWS]
    if few:
        shown = ", ".join(few[:MOST_SHOWN]) + (", ..." if len(few) > MOST_SHOWN else "")
        asked.note(f"{len(few)} insurer(s) with fewer than {FEW_LEARNING_ROWS} learning rows ({shown}): what an insurer has"
                   " alone is hardly a model there")  # fmt: skip
    if len(names) < MIN_INSURERS:
        asked.note(f"{len(names)} insurer(s): nodes refuse a market of fewer than {MIN_INSURERS} (INSURERS_TOO_FEW), since the"
                   " sum of two tells each of them the other's")  # fmt: skip


def _split(asked: Description, columns: Columns) -> npt.NDArray[np.bool_]:
    split, size = asked.split, columns[asked.claims].size
    if "column" in split:
        values = columns[split["column"]]
        wanted = split["learn"] if isinstance(split["learn"], list) else [split["learn"]]
        texts = np.array([_text(value) for value in wanted])
        learn = np.isin(np.array([_text(v) for v in np.unique(values)]), texts)
        learn = learn[np.unique(values, return_inverse=True)[1]]
        if not learn.any() or learn.all():
            asked.fault(
                Fault(
                    f"column {split['column']!r}",
                    f"split: it makes {int(learn.sum())} learning rows of {size}",
                    "name values of 'learn' that leave some rows for the test",
                )
            )
        return np.asarray(learn)
    rng = np.random.default_rng(int(split.get("seed", 1)))
    share = float(split.get("testShare", 0.2))
    asked.note(f"split: {share:.0%} of the rows are test rows, drawn with seed {int(split.get('seed', 1))}")
    group = split.get("groupBy", asked.person)
    if group is None:
        keys = np.arange(size)
    else:
        names = asked.feature_names if group == "features" else group if isinstance(group, list) else [group]
        keys = np.zeros(size, dtype=np.int64)
        for name in names:
            codes = np.unique(columns[name].astype(np.str_), return_inverse=True)[1]
            keys = np.unique(keys * (int(codes.max()) + 1) + codes, return_inverse=True)[1]
    is_test = rng.random(int(keys.max()) + 1) < share
    learn = ~is_test[keys]
    if not learn.any() or learn.all():
        asked.fault(
            Fault("split", f"{int(learn.sum())} of {size} rows are learning rows", "use more rows or another seed")
        )
    return np.asarray(learn)


def _insurers(asked: Description, columns: Columns) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    rule, size = asked.insurers, columns[asked.claims].size
    if "count" in rule:
        count = int(rule["count"])
        if count > min(size, LARGEST_GROUP_COUNT):
            most = min(size, LARGEST_GROUP_COUNT)
            asked.fault(Fault("insurers", f"count is {count} with {size} rows", f"use at most {most}"))
            return ("insurer-1",), np.zeros(size, dtype=np.int64)
        asked.note(f"insurers: rows are dealt to {count} equal ones, seed {int(rule.get('seed', 1))}")
        dealt = np.random.default_rng(int(rule.get("seed", 1))).permutation(size) % count
        return tuple(f"insurer-{k + 1}" for k in range(count)), dealt.astype(np.int64)
    levels, inverse = np.unique(columns[rule["column"]], return_inverse=True)
    values = np.array([_text(level) for level in levels])
    groups = rule.get("groups") or {value: [value] for value in values.tolist()}
    if len(groups) > LARGEST_GROUP_COUNT:
        asked.fault(
            Fault(
                f"column {rule['column']!r}",
                f"insurers: {len(groups)} different values",
                f"name a column with at most {LARGEST_GROUP_COUNT} insurers, or 'groups' of its values",
            )
        )
        return ("insurer-1",), np.zeros(size, dtype=np.int64)
    index = np.full(values.size, -1, dtype=np.int64)
    for number, (group, members) in enumerate(groups.items()):
        wanted = np.array([_text(member) for member in (members if isinstance(members, list) else [members])])
        mine = np.isin(values, wanted)
        twice, unknown = values[mine & (index >= 0)], np.setdiff1d(wanted, values)
        if twice.size:
            asked.fault(
                Fault("insurers", f"groups: {twice.tolist()} are in {group!r} and in another", "name each value once")
            )
        if unknown.size:
            asked.note(f"insurers: group {group!r} names {unknown.tolist()}, which no row has")
        index[mine] = number
    if np.any(index < 0):
        lost = values[index < 0][:5].tolist()
        asked.fault(
            Fault(f"column {rule['column']!r}", f"insurers: no group holds {lost}", "add these values to a group")
        )
    return tuple(str(name) for name in groups), np.maximum(index, 0)[inverse]


def _text(value: object) -> str:
    """Return how a value is compared: 1, 1.0 and '1' are one insurer; True and 'true' are one split value."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return text.lower() if text in ("True", "False") else text


def _check_levels(
    asked: Description,
    specifications: Sequence[RiskSpecification | PairsSpecification | None],
    columns: Columns,
    owners: npt.NDArray[np.str_],
    learn: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
) -> None:
    """Refuse learning rows whose values are not among the levels that the partners would sign, as a node does.

    Args:
        asked: takes the faults.
        specifications: those that are there.
        columns: (N,) by name.
        owners: (N,) the insurer of each row.
        learn: (N,) learning rows.
        known: (N,) those of them that the carmaker knows.
    """
    features: list[Feature | Cells] = []
    for spec in specifications:
        if isinstance(spec, RiskSpecification):
            features += [feature for tower in spec.towers for feature in tower.features]
        elif spec is not None:
            features += spec.features
    named = {feature.name: feature for feature in features if isinstance(feature, Levels) and feature.other is None}
    for name, feature in named.items():
        is_oem = name in asked.oem_names
        values = columns[name].astype(np.str_)
        strange = (known if is_oem else learn) & ~np.isin(values, np.array(feature.levels))
        if strange.any():
            found = np.unique(values[strange])
            shown = ", ".join(map(repr, found[:MOST_SHOWN].tolist())) + (", ..." if found.size > MOST_SHOWN else "")
            whose = " at the carmaker" if is_oem else at_parties(owners, strange)
            cause = f"{int(strange.sum())} learning rows{whose} hold {shown}, not among its levels"
            fix = "add them to 'levels', or say 'other: LEVEL'"
            if {"true", "false"} & set(feature.levels) and YES_AND_NO & {text.lower() for text in found.tolist()}:
                fix = "put yes and no in quotes, because YAML reads them as true and false"
            asked.fault(Fault(f"column {name!r}", cause, fix))


def _note_constant(
    asked: Description, pairs: PairsSpecification, columns: Columns, learn: npt.NDArray[np.bool_]
) -> None:
    for feature in pairs.features:
        values = columns[feature.name][learn]
        if values.size and np.all(values == values[0]):
            kind = "number" if isinstance(feature, Cuts) else "level"
            asked.note(f"column {feature.name!r} is one {kind} in every learning row; it cannot say anything")
