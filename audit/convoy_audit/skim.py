"""Read whole bundles of a log at once: what an audit of millions of entries spends its time on.

    skim(entries: Sequence[bytes]) -> Skimmed          leaves, and the entries that need a judgement of their own
    skim_bundle(data: bytes, width: int) -> Skimmed    the same for the bytes of an entry bundle, with their SHA-256
    kind_of(raw: bytes) -> (class, instant) | None     an entry that is recognised by its spelling alone

Most entries only report: nothing that comes before or after decides whether they may stand there. For such a type the
canonical bytes of an entry (SPEC.md §2) are a regular language - members in one order, no escapes, no blanks - so one
pattern, made from the class's shapes, checks spelling and members in a single pass and without building a value. LIMIT: the
patterns accept less than ``parse_entry`` (integers of sixteen digits, say), never more; a property test compares the two.
What no pattern recognises is in ``Skimmed.rest`` and is read by ``parse_entry``, as are all statements and every type that
``Trail`` judges. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, TypeAlias

from convoy_audit import shapes, summary, trail
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.event_base import Event, StatedEvent
from convoy_audit.events import CATALOGUE, VERSION
from convoy_audit.merkle import HASH_BYTES, Tree, perfect_levels
from convoy_audit.statement import STATEMENT_TYPE, Statement, key_that_signed
from convoy_audit.tiles import WIDTH, decode_bundle

Keys: TypeAlias = Mapping[str, bytes]
"""Identity keys by their id (``key_id_of``)."""
_INSTANT: Final = "([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z)"
_STATEMENT_TAIL: Final = f'"type":"{STATEMENT_TYPE}","v":{VERSION}}}'.encode()
_LEAF: Final = b"\x00"
_LONGEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Skimmed:
    """What stands in one run of entries.

    The instants are those of the coordinator's own entries, judged ones included; ``back_s`` is how far one of them is dated
    behind an earlier one of this run.
    """

    size: int
    levels: list[bytes]  # the leaves; of a full bundle the nodes above them too, up to its root
    sha256: str = ""  # of the bundle's bytes, in hex
    kinds: Counter[str] = field(default_factory=Counter)  # of the recognised ones
    first_at: datetime | None = None  # of the recognised ones
    last_at: datetime | None = None
    lowest: datetime | None = None
    highest: datetime | None = None
    back_s: float = 0.0
    rest: list[tuple[int, bytes]] = field(default_factory=list)  # position in this run, entry
    signed: dict[int, bytes] = field(default_factory=dict)  # position of a statement -> key under which it was verified

    def leaf(self, position: int) -> bytes:
        """Return the leaf hash of an entry of this run."""
        return self.levels[0][position * HASH_BYTES : (position + 1) * HASH_BYTES]

    def extend(self, tree: Tree) -> None:
        """Add the leaves to a tree; those of a full bundle without hashing again, if the tree ends with a bundle."""
        if self.size == WIDTH and tree.size % WIDTH == 0:
            tree.extend_perfect(self.levels)
        else:
            tree.extend(map(self.leaf, range(self.size)))


def skim_bundle(data: bytes, width: int, keys: Keys = MappingProxyType({})) -> Skimmed:
    """Skim the bytes of a bundle; ``keys`` as in ``skim``.

    Raises:
        FormatError: not a bundle of exactly ``width`` entries.
    """
    found = skim(decode_bundle(data, width), keys)
    found.sha256 = hashlib.sha256(data).hexdigest()
    return found


def skim(entries: Sequence[bytes], keys: Keys = MappingProxyType({})) -> Skimmed:
    """Skim entries that follow each other.

    Args:
        entries: the entries.
        keys: statements that name one of these keys are verified here, which is most of the time that they cost; whether it is
            the key that the party had then is for ``Trail`` to say, which verifies whatever was not verified under that key.
    """
    sha256 = hashlib.sha256
    leaves = b"".join([sha256(_LEAF + raw).digest() for raw in entries])
    found = Skimmed(len(entries), perfect_levels(leaves) if len(entries) == WIDTH else [leaves])
    rest, counts = found.rest, found.kinds
    lowest, highest, first, last, back = _LONGEST, None, None, None, 0.0
    for position, raw in enumerate(entries):
        known = kind_of(raw)
        if known is not None:
            cls, at = known
            counts[cls.TYPE] += 1
            if first is None or at < first:
                first = at
            if last is None or at > last:
                last = at
        else:
            rest.append((position, raw))
            if raw.endswith(_STATEMENT_TAIL):
                if keys and (key := key_that_signed(raw, keys)):
                    found.signed[position] = key
                continue
            own = _instant_of(raw)
            if own is None:
                continue
            at = own
        if at < lowest:
            lowest = at
        if highest is None or at > highest:
            highest = at
        elif at < highest:
            back = max(back, (highest - at).total_seconds())
    found.first_at, found.last_at, found.back_s = first, last, back
    found.lowest, found.highest = (None, None) if highest is None else (lowest, highest)
    return found


def kind_of(raw: bytes) -> tuple[type[Event], datetime] | None:
    """Return class and instant of an entry whose spelling alone shows that it is right; None says nothing."""
    at = raw.rfind(b'"type":"') + 8
    known = _PATTERNS.get(raw[at : raw.find(b'"', at)])
    if known is None:
        return None
    match = known[1](raw)
    if match is None:
        return None
    try:
        return known[0], datetime.fromisoformat(match[1].decode())
    except ValueError:  # a thirteenth month
        return None


def _instant_of(raw: bytes) -> datetime | None:
    """Return the instant of an entry of the coordinator's own; None for what is no entry."""
    try:
        content = parse_entry(raw)
    except AuditError:
        return None
    return None if isinstance(content, Statement) else content.at


def _pattern_of(cls: type[Event]) -> re.Pattern[bytes] | None:
    """Return the pattern of a class's entries, None if a member needs more than a pattern."""
    spelled: dict[str, tuple[str, bool]] = {
        "at": (f'"{_INSTANT}"', False),
        "type": (f'"{re.escape(cls.TYPE)}"', False),
        "v": (str(VERSION), False),
    }
    for member in shapes.members(cls):
        if member.name == "at":
            continue
        if not member.shape.spelling or member.name in spelled:
            return None
        spelled[member.name] = (member.shape.spelling, member.is_optional)
    parts, has_first = [], False
    for name in sorted(spelled):
        spelling, is_optional = spelled[name]
        text = f'"{re.escape(name)}":{spelling}'
        text = f",{text}" if has_first else f"{text}," if is_optional else text
        parts.append(f"(?:{text})?" if is_optional else text)
        has_first = has_first or not is_optional
    return re.compile(("\\{" + "".join(parts) + "\\}").encode())


def _is_plain(cls: type[Event]) -> bool:
    """Tell whether neither ``Trail`` nor ``Summary`` judges a type, and its members do not depend on each other."""
    is_judged = cls in trail.JUDGED or cls in summary.TAKEN or issubclass(cls, StatedEvent)
    return not is_judged and cls.check_rules is Event.check_rules


_PATTERNS: Final = {
    cls.TYPE.encode(): (cls, pattern.fullmatch)
    for cls in filter(_is_plain, CATALOGUE)
    if (pattern := _pattern_of(cls)) is not None
}
