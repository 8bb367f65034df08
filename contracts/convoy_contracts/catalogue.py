"""The asset catalogue: who answers for an asset, what is in it, how its fields are graded - and what a partner's tier allows.

    CatalogueEntry      an asset's entry: one accountable owner, one steward, fields with grade, step, transform, necessity
    parse_entry(text)   strict, closed, every fault at once
    regrade(old, new)   which fields rise (at once) and which fall (needs the owner's co-signers)
    derived_grade(...)  a model is graded as derived data: as high as its highest input
    tier_faults(...)    what a partner's tier does not allow

Guarantees: no entry without an owner and a steward; a field without a stated necessity cannot be offered; collection is off
unless a person turned it on (there is no other value). What may never change: ``convoy-catalogue/1`` and the order of grades.
Sources: PIPL 5-6, 51; automotive data provisions 6; GB/T 43697-2024 App. H-J (reference/contracts.md §3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from convoy_contracts.canonical import Json, canonical_bytes, digest, parse_json
from convoy_contracts.document import Decimal, Id, Timestamp
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.vocabulary import GRADES, PURPOSES

SCHEMA: Literal["convoy-catalogue/1"] = "convoy-catalogue/1"
MAX_FIELDS = 1000


def _grade(text: str) -> str:
    if text not in GRADES:
        raise ValueError(f"the grade is not one of {', '.join(GRADES)}")
    return text


def _purpose(text: str) -> str:
    if text not in PURPOSES:
        raise ValueError("the purpose is not in the vocabulary")
    return text


Grade = Annotated[str, AfterValidator(_grade)]
Purpose = Annotated[str, AfterValidator(_purpose)]
Sentence = Annotated[str, Field(min_length=1, max_length=1000)]


class Closed(BaseModel):
    """Frozen, closed, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CatalogueField(Closed):
    """One field: how sensitive it is, how fine it may be, what is done to it, and why it is needed for each purpose."""

    name: Id
    grade: Grade
    sensitive: bool
    step: Decimal
    unit: Id | None = None
    transform: Id | None = None
    category: Id | None = None
    necessity: Annotated[dict[Purpose, Sentence], Field(min_length=1)]


class CatalogueEntry(Closed):
    """An asset's entry. ``version`` grows by one with every change; ``previous`` is the digest of the entry before."""

    schema_: Literal["convoy-catalogue/1"] = Field(alias="schema")
    asset: Id
    version: Annotated[int, Field(ge=1)]
    previous: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\z")] | None = None
    owner: Id
    steward: Id
    processedIn: Literal["vehicle", "node"]
    collectionDefault: Literal["off"]
    fields: Annotated[list[CatalogueField], Field(min_length=1, max_length=MAX_FIELDS)]
    at: Timestamp

    @model_validator(mode="after")
    def _is_consistent(self) -> CatalogueEntry:
        names = [item.name for item in self.fields]
        if len(set(names)) != len(names):
            raise ValueError("a field stands twice")
        if (self.version == 1) != (self.previous is None):
            raise ValueError("the first version has no previous, every later one has")
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the entry as JSON values; members at None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def digest(self) -> str:
        """The digest of the entry's canonical bytes."""
        return digest(self.as_json())

    def for_node(self) -> dict[str, Any]:
        """Return the entry as a decision's ``node.catalog`` has it (FORMAT.md §2)."""
        return {"owner": self.owner, "fields": {item.name: {"grade": item.grade} for item in self.fields}}


def parse_entry(text: str | bytes | Json) -> CatalogueEntry:
    """Read an entry from JSON text, or from JSON values that were parsed strictly already.

    Raises:
        DocumentMalformed: with every fault in ``problems``.
    """
    value = parse_json(text) if isinstance(text, str | bytes) else parse_json(canonical_bytes(text))
    try:
        return CatalogueEntry.model_validate_json(canonical_bytes(value))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, fault['loc'])) or 'entry'}: {fault['msg']}" for fault in error.errors()]
        raise DocumentMalformed(
            f"not a catalogue entry: {'; '.join(problems[:20])}", fix="Mend every named member.", problems=problems
        ) from error


# Grades ------------------------------------------------------------------------------------------------------------------


class Change(StrEnum):
    """What a new version of an entry does."""

    RAISED = "raised"
    LOWERED = "lowered"
    NEW_FIELD = "new-field"
    DROPPED_FIELD = "dropped-field"
    NEW_OWNER = "new-owner"
    FINER = "finer"
    LESS_PROTECTED = "less-protected"
    OTHER = "other"


LOOSENING = frozenset({Change.LOWERED, Change.NEW_OWNER, Change.FINER, Change.LESS_PROTECTED})
"""Changes that need the signatures of everybody who relied on the entry; all others are immediate."""


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One change of an entry: where, what it does, what it was and is."""

    where: str
    change: Change
    old: Any
    new: Any

    @property
    def is_loosening(self) -> bool:
        """Whether the change needs more signatures than the owner's."""
        return self.change in LOOSENING

    def as_json(self) -> dict[str, Any]:
        """Return the change as JSON values."""
        return {
            "where": self.where, "change": str(self.change), "old": self.old, "new": self.new,
            "needs": "signatures" if self.is_loosening else "owner",
        }  # fmt: skip


