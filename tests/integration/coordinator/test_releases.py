"""Publishing bundles over HTTP: logged, signed, then visible."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from convoy_audit.entry import Entry
from convoy_audit.events import ReleasePublished
from convoy_coordinator.keys import read_keys
from convoy_coordinator.testing import Federation, bundle_files

Json = dict[str, Any]
CARD = "# Model card 模型卡\n".encode()


@pytest.fixture
def run(federation: Federation) -> Json:
    """A run that is being carried out."""
    uid = federation.ask(federation.agree()).json()["uid"]
    federation.claim()
    federation.authorise(uid)
    federation.move(uid, "running")
    return dict(federation.client.get(f"/v1/runs/{uid}").json())


def upload(federation: Federation, run: Json, files: dict[str, str], **more: Any) -> Json:
    """Upload a bundle; return the answer with its status."""
    body = {"run": run["uid"], "files": files, **more}
    done = federation.client.post("/internal/releases", json=body, headers=federation.internal)
    return {"status": done.status_code, **done.json()}


def test_a_release_is_logged_signed_and_can_be_downloaded(federation: Federation, run: Json, home: Path) -> None:
    """The digest in the log is that of the manifest that everybody can download and verify."""
    files = bundle_files(run, card_md=CARD, model_safetensors=b"\0" * 64)
    answer = upload(federation, run, files, summary={"hr10": 0.31, "popularity": 0.22})
    assert answer["status"] == 201
    assert set(answer["files"]) == {*files, "manifest.sig"}
    base = f"/v1/releases/{run['uid']}"
    early = federation.client.get(f"{base}/manifest.json")
    assert (early.status_code, early.json()["code"]) == (409, "LOG_NOT_WITNESSED")
    assert federation.witness(*federation.members)["quorum"]
    manifest = federation.client.get(f"{base}/manifest.json").content
    signature = federation.client.get(f"{base}/manifest.sig").content
    read_keys(home / "keys").release_key.public_key().verify(signature, manifest)
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert answer["manifestDigest"] == digest
    index = answer["logIndex"]
    found = federation.client.get(f"/v1/log/entries?start={index}&end={index + 1}").json()
    event = Entry(b64decode(found["entries"][0])).event
    assert (event.TYPE, event.manifest) == ("coordinator:release:published", digest)  # type: ignore[attr-defined]
    assert event.recipients == (federation.insurer.id,)  # type: ignore[attr-defined]
    assert federation.client.get(f"{base}/card.md").content == CARD
    assert Path(answer["path"]).is_dir()
    assert federation.client.get(base).json()["summary"]["hr10"] == 0.31


def test_a_release_never_changes(federation: Federation, run: Json) -> None:
    """The same bundle again is the same release; another one is refused."""
    files = bundle_files(run, card_md=CARD)
    first = upload(federation, run, files)
    assert upload(federation, run, files) == first
    other = upload(federation, run, bundle_files(run, card_md=b"other"))
    assert (other["status"], other["code"]) == (409, "RELEASE_KNOWN")


@pytest.mark.parametrize(
    ("spoil", "pointer"),
    [
        (lambda f: f | {"card.md": b64encode(b"altered").decode()}, "/files/card.md"),
        (lambda f: f | {"extra.bin": "AAAA"}, "/files/extra.bin"),
        (lambda f: {k: v for k, v in f.items() if k != "card.md"}, "/files/card.md"),
        (lambda f: {k: v for k, v in f.items() if k != "manifest.json"}, "/files/manifest.json"),
        (lambda f: f | {"../evil": "AAAA"}, "/files/../evil"),
        (lambda f: f | {".hidden": "AAAA"}, "/files/.hidden"),
        (lambda f: f | {"manifest.sig": "AAAA"}, "/files/manifest.sig"),
        (lambda f: f | {"card.md": "?"}, "/files/card.md"),
    ],
    ids=["altered", "extra", "missing", "no manifest", "path", "hidden", "own signature", "base64"],
)
def test_a_bundle_that_its_manifest_does_not_describe_is_refused(  # type: ignore[no-untyped-def]
    federation: Federation, run: Json, spoil, pointer: str
) -> None:
    """The file is named; nothing is stored and nothing logged."""
    before = federation.log_size()
    answer = upload(federation, run, spoil(bundle_files(run, card_md=CARD)))
    assert (answer["status"], answer["code"]) == (422, "RELEASE_MALFORMED")
    assert pointer in [e["pointer"] for e in answer["errors"]]
    assert federation.client.get("/v1/releases").json()["releases"] == []
    assert federation.log_size() == before


def test_a_manifest_of_another_run_is_refused(federation: Federation, run: Json) -> None:
    """A bundle cannot be published under a run that did not make it."""
    answer = upload(federation, run, bundle_files(run | {"uid": "run-other"}, card_md=CARD))
    assert answer["code"] == "RELEASE_MALFORMED"


def test_an_upload_that_died_after_its_entry_can_be_repeated(federation: Federation, run: Json) -> None:
    """The log has one entry for one release, and a different bundle cannot slip in behind it."""
    files = bundle_files(run, card_md=CARD)
    manifest = b64decode(files["manifest.json"])
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    journal = federation.client.app.state.parts.journal  # type: ignore[attr-defined]
    index = journal.record(
        lambda at: ReleasePublished(at=at, run=run["uid"], contract=run["contractDigest"], manifest=digest)
    )
    other = upload(federation, run, bundle_files(run, card_md=b"other"))
    assert (other["status"], other["code"]) == (409, "RELEASE_KNOWN")
    size = federation.log_size()
    assert upload(federation, run, files)["logIndex"] == index
    assert federation.log_size() == size


def test_a_stopped_run_releases_nothing(federation: Federation, run: Json) -> None:
    """What was refused or failed has no model."""
    federation.move(run["uid"], "failed", reason="NODE_LOST")
    answer = upload(federation, run, bundle_files(run, card_md=CARD))
    assert (answer["status"], answer["code"]) == (409, "RUN_STATE_WRONG")


@pytest.mark.parametrize(
    "path",
    ["/v1/releases/none", "/v1/releases/none/card.md", "/v1/releases/{uid}/..%2f..%2fkeys"],
)
def test_only_published_files_can_be_downloaded(federation: Federation, run: Json, path: str) -> None:
    """Names are looked up in the release, never on the disk."""
    upload(federation, run, bundle_files(run, card_md=CARD))
    done = federation.client.get(path.format(uid=run["uid"]))
    assert done.status_code == 404


def test_figures_can_be_added_after_the_release(federation: Federation, run: Json) -> None:
    """A hold-out is scored after the release; its figures are shown, not signed."""
    upload(federation, run, bundle_files(run, card_md=CARD))
    path = f"/internal/releases/{run['uid']}/summary"
    summary = {"joint": {"d2": 0.05}, "alone": {federation.insurer.id: {"d2": 0.02}}}
    done = federation.client.post(path, json={"summary": summary}, headers=federation.internal)
    assert done.json()["summary"] == summary
