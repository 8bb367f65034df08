"""What must be refused, by whom, with what code - and that nothing is half-done afterwards (issue 2, "Bad input")."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convoy_contracts.document import Contract
from convoy_demo.party_data import party_id
from convoy_models.messages import Payload

INSURER = party_id("insurer-c")
OEM = party_id("oem")


def rewrite(federation, short: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a party's data file."""
    path = federation.home(short) / "data" / "data.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    """Return the table with another column."""
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def some(name: str, value: Any, rows: int = 3) -> Callable[[pa.Table], pa.Table]:
    """Return a change of the last rows of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(name).to_pylist()
        return replaced(table, name, values[:-rows] + [value] * rows)

    return change


def refusal(federation, run, party: str) -> Any:
    """Ask one node to authorise a run; return what it refuses."""
    question = federation.question(run, federation.evidence(run))
    answer = federation.tell(party, "authorise", question)
    assert answer.refused is not None
    return answer.refused


DATA = {
    "a missing column": (lambda t: t.drop_columns(["bonus_malus"]), ["bonus_malus"], "missing"),
    "a mistyped column": (
        lambda t: replaced(t, "vehicle_age", ["x"] * t.num_rows),
        ["vehicle_age"],
        "not numbers",
    ),
    "NaN": (some("density_log", float("nan")), ["density_log"], "NaN"),
    "infinity": (some("density_log", float("inf")), ["density_log"], "infinite"),
    "an empty cell": (some("driver_age", None), ["driver_age"], "empty"),
    "negative exposure": (some("exposure_years", -0.5), ["exposure_years"], "negative"),
    "an unknown level": (some("garage", "carport"), ["garage"], "none of the contract's"),
    "negative claims": (some("claim_count", -1), ["claim_count"], "negative"),
    "a person twice": (lambda t: pa.concat_tables([t, t.slice(0, 5)]), ["person_id"], "repeat a person"),
    "no rows": (lambda t: t.slice(0, 0), [""], "no rows"),
    "everything at once": (
        lambda t: some("exposure_years", -1.0)(some("garage", "x")(t.drop_columns(["bonus_malus"]))),
        ["bonus_malus", "garage", "exposure_years"],
        "",
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_are_refused_with_every_column_and_nothing_is_half_done(federation, case: str) -> None:
    """Party, column, cause and fix; no reservation is left, and the next run works once the data are mended."""
    change, columns, cause = DATA[case]
    before = (federation.home("insurer-c") / "data" / "data.parquet").read_bytes()
    rewrite(federation, "insurer-c", change)
    found = refusal(federation, federation.prepare(), INSURER)
    assert (found["code"], found["party"]) == ("DATASET_REFUSED", INSURER)
    assert len(found["reasons"]) == len(columns)
    for column in columns:
        assert any(column in reason and cause in reason for reason in found["reasons"])
    assert federation.node("insurer-c").home.ledger.mu2("urn:convoy:asset:insurer-c:1") == 0
    (federation.home("insurer-c") / "data" / "data.parquet").write_bytes(before)
    assert federation.decisions(federation.prepare()) == {}


def test_a_refusal_and_the_log_hold_no_value_of_a_row(federation, caplog: pytest.LogCaptureFixture) -> None:
    """Neither cells nor ids nor paths nor exception texts travel, or are logged."""
    secret = "SECRET-CELL-77"
    rewrite(federation, "insurer-c", some("garage", secret))
    federation.home("insurer-c")
    text = json.dumps(refusal(federation, federation.prepare(), INSURER)) + caplog.text
    person = pq.read_table(federation.home("insurer-c") / "data" / "data.parquet").column("person_id")[0].as_py()
    for private in (secret, person, str(federation.folder)):
        assert private not in text


# Contract and signatures ------------------------------------------------------------------------------------------------


def test_a_contract_with_one_byte_changed_is_refused(federation) -> None:
    """It is another contract, and nobody signed that."""
    run = federation.prepare()
    run.text = run.text.replace('"claimCap":1', '"claimCap":2', 1)
    found = refusal(federation, run, INSURER)
    assert found["code"] in ("DOCUMENT_MALFORMED", "CONTRACT_NOT_SIGNED_HERE")
    run.text = federation.prepared.texts["risk"].replace('"title":"risk"', '"title":"rusk"', 1)
    run.contract = Contract.parse(run.text)
    run.request["contractDigest"] = run.contract.digest
    assert refusal(federation, run, INSURER)["code"] == "CONTRACT_NOT_SIGNED_HERE"


def test_an_expired_contract_is_refused(federation) -> None:
    """The decision says so at every node, with the trustee."""
    federation.clock.now += timedelta(days=400)
    run = federation.prepare()
    denied = federation.decisions(run)
    assert set(denied) == set(run.needed)
    assert all("TERM_ENDED" in reasons for reasons in denied.values())


def test_a_party_that_has_not_signed_stops_the_run_everywhere(federation) -> None:
    """Its signature is missing from the list."""
    run = federation.prepare()
    run.signatures = [entry for entry in run.signatures if entry["party"] != party_id("insurer-b")]
    assert set(map(tuple, federation.decisions(run).values())) == {("SIGNATURE_MISSING",)}


def test_a_node_with_an_unknown_key_stops_the_run(federation) -> None:
    """A signature under a key that nobody pinned counts for nothing."""
    run = federation.prepare()
    for entry in run.signatures:
        if entry["party"] == party_id("insurer-b"):
            entry |= {"kid": "did:web:insurer-b.example#2"}
    assert set(map(tuple, federation.decisions(run).values())) == {("SIGNATURE_KEY_NOT_OF_PARTY",)}


def test_a_node_takes_part_only_in_what_it_signed_itself(federation) -> None:
    """Even if all signatures are on the table: its own folder does not have this contract."""
    for path in (federation.home("insurer-c") / "contracts").rglob("contract.json"):
        path.unlink()
    assert refusal(federation, federation.prepare(), INSURER)["code"] == "CONTRACT_NOT_SIGNED_HERE"


# The request ------------------------------------------------------------------------------------------------------------


def test_a_field_outside_the_schedule_is_denied(federation) -> None:
    """Whoever asks for it."""
    run = federation.prepare()
    run.request["fields"]["urn:convoy:asset:oem:1"].append("home_grid")
    denied = federation.decisions(run)
    assert set(denied) == set(run.needed)
    assert all("FIELD_NOT_IN_SCHEDULE" in reasons for reasons in denied.values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purpose": "convoy:DirectMarketing"}, "PURPOSE_NOT_COVERED"),
        ({"recipients": ["did:web:stranger.example"]}, "RECIPIENT_NOT_ALLOWED"),
        ({"issuedAt": "2026-01-01T08:00:00Z"}, "REQUEST_STALE"),
        ({"requester": "did:web:stranger.example"}, "PARTY_NOT_IN_CONTRACT"),
        ({"nodeRegions": ["US"]}, "REGION_NOT_ALLOWED"),
        ({"round": 0}, "INPUT_MALFORMED"),
    ],
)
def test_a_request_outside_the_contract_is_denied_with_its_reason(federation, changes, reason: str) -> None:
    """All reasons are those of FORMAT.md; a denial is a signed statement."""
    run = federation.prepare(**changes)
    answers = federation.authorise(run)
    for answer in answers.values():
        assert reason in answer.data["decision"]["reasons"]
        assert answer.data["statement"]


@pytest.mark.parametrize(("member", "amount"), [("epsilonMicro", 1), ("epsilonMicro", 3_999_999), ("deltaNano", 999)])
def test_a_request_that_states_another_price_than_the_plan_is_refused(federation, member: str, amount: int) -> None:
    """The log would understate what a person pays."""
    run = federation.prepare()
    run.request[member] = dict.fromkeys(run.request["assets"], amount)
    found = refusal(federation, run, INSURER)
    assert found["code"] == "REQUEST_OUTSIDE_PLAN"
    assert federation.node("insurer-c").home.ledger.mu2("urn:convoy:asset:insurer-c:1") == 0


def test_a_replayed_request_is_refused(federation) -> None:
    """As the same run, and as another run with the same nonce or round."""
    run = federation.prepare()
    question = federation.question(run, federation.evidence(run))
    assert federation.tell(INSURER, "authorise", question).data["decision"]["allow"]
    again = federation.tell(INSURER, "authorise", question)
    assert again.refused is not None
    assert again.refused["code"] == "REQUEST_REPLAYED"
    federation.ask("abort", {INSURER: {"run": run.uid, "reason": "TEST"}})
    assert federation.tell(INSURER, "authorise", question).data["decision"]["reasons"] == [
        "REQUEST_REPLAYED", "ROUND_NOT_MONOTONIC",
    ]  # fmt: skip
    federation.kill("insurer-c")
    federation.start("insurer-c")
    assert "REQUEST_REPLAYED" in federation.tell(INSURER, "authorise", question).data["decision"]["reasons"]


# The log ----------------------------------------------------------------------------------------------------------------


def test_a_run_without_own_cosignature_is_refused(federation) -> None:
    """The quorum is there, but this node's witness is not in it."""
    run = federation.prepare()
    index = federation.log.append(federation.entry(run)) - 1
    evidence = federation.log.evidence(index, federation.witnessed(without=[INSURER])).to_json()
    answer = federation.tell(INSURER, "authorise", federation.question(run, evidence))
    assert answer.refused is not None
    assert answer.refused["code"] == "OWN_WITNESS_MISSING"


def test_a_run_without_a_quorum_is_refused(federation) -> None:
    """Own cosignature alone is not enough."""
    run = federation.prepare()
    index = federation.log.append(federation.entry(run)) - 1
    others = [party for party in federation.nodes if party != INSURER]
    evidence = federation.log.evidence(index, federation.witnessed(without=others)).to_json()
    answer = federation.tell(INSURER, "authorise", federation.question(run, evidence))
    assert answer.refused is not None
    assert answer.refused["code"] == "QUORUM_MISSING"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "run-risk-99"},
        {"contract": "sha256:" + "1" * 64},
        {"scope": "sha256:" + "1" * 64},
        {"plan": "sha256:" + "1" * 64},
        {"algorithm": "sha256:" + "1" * 64},
        {"attempt": 2},
    ],
)
def test_evidence_of_another_run_is_refused(federation, changes) -> None:
    """Every member that the entry binds must be that of the request."""
    run = federation.prepare()
    evidence = federation.evidence(run, **changes)
    answer = federation.tell(INSURER, "authorise", federation.question(run, evidence))
    assert answer.refused is not None
    assert answer.refused["code"] == "EVIDENCE_OF_ANOTHER_RUN"


