"""Strict reading of request bodies."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convoy_coordinator.body import Input, read_input, strict_json
from convoy_coordinator.errors import Problem


class Sample(Input):
    """A small body."""

    name: str
    count: int


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"{",
        b"",
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
    ids=lambda d: repr(d[:24]),
)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes) -> None:
    """Duplicate keys, no UTF-8, no finite number, endless nesting: one error type."""
    with pytest.raises(Problem) as caught:
        strict_json(data)
    assert caught.value.code == "BODY_MALFORMED"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_problem(data: bytes) -> None:
    """Untrusted bytes can raise nothing but Problem."""
    with contextlib.suppress(Problem):
        read_input(Sample, data)


def test_all_faults_are_named_at_once() -> None:
    """A missing, a mistyped and an unknown member are three faults of one problem."""
    with pytest.raises(Problem) as caught:
        read_input(Sample, b'{"count": "x", "more": 1}')
    assert {fault.pointer for fault in caught.value.faults} == {"/name", "/count", "/more"}
