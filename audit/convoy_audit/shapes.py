"""The kinds of value that an event may carry, and the codec from frozen classes to JSON and back.

There is no kind for free text, and none that fits a person's name or number: what an event can say
is an identifier of an organisation, contract, run or key, a digest, a code, a count, micro-epsilon
or an instant. A class declares its fields with the names below; ``read`` and ``write`` do the rest.

    Token      1 to 200 printable ASCII characters without space, quote or backslash
    Digest     sha256: and 64 hex digits          Code     UPPER_CASE reason
    Count      integer from 0                     Tokens, Codes   tuples of them
    Vkeys      tuple of verifier keys that may be enrolled
    Charges    {token: integer from 0}            Octets   bytes, base64url in JSON; Proofs   a tuple of them
    instant    aware UTC datetime with milliseconds, YYYY-MM-DDTHH:MM:SS.mmmZ in JSON
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType, NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from convoy_audit.canonical import DIGEST_PATTERN, MAX_INTEGER, Json, b64u, unb64u
from convoy_audit.errors import FormatError, KeyRejected
from convoy_audit.note import Verifier

T = TypeVar("T")
MAX_ITEMS: Final = 1024
_TOKEN: Final = re.compile(r"[!#-\[\]-~]{1,200}")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@dataclass(frozen=True, slots=True)
class Shape:
    """How one kind of value is checked, and spelled in JSON.

    ``spelling`` is a pattern of canonical JSON texts that ``read`` accepts, empty where none can tell (``skim`` uses it).
    """

    name: str
    read: Callable[[Json], Any]
    write: Callable[[Any], Json]
    spelling: str = ""


def _spelled(name: str, pattern: re.Pattern[str]) -> Shape:
    fullmatch = pattern.fullmatch

    def check(value: Any) -> Any:
        if not isinstance(value, str) or fullmatch(value) is None:
            raise FormatError(f"not a {name}")
        return value

    return Shape(name, check, check, f'"{pattern.pattern}"')


def _plain(name: str, fits: Callable[[Any], bool], spelling: str = "") -> Shape:
    def check(value: Any) -> Any:
        if not fits(value):
            raise FormatError(f"not a {name}")
        return value

    return Shape(name, check, check, spelling)


def _sequence(name: str, item: Shape) -> Shape:
    def read(value: Json) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise FormatError(f"not {name}")
        return tuple([item.read(element) for element in value])

    spelling = item.spelling and f"\\[(?:{item.spelling}(?:,{item.spelling}){{0,{MAX_ITEMS - 1}}})?\\]"
    return Shape(name, read, lambda value: [item.write(element) for element in read(value)], spelling)


def _is_vkey(value: str) -> bool:
    try:
        Verifier.parse(value)
    except KeyRejected:
        return False
    return True


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER


def _charges(value: Json) -> Mapping[str, int]:
    if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
        raise FormatError("not a map of charges")
    for key, amount in value.items():
        TOKEN.read(key)
        COUNT.read(amount)
    return MappingProxyType(dict(value))


def _read_octets(value: Json) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or len(value) > 16_384:
        raise FormatError("not octets")
    return unb64u(value)


def _read_instant(value: Json) -> datetime:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise FormatError("not an instant YYYY-MM-DDTHH:MM:SS.mmmZ")


def _write_instant(value: Any) -> str:
    text = whole_milliseconds(value).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text[:-3]}Z"


def whole_milliseconds(value: datetime) -> datetime:
    """Turn an aware instant into UTC and drop what is finer than a millisecond.

    Raises:
        FormatError: no datetime, or one without a zone, or a year that four digits cannot hold.
    """
    if not isinstance(value, datetime) or value.tzinfo is None or value.year < 1000:
        raise FormatError("an instant needs a time zone and a year of four digits")
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


TOKEN: Final = _spelled("token", _TOKEN)
DIGEST: Final = _spelled("digest", DIGEST_PATTERN)
CODE: Final = _spelled("code", _CODE)
VKEY: Final = _plain("verifier key", lambda v: isinstance(v, str) and _is_vkey(v))
COUNT: Final = _plain("count", _is_count, "(?:0|[1-9][0-9]{0,14})")
INSTANT: Final = Shape("instant", _read_instant, _write_instant)

Token = Annotated[str, TOKEN]
Digest = Annotated[str, DIGEST]
Code = Annotated[str, CODE]
Count = Annotated[int, COUNT]
Tokens = Annotated[tuple[str, ...], _sequence("list of tokens", TOKEN)]
Codes = Annotated[tuple[str, ...], _sequence("list of codes", CODE)]
Vkeys = Annotated[tuple[str, ...], _sequence("list of verifier keys", VKEY)]
Charges = Annotated[Mapping[str, int], Shape("charges", _charges, lambda value: dict(_charges(value)))]
Octets = Annotated[bytes, Shape("octets", _read_octets, b64u)]
Proofs = Annotated[tuple[bytes, ...], _sequence("list of signatures", Shape("octets", _read_octets, b64u))]


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a class: its name in Python and JSON, its shape, and if it may be absent."""

    field: str
    name: str
    shape: Shape
    is_optional: bool


