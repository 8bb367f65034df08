"""Enrolment over HTTP, on a real database and a real log."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from convoy_audit.entry import Entry
from convoy_audit.events import PartyEnrolled
from convoy_contracts.instants import instant
from convoy_coordinator.testing import Federation, Member
from convoy_node.identity import Identity

LOW_ORDER_ED25519 = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
NOT_CANONICAL_ED25519 = "8P________________________________________8"
ZERO_X25519 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def test_an_enrolled_party_is_in_the_list_and_in_the_log(federation: Federation) -> None:
    """The log's entry stands before the party does, and names the same keys."""
    federation.enrol(federation.oem)
    listed = federation.client.get("/v1/parties").json()
    assert [p["id"] for p in listed["parties"]] == [federation.oem.id]
    assert listed["keys"][federation.oem.kid]["party"] == federation.oem.id
    raw = federation.client.get("/v1/log/entries?start=0&end=1").json()["entries"][0]
    event = Entry(b64decode(raw)).event
    assert isinstance(event, PartyEnrolled)
    assert event.party == federation.oem.id
    assert event.identity_key == federation.oem.identity.public_key().public_bytes_raw()
    assert event.witness_keys == (federation.oem.witness.vkey,)


def test_enrolling_the_same_party_again_changes_nothing(federation: Federation) -> None:
    """A repeated request is not a second enrolment and leaves no second entry."""
    body = federation.oem.enrolment()
    first = federation.client.post("/v1/parties", json=body, headers=federation.operator)
    again = federation.client.post("/v1/parties", json=body, headers=federation.operator)
    assert again.json() == first.json()
    assert federation.client.get("/v1/log/entries?start=0&end=1").json()["entries"]
    assert federation.client.get("/v1/log/entries?start=0&end=2").status_code == 422


def test_a_known_party_cannot_be_enrolled_with_other_keys(federation: Federation) -> None:
    """Enrolment never overwrites."""
    federation.enrol(federation.oem)
    rival = Member(federation.oem.id, federation.oem.name, "oem")
    done = federation.client.post("/v1/parties", json=rival.enrolment(), headers=federation.operator)
    assert (done.status_code, done.json()["code"]) == (409, "PARTY_KNOWN")
    assert done.json()["party"] == federation.oem.id


def test_a_key_of_another_party_is_refused(federation: Federation) -> None:
    """One key cannot speak for two parties."""
    federation.enrol(federation.oem)
    thief = Member("did:web:thief.example", "Thief", "insurer", identity=federation.oem.identity)
    done = federation.client.post("/v1/parties", json=thief.enrolment(), headers=federation.operator)
    assert done.json()["code"] == "KEY_REJECTED"
    assert "/identityKey" in [e["pointer"] for e in done.json()["errors"]]


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("identityKey", LOW_ORDER_ED25519),
        ("identityKey", NOT_CANONICAL_ED25519),
        ("identityKey", "c2hvcnQ"),
        ("maskKey", ZERO_X25519),
        ("maskKey", "not base64 at all"),
        ("witnessKey", "insurer+00000000+AAAA"),
        ("supernodeKey", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        ("identityKid", "did:web:other.example#1"),
    ],
)
def test_a_key_that_must_not_be_used_is_refused(federation: Federation, member: str, value: str) -> None:
    """Low order, not canonical, wrong length, wrong type: nothing is enrolled and nothing logged."""
    body = federation.oem.enrolment() | {member: value}
    done = federation.client.post("/v1/parties", json=body, headers=federation.operator)
    assert (done.status_code, done.json()["code"]) == (422, "KEY_REJECTED")
    assert [e["pointer"] for e in done.json()["errors"]] == [f"/{member}"]
    assert done.json()["party"] == federation.oem.id
    assert done.json()["fix"]
    assert federation.client.get("/v1/parties").json()["parties"] == []
    assert federation.client.get("/v1/log/entries?start=0&end=1").status_code == 422


def test_every_fault_of_an_enrolment_is_named_at_once(federation: Federation) -> None:
    """Two bad keys are two errors of one answer."""
    body = federation.oem.enrolment() | {"identityKey": LOW_ORDER_ED25519, "maskKey": ZERO_X25519}
    done = federation.client.post("/v1/parties", json=body, headers=federation.operator)
    assert {e["pointer"] for e in done.json()["errors"]} == {"/identityKey", "/maskKey"}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "TOKEN_MISSING"),
        ({"Authorization": "Bearer operator_wrong"}, 403, "TOKEN_WRONG"),
        ({"Authorization": "Basic b3BlcmF0b3I6eA=="}, 401, "TOKEN_MISSING"),
    ],
)
def test_only_the_operator_enrols(federation: Federation, headers: dict[str, str], status: int, code: str) -> None:
    """Without the operator's token nobody can take a party's name."""
    done = federation.client.post("/v1/parties", json=federation.oem.enrolment(), headers=headers)
    assert (done.status_code, done.json()["code"]) == (status, code)
    assert done.headers["content-type"] == "application/problem+json"


def test_the_internal_token_is_not_the_operators(federation: Federation) -> None:
    """The ServerApp process cannot enrol, and the operator cannot write in the log."""
    done = federation.client.post("/v1/parties", json=federation.oem.enrolment(), headers=federation.internal)
    assert done.status_code == 403
    done = federation.client.post("/internal/log/checkpoint", headers=federation.operator)
    assert done.status_code == 403


def test_the_card_of_a_real_node_is_an_enrolment(federation: Federation, tmp_path: Path) -> None:
    """What a node writes is what a coordinator takes: four keys, two kinds of cosignature, one life."""
    node = Identity.create(tmp_path / "keys", "did:web:insurer-b.example", federation.clock())
    card = node.card(name="Hezhong Insurance 合众保险", role="insurer", region="CN-BJ")
    done = federation.client.post("/v1/parties", json=card.enrolment(), headers=federation.operator)
    assert done.status_code == 201, done.text
    assert {name: done.json()[name] for name in ("identityKey", "maskKey", "witnessKey")} == {
        name: card.enrolment()[name] for name in ("identityKey", "maskKey", "witnessKey")
    }
    key = federation.client.get("/v1/parties").json()["keys"][card.identity_kid]
    assert (key["x"], instant(key["notBefore"])) == (card.identity_key, instant(card.key_not_before))
    assert len(federation.client.get("/v1/log/policy").text.splitlines()) >= 5
