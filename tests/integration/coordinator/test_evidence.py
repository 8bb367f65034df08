"""The evidence pack that the coordinator hands out, checked by the offline verifier."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

from convoy_audit.archive import verify_pack
from convoy_audit.policy import Policy
from convoy_coordinator.evidence.service import MAX_CHECKPOINTS, chosen
from convoy_coordinator.testing import Federation, bundle_files


def rehearse(federation: Federation) -> str:
    """Carry a run out to a witnessed release."""
    uid = federation.ask(federation.agree()).json()["uid"]
    run = federation.claim() or {}
    federation.authorise(uid)
    federation.move(uid, "running")
    body = {"run": uid, "files": bundle_files(run, card_md=b"# card")}
    done = federation.client.post("/internal/releases", json=body, headers=federation.internal)
    done.raise_for_status()
    federation.move(uid, "finished").raise_for_status()
    assert federation.witness(*federation.members)["quorum"]
    return uid


def test_the_pack_verifies_offline_under_the_pinned_policy(federation: Federation, tmp_path: Path) -> None:
    """Entries, cosignatures, contract and manifest hold; the command says so with exit code 0."""
    rehearse(federation)
    pinned = federation.client.get("/v1/log/policy").content
    file = tmp_path / "evidence.zip"
    file.write_bytes(federation.client.get("/v1/evidence.zip").content)
    verdict = verify_pack(file, Policy.parse(pinned))
    assert verdict.is_verified, verdict.faults
    assert set(verdict.witnesses) == {member.id for member in federation.members}
    (tmp_path / "policy.txt").write_bytes(pinned)
    command = [str(Path(sys.executable).parent / "convoy-audit"), "verify", str(file)]
    command += ["--policy", str(tmp_path / "policy.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_there_is_no_pack_before_the_first_checkpoint(federation: Federation) -> None:
    """Nothing signed, nothing to check."""
    done = federation.client.get("/v1/evidence.zip")
    assert (done.status_code, done.json()["code"]) == (404, "NOT_FOUND")


def test_a_pack_takes_few_of_many_checkpoints_and_every_stamped_one() -> None:
    """All of a young log; of a million the last, some of every time, and those with a time-stamp."""
    assert chosen([3, 5, 9], {5}) == [3, 5, 9]
    assert chosen([], ()) == []
    assert chosen(range(MAX_CHECKPOINTS), ()) == list(range(MAX_CHECKPOINTS))
    sizes = range(1, 1_000_001)
    taken = chosen(sizes, {777_777})
    assert len(taken) <= MAX_CHECKPOINTS + 1
    assert {1, 777_777, 999_501, 1_000_000} <= set(taken)
    assert max(b - a for a, b in itertools.pairwise(taken)) <= 2_000