_NAMES: Final[dict[type[Any], dict[str, Member]]] = {}
_MEMBERS: Final[dict[type[Any], tuple[Member, ...]]] = {}
_PLANS: Final[dict[type[Any], tuple[tuple[str, Callable[[Any, Any], None], Callable[[Json], Any]], ...]]] = {}
_REQUIRED: Final[dict[type[Any], frozenset[str]]] = {}
_ABSENT: Final = object()


def members(cls: type[Any]) -> tuple[Member, ...]:
    """Return the fields of a dataclass with their shapes; JSON names are in camelCase."""
    found = _MEMBERS.get(cls)
    if found is None:
        hints = get_type_hints(cls, include_extras=True)
        found = tuple(_member(f.name, hints[f.name]) for f in dataclasses.fields(cls))
        _MEMBERS[cls] = found
    return found


def write(value: Any) -> dict[str, Json]:
    """Return the JSON members of an instance; fields that are None are left out.

    Raises:
        FormatError: a value does not fit its shape; the field is named.
    """
    found: dict[str, Json] = {}
    for member in members(type(value)):
        content = getattr(value, member.field)
        if content is None and member.is_optional:
            continue
        found[member.name] = _apply(member, member.shape.write, content)
    return found


def read(cls: type[T], value: Mapping[str, Json], envelope: frozenset[str] = frozenset()) -> T:
    """Build an instance from JSON members.

    Args:
        cls: the class.
        value: the members.
        envelope: names in ``value`` that are not members, and were judged by the caller.

    ``__post_init__`` is left out: every value has just been read by its shape, and an audit reads millions. The caller
    checks what fields say to each other.

    Raises:
        FormatError: members that are missing, unknown or do not fit; all of them are named.
    """
    known = _by_name(cls)
    made = object.__new__(cls)
    left = len(value) - len(envelope)
    try:
        for name, put, act in _plan(cls):
            content_of = value.get(name, _ABSENT)
            if content_of is _ABSENT:
                put(made, None)
            else:
                put(made, act(content_of))
                left -= 1
    except FormatError:
        left = -1
    if left == 0 and value.keys() >= _required(cls):
        return made
    # Something is wrong: read again, and name all of it.
    faults = [f"unknown member {name[:40]!r}" for name in value if name not in known and name not in envelope]
    content: dict[str, Any] = {}
    for name, member in known.items():
        if name not in value:
            if not member.is_optional:
                faults.append(f"{name} is missing")
            continue
        try:
            content[member.field] = member.shape.read(value[name])
        except FormatError as error:
            faults.append(f"{name} is {error.cause}")
    if faults:
        raise FormatError("; ".join(faults[:8]))
    for member in known.values():
        object.__setattr__(made, member.field, content.get(member.field))
    return made


def _plan(cls: type[Any]) -> tuple[tuple[str, Callable[[Any, Any], None], Callable[[Json], Any]], ...]:
    """Return for each member its name, the setter of its slot, and how it is read."""
    found = _PLANS.get(cls)
    if found is None:
        found = _PLANS[cls] = tuple((m.name, getattr(cls, m.field).__set__, m.shape.read) for m in members(cls))
    return found


def _required(cls: type[Any]) -> frozenset[str]:
    found = _REQUIRED.get(cls)
    if found is None:
        found = _REQUIRED[cls] = frozenset(m.name for m in members(cls) if not m.is_optional)
    return found


def _by_name(cls: type[Any]) -> dict[str, Member]:
    found = _NAMES.get(cls)
    if found is None:
        found = _NAMES[cls] = {member.name: member for member in members(cls)}
    return found


def check(value: Any) -> None:
    """Normalise and check the fields of a frozen instance; for ``__post_init__``.

    Raises:
        FormatError: a value does not fit its shape; the field is named.
    """
    for member in members(type(value)):
        content = getattr(value, member.field)
        if content is None and member.is_optional:
            continue
        spelled = _apply(member, member.shape.write, content)
        object.__setattr__(value, member.field, _apply(member, member.shape.read, spelled))


def _apply(member: Member, act: Callable[[Any], Any], content: Any) -> Any:
    try:
        return act(content)
    except FormatError as error:
        raise FormatError(f"{member.name} is {error.cause}") from None
    except TypeError:
        raise FormatError(f"{member.name} is not a {member.shape.name}") from None


def _member(field: str, hint: Any) -> Member:
    is_optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    if is_optional:
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    head, *tail = field.split("_")
    return Member(field, head + "".join(map(str.capitalize, tail)), _shape(hint), is_optional)


def _shape(hint: Any) -> Shape:
    if get_origin(hint) is Annotated:
        for extra in get_args(hint)[1:]:
            if isinstance(extra, Shape):
                return extra
    if get_origin(hint) is Literal:
        options = get_args(hint)
        spelling = "(?:" + "|".join(f'"{re.escape(option)}"' for option in options) + ")"
        return _plain(f"one of {', '.join(map(str, options))}", lambda v: v in options, spelling)
    if hint is datetime:
        return INSTANT
    raise TypeError(f"no shape for {hint!r}")
