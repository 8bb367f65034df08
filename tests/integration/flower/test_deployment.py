"""A real SuperLink, a warm ServerApp worker and three real SuperNodes, with TLS and node authentication."""

from __future__ import annotations

import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from convoy_coordinator.federation.flower.control import RunStanding
from convoy_coordinator.federation.flower.deployment import (
    Deployment,
    NodeLaunch,
    deployed,
    node_process,
)
from convoy_coordinator.federation.flower.errors import LinkRefused
from convoy_coordinator.federation.flower.link_home import (
    DEFAULT_FEDERATION,
    LinkHome,
    write_private,
)
from convoy_coordinator.federation.flower.pki import new_node_key

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
PARTIES = tuple(f"did:web:{name}.example" for name in ("oem", "insurer-a", "insurer-b"))
SECRET = "premium of driver 4711"


def node_folder(root: Path, party: str) -> tuple[Path, bytes]:
    """Make a node's folder with a key of its own; returns it and the public key."""
    home = root / node_process(party)
    home.mkdir()
    private, public = new_node_key()
    write_private(home / "supernode.key", private)
    return home, public


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federation")


@pytest.fixture(scope="module")
def federation(root: Path) -> Iterator[Deployment]:
    """The running federation; after the tests no process of it may be left."""
    nodes = []
    for party in PARTIES:
        home, public = node_folder(root, party)
        key = home / "supernode.key"
        nodes.append(NodeLaunch(party, home, key, public, "probe_apps:client_app"))
    results = root / "results"
    results.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
        with deployed(LinkHome(root / "link"), nodes, "probe_apps:app", settings={"results": str(results)}) as running:
            sessions = [process.pid for process in running.supervisor.processes.values()]
            yield running
    assert [pid for pid in sessions if has_processes(pid)] == []


def trust(federation: Deployment) -> ssl.SSLContext:
    """Trust the CA of the federation, as a partner does."""
    return ssl.create_default_context(cafile=str(federation.home.ca_file))


