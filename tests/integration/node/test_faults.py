"""Nodes that die, disks that fail, coordinators that stop: what is spent stays, the rest is released, the next run works."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convoy_audit.statement import Chain, open_statement
from convoy_contracts.canonical import unb64u
from convoy_demo.party_data import party_id
from convoy_models.messages import Payload
from convoy_node.errors import ConsentRefused, LedgerError
from convoy_node.runtime import ACTIONS, NodeRuntime

INSURER, OEM = party_id("insurer-c"), party_id("oem")
ASSET = "urn:convoy:asset:insurer-c:1"
STEPS = ("authorise", "align", "matrix", "deal", "open", "share", "close")


def chain_of(federation, short: str) -> list[str]:
    """Return the events of a node's statements, after checking signature, numbers and chain."""
    card = federation.prepared.cards[short]
    chain, events = Chain(party_id(short)), []
    for raw in federation.node(short).home.memory.statements():
        statement = open_statement(raw, unb64u(card.identity_key))
        chain.accept(statement)
        events.append(statement.event)
    return events


@pytest.mark.parametrize("short", ["insurer-c", "oem", "auditor"])
@pytest.mark.parametrize("step", STEPS)
def test_a_node_killed_after_any_step_settles_and_the_next_run_works(federation, short: str, step: str) -> None:
    """Spent stays, the rest is released; the node says so in a statement, once; a whole run follows."""
    run = federation.prepare()
    assert federation.decisions(run) == {}
    if step != "authorise":
        federation.ask("align", {p: {"run": run.uid} for p in run.needed if p != party_id("auditor")})
    if step not in ("authorise", "align"):
        federation.ask("matrix", {p: {"run": run.uid, "chunk": 0} for p in run.needed if p != party_id("auditor")})
    if step in ("open", "share", "close"):
        federation.batch(run, federation.first_batch(run), until=step)
    asset = f"urn:convoy:asset:{short}:1"
    spent = federation.node(short).home.ledger.spent_mu2(asset)
    federation.kill(short)
    federation.start(short)
    assert federation.node(short).home.ledger.mu2(asset) == spent
    assert (spent > 0) == ((step == "close" and short != "auditor") or (short == "oem" and step != "authorise"))
    settled = [event for event in chain_of(federation, short) if event.TYPE == "node:run:settled"]
    assert [(event.run, event.outcome, event.reasons) for event in settled] == [
        (run.uid, "aborted", ("NODE_RESTARTED",))
    ]
    answer = federation.tell(party_id(short), "close", {"run": run.uid, "asks": []})
    assert answer.refused is not None
    assert answer.refused["code"] == "RUN_NOT_AUTHORISED"
    federation.ask("abort", {p: {"run": run.uid, "reason": "NODE_LOST"} for p in run.needed})
    federation.mail.clear()
    if step != "close":  # a whole run once for each node; elsewhere that it may begin
        federation.begin()
        return
    federation.complete()
    federation.kill(short)
    federation.start(short)
    assert len([e for e in chain_of(federation, short) if e.TYPE == "node:run:settled"]) == 2


def test_a_coordinator_that_stops_locks_no_budget(federation) -> None:
    """Three runs that nobody ends: each newer round settles the one before."""
    for _ in range(3):
        assert federation.decisions(federation.prepare()) == {}
    assert len(federation.node("insurer-c").home.memory.open_runs()) == 1
    federation.complete()


def test_a_run_is_settled_once_whatever_is_said_again(federation) -> None:
    """Finish and abort, repeated in any order, answer with the same statement."""
    run = federation.begin()
    federation.fit(run)
    first = federation.finish(run)[INSURER].data["statement"]
    again = federation.ask("abort", {INSURER: {"run": run.uid, "reason": "LATER"}})[INSURER]
    assert (again.data["settled"], again.data["statement"], again.data["statements"]) == (True, first, [])
    unknown = federation.tell(INSURER, "finish", {"run": "run-9", "release": "sha256:" + "0" * 64})
    assert unknown.data["settled"] is False


def test_a_ledger_that_cannot_be_written_lets_nothing_out(federation) -> None:
    """Disk full at the moment of the spend."""
    run = federation.begin()
    asks = federation.first_batch(run)
    federation.batch(run, asks, until="share")
    chosen = [(ask, run.plan[ask.query]) for ask in asks]
    federation.node("insurer-c").home.ledger._db.execute("PRAGMA query_only = ON")
    answer = federation.tell(INSURER, "close", federation.questions(run, chosen)[INSURER])
    assert answer.refused is not None
    assert answer.refused["code"] == "LEDGER_WRITE_FAILED"
    assert not answer.arrays


def test_a_memory_that_cannot_be_written_authorises_nothing(federation) -> None:
    """Neither nonce nor round nor statement can be kept."""
    run = federation.prepare()
    question = federation.question(run, federation.evidence(run))
    federation.node("insurer-c").home.memory._db.execute("PRAGMA query_only = ON")
    answer = federation.tell(INSURER, "authorise", question)
    assert answer.refused is not None
    assert answer.refused["code"] == "MEMORY_FAILED"
    assert federation.node("insurer-c").home.ledger.mu2(ASSET) == 0