def test_a_rolled_back_log_is_refused_and_remembered(federation) -> None:
    """A smaller checkpoint than one that was cosigned; both notes are kept."""
    run = federation.prepare()
    federation.log.append(b'{"old":1}', b'{"old":2}')
    federation.evidence(run)
    size = federation.log.tree.size
    small = federation.log.rewritten(federation.log.entries[: size - 1])
    question = {"checkpoint": small.checkpoint().decode(), "oldSize": size, "proof": []}
    answer = federation.tell(INSURER, "witness", question)
    assert answer.refused is not None
    assert (answer.refused["code"], answer.refused["size"]) == ("WITNESS_ROLLBACK", size)
    assert len(federation.node("insurer-c").home.witness.alarms()) == 1


def test_a_rewritten_log_is_refused_and_remembered(federation) -> None:
    """Same size or larger, but another history."""
    run = federation.prepare()
    federation.log.append(b'{"old":1}')
    federation.evidence(run)
    size = federation.log.tree.size
    forged = federation.log.rewritten([b'{"new":1}', *federation.log.entries[1:], b'{"more":1}'])
    question = {"checkpoint": forged.checkpoint().decode(), "oldSize": size, "proof": []}
    answer = federation.tell(INSURER, "witness", question)
    assert answer.refused is not None
    assert answer.refused["code"] == "WITNESS_INCONSISTENT"
    assert federation.node("insurer-c").home.witness.alarms()
    federation.kill("insurer-c")
    federation.start("insurer-c")
    assert federation.node("insurer-c").home.witness.alarms()


