"""Consent at real nodes: withdrawal in a run, epochs, proofs checked offline, restores, duties, the rights desk, the log."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from convoy_audit.cli import main as audit
from convoy_audit.consent import check_withdrawn, verify_proof, verify_receipt
from convoy_audit.errors import ConsentProofError
from convoy_audit.events import ConsentRooted, DecisionMade, DutyStated
from convoy_audit.statement import Chain, open_statement
from convoy_contracts.canonical import unb64u
from convoy_contracts.document import Contract
from convoy_demo.party_data import party_id
from convoy_node.api import TOKEN_FILE, create_app
from convoy_node.cli import app
from convoy_node.errors import NodeError

UID = "urn:convoy:contract:risk"
NOTICE = "convoy-demo@1"


def say(*arguments: object) -> Any:
    """Run a command of the node with --json; a refusal comes out as its exception."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def joint_person(federation: Any, short: str = "insurer-a") -> str:
    """Return somebody whom this insurer shares with the OEM."""
    with sqlite3.connect(federation.home(short) / "register.db") as db:
        return str(
            db.execute("SELECT local_id FROM consent WHERE contract = ? AND link_id NOT NULL", (UID,)).fetchone()[0]
        )


def stated(federation: Any, prepared: Any, short: str) -> list[Any]:
    """Return every event that a node has stated, verified and in order."""
    chain, events = Chain(party_id(short)), []
    for raw in federation.node(short).home.memory.statements():
        statement = open_statement(raw, unb64u(prepared.cards[short].identity_key))
        chain.accept(statement)
        events.append(statement.event)
    return events


