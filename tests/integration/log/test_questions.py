"""Questions to a running log over HTTP: search, use, sample, receipts, chosen evidence."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from convoy_audit.archive import read_files
from convoy_audit.cli import main
from convoy_audit.entry import parse_entry
from convoy_audit.merkle import leaf_hash
from convoy_audit.policy import Policy, make_policy
from convoy_audit.proof import TlogProof, verify_proof
from convoy_audit.query import sample
from convoy_audit.rehearsal import RUN, Rehearsal
from convoy_audit.selection import verify_selection
from convoy_audit.statement import Statement
from convoy_audit.witness import Witness
from convoy_coordinator.errors import Problem
from convoy_coordinator.evidence.selection import write_selection
from convoy_coordinator.log import LogService, question_routes, routes
from convoy_coordinator.log.levels import Level
from convoy_coordinator.log.questions import Questions
from convoy_coordinator.problems import install_problems


@pytest.fixture
def rehearsal() -> Rehearsal:
    """A contract, a run, a release, a denial."""
    return Rehearsal()


@pytest.fixture
def log(start: Callable[[], LogService], rehearsal: Rehearsal) -> LogService:
    """The rehearsal's entries in a log on disk."""
    log = start()
    log.append_many(rehearsal.log.entries)
    return log


@pytest.fixture
def client(log: LogService) -> TestClient:
    """The routes and nothing else."""
    app = FastAPI()
    install_problems(app)
    app.include_router(routes.router(log))
    app.include_router(question_routes.router(log, Questions(log)))
    return TestClient(app, raise_server_exceptions=False)


def cosign(client: TestClient, log: LogService, witnesses: Mapping[str, Witness], *parties: str) -> dict[str, object]:
    """Cosign the newest checkpoint as nodes behind NAT do: fetch it, post the lines."""
    log.checkpoint()
    note = client.get("/v1/log/checkpoint?which=newest").content
    size = int(note.split(b"\n")[1])
    lines = ""
    for party in parties:
        old = witnesses[party].size(log.origin)
        lines += witnesses[party].add_checkpoint(note, old, log.consistency(old, size), 1_800_000_000).lines
    answer = client.post("/v1/log/cosignatures", json={"note": note.decode() + lines})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_entries_rise_from_durable_over_published_to_witnessed(
    client: TestClient, log: LogService, witnesses: Mapping[str, Witness], start: Callable[[], LogService]
) -> None:
    """Three of four make the quorum; what was witnessed once stays so, also after a restart and for later policies."""

    def level() -> str:
        return str(client.get("/v1/log/level?index=0").json()["level"])

    assert level() == "durable"
    log.checkpoint()
    assert level() == "published"
    with pytest.raises(Problem) as raised:
        log.wait(0, Level.WITNESSED, 0.05)
    assert raised.value.code == "LOG_NOT_WITNESSED"
    assert not cosign(client, log, witnesses, "oem", "insurer")["quorum"]
    assert level() == "published"
    assert cosign(client, log, witnesses, "auditor")["quorum"]
    assert level() == "witnessed"
    log.wait(0, Level.WITNESSED, 0.05)
    before = client.get("/v1/log/checkpoint").content
    log.append(log.entries(0, 1)[0])
    log.checkpoint()
    assert client.get("/v1/log/checkpoint").content == before
    assert client.get("/v1/log/checkpoint?which=newest").content != before
    again = start()
    assert again.latest() == before.decode()
    assert [again.level_of(index) for index in (0, log.size() - 1, log.size())] == [
        Level.WITNESSED,
        Level.PUBLISHED,
        Level.NONE,
    ]


