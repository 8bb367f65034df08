"""The contract document (FORMAT.md §3): a closed, frozen value, and the only way to get one is ``Contract.parse``.

Guarantees: every member is known and of its type; ids are unique in their lists; timestamps and decimals are valid; a
specification fits the digest under which its algorithm is listed. Does not judge grades (``grade_faults`` does), constraints
(gate 4 of ``decide``) or signatures.
What may never change: the meaning of a member of ``convoy-contract/1``. Optional members may be added; an engine refuses
what it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from convoy_contracts.canonical import Json, canonical_bytes, digest, parse_json, unb64u
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.instants import decimal, instant
from convoy_contracts.specification import Specification


def _timestamp(text: str) -> str:
    if instant(text) is None:
        raise ValueError("not a timestamp with offset (FORMAT.md §1)")
    return text


def _decimal(text: str) -> str:
    if decimal(text) is None:
        raise ValueError("not a decimal string such as 0.01")
    return text


def _key_32(text: str) -> str:
    if len(unb64u(text)) != 32:
        raise ValueError("not 32 bytes of base64url")
    return text


Id = Annotated[str, Field(min_length=1)]
Timestamp = Annotated[str, AfterValidator(_timestamp)]
Decimal = Annotated[str, AfterValidator(_decimal)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}\z")]
Amount = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of the document: frozen, closed, no coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Pia(Part):
    """A personal-information impact assessment."""

    ref: Id
    validUntil: Timestamp


class MaskKey(Part):
    """X25519 public key from which masks and seals are derived; pinned here so that nobody can swap it."""

    kid: Id
    x: Annotated[str, AfterValidator(_key_32)]


class Party(Part):
    """Somebody who signs."""

    id: Id
    roles: list[Id]
    region: Id
    pia: Pia | None = None
    maskKey: MaskKey | None = None
    witnessKey: Id | None = None
    tier: Literal["T0", "T1", "T2", "T3"] | None = None


class Term(Part):
    """Half-open: notBefore <= t < notAfter."""

    notBefore: Timestamp
    notAfter: Timestamp

    @model_validator(mode="after")
    def _is_not_empty(self) -> Term:
        begin, end = instant(self.notBefore), instant(self.notAfter)
        if begin is None or end is None or begin >= end:
            raise ValueError("notBefore must be before notAfter")
        return self


class Permission(Part):
    """What an assignee may do with some assets."""

    uid: Id
    action: Id
    target: list[Id]
    assignee: list[Id]
    constraint: list[dict[str, Any]] = Field(default_factory=list)


class Prohibition(Part):
    """What nobody may do; no target means every asset."""

    uid: Id
    action: Id
    target: list[Id] = Field(default_factory=list)
    constraint: list[dict[str, Any]] = Field(default_factory=list)


class ScheduledField(Part):
    """One field of an asset with the grade and the finest precision that were agreed."""

    name: Id
    grade: Id
    sensitive: bool
    step: Decimal
    necessity: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


class ScheduledAsset(Part):
    """One line of the schedule."""

    asset: Id
    provider: Id
    fields: list[ScheduledField]


class Algorithm(Part):
    """An allowed algorithm; with a specification, its digest is the specification's."""

    id: Id
    digest: Digest
    args: dict[Id, Annotated[list[int], Field(min_length=2, max_length=2)]]
    specification: Specification | None = None


class Output(Part):
    """What may come out, and for whom."""

    kind: Id
    recipients: list[Id]


class Export(Part):
    """The assessed way abroad."""

    mechanism: Id
    validUntil: Timestamp
    recipients: list[Id]


class Location(Part):
    """Where data may be processed."""

    processing: list[Id]
    export: Export | None = None


class Limits(Part):
    """Limits for every round."""

    maxGrade: Id
    maxRoundSeconds: Annotated[int, Field(gt=0)]


class Consent(Part):
    """Accepted notices; ``separateNotices`` are those of them that ask for separate consent (PIPL 23, 29).

    ``reaskAfterDays``: days after a refusal in which nobody asks the person again.
    """

    notices: list[Id]
    separateNotices: list[Id] | None = None
    reaskAfterDays: Annotated[int, Field(gt=0)] | None = None


class Cohort(Part):
    """Floors."""

    minSubjects: Amount
    minProviders: Amount


class Withdrawal(Part):
    """When a withdrawal bites."""

    effective: Literal["next-round", "immediate"]


class Budget(Part):
    """Epsilon in micro, delta in nano, per person."""

    perRoundMicro: Amount
    totalMicro: Amount
    deltaNano: Amount


class Duty(Part):
    """Something that a bearer (a party, or ``*`` for each) owes after a trigger, within hours or working days."""

    id: Id
    bearer: Id
    kind: Literal["explain", "delete", "notify", "fairness-report", "impact-assessment", "annual-report"]
    trigger: Id
    withinHours: Annotated[int, Field(gt=0)] | None = None
    withinWorkingDays: Annotated[int, Field(gt=0)] | None = None
    blocking: bool

    @model_validator(mode="after")
    def _has_one_deadline(self) -> Duty:
        if (self.withinHours is None) == (self.withinWorkingDays is None):
            raise ValueError("a duty has withinHours or withinWorkingDays")
        return self


class LegalText(Part):
    """The text for people, by language: the digest of its UTF-8 bytes, and which language prevails."""

    digests: Annotated[dict[Literal["zh-CN", "en"], Digest], Field(min_length=1)]
    prevails: Literal["zh-CN", "en"]

    @model_validator(mode="after")
    def _prevailing_text_is_bound(self) -> LegalText:
        if self.prevails not in self.digests:
            raise ValueError("the prevailing language has no digest")
        return self