def test_a_clock_that_differs_from_the_witnesses_denies(federation) -> None:
    """Ten minutes between the cosignatures and the decision."""
    run = federation.prepare()
    question = federation.question(run, federation.evidence(run))
    federation.clock.pass_by(minutes=10)
    reasons = federation.tell(INSURER, "authorise", question).data["decision"]["reasons"]
    assert reasons == ["CLOCK_UNTRUSTED", "REQUEST_STALE"]


def test_a_run_ends_when_the_contract_says_so(federation) -> None:
    """maxRoundSeconds after its authorisation."""
    run = federation.begin()
    federation.clock.pass_by(hours=1)
    answer = federation.tell(INSURER, "close", {"run": run.uid, "asks": []})
    assert answer.refused is not None
    assert answer.refused["code"] == "RUN_EXPIRED"


def test_two_processes_cannot_open_one_node(federation) -> None:
    """The second is refused and the first goes on."""
    with pytest.raises(LedgerError) as refused:
        NodeRuntime(federation.home("insurer-c"), clock=federation.clock)
    assert refused.value.code == "LEDGER_BUSY"
    federation.complete()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = (
    "run", "attempt", "contractDigest", "contractText", "signatures", "events", "request", "evidence", "asks",
    "queries", "chunk", "checkpoint", "oldSize", "proof", "reason", "release", "after",
)  # fmt: skip


def test_nothing_that_a_coordinator_says_raises(federation) -> None:
    """Random messages, and real ones with a random member, are answered or refused; nothing is spent by them."""
    run = federation.begin()
    node = federation.node("insurer-c")
    real = {
        **federation.question(run, federation.evidence(federation.prepare())),
        "asks": [{"query": "solo/labels/insurer", "weights": {}}], "chunk": 0, "release": "sha256:" + "0" * 64,
    }  # fmt: skip
    spent = node.home.ledger.spent_mu2(ASSET)

    @settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        action=st.sampled_from([a for a in ACTIONS if a not in ("finish", "abort")]) | st.text(max_size=5),
        changes=st.dictionaries(st.sampled_from(MEMBERS), JSON, min_size=1, max_size=3),
        is_real=st.booleans(),
    )
    def talk(action: str, changes: dict[str, Any], is_real: bool) -> None:
        data = {**(real if is_real else {}), **changes}
        if action == "close" and "asks" not in changes:
            data["asks"] = []
        answer = node.handle(action, Payload(data))
        if answer.refused is not None:
            assert set(answer.refused) >= {"code", "party", "cause", "fix", "reasons"}
            assert answer.refused["code"] != "NODE_FAILED", (action, changes)

    talk()
    assert node.home.ledger.spent_mu2(ASSET) == spent


def test_nothing_that_a_peer_sends_raises(federation) -> None:
    """Random blobs under random names, in every action of a run."""
    run = federation.begin()
    node = federation.node("insurer-c")
    rng = random.Random(5)
    for action in ("align", "matrix", "open", "share", "close"):
        for _ in range(10):
            name = rng.choice(
                [f"from|{OEM}|align", f"from|{OEM}|matrix.0", "from|x|y", "to|x|y", f"from|{OEM}|share.q"]
            )
            payload = Payload({"run": run.uid, "chunk": 0, "asks": []}, {name: rng.randbytes(rng.randrange(200))})
            answer = node.handle(action, payload)
            if action != "align":
                assert answer.refused is not None
                assert answer.refused["code"] in ("SEAL_BROKEN", "MESSAGE_UNEXPECTED", "KEY_UNKNOWN")
    assert node.home.ledger.spent_mu2(ASSET) == 0


def test_a_failure_inside_tells_the_log_where_and_the_wire_nothing(federation) -> None:
    """A fault of a library with a row's value in its text."""

    def broken(*_: object) -> None:
        raise ValueError("could not convert PERSON-4711")

    run = federation.begin()
    node = federation.node("insurer-c")
    node._runs[run.uid].part.local = broken  # type: ignore[union-attr,method-assign]
    asked = {"run": run.uid, "asks": [{"query": "solo/labels/insurer", "weights": {}}]}
    answer = node.handle("close", Payload(asked))
    assert answer.refused is not None
    assert answer.refused["code"] == "NODE_FAILED"
    log = (federation.home("insurer-c") / "log" / "node.jsonl").read_text()
    reference = answer.refused["cause"].split("reference ")[1].split(")")[0]
    assert reference in log
    assert "4711" not in log + str(answer.refused)


def test_a_joint_cohort_below_the_floor_is_refused_by_the_carmaker(federation) -> None:
    """Withdrawals took it below 500; the OEM sees the rows of all pairs and sends no matrix."""
    register = federation.node("oem").home.register
    uid = "urn:convoy:contract:risk"
    people = federation.prepared.population
    ids = pq.read_table(federation.home("oem") / "data" / "data.parquet").column("person_id").to_pylist()
    joint = int(people.has_oem.sum())
    gone = 0
    for person in ids:
        if joint - gone < 500:
            break
        try:
            register.withdraw(person, uid, federation.clock.now - timedelta(days=1))
        except ConsentRefused:
            continue
        gone += 1
    run = federation.prepare()
    assert federation.decisions(run) == {}
    federation.ask("align", {p: {"run": run.uid} for p in run.needed if p != party_id("auditor")})
    answer = federation.tell(OEM, "matrix", {"run": run.uid, "chunk": 0})
    assert answer.refused is not None
    assert answer.refused["code"] == "COHORT_TOO_SMALL"
    assert not answer.blobs
