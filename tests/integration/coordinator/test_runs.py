"""The queue, the claim, progress and endings, over HTTP, on a real database and a real log."""

from __future__ import annotations

from base64 import b64decode
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from convoy_audit.entry import Entry, encode
from convoy_audit.events import ContractActivated, LedgerStated, RunSettled
from convoy_audit.statement import next_link, sign_statement
from convoy_coordinator.testing import CLAIMS, DRIVE, Federation

DIGEST = f"sha256:{'0' * 64}"


def append(federation: Federation, *entries: bytes) -> tuple[int, dict[str, Any]]:
    """Append entries as the ServerApp does; return status and answer."""
    done = federation.append(*entries)
    return done.status_code, done.json()


def last_event(federation: Federation):  # type: ignore[no-untyped-def]
    """Return the newest event of the log."""
    note = federation.client.post("/internal/log/checkpoint", headers=federation.internal)
    size = int(note.json()["checkpoint"].splitlines()[1])
    found = federation.client.get(f"/v1/log/entries?start={size - 1}&end={size}").json()["entries"]
    return Entry(b64decode(found[0])).event


def test_a_run_goes_from_the_queue_to_finished(federation: Federation) -> None:
    """Asked, claimed, authorised, running with progress, finished."""
    digest = federation.agree()
    uid = federation.ask(digest).json()["uid"]
    order = federation.claim()
    assert order is not None
    assert order["uid"] == uid
    assert order["round"] == 1
    assert order["contractText"]
    assert len(order["signatures"]) == 2
    assert set(order["keys"]) == {m.kid for m in federation.members}
    federation.authorise(uid)
    assert federation.move(uid, "running").json()["state"] == "running"
    path = f"/internal/runs/{uid}/progress"
    federation.client.post(path, json={"done": 3, "total": 9}, headers=federation.internal)
    federation.client.post(path, json={"step": "query"}, headers=federation.internal)
    shown = federation.client.get(f"/v1/runs/{uid}").json()
    assert shown["progress"] == {"done": 3, "total": 9, "step": "query"}
    assert federation.move(uid, "finished").json()["state"] == "finished"
    assert last_event(federation).TYPE == "coordinator:run:finished"


def test_a_run_is_claimed_once(federation: Federation) -> None:
    """Two processes never get the same run; the queue is first in, first out."""
    digest = federation.agree()
    asked = [federation.ask(digest).json()["uid"] for _ in range(2)]
    claimed = [federation.claim(), federation.claim(), federation.claim()]
    assert [c and c["uid"] for c in claimed] == [*asked, None]
    assert [c["round"] for c in claimed if c] == [1, 2]


def test_a_run_under_an_unsigned_contract_is_refused_and_logged(federation: Federation) -> None:
    """The problem names the party that has not signed; the refusal stands in the log."""
    federation.enrol()
    digest = federation.offer()
    federation.sign(digest, federation.insurer)
    done = federation.ask(digest)
    assert (done.status_code, done.json()["code"]) == (409, "CONTRACT_NOT_ACTIVE")
    assert done.json()["party"] == federation.oem.id
    assert "partly-signed" in done.json()["cause"]
    event = last_event(federation)
    assert event.TYPE == "coordinator:run:refused"
    assert event.reasons == ("CONTRACT_NOT_ACTIVE",)
    assert federation.client.get("/v1/runs").json()["runs"] == []


def test_a_run_under_an_expired_contract_is_refused(federation: Federation) -> None:
    """At notAfter the term is over, for runs as well."""
    digest = federation.agree()
    federation.clock.pass_by(timedelta(days=400))
    assert federation.ask(digest).json()["code"] == "CONTRACT_NOT_ACTIVE"


def test_a_run_outside_the_contract_names_every_fault(federation: Federation) -> None:
    """An unknown algorithm and a requester who is no party are told at once."""
    digest = federation.agree()
    done = federation.ask(digest, algorithm="other", requester=federation.auditor.id)
    assert done.json()["code"] == "REQUEST_OUTSIDE_CONTRACT"
    assert {e["pointer"] for e in done.json()["errors"]} == {"/requester", "/algorithm"}


