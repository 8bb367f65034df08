"""The node's side of the connection refuses what its partner did not approve, and records the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from convoy_node.flower.connection import Fleet, Guard, Patience, RunStopped
from convoy_node.flower.errors import ActivationRefused, NodeHomeUnusable
from convoy_node.flower.passages import PassageLog
from convoy_node.flower.policy import Policy
from convoy_node.flower.private_files import read_private, write_private

BUNDLE = b"the approved bundle"
HASH = hashlib.sha256(BUNDLE).hexdigest()


class Link:
    """A SuperLink as the node sees it: messages that wait, and what the node does to it."""

    def __init__(self, *types: str, bundle: bytes = BUNDLE, app_hash: str = HASH) -> None:
        self.waiting = [message(kind) for kind in types]
        self.bundle, self.app_hash = bundle, app_hash
        self.replies: list[Message] = []
        self.confirmed: list[str] = []
        self.asked_for_runs = 0
        self.refusals = 0

    @contextmanager
    def connect(self) -> Iterator[tuple[Any, ...]]:
        if self.refusals:
            self.refusals -= 1
            raise ActivationRefused("not let in.", fix="Register the key.")
        yield (
            7,
            lambda: (self.waiting.pop(0), None) if self.waiting else None,
            lambda reply, tree, seconds: (self.replies.append(reply), (set(), "s"))[1],
            self._get_run,
            lambda app_hash, run_id: Fab(app_hash, self.bundle, {}),
            lambda run_id, object_id: self.pull_object(run_id, object_id),
            lambda run_id, session, object_id, content: None,
            lambda run_id, message_id: self.confirm(run_id, message_id),
        )

    def pull_object(self, run_id: int, object_id: str) -> bytes:
        return b""

    def confirm(self, run_id: int, message_id: str) -> None:
        self.confirmed.append(message_id)

    def _get_run(self, run_id: int) -> Run:
        self.asked_for_runs += 1
        run = Run.create_empty(run_id)
        run.fab_hash = self.app_hash
        return run


def message(kind: str) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 5, 1, 1
    made = Message(RecordDict({"c": ConfigRecord({"json": "{}"})}), 7, kind, group_id="run-1")
    made.metadata.__dict__["_message_id"] = made.object_id
    return made


@contextmanager
def guarded(link: Link, tmp_path: Path, **patience: Any) -> Iterator[Fleet]:
    guard = Guard(
        Policy(frozenset({HASH})),
        PassageLog(tmp_path / "log" / "flower.jsonl"),
        Patience(poll_s=0.0, backoff_s=(0.0,), **patience),
        on_delivered=lambda: None,
    )
    with guard.wrap(link.connect)() as fleet:
        yield fleet


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    file = tmp_path / "log" / "flower.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_approved_message_is_recorded_and_handed_on(tmp_path: Path) -> None:
    """The record names the content hash that the coordinator's logs name."""
    link = Link("query.hello")
    expected = link.waiting[0].metadata.message_id
    with guarded(link, tmp_path) as fleet:
        received = fleet.receive()
    assert received is not None
    assert [(line["event"], line["id"], line["group"]) for line in lines(tmp_path)] == [("received", expected, "run-1")]


@pytest.mark.parametrize("kind", ["train", "query", "evaluate.hello", "query.export"])
def test_a_message_of_another_type_never_reaches_the_application(tmp_path: Path, kind: str) -> None:
    """It is answered with an error that says why, and recorded."""
    link = Link(kind)
    asked = link.waiting[0].metadata.message_id
    with guarded(link, tmp_path) as fleet:
        assert fleet.receive() is None
    (reply,) = link.replies
    assert reply.error.reason == "policy: this node does not take messages of this type"
    assert reply.metadata.reply_to_message_id == asked
    assert lines(tmp_path)[0]["event"] == "refused"


def test_a_run_with_a_bundle_that_was_not_approved_is_refused(tmp_path: Path) -> None:
    """The allow-list is that of the contract, whatever the SuperLink starts."""
    other = b"another bundle"
    link = Link("query.hello", bundle=other, app_hash=hashlib.sha256(other).hexdigest())
    with guarded(link, tmp_path) as fleet:
        assert fleet.receive() is None
    assert link.replies[0].error.reason == "policy: this node has not approved this app bundle"


def test_a_bundle_that_only_claims_the_approved_hash_is_refused(tmp_path: Path) -> None:
    """The bytes are hashed here; the SuperLink's word is not enough."""
    link = Link("query.hello", bundle=b"other bytes under the approved name")
    with guarded(link, tmp_path) as fleet:
        assert fleet.receive() is None
    assert "does not have the hash" in str(link.replies[0].error.reason)


def test_a_run_is_looked_up_once(tmp_path: Path) -> None:
    """Neither a run nor its bundle changes, so a second message costs no request."""
    link = Link("query.hello", "query.witness")
    with guarded(link, tmp_path) as fleet:
        fleet.receive()
        fleet.receive()
    assert link.asked_for_runs == 1


def test_a_refused_node_waits_and_comes_back(tmp_path: Path) -> None:
    """After a crash the SuperLink refuses until the old session lapses; the node does not end."""
    link = Link()
    link.refusals = 3
    with guarded(link, tmp_path) as fleet:
        assert fleet.node_id == 7


def test_a_refused_node_gives_up_where_it_was_told_to(tmp_path: Path) -> None:
    """With a limit the refusal is raised, with the cause and what to do."""
    link = Link()
    link.refusals = 3
    with (
        pytest.raises(ActivationRefused, match="Register the key"),
        guarded(link, tmp_path, give_up_s=0.0),
    ):
        pass


@pytest.mark.parametrize("step", ["pull_object", "confirm"])
def test_a_run_that_is_stopped_while_a_message_arrives_is_an_ordinary_failure(tmp_path: Path, step: str) -> None:
    """Flower's loop forgets the half of a message only then; its own exception would leave it."""
    link = Link()

    def stopped(*_: object) -> bytes:
        raise RunNotRunningException

    setattr(link, step, stopped)
    with guarded(link, tmp_path) as fleet, pytest.raises(RunStopped):
        getattr(fleet, step)(5, "object")


def test_an_empty_allow_list_accepts_nothing() -> None:
    """There is no "any bundle"."""
    assert Policy(frozenset()).refusal("query.hello", HASH) is not None


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    """The node names the file and the command that mends it."""
    file = tmp_path / "node.key"
    write_private(file, b"key")
    assert read_private(file) == b"key"
    file.chmod(0o640)
    with pytest.raises(NodeHomeUnusable, match="chmod 600"):
        read_private(file)
