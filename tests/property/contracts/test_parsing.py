"""Bad input: whatever bytes come, every reader of this package returns a value or raises its one error type.

Each reader gets hostile texts by name, random bytes, random JSON, and good documents with one place spoilt. ``CONVOY_EXAMPLES``
sets how many; ``make soak`` sets it to an hour's worth.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoy_contracts import jws
from convoy_contracts.canonical import b64u, canonical_bytes, digest, parse_json
from convoy_contracts.catalogue import parse_entry
from convoy_contracts.document import Contract
from convoy_contracts.errors import ContractsError, DocumentMalformed
from convoy_contracts.events import genesis, make_event, parse_event
from convoy_contracts.grants import parse_grant
from convoy_contracts.lint import lint
from convoy_contracts.signatures import HEADER_TYPE, faults, payload
from convoy_contracts.testing import OEM, SIGNED_AT, example_document, key_entry, key_of, signature_entry

EXAMPLES = int(os.environ.get("CONVOY_EXAMPLES", "200"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

ENTRY: dict[str, Any] = {
    "schema": "convoy-catalogue/1", "asset": "urn:a", "version": 1, "owner": OEM, "steward": "data-office",
    "processedIn": "node", "collectionDefault": "off", "at": SIGNED_AT,
    "fields": [
        {"name": "harsh_brake", "grade": "L2", "sensitive": False, "step": "0.1",
         "necessity": {"convoy:RiskModelTraining": "how the car is driven"}},
    ],
}  # fmt: skip
GRANT = {"schema": "convoy-tier-grant/1", "party": OEM, "tier": "T1", "at": SIGNED_AT}
EVENT = dict(make_event(uid="u", seq=1, prev=genesis("u"), kind="terminate", by=OEM, at=SIGNED_AT).value)
GOOD: dict[str, dict[str, Any]] = {"contract": example_document(), "event": EVENT, "entry": ENTRY, "grant": GRANT}
READERS: dict[str, Callable[[bytes], Any]] = {
    "json": parse_json, "contract": Contract.parse, "event": parse_event, "entry": parse_entry, "grant": parse_grant,
    "lint": lint,
}  # fmt: skip

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b'{"a":"\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "trailing text": b'{"a":1} {"a":2}',
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key by escape": b'{"a":1,"\\u0061":2}',
    "duplicate key deep down": b'{"x":[{"y":{"a":1,"a":2}}]}',
    "float": b'{"a":3600.0}',
    "exponent": b'{"a":1e3}',
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "2^53": b'{"a":9007199254740992}',
    "-2^53": b'{"a":-9007199254740992}',
    "a number of 100,000 digits": b'{"a":' + b"9" * 100_000 + b"}",
    "leading zero": b'{"a":01}',
    "not NFC": '{"a":"e\u0301"}'.encode(),
    "key not NFC": '{"e\u0301":1}'.encode(),
    "lone surrogate": b'{"a":"\\ud800"}',
    "control character": b'{"a":"\x00"}',
    "10,000 arrays": b"[" * 10_000 + b"]" * 10_000,
    "10,000 arrays, never closed": b"[" * 10_000,
    "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "10 MB": b'{"a":"' + b"x" * 10_000_000 + b'"}',
    "10 MB of members": b"{" + b",".join(b'"k%d":1' % n for n in range(700_000)) + b"}",
    "comment": b'{"a":1 /* no */}',
    "single quotes": b"{'a':1}",
}
REFUSED_IN_A_CONTRACT: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown member": lambda d: d.update(x=1),
    "unknown member deep down": lambda d: d["data"][0]["fields"][0].update(x=1),
    "naive time": lambda d: d["term"].update(notBefore="2026-12-01T00:00:00"),
    "a month": lambda d: d["term"].update(notAfter="P1M"),
    "a date": lambda d: d["term"].update(notAfter="2027-12-01"),
    "leap second": lambda d: d.update(offerUntil="2026-11-30T23:59:60Z"),
    "small t": lambda d: d.update(offerUntil="2026-11-30t23:59:00z"),
    "30 February": lambda d: d.update(offerUntil="2027-02-30T00:00:00Z"),
    "term upside down": lambda d: d.update(term={"notBefore": d["term"]["notAfter"], "notAfter": d["term"]["notBefore"]}),
    "null where a string may be left out": lambda d: d.update(title=None),
    "true for a number": lambda d: d.update(version=True),
    "number as text": lambda d: d.update(version="1"),
    "version 0": lambda d: d.update(version=0),
    "negative budget": lambda d: next(iter(d["privacy"].values())).update(totalMicro=-1),
    "no parties": lambda d: d.update(parties=[]),
    "a party twice": lambda d: d["parties"].append(d["parties"][0]),
    "an asset twice": lambda d: d["data"].append(d["data"][0]),
    "a rule's id twice": lambda d: d["prohibition"].append({"uid": d["permission"][0]["uid"], "action": "use"}),
    "a decimal with exponent": lambda d: d["data"][0]["fields"][0].update(step="1e-2"),
    "a decimal with leading zero": lambda d: d["data"][0]["fields"][0].update(step="00.1"),
    "a digest in capitals": lambda d: d["vocab"].update(purposes=d["vocab"]["purposes"].upper()),
    "an empty id": lambda d: d["parties"][0].update(id=""),
    "a constraint that is no object": lambda d: d["permission"][0].update(constraint=["x"]),
    "one bound of a range": lambda d: d["algorithms"][0].update(args={"x": [1]}),
    "another schema": lambda d: d.update(schema="convoy-contract/2"),
    "a specification of another digest": lambda d: d["algorithms"][0].update(digest="sha256:" + "0" * 64),
}  # fmt: skip


def read(reader: Callable[[bytes], Any], raw: bytes) -> Any:
    """Read; nothing but this package's error may come out."""
    try:
        return reader(raw)
    except ContractsError as error:
        return error


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", READERS)
def test_hostile_text_is_refused_with_one_error_type(name: str, raw: bytes) -> None:
    """And quickly: nothing is built before size and depth are known."""
    found = read(READERS[name], raw)
    if name == "lint":
        assert [fault.code for fault in found] == ["DOCUMENT_MALFORMED"]
    else:
        assert isinstance(found, DocumentMalformed)