def test_how_a_run_was_refused_is_kept(federation: Federation) -> None:
    """Reason, party, cause and fix stay with the run and, without the sentences, in the log."""
    uid = federation.ask(federation.agree()).json()["uid"]
    federation.claim()
    done = federation.move(
        uid,
        "refused",
        reason="BUDGET_EXHAUSTED",
        reasons=["BUDGET_EXHAUSTED", "COHORT_TOO_SMALL"],
        party=federation.oem.id,
        cause="decision: deny, BUDGET_EXHAUSTED",
        fix="Wait for the next contract year.",
    )
    shown = done.json()
    assert shown["state"] == "refused"
    assert shown["reason"] == "BUDGET_EXHAUSTED"
    assert shown["party"] == federation.oem.id
    assert shown["fix"] == "Wait for the next contract year."
    event = last_event(federation)
    assert (event.run, event.party) == (uid, federation.oem.id)
    assert event.reasons == ("BUDGET_EXHAUSTED", "COHORT_TOO_SMALL")


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_state_cannot_be_skipped(federation: Federation, state: str) -> None:
    """Nothing runs or finishes that was not authorised."""
    uid = federation.ask(federation.agree()).json()["uid"]
    done = federation.move(uid, state)
    assert (done.status_code, done.json()["code"]) == (409, "RUN_STATE_WRONG")
    assert federation.client.get(f"/v1/runs/{uid}").json()["state"] == "queued"


def test_nothing_is_authorised_that_the_log_does_not_know(federation: Federation) -> None:
    """The state follows the entry, never the other way round."""
    uid = federation.ask(federation.agree()).json()["uid"]
    done = federation.move(uid, "authorised")
    assert (done.status_code, done.json()["code"]) == (409, "RUN_STATE_WRONG")
    assert "no authorisation" in done.json()["cause"]


def test_an_ended_run_stays_as_it_ended(federation: Federation) -> None:
    """No move and no report after the end."""
    uid = federation.ask(federation.agree()).json()["uid"]
    assert federation.move(uid, "cancelled").json()["code"] == "INPUT_INVALID"
    federation.move(uid, "cancelled", reason="OPERATOR_STOPPED").raise_for_status()
    assert federation.move(uid, "authorised").json()["code"] == "RUN_STATE_WRONG"
    path = f"/internal/runs/{uid}/progress"
    done = federation.client.post(path, json={"done": 1}, headers=federation.internal)
    assert done.json()["code"] == "RUN_STATE_WRONG"


def test_a_silent_run_ends_and_the_next_one_works(federation: Federation) -> None:
    """A ServerApp that died leaves no run hanging: authorised ones fail, others go back in the queue."""
    digest = federation.agree()
    first = federation.ask(digest).json()["uid"]
    second = federation.ask(digest).json()["uid"]
    assert (federation.claim() or {})["uid"] == first
    federation.authorise(first)
    assert (federation.claim() or {})["uid"] == second
    federation.clock.pass_by(timedelta(seconds=901))
    assert (federation.claim() or {})["uid"] == second
    shown = federation.client.get(f"/v1/runs/{first}").json()
    assert (shown["state"], shown["reason"], shown["party"]) == (
        "failed",
        "RUN_SILENT",
        "coordinator",
    )


def test_an_ending_is_never_refused_for_its_form(federation: Federation) -> None:
    """A long cause is cut and a loose code is brought to its form, so that no run hangs."""
    uid = federation.ask(federation.agree()).json()["uid"]
    done = federation.move(uid, "failed", code="node lost!", cause="x" * 10_000, party="a b")
    assert done.status_code == 200
    assert (done.json()["reason"], done.json()["party"]) == ("NODE_LOST", "a_b")
    assert len(done.json()["cause"]) == 4000


def test_the_server_app_writes_only_what_is_its_to_write(federation: Federation) -> None:
    """An authorisation of a known run passes; other events and unknown runs do not."""
    digest = federation.agree()
    uid = federation.ask(digest).json()["uid"]
    federation.authorise(uid)
    forged = ContractActivated(at=federation.clock(), contract=DIGEST, uid="urn:x", version=1)
    status, answer = append(federation, encode(forged), b"{}", b"")
    assert (status, answer["code"]) == (422, "LOG_REFUSED")
    assert len(answer["errors"]) == 3


def test_a_statement_is_verified_before_it_is_logged(federation: Federation) -> None:
    """A statement with another key's signature is refused, and names the party."""
    digest = federation.agree()
    event = LedgerStated(
        at=federation.clock(),
        party=federation.oem.id,
        run="run-1",
        contract=digest,
        step="spent",
        epsilon_micro={DRIVE: 4_000_000},
        total_micro={DRIVE: 4_000_000},
    )
    seed = federation.insurer.identity.private_bytes_raw()
    status, answer = append(federation, sign_statement(event, number=1, previous=None, seed=seed))
    assert (status, answer["code"], answer["party"]) == (422, "LOG_REFUSED", federation.oem.id)
    seed = federation.oem.identity.private_bytes_raw()
    status, answer = append(federation, sign_statement(event, number=1, previous=None, seed=seed))
    assert status == 200
    ledgers = federation.client.app.state.parts.ledgers.all()  # type: ignore[attr-defined]
    assert [(x.party, x.asset, x.total_micro) for x in ledgers] == [(federation.oem.id, DRIVE, 4_000_000)]
    assert CLAIMS not in {x.asset for x in ledgers}


