"""Offers and signatures over HTTP, on a real database and a real log."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import timedelta

import pytest

from convoy_audit.entry import Entry
from convoy_coordinator.testing import Federation, contract_text


def log_types(federation: Federation) -> list[str]:
    """Return the types of every entry of the log."""
    federation.client.post("/internal/log/checkpoint", headers=federation.internal)
    size = int(federation.client.get("/v1/log/checkpoint").text.splitlines()[1])
    found = federation.client.get(f"/v1/log/entries?start=0&end={size}").json()["entries"]
    return [Entry(b64decode(raw)).event.TYPE for raw in found]


def test_a_contract_comes_into_force_when_every_party_has_signed(federation: Federation) -> None:
    """Offered, partly signed, active; each step stands in the log before it counts."""
    federation.enrol()
    digest = federation.offer()
    states = [federation.client.get(f"/v1/contracts/{digest}").json()["state"]]
    for member in (federation.oem, federation.insurer):
        states.append(federation.sign(digest, member)["state"])
    assert states == ["offered", "partly-signed", "active"]
    assert log_types(federation)[-4:] == [
        "party:contract:offered",
        "party:contract:signed",
        "party:contract:signed",
        "coordinator:contract:activated",
    ]


def test_the_text_is_kept_exactly_as_it_was_received(federation: Federation) -> None:
    """Spacing does not change the digest, but it is not ours to change either."""
    text = contract_text((federation.oem, federation.insurer))
    spaced = json.dumps(json.loads(text), ensure_ascii=False, indent=3)
    digest = federation.offer(spaced)
    assert federation.client.get(f"/v1/contracts/{digest}").json()["text"] == spaced
    assert federation.offer(text) == digest


def test_state_follows_the_clock(federation: Federation) -> None:
    """Nobody ends a term: it is over at notAfter."""
    digest = federation.agree()
    federation.clock.pass_by(timedelta(days=365))
    assert federation.client.get(f"/v1/contracts/{digest}").json()["state"] == "expired"


def test_a_contract_with_one_byte_changed_is_another_contract(federation: Federation) -> None:
    """A signature over the original does not hold for the changed document."""
    federation.enrol()
    text = contract_text((federation.oem, federation.insurer))
    changed = text.replace('"totalMicro": 6000000', '"totalMicro": 9000000', 1)
    assert changed != text
    entry = federation.entry(federation.oem, text)
    digest = federation.offer(changed)
    done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
    problem = done.json()
    assert (done.status_code, problem["code"]) == (422, "SIGNATURE_REFUSED")
    assert problem["party"] == federation.oem.id
    assert "SIGNATURE_INVALID" in problem["cause"]
    assert federation.client.get(f"/v1/contracts/{digest}").json()["signatures"] == []
    assert log_types(federation)[-1] == "coordinator:signature:refused"


def test_another_document_cannot_take_a_version(federation: Federation) -> None:
    """A version of a contract has one text for ever."""
    federation.offer()
    other = contract_text((federation.oem, federation.insurer), title="Another title")
    done = federation.client.post("/v1/contracts", json={"text": other}, headers=federation.operator)
    assert (done.status_code, done.json()["code"]) == (409, "CONTRACT_VERSION_TAKEN")


def test_a_signature_with_an_unknown_key_is_refused(federation: Federation) -> None:
    """The kid must be the one that the party enrolled."""
    federation.enrol()
    digest = federation.offer()
    text = federation.client.get(f"/v1/contracts/{digest}").json()["text"]
    entry = federation.entry(federation.oem, text) | {"kid": f"{federation.oem.id}#2"}
    done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
    assert done.json()["code"] == "SIGNATURE_REFUSED"
    assert "SIGNATURE_KEY_NOT_OF_PARTY" in done.json()["cause"]


def test_one_party_cannot_sign_for_another(federation: Federation) -> None:
    """A good signature of the insurer is none of the carmaker."""
    federation.enrol()
    digest = federation.offer()
    text = federation.client.get(f"/v1/contracts/{digest}").json()["text"]
    entry = federation.entry(federation.insurer, text) | {"party": federation.oem.id}
    done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
    assert done.json()["code"] == "SIGNATURE_REFUSED"


def test_a_party_that_is_not_enrolled_cannot_sign(federation: Federation) -> None:
    """Without an enrolled key there is nothing to verify with."""
    federation.enrol(federation.insurer)
    digest = federation.offer()
    text = federation.client.get(f"/v1/contracts/{digest}").json()["text"]
    entry = federation.entry(federation.oem, text)
    done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
    assert (done.status_code, done.json()["code"]) == (404, "PARTY_UNKNOWN")
    assert done.json()["party"] == federation.oem.id


def test_a_stranger_cannot_sign(federation: Federation) -> None:
    """The auditor is enrolled, but no party of this contract."""
    federation.enrol()
    digest = federation.offer()
    entry = {
        "party": federation.auditor.id,
        "role": "business",
        "act": "sign",
        "kid": federation.auditor.kid,
        "sigT": "2027-03-01T02:00:00Z",
        "jws": "e30..AA",
    }
    done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
    assert (done.status_code, done.json()["code"]) == (422, "SIGNER_NOT_A_PARTY")


def test_the_same_signature_again_changes_nothing(federation: Federation) -> None:
    """Repeating a request adds neither a signature nor an entry."""
    federation.enrol()
    digest = federation.offer()
    text = federation.client.get(f"/v1/contracts/{digest}").json()["text"]
    entry = federation.entry(federation.oem, text)
    for _ in range(2):
        done = federation.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
        assert done.status_code == 201
    assert len(federation.client.get(f"/v1/contracts/{digest}").json()["signatures"]) == 1
    assert log_types(federation).count("party:contract:signed") == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace('"version": 1', '"version": 1, "version": 1'),
        lambda text: text.replace('"version": 1', '"version": 1.0'),
        lambda text: text.replace('"schema"', '"extra": 1, "schema"'),
        lambda text: text.replace("+08:00", "", 1),
        lambda text: text[:-1],
        lambda text: text.replace('"parties"', '"partys"'),
        lambda text: "[" * 10_000,
    ],
    ids=["duplicate key", "float", "unknown member", "naive time", "cut", "typo", "deep"],
)
def test_a_malformed_document_is_refused_and_nothing_logged(federation: Federation, spoil) -> None:  # type: ignore[no-untyped-def]
    """One error type for every breach of the format; the log stays empty."""
    text = spoil(contract_text((federation.oem, federation.insurer)))
    done = federation.client.post("/v1/contracts", json={"text": text}, headers=federation.operator)
    assert (done.status_code, done.json()["code"]) == (422, "DOCUMENT_MALFORMED")
    assert done.json()["fix"]
    assert federation.client.get("/v1/contracts").json()["contracts"] == []
    assert federation.client.get("/v1/log/entries?start=0&end=1").status_code == 422


def test_a_body_with_duplicate_keys_is_refused(federation: Federation) -> None:
    """Not even the envelope may be read in two ways."""
    done = federation.client.post(
        "/v1/contracts",
        content=b'{"text": "{}", "text": "{}"}',
        headers=federation.operator | {"Content-Type": "application/json"},
    )
    assert (done.status_code, done.json()["code"]) == (400, "BODY_MALFORMED")


@pytest.mark.parametrize("declares", [True, False], ids=["declared", "streamed"])
def test_an_oversized_body_is_refused_while_it_arrives(federation: Federation, declares: bool) -> None:
    """Whether or not the length is declared, no more than the limit is read."""
    size = 3 * 1024 * 1024
    content = b"x" * size if declares else iter([b"x" * 65_536] * (size // 65_536))
    done = federation.client.post("/v1/contracts", content=content, headers=federation.operator)
    assert (done.status_code, done.json()["code"]) == (413, "BODY_TOO_LARGE")


def test_problems_speak_the_callers_language(federation: Federation) -> None:
    """Codes stay English; sentences follow Accept-Language."""
    zh = federation.client.get("/v1/contracts/sha256:00", headers={"Accept-Language": "zh-CN"})
    en = federation.client.get("/v1/contracts/sha256:00", headers={"Accept-Language": "en"})
    assert zh.json()["code"] == en.json()["code"] == "CONTRACT_UNKNOWN"
    assert zh.json()["title"] == "没有该摘要的合约。"
    assert en.json()["title"] == "No contract has this digest."
