"""A message survives its records unchanged, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_models.errors import MessageMalformed
from convoy_models.messages import (
    Payload,
    from_party,
    from_record,
    parse_name,
    relay,
    to_party,
    to_record,
)

OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"


def test_a_payload_survives_its_records() -> None:
    """JSON, blobs and arrays come back equal; the size counts all three."""
    payload = Payload(
        {"run": "r", "车": [1, 2.5, None]},
        {to_party(OEM, "open.joint/model-01/oem/0"): b"\x00sealed"},
        {"q": np.arange(5, dtype=np.uint64)},
    )
    back = from_record(to_record(payload))
    assert back.data == payload.data
    assert back.blobs == payload.blobs
    assert np.array_equal(back.arrays["q"], payload.arrays["q"])
    assert payload.size_bytes == len('{"run":"r","车":[1,2.5,null]}'.encode()) + 7 + 40


def test_the_relay_moves_blobs_by_address_and_names_the_true_sender() -> None:
    """What a reply claims about its sender does not matter."""
    replies = {OEM: Payload(blobs={to_party(INSURER, "align"): b"1"}), INSURER: Payload()}
    assert relay(replies) == {INSURER: {from_party(OEM, "align"): b"1"}}
    with pytest.raises(MessageMalformed):
        relay({OEM: Payload(blobs={from_party(INSURER, "align"): b"1"})})


def test_names_are_read_back() -> None:
    """Tags may hold dots, slashes and party ids."""
    assert parse_name(to_party(OEM, f"deal.q/1.{INSURER}")) == ("to", OEM, f"deal.q/1.{INSURER}")
    for bad in ("", "to|x", "to||t", "to|p|", "cc|p|t", "to|p|t|u"):
        with pytest.raises(MessageMalformed):
            parse_name(bad)
    with pytest.raises(MessageMalformed):
        to_party("a|b", "t")


def test_a_refusal_is_an_ordinary_payload() -> None:
    """The relay of other parties' blobs goes on; the round loop reads the reason."""
    assert Payload({"refused": {"code": "LEDGER"}}).refused == {"code": "LEDGER"}
    assert Payload().refused is None


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"c": {}},
        {"c": {"json": 5}},
        {"c": {"json": "[]"}},
        {"c": {"json": "{"}},
        {"c": {"json": '{"a":1,"a":2}'}},
        {"c": {"json": '{"a":NaN}'}},
        {"c": {"json": "[" * 100_000}},
        {"c": {"json": "{}", "blob": b"x"}},
        {"c": {"json": "{}", "to|p|t": "text"}},
        {"c": {"json": "{}"}, "x": {}},
        {"c": {"json": "{}"}, "a": {"q": [1, 2]}},
        {"c": {"json": "{}"}, "a": {"q": np.zeros(3)}},
        {"c": {"json": "{}"}, "a": {"q": np.zeros((2, 2), dtype=np.uint64)}},
    ],
)
def test_anything_else_is_refused_as_malformed(record: dict) -> None:
    """Untrusted records raise nothing but MessageMalformed."""
    with pytest.raises(MessageMalformed):
        from_record(record)


def test_a_value_that_json_cannot_express_is_refused() -> None:
    """NaN and objects do not leave a node."""
    for bad in (float("nan"), object(), {1, 2}):
        with pytest.raises(MessageMalformed):
            to_record(Payload({"x": bad}))