def test_a_withdrawal_in_a_run_gives_a_receipt_and_the_next_cohort_is_without_the_person(
    federation, prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Receipt at once, the next epoch holds the withdrawal, and both are checked offline by the auditor's command."""
    home, person = federation.home("insurer-a"), joint_person(federation)
    federation.begin()
    before = federation.node("insurer-a").home.register.cohort(
        UID, "convoy:RiskModelTraining", [party_id("oem")], [NOTICE], federation.clock.now, sensitive=False
    )
    assert person in before.persons
    receipt = say("consent", "withdraw", person, "--contract", "risk", "--home", home)
    assert say("consent", "withdraw", person, "--contract", "risk", "--home", home) == receipt
    federation.clock.now = federation.clock.now + timedelta(hours=2)  # past the command's own clock
    again = federation.prepare()
    assert federation.decisions(again) == {}
    assert person not in federation.node("insurer-a")._runs[again.uid].people.persons
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    proof = say("consent", "prove", person, "--contract", "risk", "--home", home, "--out", tmp_path / "proof.json")
    assert proof["epoch"] == receipt["byEpoch"] == 2
    arguments = [
        str(tmp_path / "proof.json"),
        "--card",
        str(home / "card.json"),
        "--receipt",
        str(tmp_path / "receipt.json"),
    ]
    assert audit(["consent", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "withdrawn" in shown
    assert person not in shown
    assert audit(["consent", *arguments, "--lang", "zh"]) == 0
    assert "核验通过" in capsys.readouterr().out
    first = say("consent", "prove", person, "--contract", "risk", "--home", home, "--epoch", 1)
    assert first["found"]["state"]["state"] == "given"
    with pytest.raises(ConsentProofError, match="older than epoch"):
        check_withdrawn(verify_proof(first, unb64u(prepared.cards["insurer-a"].identity_key)), receipt)


def test_a_withdrawal_stops_a_run_under_way_where_the_contract_says_immediate(federation, prepared) -> None:
    """The contract here says immediate: the release is refused with the one reason, and the refusal is stated."""
    run = federation.prepare()
    assert federation.decisions(run) == {}
    federation.clock.pass_by(seconds=1)
    federation.node("insurer-a").home.register.withdraw(joint_person(federation), UID, federation.clock.now)
    answer = federation.tell(party_id("insurer-a"), "align", {"run": run.uid, "attempt": run.attempt})
    assert answer.refused["reasons"] == ["WITHDRAWAL_SINCE_AUTHORISATION"]
    last = stated(federation, prepared, "insurer-a")[-1]
    assert (last.phase, last.outcome, last.reasons) == ("release", "deny", ("WITHDRAWAL_SINCE_AUTHORISATION",))


def test_every_decision_is_a_signed_statement_and_no_entry_names_a_person(federation, prepared) -> None:
    """Permits and denials, before and in the run; no link id, no person's id and no notice text in any byte that left."""
    federation.complete()
    run = federation.prepare(purpose="convoy:Marketing")
    denied = federation.decisions(run)
    assert set(denied) == set(run.needed)
    for short in ("oem", "insurer-a", "insurer-b", "insurer-c", "auditor"):
        made = [event for event in stated(federation, prepared, short) if isinstance(event, DecisionMade)]
        assert (made[0].phase, made[0].outcome) == ("authorise", "allow")
        assert (made[-1].phase, made[-1].outcome) == ("authorise", "deny")
        if short != "auditor":
            assert {event.phase for event in made} == {"authorise", "release"}
    names: set[bytes] = set()
    for short in ("oem", "insurer-a", "insurer-b", "insurer-c"):
        ids = pq.read_table(federation.home(short) / "data" / "data.parquet").column("person_id").to_pylist()
        names |= {f'"{name}"'.encode() for name in ids}
        with sqlite3.connect(federation.home(short) / "register.db") as db:
            for (link,) in db.execute("SELECT link_id FROM consent WHERE link_id NOT NULL"):
                names |= {link.hex().encode(), link}
    logged = b"\n".join([*federation.log.entries, *federation.statements])
    assert logged
    assert not [name for name in names if name in logged]
    for event in stated(federation, prepared, "oem"):
        if isinstance(event, ConsentRooted):
            assert event.persons % 50 == event.withdrawn % 50 == 0


def test_the_coordinator_sees_no_id_and_no_count_finer_than_fifty(federation) -> None:
    """Over every answer of a run: rows in fifties, and sealed lists of links whose length is a multiple of fifty ids."""
    seen: list[Any] = []
    tell = federation.tell

    def recorded(party: str, action: str, data: Any) -> Any:
        answer = tell(party, action, data)
        seen.append((party, action, answer))
        return answer

    federation.tell = recorded
    federation.complete()
    sizes = set()
    for _, action, answer in seen:
        for name in ("rows",):
            assert answer.data.get(name, 0) % 50 == 0
        if action == "align":
            sizes |= {len(blob) for blob in answer.blobs.values()}
    overhead = min(sizes) % (50 * 16)
    assert sizes
    assert {(size - overhead) % (50 * 16) for size in sizes} == {0}


def test_a_restored_older_register_lets_no_run_in_until_it_has_caught_up(federation, prepared, tmp_path: Path) -> None:
    """REGISTER_STALE as a stated denial; catching up makes every withdrawal again under a new incarnation."""
    home, person = federation.home("insurer-a"), joint_person(federation)
    assert federation.decisions(federation.prepare()) == {}
    federation.kill("insurer-a")
    copy = tmp_path / "register.copy"
    with sqlite3.connect(home / "register.db") as db, sqlite3.connect(copy) as kept:
        db.backup(kept)
    say("consent", "withdraw", person, "--contract", "risk", "--home", home)
    for name in ("register.db", "register.db-wal", "register.db-shm"):
        (home / name).unlink(missing_ok=True)
    shutil.copy(copy, home / "register.db")
    federation.start("insurer-a")
    federation.clock.pass_by(hours=2)
    assert federation.decisions(federation.prepare()) == {party_id("insurer-a"): ["REGISTER_STALE"]}
    last = stated(federation, prepared, "insurer-a")[-1]
    assert (last.outcome, last.reasons) == ("deny", ("REGISTER_STALE",))
    with pytest.raises(NodeError) as refused:
        say("consent", "epoch", "--contract", "risk", "--home", home)
    assert refused.value.code == "REGISTER_STALE"
    assert say("consent", "catch-up", "--home", home)["withdrawalsAgain"] == 1
    assert federation.decisions(federation.prepare()) == {}
    epochs = [event for event in stated(federation, prepared, "insurer-a") if isinstance(event, ConsentRooted)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert epochs[0].incarnation != epochs[1].incarnation
    assert epochs[1].previous == epochs[0].root
    assert say("consent", "show", person, "--contract", "risk", "--home", home)["state"] == "withdrawn"


def test_an_epoch_in_the_log_that_the_memory_lacks_stops_the_node_before_it_states_anything(
    federation, prepared
) -> None:
    """Register and memory restored together: the log knows better, and only this party could have signed it.

    A denial would be stated under a number that was given before; so nothing is stated until the node has caught up.
    """
    from base64 import b64encode

    home = federation.home("insurer-b")
    federation.kill("insurer-b")
    saved = {name: (home / name).read_bytes() for name in ("register.db", "node.db")}
    made = say("consent", "epoch", "--contract", "risk", "--home", home)
    assert made["epoch"] == 1
    with sqlite3.connect(home / "node.db") as db:
        raw = bytes(db.execute("SELECT raw FROM statement ORDER BY number DESC").fetchone()[0])
    for path in home.glob("*.db-*"):
        path.unlink()
    for name, content in saved.items():
        (home / name).write_bytes(content)
    federation.start("insurer-b")
    run = federation.prepare()
    question = federation.question(run, federation.evidence(run)) | {"consentEpochs": [b64encode(raw).decode()]}
    foreign = federation.tell(party_id("insurer-c"), "authorise", question)
    assert foreign.data["decision"]["allow"] is True  # another party's statement says nothing about this one
    answer = federation.tell(party_id("insurer-b"), "authorise", question)
    assert answer.refused["code"] == "NODE_RESTORED"
    assert "REGISTER_STALE" in answer.refused["reasons"]
    assert federation.node("insurer-b").home.memory.statements() == []
    federation.kill("insurer-b")
    with pytest.raises(NodeError) as again:
        federation.start("insurer-b")
    assert again.value.code == "NODE_RESTORED"


def test_an_overdue_deletion_is_stated_and_blocks_runs_until_there_is_evidence(
    federation, prepared, tmp_path: Path
) -> None:
    """A withdrawal raises the duty to delete within ten Chinese working days; only its evidence lets runs in again."""
    home, person = federation.home("insurer-a"), joint_person(federation)
    say("consent", "withdraw", person, "--contract", "risk", "--home", home)
    (duty,) = [d for d in say("duties", "--home", home)["duties"] if d["kind"] == "delete"]
    assert duty["blocking"]
    assert duty["state"] == "open"
    federation.clock.pass_by(days=25)
    refused = federation.decisions(federation.prepare())
    assert refused == {party_id("insurer-a"): ["DUTY_OVERDUE"]}
    steps = [event.step for event in stated(federation, prepared, "insurer-a") if isinstance(event, DutyStated)]
    assert steps == ["raised", "overdue"]
    certificate = tmp_path / "certificate.txt"
    certificate.write_text("rows deleted")
    say("duties", "fulfil", duty["id"], "--evidence", certificate, "--home", home)
    assert federation.decisions(federation.prepare()) == {}
    with pytest.raises(NodeError):
        say("duties", "fulfil", duty["id"], "--evidence", certificate, "--home", home)
    raw = b"".join(federation.node("insurer-a").home.memory.statements())
    assert f'"{person}"'.encode() not in raw


def test_the_rights_desk_names_contract_run_and_model_and_the_field_report_what_nobody_read(federation) -> None:
    """From the index that the run itself wrote; somebody outside the cohort was in no run."""
    federation.complete()
    home, person = federation.home("insurer-a"), joint_person(federation)
    found = say("desk", person, "--home", home)
    assert found["contracts"] == [f"{UID} v1"]
    assert found["models"] == ["sha256:" + "0" * 64]
    (run,) = found["runs"]
    assert (run["run"], run["stage"], run["outcome"]) == ("run-risk-1", "aligned", "finished")
    assert say("desk", "nobody", "--home", home)["runs"] == []
    report = say("fields", "--home", home, "--year", federation.clock.now.year)
    assert report["neverRead"] == []
    toml = home / "node.toml"
    toml.write_text(toml.read_text().replace("[asset.fields]\n", '[asset.fields]\n"home_grid" = "L3"\n'))
    report = say("fields", "--home", home, "--year", federation.clock.now.year)
    assert report["neverRead"] == report["neverScheduled"] == ["home_grid"]


@pytest.fixture
def client(federation: Any) -> Iterator[TestClient]:
    """The local API of insurer-a with its token."""
    home = federation.home("insurer-a")
    made = create_app(home, clock=federation.clock)
    token = (home / TOKEN_FILE).read_text()
    with TestClient(made, base_url="http://127.0.0.1", headers={"authorization": f"Bearer {token}"}) as opened:
        yield opened


def consent_of(person: str, **change: Any) -> dict[str, Any]:
    """Return a body for a good consent."""
    return {
        "person": person,
        "contract": "risk",
        "until": "2027-06-30T00:00:00+08:00",
        "notice": NOTICE,
        "purpose": "convoy:RiskModelTraining",
        "recipients": [party_id(short) for short in ("oem", "insurer-a", "insurer-b", "insurer-c", "charging")],
        "separate": True,
        "age": 30,
    } | change


def test_the_app_records_shows_withdraws_and_proves_over_http(client: TestClient, federation, prepared) -> None:
    """A person's whole way; the link id is random and for the other holder."""
    made = client.post("/v1/consents", json=consent_of("new-driver", counterpart=party_id("oem")))
    assert made.status_code == 201
    assert len(made.json()["linkId"]) == 32
    key = unb64u(prepared.cards["insurer-a"].identity_key)
    assert verify_receipt(made.json()["receipt"], key)["kind"] == "consent"
    shown = client.get("/v1/persons/new-driver/consents/risk").json()
    assert shown["records"][0]["schema"].endswith("(ISO/IEC TS 27560:2023)")
    assert client.post("/v1/contracts/risk/epochs").json()["persons"] % 50 == 0
    federation.clock.pass_by(seconds=1)
    receipt = client.post("/v1/consents/withdraw", json={"person": "new-driver", "contract": "risk"}).json()
    assert client.get("/v1/persons/new-driver/consents/risk/receipt").json() == receipt
    assert client.post("/v1/contracts/risk/epochs").json()["epoch"] == 2
    proof = client.get("/v1/persons/new-driver/consents/risk/proof").json()
    check_withdrawn(verify_proof(proof, key), verify_receipt(receipt, key))
    assert [d["kind"] for d in client.get("/v1/duties").json()["duties"] if d["kind"] == "delete"] == ["delete"]
    absent = client.get("/v1/persons/never-seen/consents/risk/proof").json()
    assert verify_proof(absent, key).state is None
    assert client.get("/v1/persons/new-driver/influence").json()["runs"] == []
    texts = client.get("/v1/contracts/risk/notice").json()["texts"]
    contract = Contract.parse(prepared.texts["risk"])
    own = next(row for row in contract.data if row.provider == party_id("insurer-a"))
    for text in (texts["zh-CN"], texts["en"]):
        assert all(field.name in text for field in own.fields)
        assert all(recipient in text for recipient in contract.outputs[0].recipients)


def test_the_api_refuses_without_token_host_term_or_sense(client: TestClient) -> None:
    """Every fault of a body at once, with a code; nothing of a person in the answer."""
    assert client.get("/v1/duties", headers={"authorization": "Bearer no"}).json()["code"] == "TOKEN_MISSING"
    assert client.get("/v1/duties", headers={"host": "evil.example"}).status_code == 400
    bad = client.post("/v1/consents", json=consent_of("secret-driver", until="soon", notice="other@1", age=300))
    assert bad.status_code == 422
    assert len(bad.json()["reasons"]) == 3
    assert "secret-driver" not in bad.text
    body = consent_of("secret-driver")
    del body["until"]
    assert (
        "column until: missing; write open-ended for no end (1 rows)"
        in client.post("/v1/consents", json=body).json()["reasons"]
    )
    for raw, code in (
        (b"{", "BODY_MALFORMED"),
        (b'{"person":"a","person":"b"}', "BODY_MALFORMED"),
        (b'{"person":1.5}', "BODY_MALFORMED"),
        (b"[]", "INPUT_INVALID"),
        (b'{"person":"a","x":1}', "INPUT_INVALID"),
    ):
        assert client.post("/v1/consents", content=raw).json()["code"] == code


def test_every_failure_of_the_api_is_a_problem_document_without_the_persons_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever raises it - the office, the framework, nobody - it has type, status, party, cause and fix in both languages."""
    person = "/v1/persons/secret-driver"
    cases = [
        (404, "PERSON_UNKNOWN", "GET", f"{person}/consents/risk"),
        (404, "EPOCH_UNKNOWN", "GET", f"{person}/consents/risk/proof?epoch=77"),
        (422, "INPUT_INVALID", "GET", f"{person}/consents/risk/proof?epoch=secret-driver"),
        (404, "NOT_FOUND", "GET", f"{person}/secret-driver"),
        (405, "METHOD_NOT_ALLOWED", "DELETE", f"{person}/consents/risk"),
        (404, "CONTRACT_UNKNOWN", "GET", "/v1/contracts/urn:x/notice"),
    ]
    client = TestClient(client.app, base_url="http://127.0.0.1", headers=client.headers, raise_server_exceptions=False)
    answers = [(status, code, client.request(method, path)) for status, code, method, path in cases]
    monkeypatch.setattr("convoy_node.consent.office.ConsentOffice.show", lambda *_: 1 // 0)
    answers.append((500, "INTERNAL", client.get(f"{person}/consents/risk")))
    for status, code, answer in answers:
        told = answer.json()
        assert (answer.status_code, told["status"], told["code"]) == (status, status, code), told
        assert answer.headers["content-type"] == "application/problem+json"
        assert (told["type"], told["party"]) == (f"/problems/{code}", party_id("insurer-a"))
        assert all(told[name] for name in ("title", "titleZh", "cause", "fix", "fixZh", "meaningZh"))
        assert "secret-driver" not in answer.text


def test_the_api_is_alive_while_a_withdrawal_is_under_way(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work on the databases holds up other work on them, not the health of the process."""
    begun, may_end, waited = threading.Event(), threading.Event(), []

    def slow(*_: Any, **__: Any) -> Any:
        begun.set()
        waited.append(may_end.wait(60))
        raise NodeError("enough", code="PERSON_UNKNOWN")

    monkeypatch.setattr("convoy_node.consent.office.ConsentOffice.withdraw", slow)
    body = {"person": "somebody", "contract": "risk"}
    asking = threading.Thread(target=client.post, args=("/v1/consents/withdraw",), kwargs={"json": body})
    asking.start()
    assert begun.wait(60)
    assert client.get("/livez").status_code == 200
    may_end.set()
    asking.join()
    assert waited == [True]


def test_a_refusal_is_kept_and_nobody_is_asked_again_soon(client: TestClient, federation) -> None:
    """Half a year; who comes by themselves is heard."""
    refused = client.post("/v1/consents", json=consent_of("no-driver", refused=True))
    assert refused.json()["record"]["event"]["state"] == "refused"
    assert client.get("/v1/persons/no-driver/consents/risk/may-ask").json()["mayAsk"] is False
    again = client.post("/v1/consents", json=consent_of("no-driver"))
    assert (again.status_code, again.json()["code"]) == (409, "REASK_BLOCKED")
    assert client.post("/v1/consents", json=consent_of("no-driver", unasked=True)).status_code == 201
    client.post("/v1/consents", json=consent_of("no-driver", refused=True))
    federation.clock.pass_by(days=181)
    assert client.get("/v1/persons/no-driver/consents/risk/may-ask").json()["mayAsk"] is True
    assert client.post("/v1/consents", json=consent_of("no-driver")).status_code == 201


def test_minors_without_a_guardian_and_persons_of_unknown_age_count_nowhere(client: TestClient, federation) -> None:
    """They are kept, and no cohort has them."""
    unknown = consent_of("unknown-age")
    del unknown["age"]
    for body in (unknown, consent_of("child", age=13), consent_of("ward", age=13, guardian=True)):
        assert client.post("/v1/consents", json=body).status_code == 201
    cohort = federation.node("insurer-a").home.register.cohort(
        UID, "convoy:RiskModelTraining", [party_id("oem")], [NOTICE], federation.clock.now, sensitive=False
    )
    assert {"unknown-age", "child", "ward"} & cohort.persons == {"ward"}


def test_the_same_table_comes_from_csv_duckdb_and_sqlalchemy(federation, tmp_path: Path) -> None:
    """And a database's faults are told as a file's, all at once."""
    import duckdb

    home = federation.home("insurer-c")
    header = "local_id,contract,given,until,notice,purpose,recipients,separate,age"
    row = f"S1,risk,2026-01-01T00:00:00+08:00,open-ended,{NOTICE},convoy:RiskModelTraining,{party_id('oem')},true,40"
    csv = tmp_path / "c.csv"
    csv.write_text(f"{header}\n{row}\n")
    assert say("consent", "import", csv, "--home", home) == {"rows": 1}
    db = duckdb.connect(str(tmp_path / "c.duckdb"))
    db.execute(f"CREATE TABLE consents AS SELECT * FROM read_csv('{csv}', all_varchar = true)")
    db.close()
    assert say("consent", "import", "--sql", f"duckdb:///{tmp_path}/c.duckdb", "--home", home) == {"rows": 1}
    with sqlite3.connect(tmp_path / "c.sqlite") as lite:
        lite.execute(f"CREATE TABLE consents ({header})")
        lite.execute("INSERT INTO consents VALUES (?,?,?,?,?,?,?,?,?)", row.split(","))
    url = f"sqlite:///{tmp_path}/c.sqlite"
    assert say("consent", "import", "--sql", url, "--home", home) == {"rows": 1}
    assert len(say("consent", "show", "S1", "--contract", "risk", "--home", home)["records"]) == 1
    with pytest.raises(NodeError) as refused:
        say(
            "consent",
            "import",
            "--sql",
            url,
            "--home",
            home,
            "--query",
            "SELECT *, 1 AS withdrawn FROM consents WHERE age = 'x'",
        )
    assert "the table has no rows" in refused.value.reasons
    for query in ("DELETE FROM consents", "SELECT * FROM nowhere"):
        with pytest.raises(NodeError) as refused:
            say("consent", "import", "--sql", url, "--home", home, "--query", query)
        assert refused.value.code == "SOURCE_REFUSED"
