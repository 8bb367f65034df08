"""Events, entries, commitments and statements."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from convoy_audit import shapes
from convoy_audit.canonical import canonical_bytes
from convoy_audit.describe import sentence
from convoy_audit.entry import (
    MAX_ENTRY_BYTES,
    Entry,
    check_commitment,
    commit,
    encode,
    new_commitment_key,
    parse_entry,
)
from convoy_audit.errors import FIXES, AuditError, FormatError, StatementError
from convoy_audit.events import CATALOGUE, EVENTS, DecisionMade, Event, RunFailed, StatedEvent
from convoy_audit.keys import SignatureType, public_of_seed
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.statement import Chain, next_link, open_statement, sign_statement

NOW = datetime(2026, 11, 24, 3, 0, 0, 123_999, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64
SEED = b"s" * 32
KEY = public_of_seed(SignatureType.ED25519, SEED)
FAILED = RunFailed(at=NOW, run="run-1", contract=DIGEST, reasons=("NODE_LOST",))


def decided(**changes: object) -> DecisionMade:
    facts = {"at": NOW, "party": "oem", "run": "r", "contract": DIGEST, "phase": "authorise"}
    return DecisionMade(**(facts | {"outcome": "allow"} | changes))  # type: ignore[arg-type]


def test_every_event_of_a_whole_run_comes_back_from_its_bytes() -> None:
    """All kinds that a rehearsal logs; each has a sentence in both languages."""
    for raw in Rehearsal().log.entries:
        content = parse_entry(raw)
        if isinstance(content, Event):
            assert encode(content) == raw
        assert sentence(content, "en") != sentence(content, "zh")


def test_every_type_is_subject_object_action_and_has_two_titles() -> None:
    """The catalogue's own grammar; members can be read from each class."""
    assert len(EVENTS) == len(CATALOGUE)
    for cls in CATALOGUE:
        assert len([word for word in cls.TYPE.split(":") if word.isalpha() and word.islower()]) == 3
        assert all(cls.TITLES)
        assert cls.__doc__
        names = [member.name for member in shapes.members(cls)]
        assert "at" in names
        assert len(set(names)) == len(names)
        is_of_a_party = cls.TYPE.split(":")[0] in ("node", "witness")
        assert issubclass(cls, StatedEvent) == is_of_a_party


def test_no_event_can_carry_free_text() -> None:
    """No shape takes a sentence, a name with a space, or a Chinese name."""
    shapes_used = {m.shape.name for cls in CATALOGUE for m in shapes.members(cls)}
    assert "text" not in shapes_used
    for text in ("Zhang San", "张三", "a\nb", "", "x" * 201, 'a"b', "a\\b"):
        with pytest.raises(FormatError):
            dataclasses.replace(FAILED, run=text)


@pytest.mark.parametrize(
    "change",
    [
        {"at": datetime(2026, 1, 1)},
        {"contract": "sha256:00"},
        {"contract": "SHA256:" + "0" * 64},
        {"reasons": ("lower",)},
        {"reasons": "NODE_LOST"},
        {"run": 1},
        {"run": None},
        {"party": ["a"]},
    ],
)
def test_a_value_that_does_not_fit_is_refused_when_built(change: dict[str, object]) -> None:
    """Wrong states cannot be spoken."""
    with pytest.raises(FormatError):
        dataclasses.replace(FAILED, **change)


def test_a_denial_has_reasons_and_a_permit_has_none() -> None:
    """Both mixtures are refused, also when read."""
    with pytest.raises(FormatError):
        decided(outcome="deny")
    with pytest.raises(FormatError):
        decided(reasons=("BUDGET_EXHAUSTED",))