def test_a_checkpoint_of_another_log_is_refused(federation) -> None:
    """A coordinator with a new key is a stranger."""
    from convoy_audit.testing import MemoryLog

    other = MemoryLog(federation.log.origin)
    other.append(b'{"a":1}')
    answer = federation.tell(INSURER, "witness", {"checkpoint": other.checkpoint().decode(), "oldSize": 0, "proof": []})
    assert answer.refused is not None
    assert answer.refused["code"] == "LOG_SIGNATURE_WRONG"


# In a run ---------------------------------------------------------------------------------------------------------------


def code(answer: Payload) -> str:
    """Return the code of a refusal."""
    assert answer.refused is not None
    return str(answer.refused["code"])


def test_nothing_outside_the_plan_is_answered(federation) -> None:
    """Unknown queries, queries of others, actions of others, other attempts, unknown runs."""
    run = federation.begin()
    base = {"run": run.uid, "attempt": run.attempt}
    asked = {"query": "joint/labels/insurer", "weights": {}}
    assert (
        code(federation.tell(INSURER, "close", {**base, "asks": [{"query": "mine/own", "weights": {}}]}))
        == "PLAN_REFUSED"
    )
    assert code(federation.tell(OEM, "close", {**base, "asks": [asked]})) == "QUERY_WITHOUT_PART"
    assert code(federation.tell(OEM, "deal", {**base, "queries": []})) == "ROLE_WITHOUT_PART"
    assert code(federation.tell(party_id("auditor"), "close", {**base, "asks": [asked]})) == "ROLE_WITHOUT_PART"
    assert code(federation.tell(INSURER, "close", {**base, "attempt": 2, "asks": [asked]})) == "RUN_NOT_AUTHORISED"
    assert code(federation.tell(INSURER, "close", {**base, "run": "run-9", "asks": [asked]})) == "RUN_NOT_AUTHORISED"
    assert code(federation.tell(INSURER, "read", base)) == "ACTION_UNKNOWN"
    assert federation.node("insurer-c").home.ledger.spent_mu2("urn:convoy:asset:insurer-c:1") == 0


