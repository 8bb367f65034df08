"""A contract of four parties from draft to terminated, through the command line and HTTP alone.

Two processes stand for two partners each and see only their own private keys; the coordinator is a process of its own. Every
wrong order is refused with its reason, and refused attempts stand in the log like accepted events.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.document import Contract
from convoy_contracts.instants import timestamp
from convoy_coordinator.keys import OPERATOR_TOKEN, read_token
from convoy_demo.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
OEM, CPO = "did:web:oem.example", "did:web:charging.example"
INSURER, TRUSTEE = "did:web:insurer-a.example", "did:web:auditor.example"
ROLES = {OEM: "oem", CPO: "charging", INSURER: "insurer", TRUSTEE: "trustee"}
UID = "urn:convoy:contract:bundle"
Json = dict[str, Any]


class Process:
    """One partner process and the pipe to it."""

    def __init__(self, folder: Path, url: str, *parties: str) -> None:
        self.parties = parties
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/support/contract_partner.py"), str(folder), url, *parties],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.cards: list[Json] = json.loads(self._line())

    def ask(self, do: str, *arguments: Any, **named: Any) -> Json:
        """Have the process do something with its own keys."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "with": arguments, **named}) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the partner process ended"
        return line

    def end(self) -> None:
        """Close its input and wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A coordinator in a process of its own; yields its address and the operator's token."""
    home, command = tmp_path / "coordinator", str(Path(sys.executable).with_name("convoy-coordinator"))
    subprocess.run(
        [command, "init", "--home", str(home), "--origin", "life.example/log"], check=True, capture_output=True
    )
    port = free_port()
    server = subprocess.Popen([command, "serve", "--home", str(home), "--port", str(port)], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the coordinator ended"
                time.sleep(0.1)
        yield url, read_token(home / "keys", OPERATOR_TOKEN)
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture
def partners(coordinator: tuple[str, str], tmp_path: Path) -> Iterator[tuple[Process, Process]]:
    """Two partner processes whose parties the operator has enrolled by their public cards."""
    url, token = coordinator
    north = Process(tmp_path / "north", url, OEM, CPO)
    south = Process(tmp_path / "south", url, INSURER, TRUSTEE)
    for card in (*north.cards, *south.cards):
        body = card | {"name": card["id"], "role": ROLES[card["id"]], "region": "CN-SH", "keyNotBefore": at(days=-1)}
        request = urllib.request.Request(
            f"{url}/v1/parties", json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=30).close()
    yield north, south
    north.end()
    south.end()


def at(**offset: float) -> str:
    """Return an instant from now as a timestamp."""
    return timestamp(datetime.now(UTC) + timedelta(**offset))


def drafted(process: Process, cards: list[Json], path: Path, version: int, **changes: Any) -> str:
    """Draft the bundle contract by ``convoy-contracts new``, bind its text, write it down; returns its path."""
    keys = [option for card in cards for option in ("--mask-key", f"{card['id']}={card['maskKey']}")]
    pias = [option for p in (OEM, CPO, INSURER) for option in ("--pia", f"{p}=PIA-1@{at(days=400)}")]
    parties = [option for p, role in ROLES.items() for option in ("--party", f"{role}={p}@CN-SH")]
    done = process.ask(
        "cli", "new", "bundle", "--uid", UID, "--version", str(version), "--offer-until", at(days=1),
        "--not-before", at(days=-1), "--not-after", at(days=365), *parties, *pias, *keys,
    )  # fmt: skip
    assert done["rc"] == 0, done["err"]
    document = json.loads(done["out"]) | changes
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    bound = process.ask("cli", "text", str(path), "--bind")
    path.write_text(bound["out"], encoding="utf-8")
    lint = process.ask("cli", "lint", str(path))
    assert lint["rc"] == 0, lint["out"]
    return str(path)


def refused(answer: Json, reason: str) -> None:
    """Check that an answer is a refusal with its reason, cause and fix."""
    problem = answer["json"]
    assert answer["status"] in (409, 412, 422, 428), answer
    assert reason in (problem["code"], problem["cause"].split(":")[0]), problem
    assert problem["cause"]
    assert problem["fix"]


def state(process: Process, version: int = 1, when: str | None = None) -> Json:
    """Ask for the state of a version, now or at an instant."""
    query = f"?at={when.replace('+', '%2B')}" if when else ""
    answer = process.ask("http", "GET", f"/v1/contracts/{UID}/state{query}")["json"]
    return dict(next(one for one in answer["versions"] if one["version"] == version))


def by_all(first: Process, other: Process, kind: str, *options: str) -> Json:
    """Have an event of all parties made by the first party and signed by the others; returns the last answer."""
    answer = first.ask("event", first.parties[0], UID, kind, ["--by", "*", *options])
    assert answer["status"] == 202, answer
    assert set(answer["json"]["missing"]) == set(ROLES) - {first.parties[0]}
    for process, party in ((first, first.parties[1]), (other, other.parties[0]), (other, other.parties[1])):
        answer = process.ask("cosign", party, UID)
    return answer


def log_types(url: str, changes: int) -> list[str]:
    """Return the types of the log's entries, in order, once a checkpoint covers as many changes."""
    from base64 import b64decode

    from convoy_audit.entry import Entry

    for _ in range(100):
        note = urllib.request.urlopen(f"{url}/v1/log/checkpoint", timeout=30).read().decode()
        size = int(note.splitlines()[1])
        raw = urllib.request.urlopen(f"{url}/v1/log/entries?start=0&end={size}", timeout=30).read()
        types = [Entry(b64decode(entry)).event.TYPE for entry in json.loads(raw)["entries"]]
        if types.count("party:contract:changed") >= changes:
            return types
        time.sleep(0.2)
    return types


def test_a_contract_lives_from_draft_to_terminated(
    coordinator: tuple[str, str], partners: tuple[Process, Process], tmp_path: Path
) -> None:
    """Draft, offered, partly signed, active, amended, suspended, resumed, terminated - and every wrong order is refused."""
    north, south = partners
    cards = [*north.cards, *south.cards]
    before_offer = at(seconds=0)
    first = drafted(north, cards, tmp_path / "v1.json", 1)
    digest = Contract.parse(Path(first).read_text(encoding="utf-8")).digest
    assert north.ask("cli", "digest", first)["out"].strip() == digest

    # Only the author offers; nobody acts on what is not offered.
    assert south.ask("offer", INSURER, first)["rc"] == 2
    assert north.ask("http", "GET", f"/v1/contracts/{UID}/state")["status"] == 404
    offered = north.ask("offer", OEM, first)
    assert (offered["status"], offered["json"]["state"], offered["json"]["digest"]) == (201, "offered", digest)
    assert state(north, when=before_offer)["state"] == "draft"

    # Before all have signed nothing can be stopped, ended or replaced.
    for kind, options in (("suspend", ["--whom", OEM]), ("terminate", []), ("resume", ["--whom", OEM])):
        refused(north.ask("event", OEM, UID, kind, options), "STATE_WRONG")
    refused(south.ask("event", INSURER, UID, "withdraw-offer", ["--version", "1"]), "ACTOR_WRONG")
    assert north.ask("sign", OEM, digest)["json"]["state"] == "partly-signed"
    one_signed = at(seconds=0)
    for process, party in ((north, CPO), (south, INSURER), (south, TRUSTEE)):
        signed = process.ask("sign", party, digest)
    assert signed["json"]["state"] == "active"
    refused(south.ask("event", INSURER, UID, "refuse", ["--version", "1"]), "STATE_WRONG")

    # A party stops its own data at once; only it resumes.
    refused(south.ask("event", INSURER, UID, "suspend", ["--whom", OEM]), "ACTOR_WRONG")
    refused(north.ask("event", OEM, UID, "resume", ["--whom", OEM]), "NOT_SUSPENDED")
    stopped = north.ask("event", OEM, UID, "suspend", ["--whom", OEM])
    assert (stopped["status"], stopped["json"]["outcome"]) == (201, "accepted")
    assert state(south)["suspended"] == [OEM]
    again = north.ask("again", UID)
    assert (again["status"], again["json"]["outcome"]) == (200, "known")
    refused(north.ask("event", OEM, UID, "suspend", ["--whom", OEM]), "ALREADY_SUSPENDED")
    refused(south.ask("event", INSURER, UID, "resume", ["--whom", OEM]), "ACTOR_WRONG")
    refused(north.ask("event", OEM, UID, "resume", ["--whom", OEM], if_match="sha256:00"), "CHAIN_MOVED")
    refused(north.ask("event", OEM, UID, "resume", ["--whom", OEM, "--at", at(seconds=-400)]), "EVENT_BACKDATED")
    assert north.ask("event", OEM, UID, "resume", ["--whom", OEM])["status"] == 201
    assert state(south)["suspended"] == []

    # An amendment is a new version: classified, offered, signed by all, and only then does it replace the first.
    wider = json.loads(Path(first).read_text(encoding="utf-8"))["limits"] | {"maxRoundSeconds": 7200}
    second = drafted(north, cards, tmp_path / "v2.json", 2, limits=wider)
    diff = north.ask("cli", "diff", first, second, "--json", "--exit-code")
    changes = {change["where"]: change["effect"] for change in json.loads(diff["out"])["changes"]}
    assert (diff["rc"], changes["limits.maxRoundSeconds"]) == (3, "widening")
    digest_2 = north.ask("offer", OEM, second)["json"]["digest"]
    supersede = ["--by", "*", "--version", "1", "--in-flight", "finish"]
    refused(north.ask("event", OEM, UID, "supersede", supersede), "SUCCESSOR_NOT_SIGNED")
    for process, party in ((north, OEM), (north, CPO), (south, INSURER), (south, TRUSTEE)):
        assert process.ask("sign", party, digest_2)["status"] == 201
    by_http = north.ask("http", "GET", f"/v1/contracts/{UID}/diff?old=1&new=2")["json"]
    assert by_http["reconsent"] is True
    assert by_http["changes"] == json.loads(diff["out"])["changes"]
    refused(north.ask("event", OEM, UID, "supersede", ["--version", "1", "--in-flight", "finish"]), "ACTOR_WRONG")
    replaced = by_all(north, south, "supersede", "--version", "1", "--in-flight", "finish")
    assert (replaced["status"], replaced["json"]["outcome"]) == (201, "accepted")
    assert (state(north, 1)["state"], state(north, 2)["state"]) == ("superseded", "active")
    refused(north.ask("sign", OEM, digest), "STATE_WRONG")

    # The whole contract stops for an incident by anybody, and goes on by everybody only.
    bare = north.ask("event", CPO, UID, "suspend", ["--whom", "*"])
    assert bare["rc"] == 2
    assert "reasonClass" in bare["err"]
    assert north.ask("event", CPO, UID, "suspend", ["--whom", "*", "--reason-class", "incident"])["status"] == 201
    assert (state(south, 2)["state"], state(south, 2)["suspendedAll"]) == ("suspended", True)
    refused(north.ask("event", CPO, UID, "resume", ["--whom", "*"]), "ACTOR_WRONG")
    assert by_all(south, north, "resume", "--whom", "*")["status"] == 201
    running = at(seconds=0)
    assert state(south, 2)["state"] == "active"

    # The end is the end.
    assert south.ask("event", INSURER, UID, "terminate", [])["status"] == 201
    assert state(north, 2)["state"] == "terminated"
    refused(north.ask("event", OEM, UID, "resume", ["--whom", "*", "--by", "*"]), "STATE_WRONG")
    refused(north.ask("event", OEM, UID, "terminate", []), "STATE_WRONG")

    # Any past instant keeps its answer; the future follows the clock.
    assert state(north, 1, one_signed)["state"] == "partly-signed"
    assert state(north, 2, running)["state"] == "active"
    assert state(north, 1, before_offer)["state"] == "draft"

    # The same answer from files alone, with the events' own proofs.
    chain = north.ask("http", "GET", f"/v1/contracts/{UID}/events")["json"]
    shown = north.ask("http", "GET", f"/v1/contracts/{digest_2}")["json"]
    keys = north.ask("http", "GET", "/v1/parties")["json"]["keys"]
    for name, value in (("events", chain["events"]), ("signatures", shown["signatures"]), ("keys", keys)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    files = [f"--{name}={tmp_path / f'{name}.json'}" for name in ("events", "signatures", "keys")]
    offline = json.loads(north.ask("cli", "state", second, *files, "--json")["out"])
    assert offline["state"] == "terminated"
    assert json.loads(north.ask("cli", "state", second, *files, "--json", "--at", running)["out"])["state"] == "active"

    # Accepted and refused alike stand in the log.
    types = log_types(coordinator[0], len(chain["events"]))
    assert types.count("party:contract:changed") == len(chain["events"])
    assert types.count("coordinator:change:refused") >= 8


def test_a_refused_and_a_withdrawn_offer_are_over(partners: tuple[Process, Process], tmp_path: Path) -> None:
    """Any party refuses, the author withdraws; neither can be signed afterwards, and a new version can follow."""
    north, south = partners
    cards = [*north.cards, *south.cards]
    for version, process, party, kind, end in (
        (1, south, TRUSTEE, "refuse", "refused"),
        (2, north, OEM, "withdraw-offer", "withdrawn"),
    ):
        path = drafted(north, cards, tmp_path / f"v{version}.json", version)
        digest = north.ask("offer", OEM, path)["json"]["digest"]
        assert north.ask("sign", OEM, digest)["json"]["state"] == "partly-signed"
        assert process.ask("event", party, UID, kind, ["--version", str(version)])["status"] == 201
        assert state(north, version)["state"] == end
        refused(south.ask("sign", INSURER, digest), "STATE_WRONG")
    assert north.ask("event", OEM, UID, "refuse", ["--version", "7"])["json"]["cause"].startswith("VERSION_UNKNOWN")


def test_grades_rise_at_once_and_fall_with_signatures(partners: tuple[Process, Process], tmp_path: Path) -> None:
    """The catalogue over HTTP: the owner alone tightens; what loosens waits for everybody who relies on the asset."""
    north, south = partners
    path = drafted(north, [*north.cards, *south.cards], tmp_path / "v1.json", 1)
    digest = north.ask("offer", OEM, path)["json"]["digest"]
    for process, party in ((north, OEM), (north, CPO), (south, INSURER), (south, TRUSTEE)):
        process.ask("sign", party, digest)
    asset = json.loads(Path(path).read_text(encoding="utf-8"))["data"][0]["asset"]
    entry: Json = {
        "schema": "convoy-catalogue/1", "asset": asset, "version": 1, "owner": OEM, "steward": OEM,
        "processedIn": "vehicle", "collectionDefault": "off", "at": at(seconds=0),
        "fields": [{"name": "night_share", "grade": "L2", "sensitive": False, "step": "0.01",
                    "necessity": {"convoy:Recommendation": "pilot"}}],
    }  # fmt: skip

    def put(process: Process, party: str, **changes: Any) -> Json:
        value = entry | changes
        file = tmp_path / "entry.json"
        file.write_text(json.dumps(value), encoding="utf-8")
        return process.ask("catalogue", party, str(file), "/v1/catalogue")

    on = put(north, OEM, collectionDefault="on")
    assert on["rc"] == 2
    first = put(north, OEM)
    assert first["status"] == 201
    raised = [entry["fields"][0] | {"grade": "L3"}]
    higher: Json = {"version": 2, "previous": first["json"]["digest"], "fields": raised}
    assert put(south, INSURER, **higher)["status"] == 202  # not the owner: it waits for the owner
    second = put(north, OEM, **higher)
    assert (second["status"], second["json"]["changes"][0]["change"]) == (201, "raised")
    lower: Json = {"version": 3, "previous": second["json"]["digest"]}
    waiting = put(north, OEM, **lower)
    assert (waiting["status"], set(waiting["json"]["missing"])) == (202, {CPO, INSURER, TRUSTEE})
    put(north, CPO, **lower)
    put(south, INSURER, **lower)
    assert put(south, TRUSTEE, **lower)["status"] == 201
    assert put(south, TRUSTEE, **lower)["status"] == 200
    shown = north.ask("http", "GET", f"/v1/catalogue/{asset}")["json"]
    assert [one["entry"]["fields"][0]["grade"] for one in shown["history"]] == ["L2", "L3", "L2"]
    assert shown["modelGrade"] == "L2"

    tiers = north.ask("http", "GET", "/v1/tiers")["json"]["parties"]
    assert (tiers[CPO], tiers[INSURER]) == ("T1", "T0")
    file = tmp_path / "grant.json"
    file.write_text(json.dumps({"schema": "convoy-tier-grant/1", "party": CPO, "tier": "T2", "at": at(seconds=0)}))
    assert north.ask("catalogue", CPO, str(file), "/v1/tiers")["json"]["missing"] == [OEM]
    assert north.ask("catalogue", OEM, str(file), "/v1/tiers")["status"] == 201
    assert north.ask("http", "GET", "/v1/tiers")["json"]["parties"][CPO] == "T2"