def test_a_checkpoint_is_cosigned_and_witness_sizes_grow(federation: Federation) -> None:
    """The quorum is k = 1 + floor(2n/3) of the enrolled parties."""
    federation.agree()
    two = federation.witness(federation.oem, federation.insurer)
    assert (two["cosigned"], two["needed"], two["quorum"]) == (2, 3, False)
    three = federation.witness(federation.auditor)
    assert (three["cosigned"], three["quorum"]) == (3, True)
    path = f"/internal/log/witness?party={federation.oem.id}"
    size = federation.client.get(path, headers=federation.internal).json()["size"]
    assert size == three["size"] > 0


def test_what_is_outside_the_log_is_refused(federation: Federation) -> None:
    """Sizes and indexes that the log does not have give a problem, not a crash."""
    federation.agree()
    for path in (
        "/v1/log/proof/inclusion?index=99&size=100",
        "/v1/log/proof/consistency?old=5&new=2",
        "/v1/log/entries?start=5&end=2",
        "/v1/log/entries?start=-1&end=2",
        "/v1/log/entries?start=x&end=2",
    ):
        done = federation.client.get(path)
        assert done.status_code == 422, path
        assert done.headers["content-type"] == "application/problem+json"


def test_no_run_is_authorised_on_ground_that_no_quorum_has_cosigned(federation: Federation) -> None:
    """A signed contract, then a new key of a party: each is cosigned before an authorisation is even written."""

    def ground() -> str:
        done = federation.client.get(f"/internal/log/ground?run={uid}", headers=federation.internal)
        return str(done.json()["level"])

    digest = federation.agree()
    shown = federation.client.get(f"/v1/contracts/{digest}").json()
    assert shown["state"] == "active"
    assert shown["restsOn"]["level"] in {"durable", "published"}  # the publisher has its own pace
    assert "not yet cosigned" in federation.client.get("/?lang=en").text
    uid = federation.ask(digest).json()["uid"]
    federation.claim()
    before = federation.log_size()
    status, answer = append(federation, federation.authorisation(uid))
    assert (status, answer["code"]) == (409, "LOG_NOT_WITNESSED"), answer
    assert federation.log_size() == before
    assert ground() == "published"

    federation.witness(*federation.members)
    assert ground() == "witnessed"
    assert federation.client.get(f"/v1/contracts/{digest}").json()["restsOn"]["level"] == "witnessed"
    assert "not yet cosigned" not in federation.client.get("/?lang=en").text

    parties = federation.client.app.state.parts.parties  # type: ignore[attr-defined]
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    parties.follow_supernode(
        federation.oem.id, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    )
    assert append(federation, federation.authorisation(uid))[1]["code"] == "LOG_NOT_WITNESSED"
    federation.authorise(uid)
    assert federation.client.get(f"/v1/runs/{uid}").json()["state"] == "authorised"


def test_the_page_composes_the_runs_of_a_contract_and_keeps_the_asset_apart(federation: Federation) -> None:
    """Two runs of epsilon 4: 5.94 under the contract whatever other contracts cost; the asset's total is told beside it."""
    digest = federation.agree()
    seed = federation.oem.identity.private_bytes_raw()
    previous: bytes | None = None
    for number, run in enumerate(("run-1", "run-1", "run-2"), start=1):
        settled = RunSettled(
            at=federation.clock(), party=federation.oem.id, run=run, contract=digest, outcome="finished", manifest=None,
            epsilon_micro={DRIVE: 3_999_996}, total_micro={DRIVE: 8_898_000}, reasons=(),
        )  # fmt: skip
        count, link = next_link(previous)
        assert count == number
        previous = sign_statement(settled, number=count, previous=link, seed=seed)
        assert append(federation, previous)[0] == 200
    (ledger,) = federation.client.app.state.parts.ledgers.all()  # type: ignore[attr-defined]
    assert ledger.runs_micro == (3_999_996, 3_999_996), "a run that is stated again costs once"
    page = federation.client.get("/", headers={"accept-language": "en"}).text
    budget = page[page.index('id="budget"') : page.index("</section>", page.index('id="budget"'))]
    assert "5.94" in budget
    assert "8.90" in budget[budget.index("over all contracts") :]
    assert "8.90" not in budget[: budget.index("over all contracts")]