class Vocab(Part):
    """The pinned purposes."""

    purposes: Digest


class Contract(Part):
    """What all parties signed."""

    schema_: Literal["convoy-contract/1"] = Field(alias="schema")
    uid: Id
    version: Annotated[int, Field(ge=1)]
    offerNonce: str
    offerUntil: Timestamp
    title: str | None = None
    vocab: Vocab
    parties: Annotated[list[Party], Field(min_length=1)]
    term: Term
    permission: list[Permission]
    prohibition: list[Prohibition]
    data: list[ScheduledAsset]
    algorithms: list[Algorithm]
    outputs: list[Output]
    location: Location
    limits: Limits
    consent: Consent
    cohort: Cohort
    withdrawal: Withdrawal
    privacy: dict[Id, Budget]
    author: Id | None = None
    duties: list[Duty] | None = None
    legalText: LegalText | None = None
    _digest: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Contract:
        lists: list[tuple[str, Sequence[str]]] = [
            ("parties", [p.id for p in self.parties]),
            ("permission and prohibition", [*(r.uid for r in self.permission), *(r.uid for r in self.prohibition)]),
            ("data", [row.asset for row in self.data]),
            ("algorithms", [a.id for a in self.algorithms]),
            ("outputs", [o.kind for o in self.outputs]),
            ("duties", [duty.id for duty in self.duties or ()]),
            *((f"fields of {row.asset}", [f.name for f in row.fields]) for row in self.data),
        ]
        twice = [name for name, ids in lists if len(set(ids)) != len(ids)]
        if twice:
            raise ValueError(f"an id stands twice in: {', '.join(twice)}")
        if self.author is not None and self.author not in {party.id for party in self.parties}:
            raise ValueError("the author is no party")
        return self

    @classmethod
    def parse(cls, text: str | bytes) -> Contract:
        """Parse a contract document.

        Raises:
            DocumentMalformed: with every fault that was found in ``problems``.
        """
        return _parse(text if isinstance(text, str) else _utf8(text))

    @property
    def digest(self) -> str:
        """SHA-256 of the document's canonical bytes; spacing and member order do not matter."""
        return self._digest

    def party(self, party: str) -> Party | None:
        """Return a party by id."""
        return next((p for p in self.parties if p.id == party), None)

    def schedule(self, asset: str) -> ScheduledAsset | None:
        """Return an asset's line of the schedule."""
        return next((row for row in self.data if row.asset == asset), None)

    def grade_faults(self, grades: Sequence[str]) -> list[str]:
        """Return where the document names a grade that the vocabulary lacks."""
        known = set(grades)
        faults = [
            f"data: {row.asset}: {field.name}: grade {field.grade!r} is unknown"
            for row in self.data
            for field in row.fields
            if field.grade not in known
        ]
        if self.limits.maxGrade not in known:
            faults.append(f"limits.maxGrade: grade {self.limits.maxGrade!r} is unknown")
        return faults


def _utf8(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentMalformed("not UTF-8", fix="Send UTF-8 JSON.") from error


_OPTIONAL_NOT_NULL = {
    (): ("title", "author", "duties", "legalText"),
    ("permission",): ("constraint",),
    ("prohibition",): ("constraint", "target"),
    ("parties",): ("maskKey", "witnessKey", "tier"),
    ("algorithms",): ("specification",),
    ("data", "fields"): ("necessity",),
    ("consent",): ("separateNotices", "reaskAfterDays"),
    ("duties",): ("withinHours", "withinWorkingDays"),
}
"""Optional members that may be absent but not null."""


@lru_cache(maxsize=64)
def _parse(text: str) -> Contract:
    value = parse_json(text)
    nulls = _nulls(value)
    try:
        contract = Contract.model_validate_json(canonical_bytes(value))  # JSON mode: strict, yet lists become tuples
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()
        ] + nulls
        raise DocumentMalformed(
            f"not a contract document: {'; '.join(problems[:20])}",
            fix="Mend every named member; unknown members are not allowed.",
            problems=problems,
        ) from error
    faults = nulls + _specification_faults(contract, value)
    if faults:
        raise DocumentMalformed("; ".join(faults), fix="Mend every named member.", problems=faults)
    contract._digest = digest(value)
    return contract


def forget() -> None:
    """Empty the cache of parsed documents (for measurements)."""
    _parse.cache_clear()


def _nulls(value: Json) -> list[str]:
    faults = []
    for path, names in _OPTIONAL_NOT_NULL.items():
        for item in _at(value, path):
            faults += [
                f"{'.'.join((*path, name))}: may be left out, not null" for name in names if item.get(name, 0) is None
            ]
    return faults


def _at(value: Json, path: Sequence[str]) -> list[dict[str, Json]]:
    """Return the objects at a path of member names; lists on the way are gone through."""
    here = [value]
    for name in path:
        here = [item[name] for item in here if isinstance(item, dict) and name in item]
        here = [part for item in here for part in (item if isinstance(item, list) else [item])]
    return [item for item in here if isinstance(item, dict)]


def _specification_faults(contract: Contract, value: Json) -> list[str]:
    return [
        f"algorithms: {algorithm.id}: digest is not that of its specification"
        for algorithm, raw in zip(contract.algorithms, value["algorithms"], strict=True)
        if algorithm.specification is not None and digest(raw["specification"]) != algorithm.digest
    ]
