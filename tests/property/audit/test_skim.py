"""Reading whole bundles at once says exactly what reading entry by entry says."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_audit import events, shapes
from convoy_audit.canonical import digest
from convoy_audit.entry import encode, parse_entry
from convoy_audit.events import Event
from convoy_audit.merkle import Tree, leaf_hash
from convoy_audit.rehearsal import START, Rehearsal
from convoy_audit.skim import _PATTERNS, kind_of, skim, skim_bundle
from convoy_audit.tiles import WIDTH, encode_bundle
from convoy_audit.trail import BACK_DATED_S, Trail

PLAIN = sorted((cls for cls, _ in _PATTERNS.values()), key=lambda cls: cls.TYPE)
TOKEN = st.text("!#[]{},:'~aZ09-/", min_size=1, max_size=12)
CODE = st.sampled_from(["AB", "BUDGET_EXHAUSTED", "X1"])
SHAPES: dict[str, st.SearchStrategy[object]] = {
    "token": TOKEN,
    "code": CODE,
    "digest": st.binary(max_size=3).map(digest),
    "count": st.integers(0, 2**53 - 1),
    "instant": st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)),
    "list of tokens": st.lists(TOKEN, max_size=3).map(tuple),
    "list of codes": st.lists(CODE, max_size=3).map(tuple),
}


def values(cls: type[Event]) -> st.SearchStrategy[Event]:
    """Draw any event of a class."""
    drawn: dict[str, st.SearchStrategy[object]] = {}
    for member in shapes.members(cls):
        name = member.shape.name
        options = (
            st.sampled_from(name.removeprefix("one of ").split(", ")) if name.startswith("one of ") else SHAPES[name]
        )
        drawn[member.field] = st.none() | options if member.is_optional else options
    return st.builds(cls, **drawn)


any_plain = st.sampled_from(PLAIN).flatmap(values)


@given(any_plain)
@settings(max_examples=150, deadline=None)
def test_an_entry_that_only_reports_is_recognised_by_its_spelling(event: Event) -> None:
    """Every such type of the catalogue, with and without optional members; long integers are left to the reader."""
    raw = encode(event)
    has_long = any(type(v) is int and v >= 10**15 for v in (getattr(event, f.name) for f in dataclasses.fields(event)))
    assert kind_of(raw) == (None if has_long else (type(event), event.at))
    assert parse_entry(raw) == event


@given(any_plain, st.data())
@settings(max_examples=300, deadline=None)
def test_what_a_pattern_recognises_the_reader_accepts(event: Event, data: st.DataObject) -> None:
    """Bytes changed, doubled and left out, members moved, numbers respelled: never more than ``parse_entry``."""
    raw = bytearray(encode(event))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 12))
        raw[at : at + cut] = data.draw(
            st.sampled_from([b"", b"0", b'"', b",", b" ", b"\\", b"\xc3\xa9", b"9", b"}", b"-"])
        )
    members = list(json.loads(encode(event)).items())
    moved = json.dumps(dict(data.draw(st.permutations(members))), separators=(",", ":")).encode()
    for changed in (bytes(raw), moved):
        known = kind_of(changed)
        if known is not None:
            content = parse_entry(changed)
            assert known == (type(content), content.at)


def test_types_that_a_trail_judges_are_never_skimmed() -> None:
    """What is recognised has no consequences for any other entry."""
    names = {cls.TYPE for cls in PLAIN}
    assert "coordinator:query:opened" in names
    assert "coordinator:access:refused" in names
    for cls in (events.RunAuthorised, events.PartyEnrolled, events.DecisionMade, events.IncidentOpened):
        assert cls.TYPE not in names


def logged(rehearsal: Rehearsal) -> list[bytes]:
    """Return a log with everything in it: 400 reports between the rehearsal's entries, and a back-dated one."""
    entries = list(rehearsal.log.entries)
    for number in range(400):
        at = START + timedelta(seconds=number)
        entries.append(encode(events.QueryOpened(at=at, run="run-1", attempt=1, queries=("q",))))
    return entries


REHEARSAL = Rehearsal()
ENTRIES = logged(REHEARSAL)


def told(trail: Trail) -> tuple[object, ...]:
    """Return everything that a trail has gathered."""
    return tuple(
        str(getattr(trail, f.name)) if f.name not in ("kinds", "latest") else dict(getattr(trail, f.name))
        for f in dataclasses.fields(Trail)
    )


def both_ways(entries: list[bytes]) -> tuple[Trail, Trail]:
    """Read one by one, and by bundles."""
    single, whole = Trail(), Trail()
    for index, raw in enumerate(entries):
        single.take(index, raw)
    for start in range(0, len(entries), WIDTH):
        part = entries[start : start + WIDTH]
        if not whole.take_run(start, skim(part)):
            for index, raw in enumerate(part, start):
                whole.take(index, raw)
    return single, whole


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_trail_says_the_same_entry_by_entry_and_by_bundles(data: st.DataObject) -> None:
    """Entries swapped, dropped, spoilt, dated back: the same faults at the same entries, and the same facts."""
    entries = list(ENTRIES)
    for _ in range(data.draw(st.integers(0, 4))):
        at, other = (data.draw(st.integers(0, len(entries) - 1)) for _ in range(2))
        change = data.draw(st.sampled_from(["swap", "drop", "spoil", "back", "forward"]))
        if change == "swap":
            entries[at], entries[other] = entries[other], entries[at]
        elif change == "drop":
            del entries[at]
        elif change == "spoil":
            entries[at] = entries[at].replace(b'"v":1', b'"v":2')
        else:
            far = timedelta(seconds=data.draw(st.integers(0, 3 * BACK_DATED_S)))
            moment = START + (far if change == "forward" else -far)
            entries[at] = encode(events.AccessRefused(at=moment, code="TICKET_WRONG"))
    single, whole = both_ways(entries)
    assert told(single) == told(whole)


def test_a_dated_back_report_is_named_where_it_stands() -> None:
    """Within one bundle, and across two."""
    late = encode(events.AccessRefused(at=START - timedelta(seconds=2 * BACK_DATED_S), code="TICKET_WRONG"))
    for index in (len(ENTRIES) - 200, len(ENTRIES) - 1):
        entries = [*ENTRIES[:index], late, *ENTRIES[index:]]
        single, whole = both_ways(entries)
        assert [fault.index for fault in whole.faults] == [index] == [fault.index for fault in single.faults]
    assert both_ways(ENTRIES)[1].faults == []


@given(st.lists(st.integers(1, 700), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_tree_is_the_same_however_its_leaves_come(parts: list[int]) -> None:
    """Whole bundles with their nodes, and loose leaves, in any mixture."""
    entries = [b"%d" % number for number in range(sum(parts))]
    plain, tree = Tree(map(leaf_hash, entries)), Tree()
    for part in parts:
        end = tree.size + part
        while tree.size < end:
            width = min(WIDTH, end - tree.size)
            skim_bundle(encode_bundle(entries[tree.size : tree.size + width]), width).extend(tree)
    assert tree.root() == plain.root()
    for size in range(0, len(entries) + 1, 97):
        assert tree.root(size) == plain.root(size)
    for index in range(0, len(entries), 61):
        assert tree.inclusion_proof(index) == plain.inclusion_proof(index)