@pytest.mark.parametrize("spoil", REFUSED_IN_A_CONTRACT.values(), ids=REFUSED_IN_A_CONTRACT.keys())
def test_a_contract_that_breaks_the_format_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    """One change to a good document; FORMAT.md §1 and §3."""
    document = json.loads(json.dumps(example_document()))
    assert isinstance(read(Contract.parse, json.dumps(document).encode()), Contract)
    spoil(document)
    found = read(Contract.parse, json.dumps(document).encode())
    assert isinstance(found, DocumentMalformed)
    assert found.cause


@pytest.mark.parametrize("name", GOOD)
def test_a_good_document_is_read(name: str) -> None:
    """What the fuzzing starts from is good."""
    assert not isinstance(read(READERS[name], json.dumps(GOOD[name]).encode()), ContractsError)


# Fuzzing -----------------------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(max_size=12), st.sampled_from(["", "e\u0301", "\ud800", "P1M", "2027-03-01T10:00:00", "1e3", "sha256:"])
)
NUMBER = st.one_of(st.integers(), st.sampled_from([2**53, -(2**53), 2**53 - 1, 0, -1]), st.floats())
VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=10,
)


def text_of(value: Any) -> bytes:
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(value).encode()


@pytest.mark.parametrize("name", READERS)
@fuzzed
@given(raw=st.one_of(st.binary(max_size=200), st.builds(text_of, VALUE)))
def test_random_bytes_and_values_raise_nothing_else(name: str, raw: bytes) -> None:
    """Total over bytes."""
    read(READERS[name], raw)