def test_a_query_is_answered_once(federation) -> None:
    """A second close of the same query gives nothing and costs nothing more."""
    run = federation.begin()
    asks = federation.first_batch(run)
    federation.batch(run, asks)
    spent = federation.node("insurer-c").home.ledger.spent_mu2("urn:convoy:asset:insurer-c:1")
    for ask in asks:
        query = run.plan[ask.query]
        if INSURER in query.participants:
            answer = federation.tell(INSURER, "close", federation.questions(run, [(ask, query)])[INSURER])
            assert code(answer) == "TAG_REUSED"
            assert not answer.arrays
    assert federation.node("insurer-c").home.ledger.spent_mu2("urn:convoy:asset:insurer-c:1") == spent


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"insurer": {}},
        {"insurer": 5},
        {"insurer": {"driver_age": [1.0]}},
        {"insurer": {"driver_age": ["x"] * 9}},
        [1],
        "text",
    ],
)
def test_weights_that_do_not_fit_are_refused_and_cost_nothing(federation, weights) -> None:
    """The node never fills in what is missing."""
    run = federation.begin()
    question = {"run": run.uid, "attempt": 1, "asks": [{"query": "solo/model-01/insurer/0", "weights": weights}]}
    answer = federation.tell(INSURER, "close", question)
    assert answer.refused is not None
    assert federation.node("insurer-c").home.ledger.spent_mu2("urn:convoy:asset:insurer-c:1") == 0


def test_extreme_weights_do_not_pass_the_cap(federation) -> None:
    """Whatever the coordinator asks, one person moves the sum by the planned clip at most."""
    run = federation.begin()
    asks = federation.first_batch(run)
    wild = [
        type(ask)(ask.query, {r: {f: [50.0] * len(v) for f, v in ws.items()} for r, ws in ask.weights.items()})
        for ask in asks
    ]
    opened = federation.batch(run, wild)
    people = federation.prepared.population
    for query_id, values in opened.items():
        query = run.plan[query_id]
        persons = int(people.has_oem.sum() if query.cohort == "joint" else (~people.has_oem).sum())
        assert np.linalg.norm(values) <= persons * query.clip


def test_a_tampered_blob_is_refused(federation) -> None:
    """A flipped bit in relayed mail opens nothing."""
    run = federation.begin()
    asks = federation.first_batch(run)
    federation.batch(run, asks, until="share")
    name, blob = next(iter(federation.mail[OEM].items()))
    federation.mail[OEM][name] = blob[:-1] + bytes([blob[-1] ^ 1])
    chosen = [(ask, run.plan[ask.query]) for ask in asks]
    answer = federation.tell(OEM, "close", federation.questions(run, chosen)[OEM])
    assert code(answer) == "SEAL_BROKEN"
    assert not answer.arrays


def test_a_withdrawal_during_a_run_stops_its_release(federation) -> None:
    """The contract says immediate: the person's node releases nothing any more, and the next run is without the person."""
    run = federation.begin()
    asks = federation.first_batch(run)
    federation.batch(run, asks, until="share")
    register = federation.node("insurer-c").home.register
    person = pq.read_table(federation.home("insurer-c") / "data" / "data.parquet").column("person_id")[0].as_py()
    federation.clock.pass_by(seconds=5)
    register.withdraw(person, "urn:convoy:contract:risk", federation.clock.now)
    federation.clock.pass_by(seconds=5)
    chosen = [(ask, run.plan[ask.query]) for ask in asks]
    answer = federation.tell(INSURER, "close", federation.questions(run, chosen)[INSURER])
    assert answer.refused is not None
    assert answer.refused["reasons"] == ["WITHDRAWAL_SINCE_AUTHORISATION"]
    assert federation.node("insurer-c").home.ledger.spent_mu2("urn:convoy:asset:insurer-c:1") == 0
    federation.ask("abort", {key: {"run": run.uid, "reason": "WITHDRAWN"} for key in run.needed})
    federation.mail.clear()
    federation.complete()


def test_a_suspension_stops_the_next_run(federation) -> None:
    """A party that suspends itself is out at once."""
    run = federation.prepare()
    run.events = [
        {
            "uid": run.contract.uid,
            "seq": 1,
            "type": "suspend",
            "by": INSURER,
            "party": INSURER,
            "at": run.contract.term.notBefore,
        }
    ]
    assert set(map(tuple, federation.decisions(run).values())) == {("PARTY_SUSPENDED",)}