def test_entries_are_found_by_every_filter(client: TestClient, log: LogService, rehearsal: Rehearsal) -> None:
    """By contract, party, run, model, time, reason and kind; all conditions hold together; pages join up."""
    everything = client.get("/v1/log/search?limit=1000").json()["found"]
    assert [hit["index"] for hit in everything] == list(range(log.size()))
    party = rehearsal.members[0].party

    def found(**filters: str) -> list[dict[str, object]]:
        answer = client.get("/v1/log/search", params={"limit": 1000, **filters})
        assert answer.status_code == 200, answer.text
        return [hit["entry"] for hit in answer.json()["found"]]

    assert found(run=RUN)
    assert all(RUN in json.dumps(entry) for entry in found(run=RUN, kind="coordinator:"))
    assert len(found(contract=rehearsal.contract_digest)) == len(found(contract=rehearsal.contract_digest[7:20]))
    assert 0 < len(found(party=party)) < log.size()
    assert all(party in json.dumps(entry) for entry in found(party=party))
    published = next(e for e in found(kind="coordinator:release:published"))
    assert published in found(model=str(published["manifest"]))
    denied = [e for e in found() if "deny" in json.dumps(e)]
    assert denied
    reason = json.loads(json.dumps(denied[0]))["event"]["reasons"][0]
    assert denied[0] in found(reason=reason)
    middle = str(everything[log.size() // 2]["entry"]["at"])
    assert len(found(since=middle)) + len(found(until=middle)) == log.size()
    first = client.get("/v1/log/search?limit=3").json()
    rest = client.get(f"/v1/log/search?limit=1000&after={first['next']}").json()
    assert first["found"] + rest["found"] == everything
    assert client.get("/v1/log/search?since=yesterday").status_code == 422


def test_use_by_contract_and_quarter_names_parties_purposes_and_spending(
    client: TestClient, rehearsal: Rehearsal
) -> None:
    """The compliance officer's first question."""
    rows = client.get("/v1/log/use", params={"contract": rehearsal.contract_digest, "quarter": "2026-Q4"}).json()["use"]
    assert rows
    assert {row["quarter"] for row in rows} == {"2026-Q4"}
    assert {"requesters", "purposes", "assets", "spentMicroEpsilon"} <= set(rows[0])
    assert client.get("/v1/log/use?quarter=2025-Q1").json() == {"use": []}
    assert client.get("/v1/log/use?quarter=2025-Q5").status_code == 422


def test_a_sample_can_be_drawn_again_from_its_printed_seed(client: TestClient, log: LogService) -> None:
    """Without a seed a fresh one is made and printed; anybody draws the same with it."""
    log.checkpoint()
    drawn = client.get("/v1/log/sample?count=5").json()
    again = client.get("/v1/log/sample", params={"count": 5, "seed": drawn["seed"]}).json()
    assert again == drawn
    assert [hit["index"] for hit in drawn["found"]] == sample(drawn["size"], 5, drawn["seed"])


def test_each_statement_gets_a_receipt_that_its_party_verifies_alone(
    client: TestClient, log: LogService, rehearsal: Rehearsal, witnesses: Mapping[str, Witness]
) -> None:
    """None before the quorum; then a tlog-proof for each number, under the policy that was pinned."""
    party = rehearsal.members[0].party
    refused = client.get("/v1/log/receipts", params={"party": party})
    assert (refused.status_code, refused.json()["code"]) == (409, "LOG_NOT_WITNESSED")
    cosign(client, log, witnesses, "oem", "insurer", "auditor")
    policy = Policy.parse(client.get("/v1/log/policy").content)
    own = [
        content
        for content in map(parse_entry, log.entries(0, log.size()))
        if isinstance(content, Statement) and content.party == party
    ]
    receipts = client.get("/v1/log/receipts", params={"party": party}).json()["receipts"]
    assert [r["number"] for r in receipts] == [s.number for s in own]
    for receipt, statement in zip(receipts, own, strict=True):
        proof = TlogProof.parse(receipt["proof"].encode())
        verified = verify_proof(proof, leaf_hash(statement.raw), policy)
        assert (verified.checkpoint.size, proof.index) == (log.size(), receipt["index"])
    assert client.get("/v1/log/receipts", params={"party": party, "after": own[-1].number}).json()["receipts"] == []
    (row,) = [r for r in client.get("/v1/log/statements").json()["parties"] if r["party"] == party]
    assert (row["highest"], row["missing"]) == (len(own), [])


def test_chosen_evidence_verifies_entry_by_entry(
    client: TestClient, log: LogService, witnesses: Mapping[str, Witness], tmp_path: Path
) -> None:
    """The pack of a filter: each entry with its own proof, what is too young named."""
    cosign(client, log, witnesses, "oem", "insurer", "auditor")
    young = log.append(log.entries(0, 1)[0])
    path = write_selection(tmp_path / "s.zip", log, [1, 3, young], {"run": RUN}, datetime(2026, 11, 25, tzinfo=UTC))
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        facts = json.loads(archive.read("selection.json"))
        assert (facts["indices"], facts["notYetCheckpointed"], facts["witnessed"]) == ([1, 3], [young], True)
        assert facts["asked"] == {"run": RUN}
        for index in (1, 3):
            entry = archive.read(f"entries/{index}.json")
            assert entry == log.entries(index, index + 1)[0]
            proof = TlogProof.parse(archive.read(f"proofs/{index}.tlog-proof"))
            assert verify_proof(proof, leaf_hash(entry), log.policy()).checkpoint.size == log.size() - 1


def test_the_verifier_checks_a_selection_file_by_file(
    client: TestClient,
    log: LogService,
    witnesses: Mapping[str, Witness],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same command as for a pack; any file that is changed, missing or too much is named; the pinned policy decides."""
    cosign(client, log, witnesses, "oem", "insurer", "auditor")
    path = write_selection(tmp_path / "s.zip", log, [1, 3], {"run": RUN}, datetime(2026, 11, 25, tzinfo=UTC))
    pinned = tmp_path / "policy.txt"
    pinned.write_bytes(log.policy().text)
    assert main(["verify", str(path), "--policy", str(pinned)]) == 0
    said = capsys.readouterr().out
    assert "2 chosen, each with its proof" in said
    assert "only the pack of the whole log" in said
    files = dict(read_files(path))
    assert verify_selection(files).is_verified
    for name in files:
        if name not in ("README.txt", "SHA256SUMS"):
            assert not verify_selection(
                {k: v for k, v in files.items() if k != name} | {name: files[name] + b" "}
            ).is_verified
        assert (
            name == "selection.json" or not verify_selection({k: v for k, v in files.items() if k != name}).is_verified
        )
    moved = files | {"entries/1.json": files["entries/3.json"]}
    sums = "".join(
        f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in moved.items() if name != "SHA256SUMS"
    )
    assert not verify_selection(moved | {"SHA256SUMS": sums.encode()}).is_verified, "a sum is no proof"
    assert not verify_selection(files | {"more.txt": b"x"}).is_verified
    weak = make_policy(
        [line.split()[1] for line in log.policy().text.decode().splitlines() if line.startswith("log ")], {}
    )
    assert not verify_selection(files, weak).is_verified


def test_a_witness_that_shows_more_than_there_is_stops_the_log(
    engine: Engine, start: Callable[[], LogService], rehearsal: Rehearsal, witnesses: Mapping[str, Witness]
) -> None:
    """An old backup was restored while nobody could be asked: the first node that posts what it cosigned stops it."""
    log = start()
    log.append_many(rehearsal.log.entries[:3])
    log.checkpoint()
    log.append(rehearsal.log.entries[3])
    note = log.checkpoint()
    lines = witnesses["oem"].add_checkpoint(note.encode(), 0, [], 1_800_000_000).lines
    with engine.begin() as connection:
        for table, column in (("log_checkpoint", "size"), ("log_frontier", "size"), ("log_entry", "idx + 1")):
            connection.execute(text(f"DELETE FROM {table} WHERE {column} > 3"))
    restored = start()
    restored.append(rehearsal.log.entries[4])
    app = FastAPI()
    install_problems(app)
    app.include_router(routes.router(restored))
    answer = TestClient(app).post("/v1/log/cosignatures", json={"note": note + lines})
    assert (answer.status_code, answer.json()["code"]) == (503, "LOG_BEHIND_WITNESS")
    for act in (lambda: restored.append(rehearsal.log.entries[4]), restored.checkpoint):
        with pytest.raises(Problem) as raised:
            act()
        assert raised.value.code == "LOG_BEHIND_WITNESS"