@pytest.mark.parametrize("name", GOOD)
@fuzzed
@given(data=st.data())
def test_a_good_document_with_one_place_spoilt_raises_nothing_else(name: str, data: st.DataObject) -> None:
    """A value replaced, a member added, a byte changed: read as another document, or refused."""
    value = json.loads(json.dumps(GOOD[name]))
    here: Any = value
    for _ in range(data.draw(st.integers(0, 5))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or data.draw(st.integers(0, 2)) == 0:
            here[key] = data.draw(VALUE)
            break
        here = here[key]
    if isinstance(here, dict) and data.draw(st.booleans()):
        here[data.draw(TEXT)] = data.draw(VALUE)
    raw = text_of(value)
    if data.draw(st.integers(0, 3)) == 0:
        place = data.draw(st.integers(0, len(raw)))
        raw = raw[:place] + data.draw(st.binary(max_size=3)) + raw[place + data.draw(st.integers(0, 2)) :]
    read(READERS[name], raw)
    if name == "contract":
        read(READERS["lint"], raw)


@fuzzed
@given(VALUE)
def test_what_is_read_is_written_back_without_loss(value: Any) -> None:
    """``canonical_bytes`` of what ``parse_json`` accepts reads as the same value, and its digest does not move."""
    found = read(parse_json, text_of(value))
    if not isinstance(found, ContractsError):
        raw = canonical_bytes(found)
        assert parse_json(raw) == found
        assert canonical_bytes(parse_json(raw)) == raw
        assert digest(found) == digest(parse_json(raw))


# Signatures --------------------------------------------------------------------------------------------------------------

DOCUMENT = example_document()
CONTRACT = Contract.parse(json.dumps(DOCUMENT))
KID = f"{OEM}#1"
BODY = payload(party=OEM, sig_t=SIGNED_AT, uid=CONTRACT.uid, version=CONTRACT.version, digest=CONTRACT.digest)


def with_header(header: Any, key: Ed25519PrivateKey | None = None, body: bytes = BODY) -> str:
    """A JWS of the good form under any header."""
    packed = b64u(text_of(header))
    return f"{packed}..{b64u((key or key_of(OEM)).sign(f'{packed}.{b64u(body)}'.encode()))}"


def fault_of(text: Any) -> list[str]:
    """What is wrong with the OEM's signature if its JWS is this."""
    from convoy_contracts.decide.world import read_keys

    parties = [party["id"] for party in DOCUMENT["parties"]]
    keys = read_keys({"keys": {f"{party}#1": key_entry(party) for party in parties}})
    entries: list[dict[str, Any]] = [signature_entry(DOCUMENT, party) for party in parties]
    entries[parties.index(OEM)]["jws"] = text
    return faults(CONTRACT, entries, keys).get(OEM, [])


GOOD_HEADER = {"alg": "Ed25519", "kid": KID, "typ": HEADER_TYPE}
BAD_JWS: dict[str, Any] = {
    "wrong key": with_header(GOOD_HEADER, Ed25519PrivateKey.generate()),
    "alg none": with_header(GOOD_HEADER | {"alg": "none"}),
    "alg none, no signature": b64u(text_of({"alg": "none", "kid": KID, "typ": HEADER_TYPE})) + "..",
    "alg EdDSA": with_header(GOOD_HEADER | {"alg": "EdDSA"}),
    "alg HS256": with_header(GOOD_HEADER | {"alg": "HS256"}),
    "unknown crit": with_header(GOOD_HEADER | {"crit": ["x"], "x": 1}),
    "b64 false": with_header(GOOD_HEADER | {"crit": ["b64"], "b64": False}),
    "a key of its own": with_header(GOOD_HEADER | {"jwk": {"kty": "OKP"}}),
    "another kid": with_header(GOOD_HEADER | {"kid": "other"}),
    "another typ": with_header(GOOD_HEADER | {"typ": "JWT"}),
    "a header that is a list": with_header([GOOD_HEADER]),
    "a header key twice": with_header(GOOD_HEADER).replace(
        b64u(text_of(GOOD_HEADER)), b64u(text_of(GOOD_HEADER)[:-1] + b',"alg":"Ed25519"}')
    ),
    "attached payload": with_header(GOOD_HEADER).replace("..", f".{b64u(BODY)}."),
    "another payload": with_header(GOOD_HEADER, body=BODY + b" "),
    "padding": with_header(GOOD_HEADER) + "=",
    "two parts": "a.b",
    "four parts": with_header(GOOD_HEADER) + ".x",
    "signature too short": with_header(GOOD_HEADER)[:-2],
    "not text": 5,
    "nothing": None,
    "a megabyte": "x" * 1_000_000,
}  # fmt: skip


def test_the_form_that_is_accepted() -> None:
    """What the table below spoils is good."""
    assert fault_of(with_header(GOOD_HEADER)) == []


@pytest.mark.parametrize("text", BAD_JWS.values(), ids=BAD_JWS.keys())
def test_any_other_form_is_invalid(text: Any) -> None:
    """One code for all of them, whatever the header claims (FORMAT.md §4)."""
    assert fault_of(text) == ["SIGNATURE_INVALID"]


@fuzzed
@given(st.text(max_size=80), st.binary(max_size=80))
def test_a_random_signature_never_verifies(text: str, raw: bytes) -> None:
    """Nor does checking it raise."""
    for made in (text, f"{b64u(raw)}..{b64u(raw)}", f"{b64u(text_of(GOOD_HEADER))}..{b64u(raw)}"):
        assert not jws.verifies(made, kid=KID, typ=HEADER_TYPE, x=bytes(32), body=BODY)
