"""The world of a decision as checked values (FORMAT.md §2). Anything that breaks §1-2 raises ``WorldMalformed`` inside ``decide``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from convoy_contracts.canonical import MAX_SAFE_INTEGER, unb64u
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.instants import decimal, instant
from convoy_contracts.jws import Key

T = TypeVar("T")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ROUND = re.compile(r"0|[1-9][0-9]*")
EVENT_TYPES = frozenset({"suspend", "resume", "terminate", "supersede"})
PHASES = ("authorise", "release")
UNNUMBERED = frozenset({"now", "contract_text", "signatures"})
"""Everywhere else §1 holds for every number, also in members that nothing reads; these have codes of their own (1, 3, 7 and 8)."""


class WorldMalformed(Exception):
    """The world breaks FORMAT.md §1-2; the text says where."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The terms of the decision."""

    purposes: Mapping[str, str | None]
    actions: Mapping[str, str | None]
    grades: tuple[str, ...]
    barred: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A signed event; ``rest`` holds the members of its type as they came."""

    uid: str
    seq: int
    type: str
    by: str
    at: int
    rest: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Duty:
    """A duty with its due date."""

    due: int
    is_blocking: bool
    is_fulfilled: bool


@dataclass(frozen=True, slots=True)
class CatalogueAsset:
    """Current owner and grades of an asset."""

    owner: str
    grades: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """A consent record of ``n`` persons."""

    n: int
    person: str | None
    given: int | None
    until: int | None
    withdrawn: int | None
    notice: str
    purpose: str
    recipients: frozenset[str]
    is_separate: bool
    age: int
    has_guardian: bool


@dataclass(frozen=True, slots=True)
class Spending:
    """Epsilon in micro, delta in nano."""

    spent: int = 0
    reserved: int = 0
    delta_spent: int = 0
    delta_reserved: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """What the deciding node knows itself."""

    clock_ok: bool
    last_round: int
    seen_nonces: frozenset[str]
    authorised: Mapping[int, tuple[int, str]]
    catalogue: Mapping[str, CatalogueAsset]
    subjects: tuple[Record, ...]
    budget: Mapping[str, Spending]
    asset_cap: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Request:
    """The round asked for."""

    phase: str
    contract_digest: str
    requester: str
    action: str
    purpose: str
    providers: tuple[str, ...]
    assets: tuple[str, ...]
    recipients: tuple[str, ...]
    node_regions: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    algorithm: str
    algorithm_digest: str
    args: Mapping[str, int]
    output: str
    round: int
    nonce: str
    issued_at: int
    epsilon: Mapping[str, int]
    delta: Mapping[str, int]
    precision: Mapping[str, Decimal]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class World:
    """Everything a decision may look at, except the contract."""

    vocabulary: Vocabulary
    signatures: Sequence[Mapping[str, Any]]
    keys: Mapping[str, Key]
    events: tuple[Event, ...]
    duties: tuple[Duty, ...]
    node: Node
    request: Request


def read(world: Mapping[str, Any]) -> World:
    """Check a world.

    Raises:
        WorldMalformed: at the first breach.
    """
    text(world, "contract_text", may_be_empty=True)
    for name, value in world.items():
        if name not in UNNUMBERED:
            _numbers(value, name)
    vocabulary = _vocabulary(mapping(world, "vocabulary"))
    return World(
        vocabulary=vocabulary,
        signatures=[_object(item, "signature entry") for item in items(world, "signatures")],
        keys=read_keys(world),
        events=_events(items(world, "events")),
        duties=tuple(_duty(item) for item in items(world, "duties")),
        node=_node(mapping(world, "node"), vocabulary.grades),
        request=_request(mapping(world, "request")),
    )


def read_keys(world: Mapping[str, Any]) -> dict[str, Key]:
    """Check the world's ``keys``.

    Raises:
        WorldMalformed: at the first breach.
    """
    return {kid: _key(kid, value) for kid, value in _entries(world, "keys")}


def _numbers(value: Any, name: str) -> None:
    """Refuse a fraction, an exponent or an integer of 2^53 or more, at any depth (FORMAT.md §1)."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is dict:
        for key, item in value.items():
            _numbers(item, key)
    elif kind is list or kind is tuple:
        for item in value:
            _numbers(item, name)
    elif kind is float or (kind is int and abs(value) > MAX_SAFE_INTEGER):
        raise WorldMalformed(f"{name} holds a number that is no integer below 2^53")


# Readers of one member -----------------------------------------------------------------------------------------------


def _get(source: Mapping[str, Any], name: str) -> Any:
    if name not in source:
        raise WorldMalformed(f"{name} is missing")
    return source[name]