def rank(grade: str) -> int:
    """Return the place of a grade, low to high."""
    return GRADES.index(grade)


def regrade(old: CatalogueEntry, new: CatalogueEntry) -> list[EntryChange]:
    """Compare two versions of an entry, field by field."""
    found: list[EntryChange] = []
    if old.owner != new.owner:
        found.append(EntryChange("owner", Change.NEW_OWNER, old.owner, new.owner))
    for name in ("steward", "processedIn"):
        pair = getattr(old, name), getattr(new, name)
        if pair[0] != pair[1]:
            leaves_vehicle = name == "processedIn" and pair[1] == "node"
            found.append(EntryChange(name, Change.LESS_PROTECTED if leaves_vehicle else Change.OTHER, *pair))
    before, after = ({item.name: item for item in entry.fields} for entry in (old, new))
    for name in sorted(after.keys() - before.keys()):
        found.append(EntryChange(f"fields.{name}", Change.NEW_FIELD, None, after[name].grade))
    for name in sorted(before.keys() - after.keys()):
        found.append(EntryChange(f"fields.{name}", Change.DROPPED_FIELD, before[name].grade, None))
    for name in sorted(before.keys() & after.keys()):
        found += _field_changes(before[name], after[name])
    return found


def _field_changes(old: CatalogueField, new: CatalogueField) -> Iterable[EntryChange]:
    from decimal import Decimal as Number

    where = f"fields.{old.name}"
    if old.grade != new.grade:
        change = Change.RAISED if rank(new.grade) > rank(old.grade) else Change.LOWERED
        yield EntryChange(f"{where}.grade", change, old.grade, new.grade)
    if old.sensitive != new.sensitive:
        change = Change.RAISED if new.sensitive else Change.LESS_PROTECTED
        yield EntryChange(f"{where}.sensitive", change, old.sensitive, new.sensitive)
    if Number(old.step) != Number(new.step):
        change = Change.FINER if Number(new.step) < Number(old.step) else Change.OTHER
        yield EntryChange(f"{where}.step", change, old.step, new.step)
    if old.transform != new.transform:
        change = Change.OTHER if old.transform is None else Change.LESS_PROTECTED
        yield EntryChange(f"{where}.transform", change, old.transform, new.transform)
    if dict(old.necessity) != dict(new.necessity):
        yield EntryChange(f"{where}.necessity", Change.OTHER, dict(old.necessity), dict(new.necessity))


def derived_grade(inputs: Iterable[str]) -> str:
    """Return the grade of a model or other derived data: that of its highest input (GB/T 43697-2024 App. I).

    Differential privacy does not lower it here; only signatures lower a grade.
    """
    return max(inputs, key=rank, default=GRADES[0])


# Tiers -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tier:
    """What a partner of this tier may do with others' assets: actions, and the highest grade."""

    name: str
    actions: frozenset[str]
    max_grade: str
    title_en: str
    title_zh: str


TIERS: Mapping[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("T0", frozenset(), "L1", "catalogue only", "仅目录"),
        Tier("T1", frozenset({"convoy:evaluate"}), "L2", "DP statistics up to L2", "L2 及以下的差分隐私统计"),
        Tier("T2", frozenset({"convoy:evaluate", "convoy:train"}), "L3", "joint training up to L3", "L3 及以下联合训练"),
        Tier(
            "T3", frozenset({"convoy:evaluate", "convoy:train", "convoy:infer", "convoy:price"}), "L3",
            "inference on the partner's own consenting customers", "对本方已同意客户的推断",
        ),
    )
}  # fmt: skip
CHARGING = "convoy:ChargingOperator"


def first_tier(roles: Iterable[str]) -> str:
    """Return the tier with which a partner starts: charging operators T1, everybody else T0; more needs signatures."""
    return "T1" if CHARGING in set(roles) or "charging" in set(roles) else "T0"


def tier_faults(tier: str, action: str, grades: Mapping[str, str]) -> list[str]:
    """Return what a partner of ``tier`` may not do.

    Args:
        tier: T0 to T3.
        action: of the vocabulary; ``use`` is allowed to nobody as a whole.
        grades: field name to effective grade of what is asked.
    """
    allowed = TIERS.get(tier)
    if allowed is None:
        return [f"tier {tier!r} is unknown"]
    faults = [] if action in allowed.actions else [f"tier {tier} does not allow {action}"]
    limit = rank(allowed.max_grade)
    faults += [
        f"{name}: grade {grade} is above {allowed.max_grade}, the limit of tier {tier}"
        for name, grade in sorted(grades.items())
        if grade not in GRADES or rank(grade) > limit
    ]
    return faults