def has_processes(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def finished(federation: Deployment, run_id: int, within_s: float = 40.0) -> RunStanding:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        run = federation.control.run(run_id)
        if run.status == "finished":
            return run
        time.sleep(0.05)
    raise TimeoutError(f"run {run_id} is not finished after {within_s} s")


def play(federation: Deployment, root: Path, scene: str) -> Any:
    """Start a run, wait for its end, and return what its ServerApp saw."""
    run = finished(federation, federation.control.start_run(federation.app_hash, run=scene))
    log = federation.supervisor.processes["server-app"].log.read_text()
    assert run.outcome == "completed", log
    return json.loads((root / "results" / f"{scene}.json").read_text())


def records(root: Path, party: str) -> list[dict[str, Any]]:
    file = root / node_process(party) / "log" / "flower.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_node_answers_with_its_own_application(
    federation: Deployment, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three parties, found by their ids, each with its own folder; and an exchange is quick."""
    seen = play(federation, root, "exchange")
    assert seen["homes"] == {party: node_process(party) for party in PARTIES}
    typical_s = statistics.median(seen["seconds"])
    memory = federation.supervisor.memory_kib()
    with capsys.disabled():
        print(
            f"\nready: SuperLink {federation.seconds['superlink']:.1f} s, all with 3 nodes "
            f"{federation.seconds['all']:.1f} s; exchange with 3 nodes: median {typical_s:.3f} s, "
            f"slowest {max(seen['seconds']):.3f} s; memory MiB: "
            + ", ".join(f"{name} {kib // 1024}" for name, kib in memory.items())
        )
    assert typical_s < 3.0, "Flower's own sleeps of 3 s are back"


def test_the_logs_of_both_ends_name_the_same_messages(federation: Deployment, root: Path) -> None:
    """The ServerApp's passages, the SuperLink's event log and the nodes' records join by equality."""
    seen = json.loads((root / "results" / "exchange.json").read_text())
    lines = [line for party in PARTIES for line in records(root, party)]
    assert set(seen["delivered"]) <= {line["id"] for line in lines if line["event"] == "received"}
    assert set(seen["replied"]) <= {line["id"] for line in lines if line["event"] == "answered"}
    events = [json.loads(line) for line in federation.home.events_file.read_text().splitlines()]
    at_link = {message["id"] for event in events for message in event["messages"]}
    assert set(seen["delivered"]) | set(seen["replied"]) <= at_link


def test_a_stranger_is_read_no_further_than_a_strangers_limit(federation: Deployment, root: Path) -> None:
    """A large body without a registered node's signature, and connections that never say what they want; a run goes on."""
    ready = federation.home.read_ready()
    address, port = ready.public.rsplit(":", 1)
    slow = [socket.create_connection((address, int(port))) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"\x16\x03\x01\x02")
    headers = {"content-type": "application/protobuf", "flwr-public-key": "AAAA"}
    with httpx.Client(verify=trust(federation), headers=headers, timeout=30) as client:
        for path in ("push-object", "push-messages", "pull-messages", "activate-node"):
            answer = client.post(f"https://{ready.public}/v1/fleet/{path}", content=bytes(100_000))
            assert answer.status_code == 413, path
    assert play(federation, root, "exchange")["homes"].keys() == set(PARTIES)
    for connection in slow:
        connection.close()
    log = federation.supervisor.processes["superlink"].log.read_text()
    assert "turned away at the public door: a body of more than" in log


def test_partners_reach_neither_control_nor_runtime(federation: Deployment, tmp_path: Path) -> None:
    """At the public port every path that Flower has beside fleet and health is 404, with TLS and without any credential asked."""
    ready = federation.home.read_ready()
    inside = flower_paths(tmp_path / "other", "/v1/control/", "/v1/runtime/")
    assert {"/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task"} <= set(inside)
    with httpx.Client(verify=trust(federation), timeout=30) as client:
        for path in inside:
            assert client.post(f"https://{ready.public}{path}").status_code == 404, path
        assert client.get(f"https://{ready.public}/docs").status_code == 404
        assert client.get(f"https://{ready.public}/health").status_code == 200


def flower_paths(folder: Path, *prefixes: str) -> list[str]:
    """Return the paths of Flower's own application, built as the launcher builds it, that begin so."""
    from convoy_coordinator.federation.flower.link import LinkSettings, build
    from convoy_coordinator.federation.flower.membership import FileMembership
    from convoy_coordinator.federation.flower.pki import write_loopback_certificates

    home = LinkHome(folder)
    write_loopback_certificates(home)
    home.create_secrets()
    home.write_membership({DEFAULT_FEDERATION: []})
    app = build(home, LinkSettings(in_memory=True), FileMembership(home.membership_file))
    return sorted(path for path in app.openapi()["paths"] if path.startswith(prefixes))


def test_a_request_without_a_node_key_is_refused(federation: Deployment) -> None:
    """The quick lane for objects asks for the same authentication as Flower's own routes."""
    ready = federation.home.read_ready()
    headers = {"content-type": "application/protobuf", "accept": "application/protobuf"}
    with httpx.Client(verify=trust(federation), headers=headers, timeout=30) as client:
        for path in ("pull-messages", "pull-object", "push-object", "confirm-message-received"):
            answer = client.post(f"https://{ready.public}/v1/fleet/{path}", content=b"")
            assert answer.status_code == 401, path
        for path in ("acquire-task", "pull-messages", "pull-object", "push-object"):
            answer = client.post(f"https://{ready.internal}/v1/runtime/{path}", content=b"")
            assert answer.status_code == 401, path
        answer = client.post(f"https://{ready.internal}/v1/control/list-nodes", content=b"")
        assert answer.status_code == 401


def test_a_node_with_an_unknown_key_is_not_let_in(federation: Deployment, root: Path) -> None:
    """It says so, says what to do, and takes part in nothing."""
    home, _ = node_folder(root, "did:web:rogue.example")
    ready = federation.home.read_ready()
    rogue = subprocess.run(
        [
            *(sys.executable, "-m", "convoy_node.flower.supernode", "--home", home),
            *("--link", ready.public, "--ca", federation.home.ca_file),
            *("--key", home / "supernode.key", "--client-app", "probe_apps:client_app"),
            *("--app-hash", federation.app_hash, "--give-up-after", "0"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert rogue.returncode == 3
    assert "ACTIVATION_REFUSED" in rogue.stderr
    assert "Register this node's key" in rogue.stderr
    assert set(federation.control.nodes()) == set(PARTIES)


def test_the_text_of_an_exception_stays_at_the_node(federation: Deployment, root: Path) -> None:
    """The server gets the type's name; neither logs nor states of the coordinator hold the text."""
    answers = play(federation, root, "failure")
    expected = "the application at the node failed (ValueError)"
    assert answers == dict.fromkeys(PARTIES, expected)
    for file in (root / "link").rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file
    for log in (root / "link" / "log").glob("node-*.log"):
        assert "ValueError at" in log.read_text()


def test_a_message_of_another_type_is_refused_by_every_node(federation: Deployment, root: Path) -> None:
    """The policy stands at the node, whatever the server sends, and the refusal is on record there."""
    answers = play(federation, root, "forbidden")
    expected = "policy: this node does not take messages of this type"
    assert answers == dict.fromkeys(PARTIES, expected)
    assert records(root, PARTIES[0])[-1]["event"] == "refused"


def test_a_withdrawn_party_drops_out_of_the_next_delivery(federation: Deployment, root: Path) -> None:
    """In the middle of a run, without a restart; and it comes back when it is let in again."""
    run_id = federation.control.start_run(federation.app_hash, run="withdrawn")
    while not (root / "results" / "withdrawn-before").exists():
        federation.supervisor.check()
        time.sleep(0.05)
    federation.home.write_membership({DEFAULT_FEDERATION: PARTIES[:2]})
    (root / "results" / "withdrawn-go").touch()
    try:
        assert finished(federation, run_id).outcome == "completed"
    finally:
        federation.home.write_membership({DEFAULT_FEDERATION: PARTIES})
    seen = json.loads((root / "results" / "withdrawn.json").read_text())
    assert seen["before"] == sorted(PARTIES)
    assert seen["after"] == seen["listed"] == sorted(PARTIES[:2])


def test_runs_start_only_with_the_known_bundle_and_federation(federation: Deployment) -> None:
    """Another hash or another federation is refused with Flower's own code."""
    with pytest.raises(LinkRefused):
        federation.control.start_run("00" * 32)
    with pytest.raises(LinkRefused) as refusal:
        federation.control.start_run(federation.app_hash, federation="@none/other")
    assert refusal.value.code == "FEDERATION_NOT_FOUND_OR_NO_PERMISSION"


def test_registering_a_key_twice_changes_nothing_but_not_for_another_party(
    federation: Deployment,
) -> None:
    """The same party gets its number again; the key of one party is never given to another."""
    _, public = new_node_key()
    first = federation.control.register("did:web:late.example", public)
    assert federation.control.register("did:web:late.example", public) == first
    with pytest.raises(LinkRefused):
        federation.control.register("did:web:thief.example", public)
    federation.control.unregister(first)


def test_a_stopped_run_ends_and_the_next_one_works(federation: Deployment, root: Path) -> None:
    """The worker survives, and so do the nodes that were in the middle of an answer."""
    run_id = federation.control.start_run(federation.app_hash, run="endless")
    while not (root / "results" / "endless-begun").exists():
        federation.supervisor.check()
        time.sleep(0.05)
    federation.control.stop_run(run_id)
    assert finished(federation, run_id).outcome == "stopped"
    assert play(federation, root, "again")["homes"].keys() == set(PARTIES)
    federation.supervisor.check()


def test_the_worker_of_a_node_is_replaced_when_it_dies(federation: Deployment, root: Path) -> None:
    """The SuperNode starts another, and the node answers in the next run."""
    node = federation.supervisor.processes[node_process(PARTIES[0])]
    (worker,) = children(node.pid)
    os.kill(worker, 9)
    deadline = time.monotonic() + 20
    while children(node.pid) in ([], [worker]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert play(federation, root, "exchange")["homes"].keys() == set(PARTIES)


def children(pid: int) -> list[int]:
    """Return the children of a process, whichever of its threads started them."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(number) for file in files for number in file.read_text().split())