def mapping(source: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object member."""
    value = _get(source, name)
    if not isinstance(value, Mapping):
        raise WorldMalformed(f"{name} is no object")
    return value


def items(source: Mapping[str, Any], name: str) -> Sequence[Any]:
    """Return a list member."""
    value = _get(source, name)
    if not isinstance(value, list | tuple):
        raise WorldMalformed(f"{name} is no list")
    return value


def text(source: Mapping[str, Any], name: str, *, may_be_empty: bool = False) -> str:
    """Return a string member; ids are not empty."""
    value = _get(source, name)
    if not isinstance(value, str) or not (value or may_be_empty):
        raise WorldMalformed(f"{name} is no id")
    return value


def _entries(source: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    value = mapping(source, name)
    for key in value:
        if not isinstance(key, str) or not key:
            raise WorldMalformed(f"{name} has a key that is no id")
    return list(value.items())


def texts(source: Mapping[str, Any], name: str, *, may_be_empty: bool = True) -> tuple[str, ...]:
    """Return a list of ids."""
    return _texts(items(source, name), name, may_be_empty)


def _texts(value: Any, name: str, may_be_empty: bool = True) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not (value or may_be_empty):
        raise WorldMalformed(f"{name} is no list, or empty")
    if any(not isinstance(item, str) or not item for item in value):
        raise WorldMalformed(f"{name} holds something that is no id")
    return tuple(value)


def _whole(value: Any, name: str, least: int | None = None) -> int:
    if type(value) is not int or abs(value) > MAX_SAFE_INTEGER or (least is not None and value < least):
        raise WorldMalformed(f"{name} is no integer in range")
    return value


def whole(source: Mapping[str, Any], name: str, least: int | None = None) -> int:
    """Return an integer member."""
    return _whole(_get(source, name), name, least)


def _boolean(source: Mapping[str, Any], name: str, default: bool | None = None) -> bool:
    if default is not None and name not in source:
        return default
    value = _get(source, name)
    if not isinstance(value, bool):
        raise WorldMalformed(f"{name} is no boolean")
    return value


def _at(source: Mapping[str, Any], name: str) -> int:
    value = instant(_get(source, name))
    if value is None:
        raise WorldMalformed(f"{name} is no timestamp")
    return value


def _at_or_null(source: Mapping[str, Any], name: str, *, may_be_absent: bool = False) -> int | None:
    if may_be_absent and name not in source:
        return None
    return None if _get(source, name) is None else _at(source, name)


def _digest(value: Any, name: str) -> str:
    if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
        raise WorldMalformed(f"{name} is no digest")
    return value


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise WorldMalformed(f"{name} is no object")
    return value


# Parts ---------------------------------------------------------------------------------------------------------------


def _vocabulary(source: Mapping[str, Any]) -> Vocabulary:
    grades = texts(source, "grades")
    if len(set(grades)) != len(grades):
        raise WorldMalformed("grades repeat")
    return Vocabulary(
        _tree(source, "purposes"),
        _tree(source, "actions"),
        grades,
        texts(source, "barredForSensitive"),
    )


def _tree(source: Mapping[str, Any], name: str) -> dict[str, str | None]:
    tree: dict[str, str | None] = {}
    for child, parent in _entries(source, name):
        if parent is not None and not (isinstance(parent, str) and parent):
            raise WorldMalformed(f"{name}: the parent of {child} is no term")
        tree[child] = parent
    settled: set[str] = set()
    for term in tree:
        path: list[str] = []
        walked: set[str] = set()
        here: str | None = term
        while here is not None and here not in settled:
            if here in walked:
                raise WorldMalformed(f"{name} has a cycle at {here}")
            if here not in tree:
                raise WorldMalformed(f"{name} lacks the parent {here}")
            walked.add(here)
            path.append(here)
            here = tree[here]
        settled.update(path)
    return tree


def _key(kid: str, value: Any) -> Key:
    source = _object(value, f"keys.{kid}")
    if text(source, "kty") != "OKP" or text(source, "crv") != "Ed25519":
        raise WorldMalformed(f"keys.{kid} is no Ed25519 key")
    try:
        x = unb64u(text(source, "x"))
    except DocumentMalformed as error:
        raise WorldMalformed(f"keys.{kid}.x is no base64url") from error
    if len(x) != 32:
        raise WorldMalformed(f"keys.{kid}.x has not 32 bytes")
    has_date, has_reason = "revokedAt" in source, "revokedReason" in source
    if has_date != has_reason:
        raise WorldMalformed(f"keys.{kid}: revokedAt and revokedReason go together")
    return Key(
        kid=kid,
        party=text(source, "party"),
        x=x,
        not_before=_at(source, "notBefore"),
        not_after=_at(source, "notAfter"),
        revoked_at=_at(source, "revokedAt") if has_date else None,
        revoked_reason=text(source, "revokedReason") if has_reason else None,
    )


def _events(values: Sequence[Any]) -> tuple[Event, ...]:
    events, seen = [], set()
    for value in values:
        source = _object(value, "event")
        event = Event(
            text(source, "uid"), whole(source, "seq"), text(source, "type"), text(source, "by"), _at(source, "at"), source
        )  # fmt: skip
        if event.type not in EVENT_TYPES:
            raise WorldMalformed(f"event type {event.type} is unknown")
        if type(event.rest.get("version")) in (int, float):
            whole(source, "version")
        if (event.uid, event.seq) in seen:
            raise WorldMalformed(f"seq {event.seq} stands twice")
        seen.add((event.uid, event.seq))
        events.append(event)
    return tuple(sorted(events, key=lambda e: e.seq))


def _duty(value: Any) -> Duty:
    source = _object(value, "duty")
    text(source, "id")
    text(source, "bearer")
    return Duty(
        _at(source, "due"),
        _boolean(source, "blocking"),
        _boolean(source, "fulfilled", default=False),
    )


def _node(source: Mapping[str, Any], grades: Sequence[str]) -> Node:
    consent = mapping(source, "consent")
    return Node(
        clock_ok=_boolean(source, "clockOk", default=True),
        last_round=whole(source, "lastRound"),
        seen_nonces=frozenset(texts(source, "seenNonces")),
        authorised=dict(_authorised(key, value) for key, value in _entries(source, "authorised")),
        catalogue={asset: _catalogue(asset, value, grades) for asset, value in _entries(source, "catalog")},
        subjects=tuple(_record(value) for value in items(consent, "subjects")),
        budget={asset: _spending(_object(value, asset)) for asset, value in _entries(source, "budget")},
        asset_cap={asset: _whole(value, asset, 0) for asset, value in _entries(source, "assetCapMicro")},
    )


def _authorised(key: str, value: Any) -> tuple[int, tuple[int, str]]:
    if _ROUND.fullmatch(key) is None or len(key) > 16 or int(key) > MAX_SAFE_INTEGER:
        raise WorldMalformed(f"authorised: {key} is no round")
    source = _object(value, "authorised")
    return int(key), (_at(source, "at"), _digest(_get(source, "scope"), "scope"))


def _catalogue(asset: str, value: Any, grades: Sequence[str]) -> CatalogueAsset:
    source = _object(value, asset)
    current: dict[str, str] = {}
    for name, field in _entries(source, "fields"):
        grade = text(_object(field, name), "grade")
        if grade not in grades:
            raise WorldMalformed(f"grade {grade} of {name} is unknown")
        current[name] = grade
    return CatalogueAsset(text(source, "owner"), current)


def _record(value: Any) -> Record:
    source = _object(value, "consent record")
    n = whole(source, "n", 1)
    person = text(source, "person") if "person" in source else None
    if person is not None and n != 1:
        raise WorldMalformed("a record with person has n = 1")
    return Record(
        n=n,
        person=person,
        given=_at_or_null(source, "given"),
        until=_at_or_null(source, "until"),
        withdrawn=_at_or_null(source, "withdrawn", may_be_absent=True),
        notice=text(source, "notice"),
        purpose=text(source, "purpose"),
        recipients=frozenset(texts(source, "recipients")),
        is_separate=_boolean(source, "separate"),
        age=whole(source, "age"),
        has_guardian=_boolean(source, "guardian", default=False),
    )


def _spending(source: Mapping[str, Any]) -> Spending:
    return Spending(*(whole(source, name, 0) for name in ("spent", "reserved", "deltaSpent", "deltaReserved")))


def _by_name(source: Mapping[str, Any], name: str, read_one: Callable[[Any, str], T]) -> dict[str, T]:
    return {key: read_one(value, key) for key, value in _entries(source, name)}


def _decimal(value: Any, name: str) -> Decimal:
    number = decimal(value)
    if number is None:
        raise WorldMalformed(f"precision of {name} is no decimal")
    return number


def _request(source: Mapping[str, Any]) -> Request:
    phase = text(source, "phase")
    if phase not in PHASES:
        raise WorldMalformed(f"phase {phase} is unknown")
    assets = texts(source, "assets", may_be_empty=False)
    fields = _by_name(source, "fields", _texts)
    if set(fields) - set(assets):
        raise WorldMalformed("fields of an asset that is not requested")
    algorithm = mapping(source, "algorithm")
    return Request(
        phase=phase,
        contract_digest=_digest(_get(source, "contractDigest"), "contractDigest"),
        requester=text(source, "requester"),
        action=text(source, "action"),
        purpose=text(source, "purpose"),
        providers=texts(source, "providers", may_be_empty=False),
        assets=assets,
        recipients=texts(source, "recipients", may_be_empty=False),
        node_regions=texts(source, "nodeRegions", may_be_empty=False),
        fields=fields,
        algorithm=text(algorithm, "id"),
        algorithm_digest=_digest(_get(algorithm, "digest"), "digest"),
        args=_by_name(algorithm, "args", _whole) if "args" in algorithm else {},
        output=text(source, "output"),
        round=whole(source, "round", 1),
        nonce=text(source, "nonce"),
        issued_at=_at(source, "issuedAt"),
        epsilon=_by_name(source, "epsilonMicro", _whole),
        delta=_by_name(source, "deltaNano", _whole),
        precision=_by_name(source, "precision", _decimal) if "precision" in source else {},
        raw=source,
    )
