"""Whatever comes in, only our errors come out; what goes out comes back."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_audit.canonical import canonical_bytes, parse_canonical, parse_json, unb64, unb64u
from convoy_audit.checkpoint import Checkpoint, peek
from convoy_audit.entry import parse_entry
from convoy_audit.errors import AuditError
from convoy_audit.evidence import Evidence
from convoy_audit.note import Signer, Verifier, split_note
from convoy_audit.pack import build, verify_files
from convoy_audit.policy import Policy
from convoy_audit.proof import TlogProof
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.tiles import Span, decode_bundle, encode_bundle, entries_path, parse_path, tile_path, tile_spans
from convoy_audit.witness import Alarm, parse_request

REHEARSAL = Rehearsal()
NOTE = REHEARSAL.cosigned()
SAMPLES = [
    NOTE,
    REHEARSAL.policy.text,
    REHEARSAL.log.evidence(3, NOTE).tlog_proof.text,
    REHEARSAL.log.entries[10],
    REHEARSAL.log.entries[11],
]
READERS: list[Callable[[bytes], object]] = [
    parse_entry,
    parse_canonical,
    parse_json,
    peek,
    split_note,
    Checkpoint.parse,
    Policy.parse,
    TlogProof.parse,
    parse_request,
    Alarm.from_bytes,
    unb64,
    lambda data: decode_bundle(data, 3),
    lambda data: Verifier.parse(data.decode("latin-1")),
    lambda data: Signer.parse(data.decode("latin-1")),
    lambda data: unb64u(data.decode("latin-1")),
    lambda data: parse_path(data.decode("latin-1")),
    lambda data: verify_files({"pack.json": data, "checkpoint": data, "policy": data}),
]
changes = st.lists(st.tuples(st.integers(0, 20_000), st.binary(max_size=3), st.integers(0, 3)), max_size=3)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda t: t.encode())))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_our_error(data: bytes) -> None:
    """Every reader of the library."""
    for read in READERS:
        with contextlib.suppress(AuditError):
            read(data)


@given(st.sampled_from(SAMPLES), changes)
@settings(max_examples=120, deadline=None)
def test_spoilt_documents_raise_nothing_but_our_error(sample: bytes, spoilt: list[tuple[int, bytes, int]]) -> None:
    """Real documents with a few bytes replaced, removed or inserted."""
    data = sample
    for at, put, gone in spoilt:
        at %= len(data) + 1
        data = data[:at] + put + data[at + gone :]
    for read in READERS:
        with contextlib.suppress(AuditError):
            read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
@settings(max_examples=150, deadline=None)
def test_evidence_and_entries_of_any_json_raise_nothing_but_our_error(value: object) -> None:
    """Members of the wrong type at any depth, lone surrogates, infinities."""
    with contextlib.suppress(AuditError):
        Evidence.from_json(value)  # type: ignore[arg-type]
    with contextlib.suppress(AuditError):
        parse_entry(canonical_bytes(value))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), plain, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_quick_canonical_check_is_rfc_8785(value: dict[str, object]) -> None:
    """Exactly the canonical bytes are accepted, and give the value back."""
    raw = rfc8785.dumps(value)  # type: ignore[arg-type]
    assert parse_canonical(raw) == value
    for other in (json.dumps(value).encode(), raw + b" "):
        if other != raw:
            try:
                parse_canonical(other)
            except AuditError:
                continue
            raise AssertionError(other)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_bundle_gives_its_entries_back(entries: list[bytes]) -> None:
    """And only with the right width."""
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


@given(st.integers(0, 63), st.integers(0, 10**15), st.integers(1, 256))
@settings(max_examples=100, deadline=None)
def test_a_tile_path_is_read_back(level: int, index: int, width: int) -> None:
    """For tiles and entry bundles."""
    assert parse_path(tile_path(level, index, width)) == ("tile", Span(level, index, width))
    assert parse_path(entries_path(index, width)) == ("entries", Span(0, index, width))


def test_tile_paths_are_those_of_the_specification() -> None:
    """Index 1234067, and the tiles of a tree of 70,000."""
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(1, 1, 17) == "tile/1/001.p/17"
    spans = list(tile_spans(70_000))
    assert [sum(s.level == level for s in spans) for level in range(4)] == [274, 2, 1, 0]
    assert [s.width for s in spans if s.width < 256] == [112, 17, 1]
    assert list(tile_spans(256)) == [Span(0, 0, 256), Span(1, 0, 1)]


@given(st.sets(st.integers(0, 7), max_size=3), st.integers(0, 10**6), st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_no_changed_byte_of_a_pack_passes_the_pinned_policy(dropped: set[int], at: int, bit: int) -> None:
    """Any file, any bit, some files left out."""
    files = dict(sorted(PACK.items()))
    names = list(files)
    name = names[at % len(names)]
    content = bytearray(files[name])
    content[at % len(content)] ^= 1 << bit
    spoilt = files | {name: bytes(content)}
    for number in dropped:
        spoilt.pop(names[number % len(names)], None)
    try:
        verdict = verify_files(spoilt, REHEARSAL.policy)
    except AuditError:
        return
    assert not verdict.is_verified


PACK = build(REHEARSAL.parts())