def test_an_instant_is_kept_to_the_millisecond() -> None:
    """And comes back equal."""
    assert FAILED.at.microsecond == 123_000
    assert parse_entry(encode(FAILED)) == FAILED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v | {"extra": 1},
        lambda v: v | {"v": 2},
        lambda v: v | {"v": True},
        lambda v: v | {"type": "coordinator:run:vanished"},
        lambda v: v | {"type": None},
        lambda v: {k: c for k, c in v.items() if k != "run"},
        lambda v: v | {"at": "2026-13-01T00:00:00.000Z"},
        lambda v: v | {"at": "2026-11-24T03:00:00Z"},
        lambda v: v | {"party": None},
        lambda v: [v],
    ],
)
def test_an_entry_that_is_not_of_the_catalogue_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    """Unknown and missing members, other versions, bad instants, null."""
    with pytest.raises(FormatError):
        parse_entry(canonical_bytes(spoil(json.loads(encode(FAILED)))))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1,"a":1}',
        b'{"a":"\\ud800"}',
        encode(FAILED) + b"\n",
        b" " + encode(FAILED),
        encode(FAILED).replace(b'":', b'": ', 1),
        encode(FAILED).replace(b"run-1", b"run\\u002d1"),
        b"x" * 65_536,
    ],
)
def test_bytes_that_are_no_canonical_entry_are_refused(raw: bytes) -> None:
    """Empty, deep, huge numbers, duplicate keys, other spellings, 65,536 bytes."""
    with pytest.raises(FormatError):
        parse_entry(raw)


def test_an_entry_over_the_soft_limit_cannot_be_made() -> None:
    """16,384 bytes."""
    with pytest.raises(FormatError, match="limit"):
        encode(dataclasses.replace(FAILED, reasons=("A" * 64,) * (MAX_ENTRY_BYTES // 64)))


def test_a_commitment_opens_only_with_its_key_and_value() -> None:
    """And two commitments to one value differ."""
    key = new_commitment_key()
    commitment = commit(key, b"value")
    check_commitment(commitment, key, b"value")
    assert commitment != commit(new_commitment_key(), b"value")
    for other_key, value in ((key, b"other"), (new_commitment_key(), b"value"), (b"", b"value")):
        with pytest.raises(AuditError):
            check_commitment(commitment, other_key, value)


def test_a_statement_is_an_entry_and_opens_with_its_key_only() -> None:
    """The bytes that are signed are the bytes that are logged."""
    raw = sign_statement(decided(), number=1, previous=None, seed=SEED)
    statement = open_statement(raw, KEY)
    assert statement.event == decided()
    assert Entry(raw).event == decided()
    with pytest.raises(StatementError):
        open_statement(raw, public_of_seed(SignatureType.ED25519, b"t" * 32))


def test_every_changed_member_of_a_statement_breaks_it() -> None:
    """Party, number, instant, event and signature."""
    raw = sign_statement(decided(), number=1, previous=None, seed=SEED)
    for old, new in (
        (b'"number":1', b'"number":2'),
        (b'"party":"oem"', b'"party":"xem"'),
        (b'"outcome":"allow"', b'"outcome":"admit"'),
        (b'"run":"r"', b'"run":"s"'),
        (b"03:00:00.123Z", b"03:00:00.124Z"),
        (b'"phase":"authorise"', b'"phase":"release"'),
    ):
        changed = raw.replace(old, new)
        assert changed != raw
        with pytest.raises(StatementError):
            open_statement(changed, KEY)


def test_a_chain_accepts_what_follows_and_nothing_else() -> None:
    """A gap, a repetition and a fork are each named."""
    first = sign_statement(decided(), number=1, previous=None, seed=SEED)
    number, previous = next_link(first)
    second = sign_statement(decided(), number=number, previous=previous, seed=SEED)
    third = sign_statement(decided(), number=3, previous=open_statement(second, KEY).digest, seed=SEED)
    fork = sign_statement(decided(run="other"), number=2, previous=DIGEST, seed=SEED)

    def walk(*statements: bytes) -> None:
        chain = Chain("oem")
        for raw in statements:
            chain.accept(open_statement(raw, KEY))

    walk(first, second, third)
    for wrong in ((second,), (first, third), (first, first), (first, fork), (first, second, first)):
        with pytest.raises(StatementError) as raised:
            walk(*wrong)
        assert raised.value.code == "STATEMENT_CHAIN_BROKEN"


def test_only_the_first_statement_has_no_previous_one() -> None:
    """Otherwise a party could start again unseen."""
    for number, previous in ((2, None), (1, DIGEST), (0, None)):
        with pytest.raises(AuditError):
            sign_statement(decided(), number=number, previous=previous, seed=SEED)


def test_every_error_code_has_a_fix_in_both_languages() -> None:
    """And every class of the tree uses a code of the table."""
    classes, found = [AuditError], set()
    while classes:
        cls = classes.pop()
        found.add(cls.default_code)
        classes += cls.__subclasses__()
    assert found <= set(FIXES)
    assert all(english and chinese and not chinese.isascii() for english, chinese in FIXES.values())
